//! What a connection's stream and its requests tell each other: whether the server wants to read.
//!
//! actix-web reads and decodes whatever a client has sent, even while an answer waits for the client to read it. A client that
//! sends requests and reads no answer could so fill the memory and keep a thread busy. So the [`Stream`] under actix-web
//! gives it the head of one request in small pieces, then nothing until the request is answered, except for a body that is
//! read. The rest stays in the kernel, where TCP slows the sender down.

mod head_end;
mod stream;
mod visitors;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

pub use stream::{Patience, Stream};
pub use visitors::{Place, Visitors};

/// The stream has one handle, each of the connection's requests another. All of them are on one thread.
#[derive(Clone, Default)]
pub struct Connection(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    wanted: Wanted,
    /// How many bytes of its body a request's head has brought along.
    brought: u64,
    /// How many requests have come.
    requests: u64,
    /// The connection's task, while the client has sent something that is not wanted yet.
    parked: Option<Waker>,
}

/// What is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Wanted {
    /// The next request.
    #[default]
    Head,
    /// A body: at most so many bytes, if it announced its length.
    Body(Option<u64>),
    /// Nothing until the answer is written.
    Nothing,
}

impl Connection {
    /// A request has come. Nothing is read until the guard is dropped, which should be after its answer is written.
    pub fn answer(&self) -> Answering {
        let mut state = self.0.borrow_mut();
        state.wanted = Wanted::Nothing;
        state.requests += 1;
        Answering(self.clone())
    }

    /// The request's body is read until the guard is dropped.
    pub fn receive(&self, length: Option<u64>) -> Receiving {
        let brought = self.0.borrow().brought;
        self.want(Wanted::Body(length.map(|length| length.saturating_sub(brought))));
        Receiving(self.clone())
    }

    /// Notes that a head has come with so many bytes of its body.
    fn brought(&self, bytes: u64) {
        self.0.borrow_mut().brought = bytes;
    }

    fn want(&self, wanted: Wanted) {
        let mut state = self.0.borrow_mut();
        state.wanted = wanted;
        if let Some(task) = state.parked.take() {
            task.wake();
        }
    }

    fn wanted(&self) -> Wanted {
        self.0.borrow().wanted
    }

    /// Notes that the stream has delivered bytes of a body.
    fn received(&self, count: usize) {
        if let Wanted::Body(Some(left)) = &mut self.0.borrow_mut().wanted {
            *left = left.saturating_sub(count as u64);
        }
    }

    fn requests(&self) -> u64 {
        self.0.borrow().requests
    }

    /// Wakes the task once something else is wanted.
    fn park(&self, task: &Waker) {
        let mut state = self.0.borrow_mut();
        match &state.parked {
            Some(parked) if parked.will_wake(task) => {}
            _ => state.parked = Some(task.clone()),
        }
    }
}

/// A request is being answered.
pub struct Answering(Connection);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.want(Wanted::Head);
    }
}

/// A request's body is being read.
pub struct Receiving(Connection);

impl Drop for Receiving {
    fn drop(&mut self) {
        // Otherwise the request has ended already.
        if matches!(self.0.wanted(), Wanted::Body(_)) {
            self.0.want(Wanted::Nothing);
        }
    }
}

/// The body of an answer, which ends the request when it is dropped.
pub struct AnswerBody {
    body: BoxBody,
    _answering: Option<Answering>,
}

impl AnswerBody {
    pub fn new(body: BoxBody, answering: Option<Answering>) -> Self {
        Self { body, _answering: answering }
    }
}

impl MessageBody for AnswerBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}
