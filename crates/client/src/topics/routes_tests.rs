//! The promises of `routes` and `entry`, by plain calls: what came in, and what the reader then finds in his queue.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::entry::Opened;
use super::event::{Ended, Missed, TopicEvent};
use super::queue::{Keep, Queue};
use super::routes::{Added, Dispatch, Next, Routes, Via};
use crate::ClientError;
use crate::message::{
    ClientMessage, CloseCode, ClosedBy, DeliveryMode, ErrorReply, Member, Payload, Position, ServerMessage, Subscribe,
    Subscribed, TopicMessage, TopicPattern,
};

mod consumers;
mod lanes;
mod renewal;

const CONTROL: Via = Via::Control;

/// The routes, and a server that takes every request with the next number.
#[derive(Default)]
struct Scene {
    routes: Routes,
    next_id: u64,
}

/// A subscription as its reader has it.
struct Reader {
    number: u64,
    queue: Arc<Queue>,
    opened: oneshot::Receiver<Opened>,
}

impl Scene {
    fn connected() -> Self {
        let mut scene = Self::default();
        scene.routes.connected(&[]);
        scene
    }

    fn add_with(&mut self, topic: &str, queue: usize, change: impl FnOnce(&mut Subscribe)) -> Reader {
        self.add_kept(topic, queue, Keep::All, change)
    }

    fn add_latest(&mut self, topic: &str) -> Reader {
        self.add_kept(topic, 100, Keep::Newest, |_| {})
    }

    fn add_kept(&mut self, topic: &str, queue: usize, keep: Keep, change: impl FnOnce(&mut Subscribe)) -> Reader {
        let topic = TopicPattern::new(topic).expect("a topic");
        let queue = Queue::new(topic.as_str(), queue, keep);
        let mut request = Subscribe::new(topic);
        change(&mut request);
        let (sender, opened) = oneshot::channel();
        let number = match self.routes.add(request, Arc::clone(&queue), sender).expect("it is new") {
            Added::New(number) => number,
            Added::Claimed(..) => panic!("the server has made it"),
        };
        Reader { number, queue, opened }
    }

    fn add(&mut self, topic: &str) -> Reader {
        self.add_with(topic, 100, |_| {})
    }

    /// The next thing that is sent, and its request's number.
    fn order(&mut self) -> Option<(u64, ClientMessage)> {
        self.next_id += 1;
        Some((self.next_id, self.routes.next_request(self.next_id)?.message))
    }

    /// Expects a `subscribe` to be sent; gives it and its request's number.
    fn asked(&mut self) -> (u64, Subscribe) {
        match self.order() {
            Some((id, ClientMessage::Subscribe(subscribe))) => (id, subscribe),
            other => panic!("expected subscribe, got {other:?}"),
        }
    }

    /// Answers the next `subscribe`.
    fn answer(&mut self, subscribed: Subscribed) -> Subscribe {
        let (id, asked) = self.asked();
        assert!(self.routes.settle(id, ServerMessage::Subscribed(subscribed)).is_none());
        asked
    }

    fn reconnect(&mut self) {
        self.routes.disconnected();
        self.routes.connected(&[]);
    }

    /// A message that has to be dealt with.
    fn take(&mut self, via: Via, topic: &str, offset: u64) {
        let dispatch = self.routes.dispatch(via, message(topic, offset));
        assert!(matches!(dispatch, Dispatch::Taken), "{dispatch:?}");
    }
}

impl Reader {
    /// What waits, in short.
    fn events(&self) -> Vec<String> {
        let short = |event| match event {
            TopicEvent::Message(message) => format!("{}", message.offset),
            TopicEvent::Missed(Missed { offsets: Some(offsets), .. }) => format!("missed {offsets:?}"),
            TopicEvent::Missed(Missed { topic, .. }) => format!("missed of {topic}"),
            TopicEvent::Join { topic, .. } => format!("join {topic}"),
            TopicEvent::Leave { topic, .. } => format!("leave {topic}"),
            TopicEvent::State { topic, .. } => format!("state {topic}"),
            TopicEvent::Return { topic, .. } => format!("return {topic}"),
            TopicEvent::Occupancy { topic, clients, .. } => format!("{clients} on {topic}"),
            TopicEvent::Ended(Ended::ByServer(error)) => format!("ended {}", error.code),
            TopicEvent::Ended(Ended::Closed(closed)) => format!("closed {}", closed.code),
            TopicEvent::Ended(Ended::TakenOver { .. }) => "taken over".into(),
            TopicEvent::Ended(Ended::NotResumed { reason }) => format!("not resumed: {reason}"),
        };
        std::iter::from_fn(|| self.queue.try_next()).map(|item| short(item.event)).collect()
    }
}

fn message(topic: &str, offset: u64) -> ServerMessage {
    let payload = Payload::text("x");
    ServerMessage::Message(TopicMessage::new(topic, offset, payload, 0))
}

fn gap(topic: &str, first: u64, last: u64) -> ServerMessage {
    ServerMessage::Gap { topic: topic.into(), first, last, reason: None }
}

fn live(epoch: &str, offset: u64, lane: Option<u64>) -> Subscribed {
    let mut subscribed = Subscribed::new("");
    subscribed.epoch = Some(epoch.into());
    subscribed.offset = Some(offset);
    subscribed.lane = lane;
    subscribed
}

/// The topic of a `subscribe`.
fn topic_of(message: &ClientMessage) -> String {
    match message {
        ClientMessage::Subscribe(subscribe) => subscribe.topic.as_str().to_owned(),
        other => panic!("expected subscribe, got {other:?}"),
    }
}

/// The answer to a pattern.
fn pattern_on(lane: Option<u64>) -> Subscribed {
    let mut subscribed = Subscribed::new("");
    subscribed.lane = lane;
    subscribed
}

fn recovered(epoch: &str, offset: u64, recovered: bool) -> Subscribed {
    let mut subscribed = live(epoch, offset, None);
    subscribed.recovered = Some(recovered);
    subscribed
}

fn recovered_on(lane: u64, epoch: &str, offset: u64, is_recovered: bool) -> Subscribed {
    let mut subscribed = recovered(epoch, offset, is_recovered);
    subscribed.lane = Some(lane);
    subscribed
}

fn position(epoch: &str, offset: u64) -> Option<Position> {
    Some(Position { epoch: epoch.into(), offset })
}

#[test]
fn nothing_is_handed_out_twice_and_gaps_come_in_their_place() {
    let mut scene = Scene::connected();
    let reader = scene.add("t");
    scene.answer(live("e", 3, Some(1)));
    let lane = Via::Lane(1);
    for offset in [2, 3, 4, 4, 5, 4, 9] {
        scene.take(lane, "t", offset);
    }
    for (first, last) in [(5, 8), (8, 11), (12, 13)] {
        assert!(matches!(scene.routes.dispatch(lane, gap("t", first, last)), Dispatch::Taken));
    }
    scene.take(lane, "t", 14);
    assert_eq!(reader.events(), ["4", "5", "9", "missed 10..=11", "missed 12..=13", "14"]);
}

#[test]
fn a_gap_of_a_pattern_goes_to_its_subscription_and_has_no_offsets() {
    let mut scene = Scene::connected();
    let (all, some) = (scene.add(">"), scene.add("t.*"));
    scene.answer(pattern_on(Some(1)));
    scene.answer(pattern_on(Some(1)));
    for offset in [7, 8] {
        scene.take(Via::Lane(1), "t.x", offset);
        assert!(matches!(scene.routes.dispatch(Via::Lane(1), gap("t.*", 0, 0)), Dispatch::Taken));
    }
    // What was subscribed to first gets the messages, and the text itself its gap.
    assert_eq!((all.events().join(", "), some.events().join(", ")), ("7, 8".into(), "missed of t.*".into()));
}

#[test]
fn a_stored_position_that_cannot_be_resumed_is_reported_at_once() {
    let mut scene = Scene::connected();
    let mut reader = scene.add_with("t", 100, |subscribe| subscribe.since = position("e", 5));
    assert_eq!(scene.answer(recovered("e", 9, false)).since, position("e", 5));
    let first = reader.opened.try_recv().expect("an answer").expect("it is there").expect("a position");
    assert_eq!(first.offset, 5);
    scene.take(CONTROL, "t", 8);
    assert_eq!(reader.events(), ["missed of t", "8"]);
}

#[test]
fn a_pattern_receives_all_its_topics_and_reports_each_reconnect() {
    let mut scene = Scene::connected();
    let reader = scene.add("t.>");
    scene.answer(pattern_on(Some(1)));
    let lane = Via::Lane(1);
    for (topic, offset) in [("t.a", 7), ("t.b", 3), ("t.a", 8)] {
        scene.take(lane, topic, offset);
    }
    assert_eq!(reader.events(), ["7", "3", "8"]);
    scene.reconnect();
    let asked = scene.answer(pattern_on(Some(1)));
    assert_eq!(asked.since, None);
    scene.take(lane, "t.a", 12);
    assert_eq!(reader.events(), ["missed of t.>", "12"]);
}

#[test]
fn the_exact_topic_precedes_patterns_and_the_first_pattern_precedes_others() {
    let mut scene = Scene::connected();
    let (wide, narrow, exact) = (scene.add("t.>"), scene.add("t.*"), scene.add("t.a"));
    for _ in 0..2 {
        scene.answer(pattern_on(None));
    }
    scene.answer(live("e", 0, None));
    scene.take(CONTROL, "t.a", 1);
    scene.take(CONTROL, "t.b", 2);
    assert_eq!((exact.events(), wide.events()), (vec!["1".to_owned()], vec!["2".to_owned()]));
    assert!(narrow.events().is_empty());
    let nobodys = scene.routes.dispatch(CONTROL, message("u", 1));
    assert!(matches!(nobodys, Dispatch::Unclaimed(ServerMessage::Message(_))), "{nobodys:?}");
}

#[test]
fn a_full_queue_holds_up_its_lane_and_takes_nothing_in() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 1, |_| {});
    scene.answer(live("e", 0, Some(1)));
    scene.take(Via::Lane(1), "t", 1);
    for _ in 0..2 {
        assert!(matches!(scene.routes.dispatch(Via::Lane(1), message("t", 2)), Dispatch::Full(..)));
    }
    assert_eq!(reader.events(), ["1"]);
    scene.reconnect();
    assert_eq!(scene.asked().1.since, position("e", 1), "what did not fit was not seen");
}

#[test]
fn a_full_queue_never_holds_up_the_control_lane_and_reports_what_it_dropped() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 2, |_| {});
    scene.answer(live("e", 0, None));
    for offset in 1..=9 {
        scene.take(CONTROL, "t", offset);
    }
    assert_eq!(reader.events(), ["missed 1..=8", "9"]);
}

#[test]
fn with_datagrams_the_newest_wins_and_nothing_is_reported() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 2, |subscribe| {
        subscribe.delivery = DeliveryMode::Datagram;
        subscribe.recent = Some(1);
    });
    scene.answer(live("e", 0, Some(1)));
    for offset in [1, 2, 4, 3, 5] {
        scene.take(Via::Datagram, "t", offset);
    }
    assert_eq!(reader.events(), ["4", "5"]);
    for offset in [6, 7, 8] {
        // Too large for a datagram.
        scene.take(Via::Lane(1), "t", offset);
    }
    assert_eq!(reader.events(), ["7", "8"]);
    assert!(matches!(scene.routes.dispatch(Via::Lane(1), gap("t", 9, 12)), Dispatch::Taken));
    scene.take(Via::Datagram, "t", 11);
    assert_eq!(reader.events(), ["11"], "what a gap spans may have come as a datagram");
    scene.reconnect();
    let asked = scene.answer(live("f", 1, Some(1)));
    assert_eq!((asked.since, asked.recent), (None, Some(1)));
    scene.take(Via::Datagram, "t", 1);
    assert_eq!(reader.events(), ["1"]);
}

#[test]
fn presence_goes_to_the_subscription_that_asked_for_it() {
    let mut scene = Scene::connected();
    let (exact, pattern) = (scene.add("t.a"), scene.add_with("t.*", 100, |subscribe| subscribe.presence = true));
    scene.answer(live("e", 0, None));
    scene.answer(pattern_on(None));
    let client = Member::new(uuid::Uuid::nil(), None, None);
    for message in [
        ServerMessage::Join { topic: "t.a".into(), client: client.clone() },
        ServerMessage::Leave { topic: "t.a".into(), client },
    ] {
        assert!(matches!(scene.routes.dispatch(CONTROL, message), Dispatch::Taken));
    }
    assert!(exact.events().is_empty());
    assert_eq!(pattern.events(), ["join t.a", "leave t.a"]);
}

#[test]
fn only_subscriptions_that_the_server_knows_are_unsubscribed_and_in_order() {
    let mut scene = Scene::connected();
    let (asked, wanted) = (scene.add("asked"), scene.add("wanted"));
    let (id, _) = scene.asked();
    scene.routes.leave(asked.number, None, false);
    scene.routes.leave(wanted.number, None, false);
    let again = scene.add("asked");
    let farewell = scene.order();
    assert!(
        matches!(&farewell, Some((_, ClientMessage::Unsubscribe { topic, .. })) if topic.as_str() == "asked"),
        "{farewell:?}"
    );
    assert!(scene.routes.settle(id, ServerMessage::Subscribed(live("e", 0, None))).is_none(), "late, and nobody's");
    scene.answer(live("e", 5, None));
    assert!(scene.order().is_none(), "the server never knew of the other");
    scene.take(CONTROL, "asked", 6);
    assert_eq!(again.events(), ["6"]);
    // And what is still on its way for one that left is not news to anybody.
    scene.routes.leave(again.number, None, false);
    scene.take(Via::Lane(3), "asked", 7);
}

#[test]
fn a_text_can_be_subscribed_to_once() {
    let mut scene = Scene::connected();
    let first = scene.add("t");
    let request = scene.asked().1;
    let (sender, _opened) = oneshot::channel();
    let again = scene.routes.add(request.clone(), Queue::new("t", 1, Keep::All), sender);
    assert!(matches!(again, Err(ClientError::AlreadySubscribed { topic }) if topic == "t"));
    scene.routes.leave(first.number, None, false);
    let (sender, _opened) = oneshot::channel();
    assert!(scene.routes.add(request, Queue::new("t", 1, Keep::All), sender).is_ok());
}

#[test]
fn a_refusal_is_an_error_at_first_and_the_end_later() {
    let refusal = || ServerMessage::Error(ErrorReply::new(403_u16, "not yours"));
    let mut scene = Scene::connected();
    let mut refused = scene.add("t");
    let (id, _) = scene.asked();
    assert!(scene.routes.settle(id, refusal()).is_none());
    assert!(matches!(refused.opened.try_recv(), Ok(Err(ClientError::Server(error))) if error.code == 403));

    let reader = scene.add("t");
    scene.answer(live("e", 0, None));
    scene.reconnect();
    let (id, _) = scene.asked();
    assert!(scene.routes.settle(id, refusal()).is_none());
    assert_eq!(reader.events(), ["ended 403"]);
    scene.reconnect();
    assert!(scene.order().is_none(), "it is not asked for again");
}

#[test]
fn the_server_and_the_end_of_the_client_end_subscriptions() {
    let mut scene = Scene::connected();
    let (withdrawn, mut pending, kept) = (scene.add("a"), scene.add("b"), scene.add("c"));
    scene.answer(live("e", 0, None));
    let ended = ServerMessage::Unsubscribed { topic: "a".into(), code: 403, reason: None };
    assert!(matches!(scene.routes.dispatch(CONTROL, ended), Dispatch::Taken));
    scene.take(Via::Lane(1), "a", 1);
    assert_eq!(withdrawn.events(), ["ended 403"]);

    let (_, asked) = scene.asked();
    assert_eq!(asked.topic.as_str(), "b");
    scene.answer(live("e", 0, None));
    scene.routes.close(&ClosedBy::new(CloseCode::NORMAL, "done"));
    assert_eq!(kept.events(), ["closed 1000"]);
    assert!(matches!(pending.opened.try_recv(), Ok(Err(ClientError::Closed { .. }))));
    let (sender, _opened) = oneshot::channel();
    let late = scene.routes.add(asked, Queue::new("b", 1, Keep::All), sender);
    assert!(matches!(late, Err(ClientError::Closed { .. })), "{late:?}");
}

#[test]
fn recent_messages_are_not_mistaken_for_old_ones_however_offsets_jump() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, |subscribe| subscribe.recent = Some(3));
    scene.answer(live("e", 100, None));
    for offset in [40, 70, 100, 100, 130] {
        scene.take(CONTROL, "t", offset);
    }
    assert_eq!(reader.events(), ["40", "70", "100", "130"]);
    scene.reconnect();
    assert_eq!(scene.asked().1.since, position("e", 130));
}

#[test]
fn recent_messages_before_a_lost_position_are_not_mistaken_for_old_ones() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, |subscribe| {
        subscribe.since = position("e", 130);
        subscribe.recent = Some(3);
    });
    scene.answer(recovered("e", 100, false));
    for offset in [40, 70, 100, 131] {
        scene.take(CONTROL, "t", offset);
    }
    assert_eq!(reader.events(), ["missed of t", "40", "70", "100", "131"]);
}

#[test]
fn a_subscription_with_recent_messages_has_no_position_before_the_first_of_them() {
    let mut scene = Scene::connected();
    let mut reader = scene.add_with("t", 100, |subscribe| subscribe.recent = Some(3));
    scene.answer(live("e", 100, None));
    assert_eq!(reader.opened.try_recv().expect("an answer").expect("it is there"), None);
    scene.take(CONTROL, "t", 70);
    let position = reader.queue.try_next().and_then(|item| item.position).expect("a position");
    assert_eq!(position.offset, 70);

    let mut reader = scene.add_with("u", 100, |subscribe| subscribe.recent = Some(3));
    scene.answer(live("e", 0, None));
    let position = reader.opened.try_recv().expect("an answer").expect("it is there").expect("a position");
    assert_eq!(position.offset, 0, "there are no recent messages");
}

#[test]
fn topics_are_resumed_before_the_patterns_that_match_them() {
    let mut scene = Scene::connected();
    let (_pattern, _other) = (scene.add("t.*"), scene.add("u.*"));
    let _exact = scene.add("t.a");
    scene.answer(pattern_on(None));
    scene.answer(pattern_on(None));
    scene.answer(live("e", 0, None));
    scene.take(CONTROL, "t.a", 1);
    scene.reconnect();
    let (id, first) = scene.asked();
    assert_eq!((first.topic.as_str(), first.since), ("t.a", position("e", 1)));
    assert_eq!(scene.asked().1.topic.as_str(), "t.*");
    // Refused for the rate, it is still the first.
    scene.reconnect();
    let refusal = |code: u16| ServerMessage::Error(ErrorReply::new(code, "later").with_retry_after_ms(0));
    let (id_again, _) = scene.asked();
    assert!(id_again > id && scene.routes.settle(id_again, refusal(429)).is_none());
    let topics: Vec<_> = std::iter::from_fn(|| scene.order()).map(|(_, message)| topic_of(&message)).collect();
    assert_eq!(topics, ["t.a", "t.*", "u.*"]);
    // An error of the server may last, and holds up no pattern.
    scene.reconnect();
    let (id, _) = scene.asked();
    let lasting = ServerMessage::Error(ErrorReply::new(503_u16, "later").with_retry_after_ms(600_000));
    assert!(scene.routes.settle(id, lasting).is_none());
    assert_eq!(scene.asked().1.topic.as_str(), "t.*");
}

#[test]
fn recent_messages_are_located_page_by_page_and_before_patterns() {
    let mut scene = Scene::connected();
    let (_pattern, reader) = (scene.add("t.*"), scene.add_with("t.a", 100, |subscribe| subscribe.recent = Some(2500)));
    scene.answer(pattern_on(None));
    scene.answer(live("e", 9000, None));
    scene.reconnect();
    let page = |newest: u64, count: u64, more| {
        let messages = (newest + 1 - count..=newest)
            .rev()
            .map(|offset| serde_json::value::RawValue::from_string(format!(r#"{{"offset":{offset}}}"#)).expect("JSON"));
        let (epoch, messages) = ("e".to_owned(), messages.collect());
        ServerMessage::History { topic: "t.a".into(), epoch, offset: Some(9000), messages, more, recovered: None }
    };
    for (before, limit, reply) in [(9001, 1000, page(9000, 1000, true)), (8001, 1000, page(8000, 600, true))] {
        let (id, asked) = scene.order().expect("a page is asked for");
        let ClientMessage::History { since, limit: asked_for, reverse: true, .. } = asked else {
            panic!("expected history, got {asked:?}");
        };
        assert_eq!((since, asked_for), (position("e", before), limit));
        assert!(scene.order().is_none(), "the pattern waits");
        assert!(scene.routes.settle(id, reply).is_none());
    }
    let (id, asked) = scene.order().expect("a page is asked for");
    assert!(matches!(asked, ClientMessage::History { limit: 900, .. }), "{asked:?}");
    assert!(scene.routes.settle(id, page(7400, 900, true)).is_none());
    assert_eq!(scene.asked().1.since, position("e", 6500));
    assert_eq!(scene.asked().1.topic.as_str(), "t.*");
    assert!(reader.events().is_empty(), "nothing was missed");
}

#[test]
fn requests_above_the_rate_are_repeated_in_time_also_unsubscribes() {
    let refusal = |wait| ServerMessage::Error(ErrorReply::new(429_u16, "too often").with_retry_after_ms(wait));
    let mut scene = Scene::connected();
    let mut first = scene.add("t");
    let (id, _) = scene.asked();
    assert!(scene.routes.settle(id, refusal(0)).is_none());
    assert!(first.opened.try_recv().is_err(), "nobody is told of what heals");
    assert!(scene.routes.refusal(first.number).is_some());
    scene.answer(live("e", 0, None));
    assert!(first.opened.try_recv().expect("an answer").is_ok());

    scene.routes.leave(first.number, None, false);
    let (id, farewell) = scene.order().expect("a farewell");
    assert!(matches!(farewell, ClientMessage::Unsubscribe { .. }), "{farewell:?}");
    assert!(scene.routes.settle(id, refusal(600_000)).is_none());
    let _again = scene.add("t");
    assert!(scene.order().is_none(), "the server still has the one before");
    assert!(scene.routes.next_due_at().is_some());
}

#[test]
fn with_latest_no_lane_waits_and_losses_are_not_reported() {
    let mut scene = Scene::connected();
    let reader = scene.add_latest("t.*");
    scene.answer(pattern_on(Some(1)));
    let lane = Via::Lane(1);
    for (topic, offset) in [("t.a", 1), ("t.b", 7), ("t.a", 2), ("t.a", 3)] {
        scene.take(lane, topic, offset);
    }
    assert!(matches!(scene.routes.dispatch(lane, gap("t.b", 8, 9)), Dispatch::Taken));
    assert_eq!(reader.events(), ["3", "7"]);
    scene.reconnect();
    scene.answer(pattern_on(Some(1)));
    assert!(reader.events().is_empty());
}

fn made(topic: &str, offset: u64) -> ServerMessage {
    let mut made = Subscribed::new(topic);
    (made.epoch, made.offset, made.by_server) = (Some("e".into()), Some(offset), true);
    ServerMessage::Subscribed(made)
}

#[test]
fn the_servers_subscriptions_are_found_resumed_and_declined() {
    let mut scene = Scene::default();
    let announced = ["news".to_owned()];
    scene.routes.connected(&announced);
    assert!(matches!(scene.routes.dispatch(Via::Control, made("news", 3)), Dispatch::Unclaimed(_)), "it is news");
    scene.take(Via::Control, "news", 4);
    let queue = Queue::new("news", 100, Keep::All);
    let (sender, _opened) = oneshot::channel();
    let request = Subscribe::new(TopicPattern::new("news").expect("a topic"));
    let number = match scene.routes.add(request, queue, sender).expect("it is there") {
        Added::Claimed(number, queue, Some(seen)) => {
            assert_eq!((seen.offset, queue.try_next().is_some()), (4, true));
            number
        }
        other => panic!("{other:?}"),
    };
    assert!(scene.order().is_none(), "nothing is asked for");
    let positions = scene.routes.positions();
    assert_eq!(positions.first().map(|(topic, at)| (topic.as_str(), at.offset)), Some(("news", 4)));
    scene.routes.disconnected();
    scene.routes.connected(&announced);
    assert!(scene.order().is_none(), "the server makes it again");
    assert!(matches!(scene.routes.dispatch(Via::Control, made("news", 9)), Dispatch::Taken));
    scene.take(Via::Control, "news", 10);
    // Dropped, it is declined on this connection and the next.
    scene.routes.leave(number, None, false);
    assert!(matches!(scene.order(), Some((_, ClientMessage::Unsubscribe { .. }))));
    scene.routes.disconnected();
    scene.routes.connected(&announced);
    assert!(matches!(scene.routes.dispatch(Via::Control, made("news", 11)), Dispatch::Taken));
    assert!(matches!(scene.order(), Some((_, ClientMessage::Unsubscribe { .. }))));
    // Asked for again, it is the client's own.
    scene.add("news");
    assert!(matches!(scene.order(), Some((_, ClientMessage::Subscribe(_)))));
    scene.routes.disconnected();
    scene.routes.connected(&announced);
    assert!(matches!(scene.order(), Some((_, ClientMessage::Unsubscribe { .. }))), "it takes the server's place");
    assert!(matches!(scene.routes.dispatch(Via::Control, made("news", 11)), Dispatch::Taken));
    assert!(matches!(scene.order(), Some((_, ClientMessage::Subscribe(_)))));
}

#[test]
fn a_subscription_that_the_server_no_longer_makes_has_ended() {
    let mut scene = Scene::default();
    scene.routes.connected(&["news".to_owned()]);
    assert!(matches!(scene.routes.dispatch(Via::Control, made("news", 3)), Dispatch::Unclaimed(_)));
    let queue = Queue::new("news", 100, Keep::All);
    let (sender, _opened) = oneshot::channel();
    let request = Subscribe::new(TopicPattern::new("news").expect("a topic"));
    let Ok(Added::Claimed(_, queue, _)) = scene.routes.add(request, queue, sender) else { panic!("it is there") };
    scene.reconnect();
    let ended = queue.try_next().map(|item| item.event);
    assert!(matches!(ended, Some(TopicEvent::Ended(Ended::ByServer(error))) if error.code == 403));
}
