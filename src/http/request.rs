//! Requests as handlers take them: whole. The body is read, limited and validated only here.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use tokio::time::timeout;

use super::catalogue::Kind;
use super::connections::ConnectionState;
use super::events::Feed;
use super::input::{Fields, unescape};
use super::problem::Problem;
use super::{BODY_READ_TIMEOUT, MAX_BODY_BYTES};
use crate::keys::{IdempotencyKey, Invalid};

/// How long to wait for the rest of a small body that is refused: most likely it has already arrived.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(50);

/// The place of a request's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// In the query, and there is no body.
    Query,
    /// In the body, one JSON object, and there is no query.
    Json,
    /// Like [`Self::Json`], but a missing body is an empty object.
    OptionalJson,
}

/// A request that was received whole.
pub(super) struct WholeRequest {
    /// Fields that the handler has not taken when it finishes are unknown.
    pub(super) fields: Fields,
    /// The `Idempotency-Key`, if there is one. Operations that use none ignore it.
    pub(super) idempotency_key: Result<Option<IdempotencyKey>, Invalid>,
    /// Only of the operation that listens.
    pub(super) feed: Option<Arc<Feed>>,
    /// The `Last-Event-ID`, if there is one. Only who listens sends it.
    pub(super) last_event_id: Option<HeaderValue>,
    target: Option<PathAndQuery>,
    connection: Option<Arc<ConnectionState>>,
}

impl WholeRequest {
    /// Reads a request to its end.
    ///
    /// # Errors
    /// 400, 408, 413 and 415.
    pub(super) async fn read(input: Input, request: Request<Incoming>) -> Result<Self, Problem> {
        let (mut head, body) = request.into_parts();
        let bytes = if body.is_end_stream() {
            Bytes::new()
        } else if let Err(refused) = judge_unread(input, &head, &body) {
            Box::pin(discard(&head, body)).await;
            return Err(refused);
        } else {
            collect(body).await.inspect_err(|_| leave_unread(&head))?
        };
        let connection = head.extensions.remove::<Arc<ConnectionState>>();
        if let Some(connection) = &connection {
            connection.busy();
        }
        let query = head.uri.query().unwrap_or_default();
        let fields = match input {
            Input::Query if bytes.is_empty() => Fields::of_query(query)?,
            Input::Query => return Err(Problem::invalid(&[("body".to_owned(), "is not taken by this request")])),
            Input::OptionalJson if bytes.is_empty() => Fields::default().without_query(query)?,
            Input::Json | Input::OptionalJson => {
                judge_media_type(&head.headers)?;
                Fields::of_json(&bytes)?.without_query(query)?
            }
        };
        let idempotency_key = match input {
            Input::Query => Ok(None),
            Input::Json | Input::OptionalJson => idempotency_key(&head.headers),
        };
        let last_event_id = if input == Input::Query { head.headers.remove("last-event-id") } else { None };
        let target = head.uri.into_parts().path_and_query;
        Ok(Self { fields, idempotency_key, feed: None, last_event_id, target, connection })
    }

    /// The third part of the path, unescaped: a SKU, or the id of a reservation or a cart.
    pub(super) fn name(&self) -> Cow<'_, str> {
        let path = self.target.as_ref().map_or("", PathAndQuery::path);
        // A missing part breaks every rule for names. A malformed one was refused earlier.
        path.split('/').nth(3).and_then(|part| unescape(part).ok()).unwrap_or_default()
    }

    /// Whether the server was told to end.
    pub(super) fn server_is_draining(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.is_draining())
    }

    /// Completes when the client has gone, as far as this is known; never for a request without a connection.
    pub(super) fn client_gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let connection = self.connection.clone();
        async move {
            match connection {
                Some(connection) => connection.client_gone().await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Refuses a request if its head already shows that its body is wrong.
fn judge_unread(input: Input, head: &Parts, body: &Incoming) -> Result<(), Problem> {
    let size = body.size_hint();
    // A body of unknown length may be empty.
    if input == Input::Json || input == Input::OptionalJson && size.lower() > 0 {
        judge_media_type(&head.headers)?;
    }
    if size.lower() > MAX_BODY_BYTES as u64 { Err(too_large()) } else { Ok(()) }
}

fn judge_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") && !headers.contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    let detail = "the body must be application/json without a Content-Encoding";
    Err(Problem::new(Kind::UnsupportedMediaType, detail))
}

async fn collect(body: Incoming) -> Result<Bytes, Problem> {
    match timeout(BODY_READ_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Kind::BodyIncomplete, "the body broke off or was not framed as HTTP")),
        Err(_) => {
            let detail = format!("the body must be here within {} s", BODY_READ_TIMEOUT.as_secs());
            Err(Problem::new(Kind::BodyTimeout, detail))
        }
    }
}

fn too_large() -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("the body may have {MAX_BODY_BYTES} bytes"))
}

/// Discards the body of a request that is refused. A small body that is arriving is read, so that the connection can be
/// used again. For any other, the connection closes after the answer.
pub(super) async fn discard(head: &Parts, body: Incoming) {
    let is_small = body.size_hint().upper().is_some_and(|bytes| bytes <= MAX_BODY_BYTES as u64);
    // A client that waits for `100 Continue` will not get it.
    let is_coming = is_small && !head.headers.contains_key(EXPECT);
    if !is_coming || !matches!(timeout(DISCARD_TIMEOUT, body.collect()).await, Ok(Ok(_))) {
        leave_unread(head);
    }
}

fn leave_unread(head: &Parts) {
    if let Some(connection) = head.extensions.get::<Arc<ConnectionState>>() {
        connection.leave_unread();
    }
}

/// # Errors
/// When there is more than one, or it breaks its rule.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Invalid> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    // An empty key breaks the rule, so it stands for any value that is not a single text.
    let text = if values.next().is_some() { "" } else { value.to_str().unwrap_or_default() };
    IdempotencyKey::parse(text).map(Some)
}
