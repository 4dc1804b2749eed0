//! Neighbours of an attack: a publisher that publishes steadily, and clients that receive each of its messages, in
//! order and without gaps, and whose echoes arrive in time. They have a separate thread, so that the test's own cost of
//! an attack is not counted as the server's delay.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quinn::RecvStream;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::common::topics::TopicLane;
use super::common::{RawClient, soon};
use super::scene::Target;

/// Enough that each worker almost certainly has some of them.
const LISTENERS: usize = 6;
/// Pause between two messages, and between two echoes of each listener.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest time for an echo, on a machine that is busy with other things as well.
const USUAL_ECHO: Duration = Duration::from_millis(250);
const WORST_ECHO: Duration = Duration::from_millis(2500);
/// Topic of its publisher.
pub(crate) const TOPIC: &str = "neighbour.news";
const LAST: &str = "last";

/// The neighbour, from its first message to its last.
pub(crate) struct Neighbour {
    leaves: DropGuard,
    thread: JoinHandle<Vec<Duration>>,
}

impl Neighbour {
    /// Connects; returns once everything works.
    pub(crate) async fn move_in(target: &Target) -> Self {
        let (target, leaves) = (target.clone(), CancellationToken::new());
        let guard = leaves.clone().drop_guard();
        let (settles, settled) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(live(&target, leaves, settles))
        });
        match settled.await {
            Ok(()) => Self { leaves: guard, thread },
            Err(_) => std::panic::resume_unwind(thread.join().expect_err("it has not settled")),
        }
    }

    /// Disconnects, and panics if anything went wrong.
    pub(crate) async fn move_out(self) {
        drop(self.leaves);
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await.expect("it is awaited");
        let mut echoes = ended.unwrap_or_else(|complaint| std::panic::resume_unwind(complaint));
        echoes.sort_unstable();
        let (usual, worst) = (echoes[echoes.len() / 2], echoes[echoes.len() - 1]);
        let slow = echoes[echoes.len() * 99 / 100];
        eprintln!("the neighbour's echoes: {usual:?} in the median, {slow:?} at 99 of 100, {worst:?} at most");
        assert!(usual <= USUAL_ECHO, "half of the neighbour's echoes took more than {usual:?}");
        assert!(worst <= WORST_ECHO, "an echo of the neighbour's took {worst:?}");
    }
}

/// Returns the duration of each echo.
async fn live(target: &Target, leaves: CancellationToken, settles: oneshot::Sender<()>) -> Vec<Duration> {
    let mut publisher = target.client("publisher").await;
    let mut readers = JoinSet::new();
    let mut echoes = JoinSet::new();
    for n in 0..LISTENERS {
        let mut listener = target.client(&format!("listener {n}")).await;
        listener.control.say(json!({"type": "subscribe", "topic": TOPIC, "id": "s"})).await;
        listener.control.expect("subscribed").await;
        let connection = listener.connection.clone();
        echoes.spawn(echo(listener, leaves.clone()));
        readers.spawn(async move {
            let receive = connection.accept_uni().await.expect("a topic lane");
            read(receive).await;
        });
    }
    let publishing = async {
        let mut settles = Some(settles);
        let mut pause = interval(PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut offset = 0;
        while !leaves.is_cancelled() {
            pause.tick().await;
            offset += 1;
            publish(&mut publisher, &offset.to_string(), offset).await;
            if offset == 3 {
                let _ = settles.take().expect("once").send(());
            }
        }
        publish(&mut publisher, LAST, offset + 1).await;
    };
    // A failure of a reader or an echo is reported at once, not at the end.
    let reading = async {
        while let Some(read) = readers.join_next().await {
            read.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        }
    };
    let echoing = async {
        let (mut clients, mut times) = (Vec::new(), Vec::new());
        while let Some(echoed) = echoes.join_next().await {
            let (client, took) = echoed.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
            clients.push(client);
            times.extend(took);
        }
        (clients, times)
    };
    // All stay until each has received the last message.
    let ((), (), (clients, times)) = tokio::join!(publishing, reading, echoing);
    for mut client in clients.into_iter().chain([publisher]) {
        client.control.say(json!({"type": "close"})).await;
        soon("its end", client.connection.closed()).await;
    }
    times
}

async fn publish(publisher: &mut RawClient, content: &str, offset: u64) {
    publisher.control.say(json!({"type": "publish", "topic": TOPIC, "content": content, "id": offset})).await;
    let published = answer(publisher, &json!(offset)).await;
    assert_eq!((&published["type"], &published["offset"]), (&json!("published"), &json!(offset)), "{published}");
}

/// Reads the topic's lane up to the last message.
async fn read(receive: RecvStream) {
    let mut lane = TopicLane { number: 0, priority: 0, receive };
    assert_eq!(lane.hear().await["type"], "lane");
    for offset in 1.. {
        let message = lane.hear().await;
        assert_eq!((&message["type"], &message["offset"]), (&json!("message"), &json!(offset)), "{message}");
        if message["content"] == LAST {
            return;
        }
        assert_eq!(message["content"], offset.to_string(), "{message}");
    }
}

/// Requests echoes until the end; returns the client, and the duration of each.
async fn echo(mut client: RawClient, leaves: CancellationToken) -> (RawClient, Vec<Duration>) {
    let mut times = Vec::new();
    let mut pause = interval(PAUSE);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !leaves.is_cancelled() {
        pause.tick().await;
        let (id, asked) = (json!(times.len()), Instant::now());
        client.control.say(json!({"type": "text", "content": "still here?", "id": id})).await;
        let echo = answer(&mut client, &id).await;
        assert_eq!(echo["content"], "Echo: still here?", "{echo}");
        times.push(asked.elapsed());
    }
    (client, times)
}

/// The answer to a request; skips messages that attackers send to all clients.
async fn answer(client: &mut RawClient, id: &Value) -> Value {
    loop {
        let body = client.control.hear_body().await;
        // Others may broadcast with an attachment.
        let Ok(message) = serde_json::from_slice::<Value>(&body) else { continue };
        if message.get("re") == Some(id) {
            return message;
        }
        let kind = &message["type"];
        assert!(kind == "broadcast" || kind == "ping" || kind == "direct", "unexpected: {message}");
    }
}
