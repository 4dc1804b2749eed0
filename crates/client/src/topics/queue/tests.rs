//! The promises of a queue: what its reader gets, and in which order.

use proptest::prelude::*;

use super::*;
use crate::message::{ErrorReply, Payload, TopicMessage};
use crate::topics::event::Missed;

fn message(topic: &str, offset: u64) -> Item {
    let payload = Payload::text("x");
    let event = TopicEvent::Message(TopicMessage::new(topic, offset, payload, 0));
    Item { event, position: Some(Seen { epoch: "e".into(), offset }) }
}

fn missed(offsets: Option<std::ops::RangeInclusive<u64>>, reason: &str) -> Item {
    let event = TopicEvent::Missed(Missed { topic: "t".into(), offsets, reason: reason.into() });
    Item { event, position: None }
}

/// What waits, in short: offsets of messages, ranges of what is missing.
fn taken(queue: &Queue) -> Vec<String> {
    std::iter::from_fn(|| queue.try_next())
        .map(|item| match item.event {
            TopicEvent::Message(message) => message.offset.to_string(),
            TopicEvent::Missed(missed) => format!("{} {:?}", missed.topic, missed.offsets),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn dropped_messages_are_reported_once_and_in_their_place() {
    let queue = Queue::new("t", 4, Keep::All);
    for offset in 1..=10 {
        queue.push_out(message("t", offset), true);
    }
    assert_eq!(queue.state().items[0].position.as_ref().map(|seen| seen.offset), Some(7));
    assert_eq!(taken(&queue), ["t Some(1..=7)", "8", "9", "10"]);

    for offset in 1..=10 {
        queue.push_out(message("t", offset), false);
    }
    assert_eq!(taken(&queue), ["7", "8", "9", "10"], "newest wins");
}

#[test]
fn dropped_messages_of_several_topics_are_reported_for_the_pattern() {
    let queue = Queue::new("t.*", 2, Keep::All);
    for (topic, offset) in [("t.a", 5), ("t.b", 1), ("t.a", 6)] {
        queue.push_out(message(topic, offset), true);
    }
    assert_eq!(taken(&queue), ["t.* None", "6"]);
}

#[test]
fn a_queue_of_one_stays_bounded() {
    let queue = Queue::new("t", 1, Keep::All);
    for offset in 1..=100 {
        queue.push_out(message("t", offset), true);
    }
    assert_eq!(taken(&queue), ["t Some(1..=99)", "100"]);
}

#[test]
fn losses_of_unknown_extent_do_not_pile_up() {
    let queue = Queue::new("t", 1, Keep::All);
    for _ in 0..100 {
        queue.push(missed(None, "lost"));
    }
    queue.push(missed(Some(3..=4), "dropped"));
    assert_eq!(taken(&queue), ["t None"], "without room they become one");
    queue.push(missed(None, "lost"));
    assert_eq!(taken(&queue), ["t None"]);
}

#[test]
fn without_room_losses_of_one_topic_become_one_and_keep_its_offsets() {
    let queue = Queue::new("t.*", 2, Keep::All);
    for first in 0..100 {
        queue.push_out(missed(Some(first..=first), "dropped"), true);
    }
    assert_eq!(taken(&queue), ["t Some(0..=0)", "t Some(1..=99)"]);

    for offset in (0..100).step_by(2) {
        queue.push_out(message("t", offset), true);
        queue.push_out(missed(Some(offset + 1..=offset + 1), "dropped"), true);
        assert!(queue.state().items.len() <= 4, "{:?}", queue.state().items);
    }
    let of_another = Missed { topic: "t.b".into(), offsets: Some(1..=2), reason: "dropped".into() };
    queue.push(Item { event: TopicEvent::Missed(of_another), position: None });
    assert_eq!(taken(&queue).last().map(String::as_str), Some("t.* None"));
}

#[test]
fn a_busy_topic_takes_no_other_topics_place() {
    let queue = Queue::new("t.*", 4, Keep::All);
    for offset in 1..=9 {
        queue.push_out(message("t.busy", offset), false);
        if offset % 3 == 0 {
            queue.push_out(message(&format!("t.rare{offset}"), offset), false);
        }
    }
    let topics: Vec<_> = std::iter::from_fn(|| queue.try_next())
        .map(|item| {
            format!("{} {:?}", item.topic().expect("a message"), item.position.as_ref().map(|seen| seen.offset))
        })
        .collect();
    assert_eq!(topics, ["t.rare3 Some(3)", "t.rare6 Some(6)", "t.busy Some(9)", "t.rare9 Some(9)"]);
}

#[test]
fn the_newest_message_takes_the_turn_of_the_one_before() {
    let queue = Queue::new("t.*", 10, Keep::Newest);
    for (topic, offset) in [("t.a", 1), ("t.b", 1), ("t.a", 2), ("t.c", 1), ("t.b", 2), ("t.a", 3)] {
        queue.push_out(message(topic, offset), false);
    }
    assert_eq!(taken(&queue), ["3", "2", "1"]);
    // One that is never behind starves no other.
    let mut read = Vec::new();
    for offset in 1..=4 {
        for topic in ["t.a", "t.b", "t.c"] {
            queue.push_out(message(topic, offset), false);
        }
        read.extend(queue.try_next().and_then(|item| item.topic().map(str::to_owned)));
    }
    assert_eq!(read, ["t.a", "t.b", "t.c", "t.a"]);

    let exact = Queue::new("t", 10, Keep::Newest);
    for offset in 1..=5 {
        exact.push_out(message("t", offset), false);
    }
    assert_eq!(taken(&exact), ["5"]);
}

/// What happens to a queue: something comes, of one of a few topics, or the reader takes something.
fn happenings() -> impl Strategy<Value = Vec<Option<usize>>> {
    proptest::collection::vec(proptest::option::weighted(0.8, 0..6_usize), 0..200)
}

proptest! {
    #[test]
    fn each_topic_keeps_its_newest_message_and_its_order(
        happenings in happenings(), capacity in 6..20_usize, newest_only: bool,
    ) {
        let queue = Queue::new("t.*", capacity, if newest_only { Keep::Newest } else { Keep::All });
        // Of each topic what was published, and what was read last.
        let (mut published, mut read) = ([0_u64; 6], [0_u64; 6]);
        let mut take = |published: &[u64; 6]| {
            let Some(Item { event: TopicEvent::Message(message), .. }) = queue.try_next() else { return Ok(false) };
            let at: usize = message.topic[2..].parse().expect("a number");
            prop_assert!(message.offset > read[at] && message.offset <= published[at]);
            read[at] = message.offset;
            Ok(true)
        };
        for happening in happenings {
            match happening {
                Some(at) => {
                    published[at] += 1;
                    queue.push_out(message(&format!("t.{at}"), published[at]), false);
                }
                None => drop(take(&published)?),
            }
            let state = queue.state();
            prop_assert!(state.items.len() <= capacity);
            let counts = state.waiting.as_ref().expect("a pattern");
            prop_assert_eq!(counts.values().sum::<usize>(), state.items.len());
            if newest_only {
                prop_assert!(counts.values().all(|&count| count == 1));
            }
        }
        while take(&published)? {}
        // The topics fit, so the newest of each was there.
        prop_assert_eq!(read, published);
    }

    #[test]
    fn dropped_messages_are_reported_before_what_follows(happenings in happenings(), capacity in 1..12_usize) {
        let queue = Queue::new("t.*", capacity, Keep::All);
        let (mut published, mut next) = ([0_u64; 6], [1_u64; 6]);
        let mut unknown = false;
        let mut take = || {
            let Some(item) = queue.try_next() else { return Ok(false) };
            match item.event {
                TopicEvent::Message(message) => {
                    let at: usize = message.topic[2..].parse().expect("a number");
                    prop_assert!(message.offset == next[at] || (unknown && message.offset > next[at]));
                    next[at] = message.offset + 1;
                }
                TopicEvent::Missed(Missed { topic, offsets: Some(offsets), .. }) => {
                    let at: usize = topic[2..].parse().expect("a number");
                    prop_assert!(*offsets.start() == next[at] || (unknown && *offsets.start() > next[at]));
                    next[at] = offsets.end() + 1;
                }
                TopicEvent::Missed(_) => unknown = true,
                other => prop_assert!(false, "{:?}", other),
            }
            Ok(true)
        };
        for happening in happenings {
            match happening {
                Some(at) => {
                    published[at] += 1;
                    queue.push_out(message(&format!("t.{at}"), published[at]), true);
                }
                None => drop(take()?),
            }
            prop_assert!(queue.state().items.len() <= capacity + 1);
        }
    }
}

#[tokio::test]
async fn a_dropped_wait_takes_nothing() {
    let queue = Queue::new("t", 1, Keep::All);
    tokio::select! {
        biased;
        _ = queue.next() => panic!("nothing is there"),
        () = std::future::ready(()) => {}
    }
    queue.push(message("t", 1));
    assert_eq!(taken(&queue), ["1"]);
}

#[tokio::test]
async fn a_writer_waits_for_room_and_a_reader_for_the_end() {
    let queue = Queue::new("t", 1, Keep::All);
    assert!(queue.has_room());
    queue.push(message("t", 1));
    assert!(!queue.has_room());
    let (waited, item) = tokio::join!(queue.room(), queue.next());
    assert_eq!((waited, item.is_some()), ((), true));

    queue.end(Ended::ByServer(ErrorReply::new(403_u16, "no more")));
    let ended = queue.next().await.map(|item| item.event);
    assert!(matches!(ended, Some(TopicEvent::Ended(Ended::ByServer(error))) if error.code == 403));
    assert!(queue.next().await.is_none() && queue.next().await.is_none());

    queue.push(message("t", 3));
    queue.abandon();
    queue.push(message("t", 4));
    assert!(queue.try_next().is_none(), "an abandoned queue keeps nothing");
    queue.room().await;
}
