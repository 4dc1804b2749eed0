//! Which lane a message has to come on, and what becomes of one that comes on another.

use super::*;

#[test]
fn messages_before_their_subscribed_wait_on_topic_lanes() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, |subscribe| subscribe.since = position("e", 1));
    let unsettled = scene.routes.dispatch(Via::Lane(1), message("t", 2));
    assert!(matches!(unsettled, Dispatch::Unclaimed(_)), "not asked for yet: {unsettled:?}");
    let (id, _) = scene.asked();
    let unsettled = scene.routes.dispatch(Via::Lane(1), message("t", 2));
    assert!(matches!(unsettled, Dispatch::Unsettled(_)), "{unsettled:?}");
    let subscribed = recovered_on(1, "e", 2, false);
    assert!(scene.routes.settle(id, ServerMessage::Subscribed(subscribed)).is_none());
    scene.take(Via::Lane(1), "t", 2);
    assert_eq!(reader.events(), ["missed of t", "2"]);
}

#[test]
fn messages_of_a_pattern_stay_its_own_when_the_exact_topic_is_subscribed_to() {
    let mut scene = Scene::connected();
    let pattern = scene.add("t.*");
    scene.answer(pattern_on(Some(1)));
    let exact = scene.add_with("t.a", 100, |subscribe| subscribe.since = position("e", 5));
    let (id, _) = scene.asked();
    scene.take(Via::Lane(1), "t.a", 8);
    let subscribed = recovered_on(2, "e", 9, true);
    assert!(scene.routes.settle(id, ServerMessage::Subscribed(subscribed)).is_none());
    scene.take(Via::Lane(1), "t.a", 9);
    for offset in 6..=9 {
        scene.take(Via::Lane(2), "t.a", offset);
    }
    assert_eq!(pattern.events(), ["8", "9"]);
    assert_eq!(exact.events(), ["6", "7", "8", "9"]);
}

#[test]
fn messages_of_an_ended_subscription_are_not_given_to_the_next_to_the_same_text() {
    let mut scene = Scene::connected();
    let first = scene.add("t");
    scene.answer(live("e", 4, Some(1)));
    scene.take(Via::Lane(1), "t", 5);
    scene.routes.leave(first.number, None, false);
    let again = scene.add_with("t", 100, |subscribe| subscribe.since = position("e", 5));
    assert!(matches!(scene.order(), Some((_, ClientMessage::Unsubscribe { .. }))));
    let (id, _) = scene.asked();
    let early = scene.routes.dispatch(Via::Lane(1), message("t", 9));
    assert!(matches!(early, Dispatch::Unsettled(_)), "{early:?}");
    let subscribed = recovered_on(2, "e", 9, true);
    assert!(scene.routes.settle(id, ServerMessage::Subscribed(subscribed)).is_none());
    scene.take(Via::Lane(1), "t", 9);
    assert!(matches!(scene.routes.dispatch(Via::Lane(1), gap("t", 6, 8)), Dispatch::Taken));
    for offset in 6..=9 {
        scene.take(Via::Lane(2), "t", offset);
    }
    assert_eq!(again.events(), ["6", "7", "8", "9"]);
}

#[test]
fn on_the_control_lane_the_answer_separates_the_old_subscription_from_the_new() {
    let mut scene = Scene::connected();
    let pattern = scene.add("t.*");
    let first = scene.add("t.a");
    scene.answer(pattern_on(None));
    scene.answer(live("e", 4, None));
    scene.routes.leave(first.number, None, false);
    let again = scene.add("t.a");
    assert!(matches!(scene.order(), Some((_, ClientMessage::Unsubscribe { .. }))));
    let (id, _) = scene.asked();
    scene.take(CONTROL, "t.a", 5);
    assert!(scene.routes.settle(id, ServerMessage::Subscribed(live("e", 5, None))).is_none());
    scene.take(CONTROL, "t.a", 6);
    assert_eq!(again.events(), ["6"]);
    assert!(pattern.events().is_empty());
}

#[test]
fn a_pattern_that_shares_the_old_lane_gets_nothing_of_a_topic_that_is_subscribed_to_again() {
    let mut scene = Scene::connected();
    let pattern = scene.add("t.*");
    let first = scene.add("t.a");
    scene.answer(pattern_on(Some(1)));
    scene.answer(live("e", 4, Some(1)));
    scene.routes.leave(first.number, None, false);
    let again = scene.add_with("t.a", 100, |subscribe| subscribe.since = position("e", 4));
    assert!(matches!(scene.order(), Some((_, ClientMessage::Unsubscribe { .. }))));
    scene.answer(recovered_on(2, "e", 5, true));
    scene.take(Via::Lane(1), "t.a", 5);
    scene.take(Via::Lane(2), "t.a", 5);
    assert_eq!(again.events(), ["5"]);
    assert!(pattern.events().is_empty());
    // Left for good, its messages are the pattern's, which has this lane as well.
    scene.routes.leave(again.number, None, false);
    scene.take(Via::Lane(2), "t.a", 6);
    scene.take(Via::Lane(1), "t.a", 7);
    assert_eq!(pattern.events(), ["7"]);
}

#[test]
fn a_lane_is_bound_while_a_live_subscription_expects_messages_there() {
    let mut scene = Scene::connected();
    let reader = scene.add("t");
    assert!(!scene.routes.is_bound(1));
    scene.answer(live("e", 0, Some(1)));
    assert!(scene.routes.is_bound(1) && !scene.routes.is_bound(2));
    scene.routes.leave(reader.number, None, false);
    assert!(!scene.routes.is_bound(1));
    let _again = scene.add("t");
    scene.reconnect();
    scene.answer(live("e", 0, Some(1)));
    scene.routes.disconnected();
    assert!(!scene.routes.is_bound(1));
}
