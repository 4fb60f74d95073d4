//! Requests and responses on one connection, by hyper or past it.
//!
//! hyper reads what is new and answers what has to be waited for. What came before byte by byte, on any connection, and is
//! at hand, is answered here: nothing of the request is read again, and nothing is set up for the response. Whatever is
//! not exactly that goes to hyper, from the first byte on, and when all is answered, hyper goes and the next request may
//! be one that is known. So a connection that rests holds no buffers.

use std::error::Error;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};

use super::Limits;
use super::exchange::Exchange;
use super::line::Line;
use super::repeats::HEAD_BYTES_MAX;
use super::sending::Sending;
use super::socket::Socket;
use super::wire::Wire;
use crate::http::Service;

/// Why a conversation broke off.
pub(super) type Broken = Box<dyn Error + Send + Sync>;

/// See the module.
pub(super) struct Conversation<S: Service, W: Wire> {
    state: State<S, W>,
    line: Arc<Line>,
    /// Whether there is no request after the one that is being answered.
    is_ending: bool,
}

#[expect(
    clippy::large_enum_variant,
    reason = "there is one a connection, and it changes now and then"
)]
enum State<S: Service, W: Wire> {
    Known(Known<S, W>),
    New(http1::Connection<TokioIo<Socket<W>>, Exchange<S>>),
    /// Between the others.
    Over,
}

/// A connection on which what came before is answered.
struct Known<S, W> {
    socket: Socket<W>,
    exchange: Exchange<S>,
    sending: Option<Sending>,
}

/// What comes after known requests.
enum Next {
    /// One that is not known, or no whole one.
    New,
    /// None.
    Nothing,
}

impl<S: Service, W: Wire + Send + 'static> Conversation<S, W> {
    /// The conversation on `socket`, with both sides of it on `line`.
    pub(super) fn new(socket: Socket<W>, exchange: Exchange<S>, line: Arc<Line>) -> Self {
        let known = Known {
            socket,
            exchange,
            sending: None,
        };
        Self {
            state: State::Known(known),
            line,
            is_ending: false,
        }
    }

    /// Ready when it is over. The connection is still to be closed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.line.begin_turn();
        loop {
            match &mut self.state {
                State::Known(known) => match ready!(known.poll(cx, self.is_ending))? {
                    Next::New => self.hand_over(),
                    Next::Nothing => return Poll::Ready(Ok(())),
                },
                State::New(connection) => {
                    if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                        return Poll::Ready(result.map_err(Into::into));
                    }
                    if self.is_ending || !self.line.has_come_to_rest() {
                        return Poll::Pending;
                    }
                    self.take_back();
                }
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// After the response under way there is no more: at once, if there is none.
    pub(super) fn come_to_an_end(&mut self) {
        self.is_ending = true;
        if let State::New(connection) = &mut self.state {
            Pin::new(connection).graceful_shutdown();
        }
    }

    /// The socket, when it is over.
    pub(super) fn into_socket(self) -> Option<Socket<W>> {
        match self.state {
            State::Known(known) => Some(known.socket),
            State::New(connection) => Some(connection.into_parts().io.into_inner()),
            State::Over => None,
        }
    }

    /// hyper goes on.
    fn hand_over(&mut self) {
        self.line.hand_over();
        self.state = match mem::replace(&mut self.state, State::Over) {
            State::Known(Known {
                socket, exchange, ..
            }) => State::New(http().serve_connection(TokioIo::new(socket), exchange)),
            same @ (State::New(_) | State::Over) => same,
        };
    }

    /// hyper has answered all there was.
    fn take_back(&mut self) {
        self.state = match mem::replace(&mut self.state, State::Over) {
            State::New(connection) => {
                let parts = connection.into_parts();
                let mut socket = parts.io.into_inner();
                socket.put_back(parts.read_buf);
                State::Known(Known {
                    socket,
                    exchange: parts.service,
                    sending: None,
                })
            }
            same @ (State::Known(_) | State::Over) => same,
        };
    }
}

impl<S: Service, W: Wire> Known<S, W> {
    fn poll(&mut self, cx: &mut Context<'_>, is_ending: bool) -> Poll<Result<Next, Broken>> {
        loop {
            if let Some(sending) = &mut self.sending {
                ready!(sending.poll(&mut self.socket, cx))?;
                self.sending = None;
            }
            if is_ending {
                return Poll::Ready(Ok(Next::Nothing));
            }
            // One byte more than the longest known head, so that more than that is told from it.
            let mut room = [MaybeUninit::uninit(); HEAD_BYTES_MAX + 1];
            let mut read = ReadBuf::uninit(&mut room);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(Next::Nothing));
            }
            let Some(sending) = self.exchange.again(bytes) else {
                self.exchange.comes_next(bytes);
                self.socket.put_back(Bytes::copy_from_slice(bytes));
                return Poll::Ready(Ok(Next::New));
            };
            self.sending = Some(sending);
        }
    }
}

/// How hyper speaks to clients.
pub(super) fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http
        // Its timer starts when a response has left, so it cannot tell a client that rests from one that drips a head:
        // `Socket` keeps both deadlines.
        .header_read_timeout(None)
        // A client that shuts down its side has left: its request is dropped at once, not answered into the void.
        .half_close(false)
        // Larger heads are answered with 431.
        .max_header_size(Limits::HEAD_BYTES)
        // A head is read into this, and a pipelining client waits when it is full.
        .max_buf_size(Limits::HEAD_BYTES)
        // Body bytes go to the socket from where they are; `Socket` counts on it.
        .writev(true)
        .pipeline_flush(false);
    http
}
