//! The bytes of a connection between the socket and hyper, which is told nothing of what is done to them here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_io_timeout::TimeoutStream;

use super::WRITE_TIMEOUT;
use super::pace::Pace;
use super::refusal;
use super::socket::Socket;

/// The stream of one connection.
pub(super) struct Wire {
    stream: Pin<Box<TimeoutStream<Socket>>>,
    pace: Arc<Pace>,
    /// What is left of an answer that is sent in place of hyper's own.
    refusal: Option<Bytes>,
}

impl Wire {
    pub(super) fn new(stream: Socket, pace: Arc<Pace>) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        Self { stream: Box::pin(stream), pace, refusal: None }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.pace.sent();
        }
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = self.stream.as_mut().poll_read(context, into);
        if into.filled().len() > before {
            self.pace.received();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let answers = match refusal::start(bytes) {
            None => bytes,
            Some(start) if start > 0 => &bytes[..start],
            Some(_) => {
                let mut left = self.refusal.take().unwrap_or_else(|| refusal::in_place_of(bytes));
                while left.has_remaining() {
                    match self.stream.as_mut().poll_write(context, &left) {
                        Poll::Ready(Ok(written)) if written > 0 => left.advance(written),
                        other => {
                            self.refusal = Some(left);
                            return other;
                        }
                    }
                }
                // It closes the connection after that.
                return Poll::Ready(Ok(bytes.len()));
            }
        };
        let written = self.stream.as_mut().poll_write(context, answers);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Its own answers have no body, which would be a second piece.
        if let [head] = bytes {
            return self.poll_write(context, head);
        }
        let written = self.stream.as_mut().poll_write_vectored(context, bytes);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }
}
