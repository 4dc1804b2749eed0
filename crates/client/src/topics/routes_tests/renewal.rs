//! What a subscription asks for and tells after a reconnect, and after a refusal.

use super::*;

#[test]
fn after_a_reconnect_a_subscription_resumes_behind_its_last_message() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, |subscribe| subscribe.recent = Some(5));
    assert_eq!(scene.answer(live("e", 7, None)).recent, Some(5));
    scene.take(CONTROL, "t", 6);
    scene.take(CONTROL, "t", 7);
    scene.reconnect();
    let asked = scene.answer(recovered("e", 9, true));
    assert_eq!((asked.since, asked.recent), (position("e", 7), None));
    for offset in 6..=9 {
        scene.take(CONTROL, "t", offset);
    }
    assert_eq!(reader.events(), ["6", "7", "8", "9"]);
}

/// Answers the next request, which has to ask where the three newest messages up to `newest` begin.
fn answer_history(scene: &mut Scene, newest: u64, reply: ServerMessage) {
    match scene.order() {
        Some((id, ClientMessage::History { topic, since, limit: 3, reverse: true, .. })) => {
            assert_eq!((topic.as_str(), since), ("t", position("e", newest + 1)));
            assert!(scene.routes.settle(id, reply).is_none());
        }
        other => panic!("expected history, got {other:?}"),
    }
}

fn page(epoch: &str, offsets: &[u64], more: bool) -> ServerMessage {
    let message = |offset: &u64| {
        let json = format!(r#"{{"type":"message","topic":"t","offset":{offset},"content":"x","timestamp":1}}"#);
        serde_json::value::RawValue::from_string(json).expect("JSON")
    };
    ServerMessage::History {
        topic: "t".into(),
        epoch: epoch.into(),
        offset: Some(130),
        recovered: None,
        messages: offsets.iter().map(message).collect(),
        more,
    }
}

#[test]
fn recent_messages_that_never_came_are_located_and_all_come_however_offsets_jump() {
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, |subscribe| subscribe.recent = Some(3));
    scene.answer(live("e", 100, Some(1)));
    scene.reconnect();
    answer_history(&mut scene, 100, page("e", &[100, 70, 40], true));
    let asked = scene.answer(recovered("e", 130, true));
    assert_eq!((asked.since, asked.recent), (position("e", 39), None));
    for offset in [40, 70, 100, 130] {
        scene.take(CONTROL, "t", offset);
    }
    assert_eq!(reader.events(), ["40", "70", "100", "130"]);
    scene.reconnect();
    assert_eq!(scene.asked().1.since, position("e", 130));
}

#[test]
fn recent_messages_that_cannot_be_located_are_reported_unless_there_are_none() {
    let error = |code: u16| ServerMessage::Error(ErrorReply::new(code, "no"));
    for (reply, events, since) in [
        (page("e", &[], false), vec![], position("e", 100)),
        (page("e", &[101], true), vec!["missed of t"], position("e", 100)),
        (page("f", &[7], false), vec![], position("e", 0)),
        (error(404), vec![], position("e", 100)),
        (error(403), vec!["missed of t"], position("e", 100)),
    ] {
        let mut scene = Scene::connected();
        let reader = scene.add_with("t", 100, |subscribe| subscribe.recent = Some(3));
        scene.answer(live("e", 100, None));
        scene.reconnect();
        answer_history(&mut scene, 100, reply);
        assert_eq!(reader.events(), events);
        assert_eq!(scene.asked().1.since, since);
    }
    // A first page that is not whole, and no second one.
    for (reply, events) in [(error(403), vec!["missed of t"]), (page("e", &[], false), vec![])] {
        let mut scene = Scene::connected();
        let reader = scene.add_with("t", 100, |subscribe| subscribe.recent = Some(3));
        scene.answer(live("e", 100, None));
        scene.reconnect();
        answer_history(&mut scene, 100, page("e", &[100], true));
        let Some((id, ClientMessage::History { since, limit: 2, .. })) = scene.order() else { panic!("no history") };
        assert_eq!(since, position("e", 100));
        assert!(scene.routes.settle(id, reply).is_none());
        assert_eq!(
            (reader.events(), scene.asked().1.since),
            (events.into_iter().map(str::to_owned).collect(), position("e", 99))
        );
    }
    let mut scene = Scene::connected();
    let reader = scene.add_with("t", 100, |subscribe| subscribe.recent = Some(3));
    scene.answer(live("e", 100, None));
    scene.reconnect();
    answer_history(&mut scene, 100, error(503));
    assert!(scene.order().is_none(), "it is asked again later");
    scene.routes.leave(reader.number, None, false);
    assert!(scene.order().is_none(), "the server never knew of it on this connection");
}

#[test]
fn messages_that_never_came_are_asked_for_again() {
    let mut scene = Scene::connected();
    let recent = scene.add_with("t", 100, |subscribe| subscribe.recent = Some(3));
    let _live = scene.add("live");
    assert!(scene.order().is_some(), "the answer to this one does not come");
    scene.reconnect();
    assert_eq!(scene.answer(live("e", 20, None)).recent, Some(3), "the first answer is still to come");
    scene.answer(live("e", 20, None));
    scene.reconnect();
    answer_history(&mut scene, 20, page("e", &[20, 19, 18], true));
    assert_eq!(scene.answer(recovered("e", 22, true)).since, position("e", 20), "nothing came yet");
    assert_eq!(scene.answer(recovered("e", 22, true)).since, position("e", 17), "three came before");
    assert!(recent.events().is_empty());
}

#[test]
fn a_loss_over_a_reconnect_is_reported_once_before_what_follows() {
    let mut scene = Scene::connected();
    let reader = scene.add("t");
    scene.answer(live("e", 3, None));
    scene.take(CONTROL, "t", 4);
    scene.reconnect();
    scene.answer(recovered("e", 30, false));
    assert_eq!(reader.events(), ["4", "missed of t"]);
    // Nothing new since, and nothing came: it is the same loss.
    scene.reconnect();
    assert_eq!(scene.answer(recovered("e", 30, false)).since, position("e", 4));
    scene.take(CONTROL, "t", 29);
    scene.take(CONTROL, "t", 30);
    assert_eq!(reader.events(), ["29", "30"]);
    scene.reconnect();
    scene.answer(recovered("e", 90, false));
    assert_eq!(reader.events(), ["missed of t"], "a new loss");
}

#[test]
fn another_epoch_is_a_loss_and_starts_a_new_count() {
    let mut scene = Scene::connected();
    let reader = scene.add("t");
    scene.answer(live("e", 3, None));
    scene.take(CONTROL, "t", 4);
    scene.reconnect();
    scene.answer(recovered("f", 0, false));
    scene.take(CONTROL, "t", 1);
    assert_eq!(reader.events(), ["4", "missed of t", "1"]);
    scene.reconnect();
    assert_eq!(scene.answer(recovered("f", 1, true)).since, position("f", 1));
    assert!(reader.events().is_empty());
}

#[test]
fn a_log_that_lost_what_was_seen_is_reported_and_followed() {
    let mut scene = Scene::connected();
    let reader = scene.add("t");
    scene.answer(live("e", 30, None));
    scene.take(CONTROL, "t", 31);
    scene.reconnect();
    assert_eq!(scene.answer(recovered("e", 20, false)).since, position("e", 31));
    scene.take(CONTROL, "t", 21);
    assert_eq!(reader.events(), ["31", "missed of t", "21"]);
    scene.reconnect();
    scene.answer(recovered("e", 20, false));
    assert_eq!(reader.events(), ["missed of t"], "every time");
}

#[test]
fn a_second_loss_before_the_first_was_made_up_for_is_reported_as_well() {
    let mut scene = Scene::connected();
    let reader = scene.add("t");
    scene.answer(live("e", 4, None));
    scene.reconnect();
    scene.answer(recovered("e", 30, false));
    scene.take(CONTROL, "t", 10);
    scene.reconnect();
    scene.answer(recovered("e", 30, false));
    scene.take(CONTROL, "t", 25);
    assert_eq!(reader.events(), ["missed of t", "10", "missed of t", "25"]);
}

#[test]
fn a_gap_with_its_ends_swapped_is_not_empty() {
    let mut scene = Scene::connected();
    let reader = scene.add("t");
    scene.answer(live("e", 3, None));
    assert!(matches!(scene.routes.dispatch(CONTROL, gap("t", 9, 6)), Dispatch::Taken));
    assert_eq!(reader.events(), ["missed 6..=6"]);
}

#[test]
fn a_subscription_that_is_refused_for_now_is_asked_for_again() {
    let refusal = |code: u16, retry_after_ms| {
        let mut error = ErrorReply::new(code, "not now");
        error.retry_after_ms = retry_after_ms;
        ServerMessage::Error(error)
    };
    let mut scene = Scene::connected();
    let (reader, mut first) = (scene.add("t"), scene.add("first"));
    scene.answer(live("e", 3, None));
    let (id, _) = scene.asked();
    assert!(scene.routes.settle(id, refusal(503, None)).is_none());
    assert!(matches!(first.opened.try_recv(), Ok(Err(ClientError::Server(error))) if error.code == 503));
    scene.reconnect();
    for code in [429, 500, 503] {
        let (id, asked) = scene.asked();
        assert_eq!(asked.since, position("e", 3));
        assert!(scene.routes.settle(id, refusal(code, Some(0))).is_none());
        assert!(matches!(scene.routes.next(), Next::Again(_)));
    }
    let (id, _) = scene.asked();
    assert!(scene.routes.settle(id, refusal(429, Some(600_000))).is_none());
    assert!(scene.order().is_none(), "not before its time");
    scene.reconnect();
    scene.answer(recovered("e", 3, true));
    assert!(scene.routes.next_due_at().is_none(), "what was put off was for the connection before");
    scene.reconnect();
    let (id, _) = scene.asked();
    assert!(scene.routes.settle(id, refusal(503, None)).is_none());
    scene.routes.leave(reader.number, None, false);
    assert!(scene.routes.next_due_at().is_none());
    assert!(reader.events().is_empty() && scene.order().is_none());
}

#[test]
fn a_request_that_cannot_be_sent_ends_its_subscription_alone() {
    let mut scene = Scene::connected();
    let (mut large, other) = (scene.add("large"), scene.add("other"));
    let (id, _) = scene.asked();
    scene.routes.unsendable(id, ClientError::TooLarge { bytes: 300, most: 200 });
    assert!(matches!(large.opened.try_recv(), Ok(Err(ClientError::TooLarge { .. }))));
    scene.answer(live("e", 0, None));
    scene.take(CONTROL, "other", 1);
    assert_eq!(other.events(), ["1"]);
}
