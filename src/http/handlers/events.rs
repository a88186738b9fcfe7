//! Events as they happen.

use std::sync::Arc;

use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};

use super::super::content::Content;
use super::super::events::Events;
use super::super::input::text;
use super::super::request::WholeRequest;
use super::Answer;
use crate::engine::{Engine, Error};
use crate::keys::Sku;

/// The events of a SKU, or of all, until the client goes.
pub(in super::super) async fn events(_: &Engine, mut request: WholeRequest) -> Answer {
    let sku = request.fields.optional("sku", text(Sku::parse));
    request.fields.finish()?;
    let feed = request.feed.as_ref().ok_or_else(|| Error::Unavailable("nothing reads events".to_owned()))?;
    // What is no text is no id.
    let last = request.last_event_id.as_ref().map(|last| last.to_str().unwrap_or_default());
    let events = Box::pin(Events::begin(Arc::clone(feed), sku, last, request.client_gone())).await?;
    let mut response = Response::new(Content::Events(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would collect them until its buffer is full.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}
