//! Subscriptions to durable consumers and queue groups: the server decides what comes, and what comes again.

use super::*;
use crate::message::{ConsumerFields, ConsumerName};

fn durable(subscribe: &mut Subscribe) {
    let durable = ConsumerName::new("w").ok();
    subscribe.consumer = ConsumerFields { durable, ..ConsumerFields::default() }.check().expect("within bounds");
}

fn share(subscribe: &mut Subscribe) {
    subscribe.consumer = ConsumerFields { share: true, ..ConsumerFields::default() }.check().expect("within bounds");
}

/// A message that the consumer `w` delivers.
fn delivery(topic: &str, offset: u64, tries: Option<u64>) -> ServerMessage {
    let mut message = TopicMessage::new(topic, offset, Payload::text("x"), 0);
    (message.durable, message.tries) = (Some("w".into()), tries);
    ServerMessage::Message(message)
}

impl Scene {
    fn deliver(&mut self, via: Via, topic: &str, offset: u64, tries: Option<u64>) {
        let dispatch = self.routes.dispatch(via, delivery(topic, offset, tries));
        assert!(matches!(dispatch, Dispatch::Taken), "{dispatch:?}");
    }
}

#[test]
fn a_consumers_messages_come_again_and_out_of_order() {
    let mut scene = Scene::connected();
    let mut reader = scene.add_with("t", 100, |subscribe| {
        durable(subscribe);
        subscribe.recent = Some(10);
    });
    assert_eq!(scene.answer(live("e", 9, Some(1))).recent, Some(10));
    assert_eq!(reader.opened.try_recv().expect("an answer").expect("it is there"), None, "the server has the position");
    for (offset, tries) in [(8, None), (9, None)] {
        scene.deliver(Via::Lane(1), "t", offset, tries);
    }
    assert_eq!(reader.events(), ["8", "9"]);
    for (offset, tries) in [(9, Some(2)), (8, Some(2)), (10, None), (8, Some(3))] {
        scene.deliver(Via::Lane(1), "t", offset, tries);
        assert_eq!(reader.events(), [offset.to_string()]);
    }
}

#[test]
fn a_delivery_that_was_not_read_is_replaced_by_the_next_of_the_same_message() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, durable);
    scene.answer(live("e", 0, Some(1)));
    for (offset, tries) in [(1, None), (2, None), (1, Some(2)), (1, Some(3))] {
        scene.deliver(Via::Lane(1), "t", offset, tries);
    }
    let Some(TopicEvent::Message(first)) = reader.queue.try_next().map(|item| item.event) else { panic!("no message") };
    assert_eq!((first.offset, first.tries), (1, Some(3)));
    assert_eq!(reader.events(), ["2"]);
}

#[test]
fn a_consumer_is_resumed_by_its_name_and_delivers_again_what_was_not_read() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, |subscribe| {
        durable(subscribe);
        subscribe.since_time = Some(7);
    });
    assert_eq!(scene.answer(live("e", 5, Some(1))).since_time, Some(7));
    scene.deliver(Via::Lane(1), "t", 4, None);
    scene.deliver(Via::Lane(1), "t", 5, None);
    assert!(matches!(reader.queue.try_next().map(|item| item.event), Some(TopicEvent::Message(_))));
    scene.reconnect();
    let asked = scene.answer(live("e", 6, Some(1)));
    assert_eq!((asked.since, asked.since_time, asked.recent), (None, None, None));
    assert_eq!(asked.consumer.as_ref().and_then(|it| it.durable()).map(|it| it.name.as_str()), Some("w"));
    for (offset, tries) in [(4, Some(2)), (5, Some(2)), (6, None)] {
        scene.deliver(Via::Lane(1), "t", offset, tries);
    }
    assert_eq!(reader.events(), ["4", "5", "6"], "5 waited and is there once");
}

#[test]
fn only_what_a_consumer_cannot_deliver_is_missed() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, |subscribe| {
        durable(subscribe);
        subscribe.since = position("d", 3);
    });
    scene.answer(recovered("e", 5, false));
    assert_eq!(reader.events(), ["missed of t"]);
    assert!(matches!(scene.routes.dispatch(CONTROL, gap("t", 1, 3)), Dispatch::Taken));
    assert_eq!(reader.events(), ["missed 1..=3"]);
    scene.reconnect();
    scene.answer(live("e", 5, None));
    assert!(reader.events().is_empty());
    scene.reconnect();
    scene.answer(live("f", 2, None));
    scene.deliver(CONTROL, "t", 1, None);
    assert_eq!(reader.events(), ["missed of t", "1"], "the log was started again");
}

#[test]
fn a_consumer_and_a_pattern_each_get_their_own_copy() {
    let mut scene = Scene::connected();
    let (exact, pattern) = (scene.add_with("t.a", 100, durable), scene.add("t.*"));
    scene.answer(live("e", 0, None));
    scene.answer(pattern_on(None));
    scene.take(CONTROL, "t.a", 1);
    scene.deliver(CONTROL, "t.a", 1, None);
    scene.deliver(CONTROL, "t.a", 1, Some(2));
    scene.take(CONTROL, "t.b", 7);
    assert_eq!((exact.events(), pattern.events()), (vec!["1".to_owned()], vec!["1".to_owned(), "7".to_owned()]));
    // Of another consumer of the topic, which this client has left.
    let mut stray = TopicMessage::new("t.a", 2, Payload::text("x"), 0);
    stray.durable = Some("v".into());
    assert!(matches!(scene.routes.dispatch(CONTROL, ServerMessage::Message(stray)), Dispatch::Taken));
    assert_eq!((exact.events().len(), pattern.events().len()), (0, 0));
}

#[test]
fn a_delivery_before_the_answer_waits_for_it() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, durable);
    let (id, _) = scene.asked();
    let early = scene.routes.dispatch(Via::Lane(1), delivery("t", 3, None));
    assert!(matches!(early, Dispatch::Unsettled(_)), "{early:?}");
    assert!(scene.routes.settle(id, ServerMessage::Subscribed(live("e", 5, Some(1)))).is_none());
    scene.deliver(Via::Lane(1), "t", 3, None);
    assert_eq!(reader.events(), ["3"]);
}

#[test]
fn a_client_that_takes_over_ends_the_subscription_and_it_is_not_asked_for_again() {
    let mut scene = Scene::connected();
    let (reader, plain) = (scene.add_with("t", 100, durable), scene.add("u"));
    scene.answer(live("e", 0, Some(1)));
    scene.answer(live("e", 0, Some(2)));
    for topic in ["t", "u"] {
        let ended = ServerMessage::Unsubscribed { topic: topic.into(), code: 409, reason: Some("taken".into()) };
        assert!(matches!(scene.routes.dispatch(CONTROL, ended), Dispatch::Taken));
    }
    assert_eq!((reader.events(), plain.events()), (vec!["taken over".to_owned()], vec!["ended 409".to_owned()]));
    scene.reconnect();
    assert!(scene.order().is_none());
}

#[test]
fn a_consumer_is_forgotten_with_its_subscription() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, durable);
    scene.answer(live("e", 0, Some(1)));
    scene.routes.leave(reader.number, None, true);
    let farewell = scene.order();
    assert!(matches!(&farewell, Some((_, ClientMessage::Unsubscribe { forget: true, .. }))), "{farewell:?}");
}

#[test]
fn a_queue_group_has_no_position() {
    let mut scene = Scene::connected();
    let mut reader = scene.add_with("t", 100, share);
    scene.answer(live("e", 5, Some(1)));
    assert_eq!(reader.opened.try_recv().expect("an answer").expect("it is there"), None);
    scene.take(Via::Lane(1), "t", 6);
    scene.take(Via::Lane(1), "t", 9);
    scene.reconnect();
    let asked = scene.answer(live("f", 2, Some(1)));
    assert_eq!((asked.since, asked.consumer), (None, Some(crate::message::ConsumerRequest::Group)));
    scene.take(Via::Lane(1), "t", 3);
    assert_eq!(reader.events(), ["6", "9", "3"]);
}
