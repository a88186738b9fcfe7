//! Lists, a page at a time.

use super::super::input::{digits, text};
use super::super::json;
use super::super::request::WholeRequest;
use super::{Answer, ok, refused, while_there};
use crate::engine::{AvailableBelow, Engine, PageLimit, Place};
use crate::keys::{Invalid, Sku};

/// All SKUs with their counts.
pub(in super::super) async fn skus(engine: &Engine, mut request: WholeRequest) -> Answer {
    let fields = &mut request.fields;
    let limit = fields.optional("limit", digits(PageLimit::new)).unwrap_or(PageLimit::DEFAULT);
    let after = fields.optional("after", text(Sku::parse));
    let below = fields.optional("availableBelow", digits(AvailableBelow::new));
    fields.finish()?;
    let page = while_there(&request, Box::pin(engine.skus(after.as_ref(), limit, below))).await?;
    Ok(ok(&json::page(page.items.iter().map(json::counts), page.next)))
}

/// The active reservations of a SKU.
pub(in super::super) async fn active(engine: &Engine, mut request: WholeRequest) -> Answer {
    let fields = &mut request.fields;
    let sku = fields.required("sku", text(Sku::parse));
    fields.optional("state", text(only_active));
    let limit = fields.optional("limit", digits(PageLimit::new)).unwrap_or(PageLimit::DEFAULT);
    let after = fields.optional("after", text(Place::parse));
    let Some(sku) = sku else { return Err(refused(request.fields)) };
    fields.finish()?;
    let page = while_there(&request, Box::pin(engine.active(&sku, after, limit))).await?;
    Ok(ok(&json::page(page.items.iter().map(json::reservation), page.next)))
}

/// What has ended is no longer listed.
fn only_active(state: &str) -> Result<(), Invalid> {
    if state == "active" { Ok(()) } else { Err(Invalid { field: "state", rule: "must be active" }) }
}
