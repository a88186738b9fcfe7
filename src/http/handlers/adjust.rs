//! Adjustments, one by its path or several in a list.

use serde_json::{Map, Value, json};

use super::super::catalogue::Kind;
use super::super::input::{Fields, flag, signed, text, whole};
use super::super::json::counts;
use super::super::problem::Problem;
use super::super::request::WholeRequest;
use super::{Answer, NEVER_SEEDED, ok, refused, replayed};
use crate::engine::{Adjusted, Adjustment, Delta, Engine, How, MAX_BATCH, Mode, SeedQuantity, Version};
use crate::keys::{IdempotencyKey, Invalid, Reason, Sku};

/// One adjustment of the SKU in the path.
pub(in super::super) async fn adjust(engine: &Engine, request: WholeRequest) -> Answer {
    let sku = Sku::parse(&request.name())?;
    let key = request.idempotency_key?;
    let mut fields = request.fields;
    let Some(adjustment) = adjustment(&mut fields, Some(sku)) else { return Err(refused(fields)) };
    fields.finish()?;
    let outcomes = made(engine, std::slice::from_ref(&adjustment), Mode::Each, key.as_ref()).await?;
    match outcomes.into_iter().next() {
        Some(Adjusted::Done(stock)) => Ok(ok(&counts(&stock))),
        Some(Adjusted::Replayed(stock)) => Ok(replayed(&counts(&stock))),
        Some(refusal) => Err(problem(&adjustment, &refusal)),
        None => unreachable!("there is an outcome for each adjustment"),
    }
}

/// Several adjustments: independent, or all or none.
pub(in super::super) async fn adjust_many(engine: &Engine, request: WholeRequest) -> Answer {
    const LIST: &str = "must be a list of 1 to 100 objects";
    let key = request.idempotency_key?;
    let mut fields = request.fields;
    let mode = fields.optional("mode", text(mode)).unwrap_or(Mode::Each);
    let adjustments = fields.objects("adjustments", 1..=MAX_BATCH, LIST, |fields| adjustment(fields, None));
    let Some(adjustments) = adjustments else { return Err(refused(fields)) };
    fields.finish()?;
    if mode == Mode::All && !engine.are_together(adjustments.iter().map(|adjustment| &adjustment.sku)) {
        let detail = "nothing was done: the SKUs are in several shards, where no call can change all of them or none; use mode \
                      each, or a request for each shard";
        return Err(Problem::new(Kind::AcrossShards, detail));
    }
    let outcomes = made(engine, &adjustments, mode, key.as_ref()).await?;
    let is_refused = |outcome: &Adjusted| !matches!(outcome, Adjusted::Done(_) | Adjusted::Replayed(_));
    let results = adjustments.iter().zip(&outcomes);
    if mode == Mode::All && outcomes.iter().any(is_refused) {
        let errors = results.filter(|(_, outcome)| is_refused(outcome) && **outcome != Adjusted::Withdrawn);
        let errors: Vec<Value> = errors.map(|(adjustment, outcome)| result(adjustment, outcome)).collect();
        let detail = "nothing was done: some of the adjustments cannot be made";
        return Err(Problem::new(Kind::AdjustmentsRefused, detail).with("errors", errors));
    }
    let results: Vec<Value> = results.map(|(adjustment, outcome)| result(adjustment, outcome)).collect();
    let is_replay = outcomes.iter().all(|outcome| matches!(outcome, Adjusted::Replayed(_)));
    let body = json!({ "results": results });
    Ok(if is_replay { replayed(&body) } else { ok(&body) })
}

/// Boxed: a rare request must not make the state of every request larger.
async fn made(
    engine: &Engine,
    adjustments: &[Adjustment],
    mode: Mode,
    key: Option<&IdempotencyKey>,
) -> Result<Vec<Adjusted>, Problem> {
    Ok(Box::pin(engine.adjust(adjustments, mode, key)).await?)
}

/// The adjustment of a body, or of an object in it. `None` when a field is wrong or missing, which is recorded there.
fn adjustment(fields: &mut Fields, sku: Option<Sku>) -> Option<Adjustment> {
    let sku = sku.or_else(|| fields.required("sku", text(Sku::parse)));
    let both = fields.has("delta") && fields.has("available");
    let neither = !fields.has("delta") && !fields.has("available");
    let delta = fields.optional("delta", signed(Delta::new)).map(How::Add);
    let available = fields.optional("available", whole(SeedQuantity::new)).map(How::Set);
    if both {
        fields.refuse("available", "cannot be combined with delta");
    } else if neither {
        fields.refuse("delta", "is required, or else available");
    }
    let how = delta.or(available).filter(|_| !both);
    let if_version = fields.optional("ifVersion", whole(Version::new));
    let create = fields.optional("create", flag).unwrap_or(false);
    let reason = fields.optional("reason", text(Reason::parse));
    Some(Adjustment { sku: sku?, how: how?, if_version, create, reason })
}

fn mode(text: &str) -> Result<Mode, Invalid> {
    match text {
        "each" => Ok(Mode::Each),
        "all" => Ok(Mode::All),
        _ => Err(Invalid { field: "mode", rule: "must be each or all" }),
    }
}

/// One of several outcomes: the counts, or the SKU with its problem.
fn result(adjustment: &Adjustment, outcome: &Adjusted) -> Value {
    match outcome {
        Adjusted::Done(stock) | Adjusted::Replayed(stock) => json!(counts(stock)),
        refusal => {
            let sku = [("sku".to_owned(), Value::from(adjustment.sku.as_str()))];
            sku.into_iter().chain(problem(adjustment, refusal).into_object()).collect::<Map<_, _>>().into()
        }
    }
}

fn problem(adjustment: &Adjustment, refusal: &Adjusted) -> Problem {
    match refusal {
        Adjusted::Conflict { field } => {
            // The words of the script, as a client of this interface knows them.
            let what = match field.as_str() {
                "how" => "kind of change (delta or available)",
                "units" => "number of units",
                field => field,
            };
            let detail = format!("this Idempotency-Key was used for an adjustment with another {what}");
            Problem::new(Kind::IdempotencyKeyReused, detail)
        }
        Adjusted::UnknownSku => Problem::new(Kind::UnknownSku, NEVER_SEEDED),
        Adjusted::Stale { version } => {
            Problem::new(Kind::StaleVersion, format!("the SKU has version {version}")).with("version", *version)
        }
        Adjusted::Insufficient { available } => {
            let requested = match adjustment.how {
                How::Add(delta) => delta.get().unsigned_abs(),
                How::Set(_) => 0,
            };
            let detail = "fewer units are available than have to go";
            let problem = Problem::new(Kind::InsufficientInventory, detail);
            problem.with("requested", requested).with("available", *available)
        }
        Adjusted::Excessive => Problem::new(Kind::ExcessiveInventory, "a SKU may have 1000000000000 units in all"),
        Adjusted::Done(_) | Adjusted::Replayed(_) | Adjusted::Withdrawn => {
            unreachable!("{refusal:?} is no refusal of its own")
        }
    }
}
