//! `stockhold check`: whether the stock is as the scripts left it, and its repair.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::output::{complain, print};
use super::runtime;
use super::target::Target;
use crate::check::{AuditReach, Census, Checked, Checker, Damage, Finding, Limits, Need, Verdict, compatibility};
use crate::engine::{Error, standing_layout};
use crate::keys::{self, Layout, Sku};
use crate::redis::Redis;
use crate::sweeper;

/// Beyond the interval of the sweeper: what a sweep may take.
const SWEEP_GRACE_MS: u64 = 1000;

/// SKUs that are checked at the same time: most of a check is waiting.
const IN_FLIGHT: usize = 8;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// SKUs to check; by default all, and then no reservation is missed
    skus: Vec<String>,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// Try instead whether this Redis, and the user at it, can do all that a server needs
    #[arg(long, conflicts_with_all = ["skus", "repair", "events"])]
    compat: bool,

    /// Say what can be repaired; repairs nothing without --apply
    #[arg(long)]
    repair: bool,

    /// Repair it; every change is recorded in the audit
    #[arg(long, requires = "repair")]
    apply: bool,

    /// Maximum number of each SKU's newest events that are replayed
    #[arg(long, default_value_t = 10_000, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    events: u64,

    /// The sweep interval of the servers
    #[arg(long, env = "STOCKHOLD_SWEEP_INTERVAL_MS", default_value_t = sweeper::DEFAULT_INTERVAL.as_millis() as u64, value_name = "MILLISECONDS")]
    sweep_interval_ms: u64,

    #[command(flatten)]
    target: Target,
}

/// What was found, over all SKUs.
struct Report {
    skus: u64,
    events: usize,
    reservations: usize,
    audit: AuditReach,
    lines: Vec<Line>,
}

struct Line {
    /// None when it is about the audit as a whole, which cannot be repaired.
    sku: Option<String>,
    finding: Finding,
    fate: &'static str,
}

/// Exit status 0 when all is well, or repaired; 1 when something is left; 2 when the check could not finish.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    find_out(args).unwrap_or_else(|error| {
        complain(format_args!("cannot check: {error:#}"));
        ExitCode::from(2)
    })
}

fn find_out(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if args.compat {
        return runtime()?.block_on(try_target(args));
    }
    let report = runtime()?.block_on(check_target(args))?;
    if args.json {
        print(format_args!("{:#}", report.json()))?;
    } else {
        report.print()?;
    }
    Ok(ExitCode::from(u8::from(report.lines.iter().any(|line| line.fate != REPAIRED))))
}

const REPAIRED: &str = "repaired";
const IRREPARABLE: &str = "cannot be repaired";

/// Stands in the SKU column for the audit: no SKU has this name.
const AUDIT: &str = "audit";

/// Exit status 1 when something is missing that a server needs.
async fn try_target(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let redis = args.target.redis()?;
    let address = redis.address();
    let needs = compatibility(&redis).await.with_context(|| format!("the Redis at {address}"))?;
    let is_usable = needs.iter().all(|need| need.verdict != Verdict::Failing);
    if args.json {
        let need = |Need { node, what, verdict, told }: &Need| json!({ "node": node, "what": what, "verdict": verdict.to_string(), "told": told });
        let needs: Vec<_> = needs.iter().map(need).collect();
        print(format_args!("{:#}", json!({ "redis": address, "usable": is_usable, "needs": needs })))?;
    } else {
        let mut shown = None;
        for Need { node, what, verdict, told } in &needs {
            if let Some(node) = node.as_ref().filter(|node| shown != Some(*node)) {
                print(format_args!("{node}:"))?;
                shown = Some(node);
            }
            print(format!("{what:<22} {verdict:<13}  {told}").trim_end())?;
        }
        let can = if is_usable { "can" } else { "cannot" };
        print(format_args!("{address}: stockhold {can} use it"))?;
    }
    Ok(ExitCode::from(u8::from(!is_usable)))
}

async fn check_target(args: &CheckArgs) -> anyhow::Result<Report> {
    let redis = args.target.redis()?;
    let address = redis.address();
    check(args, redis).await.with_context(|| format!("the Redis at {address}"))
}

async fn check(args: &CheckArgs, redis: Redis) -> anyhow::Result<Report> {
    let published = redis.hash(keys::SCRIPTS).await?.fields;
    let layout = standing_layout(&redis).await?.unwrap_or_else(Layout::unsharded);
    let checker = Checker::new(layout, redis);
    let limits = Limits {
        events: usize::try_from(args.events)?,
        overdue_ms: args.sweep_interval_ms.saturating_add(SWEEP_GRACE_MS),
    };
    let mut census = Census::new();
    if args.skus.is_empty() || published.is_empty() {
        census = checker.census().await?;
        // A wrong database looks like a database in which all is well.
        ensure!(
            !census.is_empty() || !published.is_empty(),
            "there is nothing of stockhold, no stock and no scripts: is it the right one?"
        );
    }
    if !args.skus.is_empty() {
        census = args.skus.iter().map(|sku| (sku.clone(), Vec::new())).collect();
    }
    // Before the SKUs: events that are trimmed between the two reads are missing in the SKUs, too.
    let audit = checker.audit().await?;
    let mut report = Report { skus: 0, events: 0, reservations: 0, audit, lines: Vec::new() };
    if args.skus.is_empty() {
        report.add_audit(args.repair);
    }
    let checks = stream::iter(&census).map(async |(name, suspects)| {
        let checked = match Sku::parse(name) {
            Ok(sku) => Some(checker.check(&sku, suspects, limits).await?),
            Err(_) => None,
        };
        Ok::<_, Error>((name, suspects, checked))
    });
    let mut checks = pin!(checks.buffered(if args.apply { 1 } else { IN_FLIGHT }));
    while let Some(checked) = checks.next().await {
        let (name, suspects, checked) = checked?;
        report.skus += 1;
        let Some(checked) = checked else {
            let finding = Finding {
                damage: Damage::Unreadable,
                reservation: String::new(),
                what: "no SKU has such a name".into(),
            };
            report.lines.push(Line { sku: Some(name.clone()), finding, fate: "" });
            continue;
        };
        report.events += checked.events;
        report.reservations += checked.reservations;
        if args.apply {
            let before = checked.findings.clone();
            let repaired = checker.repair(checked, suspects, limits).await?;
            report.add_repaired(before, &repaired.checked, repaired.left);
        } else {
            report.add(&checked, args.repair);
        }
    }
    Ok(report)
}

impl Line {
    fn is_repairable(&self) -> bool {
        self.sku.is_some() && self.finding.damage.is_repairable()
    }
}

impl Report {
    fn add_audit(&mut self, tells_fate: bool) {
        if let Some(finding) = self.audit.finding.clone() {
            self.lines.push(Line { sku: None, finding, fate: if tells_fate { IRREPARABLE } else { "" } });
        }
    }

    fn add(&mut self, checked: &Checked, tells_fate: bool) {
        for finding in checked.findings.iter().cloned() {
            let fate = match (tells_fate, finding.damage.is_repairable()) {
                (false, _) => "",
                (true, true) => "can be repaired",
                (true, false) => IRREPARABLE,
            };
            self.lines.push(Line { sku: Some(checked.sku.to_string()), finding, fate });
        }
    }

    /// A finding that is gone after the repair was repaired. A finding that is there now is left.
    fn add_repaired(&mut self, before: Vec<Finding>, after: &Checked, left: Option<String>) {
        let sku = Some(after.sku.to_string());
        let gone = before.into_iter().filter(|finding| !after.findings.contains(finding));
        self.lines.extend(gone.map(|finding| Line { sku: sku.clone(), finding, fate: REPAIRED }));
        for mut finding in after.findings.iter().cloned() {
            if let Some(why) = left.as_ref().filter(|_| finding.damage.is_repairable()) {
                finding.what += &format!("; left, because {why}");
            }
            self.lines.push(Line { sku: sku.clone(), finding, fate: "not repaired" });
        }
    }

    fn print(&self) -> io::Result<()> {
        let mut parts: BTreeMap<&str, usize> = BTreeMap::new();
        for Line { sku, finding: Finding { damage, reservation, what }, fate } in &self.lines {
            let about = if reservation.is_empty() { String::new() } else { format!("reservation {reservation}: ") };
            let fate_shown = if fate.is_empty() { String::new() } else { format!(" [{fate}]") };
            let sku = sku.as_deref().unwrap_or(AUDIT);
            print(format_args!("{sku:<20} {damage:<10} {about}{what}{fate_shown}"))?;
            *parts.entry(fate).or_default() += 1;
        }
        print(self.reach())?;
        let Self { skus, events, reservations, lines, .. } = self;
        let fates = parts.iter().filter(|(fate, _)| !fate.is_empty()).map(|(fate, count)| format!(", {count} {fate}"));
        let found = if lines.is_empty() { "all is well".to_owned() } else { format!("{} findings", lines.len()) };
        let fates: String = fates.collect();
        print(format_args!("{skus} SKUs, {events} events, {reservations} reservations: {found}{fates}"))
    }

    /// How far back the audit reaches.
    fn reach(&self) -> String {
        let AuditReach { events, added, since_ms, deleted_up_to, .. } = &self.audit;
        let since = since_ms.map(|since_ms| format!(", back to {}", timestamp(since_ms))).unwrap_or_default();
        let deleted = deleted_up_to.as_ref().map(|id| format!("; some were deleted singly, the newest of them {id}"));
        format!("the audit has {events} of {added} events{since}{}", deleted.unwrap_or_default())
    }

    fn json(&self) -> Value {
        let line = |line: &Line| {
            json!({
                "sku": line.sku,
                "damage": line.finding.damage.to_string(),
                "reservationId": line.finding.reservation,
                "what": line.finding.what,
                "repairable": line.is_repairable(),
                "repaired": line.fate == REPAIRED,
            })
        };
        let AuditReach { events, added, since_ms, audit_max, deleted_up_to, .. } = &self.audit;
        json!({
            "skus": self.skus,
            "events": self.events,
            "reservations": self.reservations,
            "audit": {
                "events": events,
                "added": added,
                "since": since_ms.map(timestamp),
                "auditMax": audit_max,
                "deletedUpTo": deleted_up_to,
            },
            "findings": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }
}

/// RFC 3339 with milliseconds.
fn timestamp(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    format!("{time:.3}")
}
