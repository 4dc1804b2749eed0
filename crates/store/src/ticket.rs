//! The promise that a record will be stored.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::StoreError;
use crate::record::Stored;

pub(crate) type Sender = oneshot::Sender<Result<Stored, StoreError>>;

/// Resolves when a record is as safe as its topic promises, or with the reason why it is not. A ticket that is dropped
/// changes nothing: the record is on its way.
#[derive(Debug)]
pub struct Ticket(State);

#[derive(Debug)]
enum State {
    Ready(Stored),
    Waiting { receiver: oneshot::Receiver<Result<Stored, StoreError>>, is_duplicate: bool },
}

impl Ticket {
    pub(crate) fn ready(stored: Stored) -> Self {
        Self(State::Ready(stored))
    }

    pub(crate) fn waiting(is_duplicate: bool) -> (Sender, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(State::Waiting { receiver, is_duplicate }))
    }

    /// Whether the record's key was known, so that it is not stored again.
    pub fn is_duplicate(&self) -> bool {
        match &self.0 {
            State::Ready(stored) => stored.duplicate,
            State::Waiting { is_duplicate, .. } => *is_duplicate,
        }
    }

    /// Blocks the thread until the ticket resolves. Not for threads that run tasks.
    pub fn wait(self) -> Result<Stored, StoreError> {
        match self.0 {
            State::Ready(stored) => Ok(stored),
            State::Waiting { receiver, .. } => receiver.blocking_recv().unwrap_or(Err(StoreError::Closed)),
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
        }
    }
}
