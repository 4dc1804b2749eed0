//! The way to a client's events: what is neither a reply nor a subscription's, and the news of the connection itself.
//! Readers wait where there is no room; the connection never does.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::Event;

/// Where events go.
#[derive(Clone)]
pub(super) struct Heard {
    events: mpsc::Sender<Event>,
    news: Arc<News>,
    /// Once cancelled, events that find no room are dropped.
    pub(super) closing: CancellationToken,
    /// Largest message that is taken, in bytes.
    pub(super) max_message_bytes: usize,
}

/// What became of the connection and has found no room yet: at most three.
#[derive(Default)]
struct News {
    waiting: Mutex<VecDeque<Event>>,
    came: Notify,
}

impl News {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    pub(super) fn new(events: mpsc::Sender<Event>, closing: CancellationToken, max_message_bytes: usize) -> Self {
        Self { events, news: Arc::default(), closing, max_message_bytes }
    }

    /// Tells what somebody sent, behind the news that came before; waits while there is no room.
    pub(super) async fn tell(&self, event: Event) {
        let told = async {
            loop {
                // Nobody has to listen.
                let Ok(room) = self.events.reserve().await else { return };
                let mut waiting = self.news.waiting();
                match waiting.pop_front() {
                    Some(news) => room.send(news),
                    // Under the lock, so that no news comes in between.
                    None => return room.send(event),
                }
            }
        };
        tokio::select! {
            biased;
            () = told => {}
            () = self.closing.cancelled() => {}
        }
    }

    /// Has it told that the connection is gone, or back. A return that nobody has heard of yet and that did not last is not
    /// told any more, nor is the loss before it.
    pub(super) fn news(&self, event: Event) {
        let mut waiting = self.news.waiting();
        if matches!(event, Event::Disconnected(_)) && waiting.len() >= 2 {
            let kept = waiting.len() - 2;
            waiting.truncate(kept);
        }
        waiting.push_back(event);
        drop(waiting);
        self.news.came.notify_one();
    }

    /// Tells the news as there is room; for one caller. Cancel safe.
    pub(super) async fn pass_news(&self) -> Infallible {
        loop {
            if self.news.waiting().is_empty() {
                self.news.came.notified().await;
                continue;
            }
            let Ok(room) = self.events.reserve().await else { return pending().await };
            let mut waiting = self.news.waiting();
            if let Some(news) = waiting.pop_front() {
                room.send(news);
            }
        }
    }

    /// Tells what news find room at once, and drops the rest.
    pub(super) fn pass_last_news(&self) {
        let mut waiting = self.news.waiting();
        while let Some(news) = waiting.pop_front() {
            if self.events.try_send(news).is_err() {
                waiting.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CloseCode, ClosedBy};

    fn lost(reason: &str) -> Event {
        Event::Disconnected(ClosedBy::new(CloseCode::ABNORMAL, reason))
    }

    fn short(event: Event) -> String {
        match event {
            Event::Disconnected(closed) => format!("lost {}", closed.reason),
            Event::Reconnected => "back".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn news_wait_for_nobody_stay_few_and_come_before_what_follows() {
        let (sender, mut events) = mpsc::channel(1);
        let heard = Heard::new(sender, CancellationToken::new(), 1000);
        heard.tell(lost("first")).await;
        heard.news(Event::Reconnected);
        for n in 0..100 {
            heard.news(lost(&n.to_string()));
            heard.news(Event::Reconnected);
            assert!(heard.news.waiting().len() <= 3);
        }
        let (_, told) = tokio::join!(heard.tell(lost("last")), async {
            let mut told = Vec::new();
            while told.last().is_none_or(|last| last != "lost last") {
                told.push(short(events.recv().await.expect("an event")));
            }
            told
        });
        assert_eq!(told, ["lost first", "back", "lost 99", "back", "lost last"]);
    }
}
