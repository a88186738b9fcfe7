//! The body of an answer: almost always a whole, and of one operation a stream of events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::events::Events;

/// What is sent after the headers.
pub enum Content {
    /// All of it at once.
    Whole(Full<Bytes>),
    /// A piece at a time, until one side ends it.
    Events(Events),
}

impl From<Full<Bytes>> for Content {
    fn from(whole: Full<Bytes>) -> Self {
        Self::Whole(whole)
    }
}

impl From<Vec<u8>> for Content {
    fn from(whole: Vec<u8>) -> Self {
        Self::Whole(whole.into())
    }
}

impl From<String> for Content {
    fn from(whole: String) -> Self {
        Self::Whole(whole.into())
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Events(events) => events.poll_next(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
