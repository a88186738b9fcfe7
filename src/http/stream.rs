//! The bytes of a connection between its socket and hyper. hyper's own answers are replaced here. The connection is
//! closed so that the last answer reaches a client that is still sending.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_io_timeout::TimeoutStream;

use super::connections::ConnectionState;
use super::deadline::Deadline;
use super::parse_error;
use super::socket::Socket;
use super::{MAX_LINGER_BYTES, WRITE_TIMEOUT};

/// The stream of one connection.
pub(super) struct ConnectionStream {
    stream: Pin<Box<TimeoutStream<Socket>>>,
    deadline: Arc<Deadline>,
    state: Arc<ConnectionState>,
    /// The rest of an answer that replaces hyper's own.
    replacement: Option<Bytes>,
    /// Bytes that may still be discarded; set when the sending side is closed.
    discardable: Option<usize>,
}

impl ConnectionStream {
    pub(super) fn new(stream: Socket, deadline: Arc<Deadline>, state: Arc<ConnectionState>) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        Self { stream: Box::pin(stream), deadline, state, replacement: None, discardable: None }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.deadline.sent();
        }
        written
    }

    /// Closes the sending side, so that the client sees the end; further bytes from the client are discarded.
    fn start_lingering(&self) -> io::Result<usize> {
        SockRef::from(&*self.stream.get_ref().0).shutdown(Shutdown::Write)?;
        self.state.lingers();
        self.deadline.lingers();
        Ok(MAX_LINGER_BYTES)
    }
}

impl AsyncRead for ConnectionStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = self.stream.as_mut().poll_read(context, into);
        if into.filled().len() > before {
            self.deadline.received();
        }
        read
    }
}

impl AsyncWrite for ConnectionStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let answers = match parse_error::start(bytes) {
            None => bytes,
            Some(start) if start > 0 => &bytes[..start],
            Some(_) => {
                let mut left = self.replacement.take().unwrap_or_else(|| parse_error::in_place_of(bytes));
                while left.has_remaining() {
                    match self.stream.as_mut().poll_write(context, &left) {
                        Poll::Ready(Ok(written)) if written > 0 => left.advance(written),
                        other => {
                            self.replacement = Some(left);
                            return other;
                        }
                    }
                }
                // hyper reads no further, and closes the connection.
                self.state.leave_unread();
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
        // hyper's own answers have no body, which would be a second piece.
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

    /// A socket that is closed while unread bytes arrive resets the connection, and the client loses an answer that it
    /// has not read: RFC 9112, section 9.6. So when a request was not read to its end, the rest of it is discarded, up
    /// to [`MAX_LINGER_BYTES`] and until the [`Deadline`] passes.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.state.leaves_unread() {
            return Poll::Ready(Ok(()));
        }
        let mut left = match self.discardable {
            Some(left) => left,
            None => self.start_lingering()?,
        };
        let mut scratch = [0; 16 * 1024];
        loop {
            self.discardable = Some(left);
            let mut unread = ReadBuf::new(&mut scratch);
            ready!(self.stream.as_mut().poll_read(context, &mut unread))?;
            match left.checked_sub(unread.filled().len()) {
                Some(less) if less < left => left = less,
                // The client has closed the connection, or sends too much.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
