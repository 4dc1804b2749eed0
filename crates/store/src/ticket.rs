//! The promise that a record will be stored.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::error::StoreError;
use crate::record::Stored;

pub(crate) type Sender = oneshot::Sender<Result<Stored, StoreError>>;
type Receiver = oneshot::Receiver<Result<Stored, StoreError>>;

/// Resolves when a record is as safe as its topic promises, or with the reason why it is not. A ticket that is dropped
/// changes nothing: the record is on its way.
#[derive(Debug)]
pub struct Ticket(State);

#[derive(Debug)]
enum State {
    Ready(Stored),
    Waiting {
        receiver: Receiver,
        is_duplicate: bool,
    },
    /// Resolves like the first, once the second has resolved.
    Both {
        first: Box<Ticket>,
        second: Option<Receiver>,
    },
}

impl Ticket {
    pub(crate) fn ready(stored: Stored) -> Self {
        Self(State::Ready(stored))
    }

    pub(crate) fn waiting(is_duplicate: bool) -> (Sender, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(State::Waiting { receiver, is_duplicate }))
    }

    /// A ticket that also waits for something that is written together with its record.
    pub(crate) fn with_second(self) -> (Sender, Self) {
        let (sender, second) = oneshot::channel();
        (sender, Self(State::Both { first: Box::new(self), second: Some(second) }))
    }

    /// Whether the record's key was known, so that it is not stored again.
    pub fn is_duplicate(&self) -> bool {
        match &self.0 {
            State::Ready(stored) => stored.duplicate,
            State::Waiting { is_duplicate, .. } => *is_duplicate,
            State::Both { first, .. } => first.is_duplicate(),
        }
    }

    /// Blocks the thread until the ticket resolves. Not for threads that run tasks.
    pub fn wait(self) -> Result<Stored, StoreError> {
        match self.0 {
            State::Ready(stored) => Ok(stored),
            State::Waiting { receiver, .. } => receiver.blocking_recv().unwrap_or(Err(StoreError::Closed)),
            State::Both { first, second } => {
                if let Some(second) = second {
                    second.blocking_recv().unwrap_or(Err(StoreError::Closed))?;
                }
                first.wait()
            }
        }
    }
}

impl Future for Ticket {
    type Output = Result<Stored, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(stored) => Poll::Ready(Ok(*stored)),
            State::Waiting { receiver, .. } => {
                Pin::new(receiver).poll(cx).map(|sent| sent.unwrap_or(Err(StoreError::Closed)))
            }
            State::Both { first, second } => {
                if let Some(receiver) = second {
                    let sent = ready!(Pin::new(receiver).poll(cx));
                    *second = None;
                    if let Err(error) = sent.unwrap_or(Err(StoreError::Closed)) {
                        return Poll::Ready(Err(error));
                    }
                }
                Pin::new(&mut **first).poll(cx)
            }
        }
    }
}
