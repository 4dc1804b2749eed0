//! Each overflow policy on its own, and all of them against their common invariants.

use proptest::prelude::*;

use super::*;

#[derive(Debug)]
struct Topic(&'static str);

impl DropNotice for Topic {
    fn name(&self) -> &str {
        self.0
    }

    fn gap(&self, first: u64, last: u64) -> Bytes {
        format!("{} lost {first}-{last}", self.0).into()
    }
}

fn topic(name: &'static str) -> Arc<dyn DropNotice> {
    Arc::new(Topic(name))
}

/// Sources that have no group.
const SOURCES: usize = 3;

/// A lane with room for four messages and 100 bytes, in a client with room for ten messages and 1,000 bytes.
fn backlog() -> (Backlog, Budget) {
    (
        Backlog::new(Bounds { messages: 4, bytes: 100 }),
        Budget::new(Bounds { messages: 10, bytes: 1000 }, SOURCES, Arc::new(())),
    )
}

fn offer(lane: &mut (Backlog, Budget), topic: &Arc<dyn DropNotice>, offset: u64, overflow: Overflow) -> bool {
    offer_by(lane, topic, offset, overflow, None)
}

fn offer_by(
    lane: &mut (Backlog, Budget),
    topic: &Arc<dyn DropNotice>,
    offset: u64,
    overflow: Overflow,
    group: Option<&Arc<dyn DropNotice>>,
) -> bool {
    let may_drop = matches!(overflow, Overflow::DropOldest | Overflow::Latest);
    let mark = Mark::Topic { source: Arc::clone(topic), offset, may_drop, group: group.cloned() };
    lane.0.offer(format!("message {offset}").into(), mark, overflow, &lane.1)
}

fn waiting(lane: &(Backlog, Budget)) -> Vec<String> {
    lane.0.frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
}

#[test]
fn a_message_beyond_the_bounds_is_refused_if_nothing_may_be_dropped() {
    let (mut lane, a) = (backlog(), topic("a"));
    for offset in 1..=4 {
        assert!(offer(&mut lane, &a, offset, Overflow::Refuse));
    }
    assert!(!offer(&mut lane, &a, 5, Overflow::Refuse), "four may wait");
    assert!(offer(&mut lane, &a, 5, Overflow::Exempt), "its sender has checked for room");
    assert_eq!(waiting(&lane).len(), 5);
    for offset in 6..=8 {
        assert!(offer(&mut lane, &a, offset, Overflow::Exempt));
    }
    assert!(
        !offer(&mut lane, &a, 9, Overflow::Exempt),
        "several senders may see the same room: up to twice the bounds"
    );
    for offset in 9..20 {
        assert!(offer(&mut lane, &a, offset, Overflow::Append), "its sender bounds it");
    }
}

#[test]
fn an_unsolicited_message_displaces_only_droppable_messages() {
    let (mut lane, a) = (backlog(), topic("a"));
    for (offset, overflow) in [(1, Overflow::Refuse), (2, Overflow::DropOldest), (3, Overflow::DropOldest)] {
        assert!(offer(&mut lane, &a, offset, overflow));
    }
    let push = |lane: &mut (Backlog, Budget)| lane.0.offer("pushed".into(), Mark::Plain, Overflow::Displace, &lane.1);
    assert_eq!([push(&mut lane), push(&mut lane), push(&mut lane), push(&mut lane)], [true, true, true, false]);
    assert_eq!(waiting(&lane), ["message 1", "a lost 2-3", "pushed", "pushed", "pushed"]);
}

#[test]
fn the_oldest_messages_are_dropped_and_one_gap_covers_them_all() {
    let (mut lane, a) = (backlog(), topic("a"));
    for offset in 1..=7 {
        assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
    }
    assert_eq!(waiting(&lane), ["a lost 1-3", "message 4", "message 5", "message 6", "message 7"]);
}

#[test]
fn a_partly_written_frame_is_finished_and_not_dropped() {
    let (mut lane, a) = (backlog(), topic("a"));
    let mark = Mark::Topic { source: Arc::clone(&a), offset: 1, may_drop: true, group: None };
    lane.0.put("ge 1".into(), 9, mark, &lane.1);
    for offset in 2..=6 {
        assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
    }
    assert_eq!(waiting(&lane), ["ge 1", "a lost 2-3", "message 4", "message 5", "message 6"]);
    // The gap itself may be partly written; later drops then get another one.
    lane.0.written(1, 4, &lane.1);
    let written = lane.0.turn(0)[0].split_to(3).len();
    lane.0.written(0, written, &lane.1);
    for offset in 7..=8 {
        assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
    }
    assert_eq!(waiting(&lane), ["ost 2-3", "a lost 4-4", "message 5", "message 6", "message 7", "message 8"]);
}

#[test]
fn only_the_newest_message_of_a_stateful_topic_waits_in_the_position_of_the_older() {
    let (mut lane, a, b) = (backlog(), topic("a"), topic("b"));
    for (topic, offset) in [(&a, 1), (&b, 2), (&a, 3), (&a, 4)] {
        assert!(offer(&mut lane, topic, offset, Overflow::Latest));
    }
    assert_eq!(waiting(&lane), ["message 4", "message 2"]);
}

#[test]
fn if_nothing_waiting_may_be_dropped_the_new_message_is_and_a_gap_reports_it() {
    let (mut lane, a, b) = (backlog(), topic("a"), topic("b"));
    for offset in 1..=4 {
        assert!(offer(&mut lane, &a, offset, Overflow::Refuse));
    }
    for offset in 1..=3 {
        assert!(offer(&mut lane, &b, offset, Overflow::DropOldest));
    }
    assert_eq!(waiting(&lane)[4..], ["b lost 1-3"]);
}

#[test]
fn the_backlogs_of_other_lanes_count() {
    let (mut one, mut other, a) = (backlog().0, backlog(), topic("a"));
    for offset in 1..=4 {
        let mark = Mark::Topic { source: Arc::clone(&a), offset, may_drop: false, group: None };
        assert!(one.offer(Bytes::from(vec![0; 20]), mark, Overflow::Refuse, &other.1));
    }
    other.1.bounds.messages = 6;
    for offset in 1..=2 {
        assert!(offer(&mut other, &a, offset, Overflow::Refuse));
    }
    assert!(!offer(&mut other, &a, 3, Overflow::Refuse), "six may wait on both lanes together");
    one.clear(&other.1);
    assert!(offer(&mut other, &a, 3, Overflow::Refuse));
}

#[test]
fn a_frame_behind_dropped_messages_has_passed_only_once_it_has_left() {
    let (mut lane, a) = (backlog(), topic("a"));
    for offset in 1..=3 {
        assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
    }
    lane.0.put("reply".into(), 5, Mark::Plain, &lane.1);
    let reply = lane.0.last();
    for offset in 4..=9 {
        assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
    }
    let order = ["a lost 1-6", "reply", "message 7", "message 8", "message 9"];
    assert_eq!(waiting(&lane), order);
    for frame in order {
        assert_eq!(lane.0.has_passed(reply), frame.starts_with("message"), "before {frame} has left");
        lane.0.turn(0)[0].clear();
        lane.0.written(1, frame.len(), &lane.1);
    }
}

#[test]
fn gaps_are_bounded_too() {
    let mut lane = backlog();
    let topics: Vec<_> = (0..13).map(|_| topic("t")).collect();
    let accepted: Vec<_> = topics.iter().map(|topic| offer(&mut lane, topic, 1, Overflow::DropOldest)).collect();
    // One message or gap each, for as many messages and gaps as may wait, and one gap for each source.
    let most = 4 + 4 + SOURCES;
    assert_eq!(accepted, (0..13).map(|n| n < most).collect::<Vec<_>>());
}

#[test]
fn a_pattern_subscription_has_one_gap_once_there_would_be_too_many() {
    let (mut lane, pattern, exact) = (backlog(), topic("t.*"), topic("exact"));
    lane.0.bounds.messages = 4 * MESSAGES_FOR_A_GAP;
    let topics: Vec<_> = (0..100).map(|_| topic("t")).collect();
    // Dropping makes too little room for any of them: none waits.
    lane.0.bounds.bytes = 5;
    assert!(lane.0.offer("full".into(), Mark::Plain, Overflow::Refuse, &lane.1));
    assert!(offer(&mut lane, &exact, 1, Overflow::DropOldest));
    for topic in &topics[..3] {
        assert!(offer_by(&mut lane, topic, 1, Overflow::DropOldest, Some(&pattern)));
    }
    assert_eq!(waiting(&lane), ["full", "exact lost 1-1", "t lost 1-1", "t lost 1-1", "t lost 1-1"]);
    for topic in &topics {
        assert!(offer_by(&mut lane, topic, 2, Overflow::DropOldest, Some(&pattern)));
    }
    assert_eq!(waiting(&lane), ["full", "exact lost 1-1", "t.* lost 0-0"], "one gap replaces them all");
    assert_eq!(lane.0.bytes, waiting(&lane).iter().map(String::len).sum::<usize>());
    let gap = |source: &Arc<dyn DropNotice>, group: Option<&Arc<dyn DropNotice>>| Gap {
        source: Arc::clone(source),
        first: 2,
        last: 5,
        group: group.cloned(),
    };
    assert!(lane.0.add_gap(gap(&topics[7], Some(&pattern)), &lane.1), "it also covers messages lost elsewhere");
    assert!(lane.0.add_gap(gap(&exact, None), &lane.1));
    assert_eq!(waiting(&lane), ["full", "exact lost 1-5", "t.* lost 0-0"]);
}

#[test]
fn a_loss_elsewhere_is_reported_once_and_further_gaps_are_refused() {
    let mut lane = backlog();
    let topics: Vec<_> = (0..50).map(|_| topic("t")).collect();
    lane.0.put("x".into(), 1, Mark::Plain, &lane.1);
    let gap = |source: &Arc<dyn DropNotice>, first, last| Gap { source: Arc::clone(source), first, last, group: None };
    for _ in 0..1000 {
        assert!(lane.0.add_gap(gap(&topics[0], 65, 100), &lane.1));
    }
    assert!(lane.0.add_gap(gap(&topics[0], 101, 102), &lane.1));
    assert_eq!(waiting(&lane), ["x", "t lost 65-102"]);
    assert!(lane.0.add_gap(gap(&topics[0], 200, 300), &lane.1), "messages between them were not lost");
    assert_eq!(waiting(&lane), ["x", "t lost 65-102", "t lost 200-300"]);
    let reported = topics[1..].iter().filter(|topic| lane.0.add_gap(gap(topic, 1, 2), &lane.1)).count();
    assert_eq!(reported, 4 + SOURCES - 2);
}

#[test]
fn nothing_is_dropped_if_that_makes_no_room() {
    let (mut lane, a) = (backlog(), topic("a"));
    for offset in 1..=3 {
        assert!(offer(&mut lane, &a, offset, Overflow::DropOldest));
    }
    let large = Mark::Topic { source: Arc::clone(&a), offset: 4, may_drop: true, group: None };
    assert!(lane.0.offer(Bytes::from(vec![0; 101]), large, Overflow::DropOldest, &lane.1));
    assert_eq!(waiting(&lane), ["message 1", "message 2", "message 3", "a lost 4-4"]);
    let sources = lane.0.sources();
    assert_eq!(sources.iter().map(|source| source.name()).collect::<Vec<_>>(), ["a"]);
    lane.0.forget(&HashSet::from([Arc::as_ptr(&sources[0]).addr()]), &lane.1);
    assert_eq!(lane.1.waiting(), (0, 0));
    assert!(lane.0.is_empty(), "an unsubscribed topic is forgotten");
}

proptest! {
    /// For any sequence of offers and writes: the bounds hold, the accounts are right, and each offset of each topic is
    /// either sent once or reported as lost by a gap in its position.
    #[test]
    fn every_message_is_sent_or_reported_as_lost_in_its_position(
        steps in prop::collection::vec((0..3_usize, 0..4_usize, 1..40_usize), 0..200),
    ) {
        let names = ["a", "b", "c"];
        let topics = names.map(topic);
        let (mut backlog, budget) = backlog();
        let mut newest = [0_u64; 3];
        let mut sent = Vec::new();
        let take = |backlog: &mut Backlog, sent: &mut Vec<u8>, bytes: usize| {
            let (mut whole, mut left, mut written) = (0, bytes, 0);
            for frame in backlog.turn(bytes) {
                let part = frame.split_to(left.min(frame.len()));
                sent.extend_from_slice(&part);
                (left, written) = (left - part.len(), written + part.len());
                if !frame.is_empty() {
                    break;
                }
                whole += 1;
            }
            backlog.written(whole, written, &budget);
        };
        for (of, action, size) in steps {
            if action == 3 {
                take(&mut backlog, &mut sent, size);
                continue;
            }
            newest[of] += 1;
            let frame = format!("[{} {} {}]", names[of], newest[of], "x".repeat(size));
            let mark = Mark::Topic { source: Arc::clone(&topics[of]), offset: newest[of], may_drop: true, group: None };
            if !backlog.offer(frame.into(), mark, Overflow::DropOldest, &budget) {
                // The client is disconnected; everything that it was told before is right.
                newest[of] -= 1;
                prop_assert!(backlog.gaps() >= 4 + SOURCES, "only too many gaps are a reason to refuse");
                break;
            }
            prop_assert!(backlog.messages <= 4);
            let messages = backlog.marks.iter().filter(|marked| marked.mark.counts()).count();
            let bytes = backlog.frames.iter().map(Bytes::len).sum::<usize>();
            prop_assert_eq!((messages, bytes), (backlog.messages, backlog.bytes));
            prop_assert_eq!(budget.waiting(), (messages, bytes));
        }
        while !backlog.is_empty() {
            take(&mut backlog, &mut sent, 7);
        }
        let sent = String::from_utf8(sent).unwrap();
        for (of, name) in names.iter().enumerate() {
            let mut next = 1;
            for part in sent.replace(']', "[").split('[') {
                let words: Vec<&str> = part.split(' ').collect();
                // Gaps are between the brackets of messages, one after the other.
                for gap in words.windows(3).filter(|gap| gap[1] == "lost" && gap[0].ends_with(name)) {
                    let (first, last) = gap[2].split_once('-').unwrap();
                    let last: String = last.chars().take_while(char::is_ascii_digit).collect();
                    prop_assert_eq!(first.parse::<u64>().unwrap(), next, "{}", sent);
                    next = last.parse::<u64>().unwrap() + 1;
                }
                if words[0] == *name && words.get(1) != Some(&"lost") {
                    prop_assert_eq!(words[1].parse::<u64>().unwrap(), next, "{}", sent);
                    next += 1;
                }
            }
            prop_assert_eq!(next, newest[of] + 1, "{}: {}", name, sent);
        }
    }
}
