//! A future that is polled only after it was woken itself. A client's task waits for a dozen things at once, and nearly
//! always one alone has happened: a message arrived. Without this, each message would poll all of them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls a future only after it was woken, however often its task is.
pub(super) struct OnWake<F> {
    future: F,
    wakes: Arc<Wakes>,
    waker: Waker,
}

/// Remembers that the future was woken, and passes it on.
struct Wakes {
    is_woken: AtomicBool,
    task: AtomicWaker,
}

impl<F> OnWake<F> {
    pub(super) fn new(future: F) -> Self {
        let wakes = Arc::new(Wakes { is_woken: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future, waker: Waker::from(Arc::clone(&wakes)), wakes }
    }
}

impl<F: Future + Unpin> Future for OnWake<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, wakes, waker } = &mut *self;
        // Registered first: a wake after the check then wakes the task.
        wakes.task.register(cx.waker());
        if !wakes.is_woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::poll;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_future_is_polled_at_first_and_after_each_wake_alone() {
        let (polls, notify) = (Cell::new(0), Notify::new());
        let mut waits = pin!(async {
            notify.notified().await;
            notify.notified().await;
        });
        let counted = std::future::poll_fn(|cx| {
            polls.set(polls.get() + 1);
            waits.as_mut().poll(cx)
        });
        let mut on_wake = OnWake::new(counted);
        for expected in [1, 1, 1] {
            assert!(poll!(&mut on_wake).is_pending());
            assert_eq!(polls.get(), expected);
        }
        notify.notify_one();
        assert!(poll!(&mut on_wake).is_pending());
        assert!(poll!(&mut on_wake).is_pending());
        assert_eq!(polls.get(), 2);
        notify.notify_one();
        assert!(poll!(&mut on_wake).is_ready());
    }

    #[tokio::test]
    async fn a_wake_reaches_the_task_that_waits() {
        let notify = Arc::new(Notify::new());
        let notified = Arc::clone(&notify);
        let waits = tokio::spawn(async move {
            let inner = pin!(async { notified.notified().await });
            OnWake::new(inner).await;
        });
        tokio::task::yield_now().await;
        notify.notify_one();
        tokio::time::timeout(Duration::from_secs(10), waits).await.expect("it is woken").expect("it ends");
    }
}
