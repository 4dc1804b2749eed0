//! Any two texts as a topic or a pattern: they are accepted if the rules of docs/PROTOCOL.md, section 8, allow it, and
//! matches and covers agree with a simple model of these rules.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use quic_websocket::message::{MAX_TOPIC_BYTES, TopicName, TopicPattern};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (one, other) = text.split_once('\n').unwrap_or((text, text));
    for text in [one, other] {
        let (is_topic, is_pattern) = (allowed(text, false), allowed(text, true));
        assert_eq!(TopicName::new(text).is_ok(), is_topic, "{text:?} as a topic");
        assert_eq!(TopicPattern::new(text).is_ok(), is_pattern, "{text:?} as a pattern");
        if let Err(invalid) = TopicPattern::new(text) {
            assert!(invalid.message.len() < 300, "a long text about a wrong pattern");
        }
    }
    let Ok(pattern) = TopicPattern::new(one) else { return };
    assert_eq!(pattern.is_wildcard(), !allowed(one, false));
    // For any comparison: no panic, and no match with a text that is not the first levels of a topic.
    let found = pattern.matches(other);
    if allowed(other, false) {
        assert_eq!(found, matches(&levels(one), &levels(other)), "{one} for {other}");
    }
    if let Ok(wider) = TopicPattern::new(other) {
        assert_eq!(wider.covers(&pattern), covers(&levels(other), &levels(one)), "{other} covers {one}");
        assert!(pattern.covers(&pattern) && TopicPattern::everything().covers(&pattern));
    }
});

fn levels(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

fn allowed(text: &str, pattern: bool) -> bool {
    let levels = levels(text);
    let word =
        |level: &str| !level.is_empty() && level.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let wild = |at: usize| levels[at] == "*" || (levels[at] == ">" && at + 1 == levels.len());
    text.len() <= MAX_TOPIC_BYTES && (0..levels.len()).all(|at| word(levels[at]) || (pattern && wild(at)))
}

fn matches(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        ([], []) | ([">"], [_, ..]) => true,
        ([wanted, pattern @ ..], [level, topic @ ..]) => (*wanted == "*" || wanted == level) && matches(pattern, topic),
        _ => false,
    }
}

/// Whether one matches everything another does: with a unique word for each `*`, and one to many for a `>`.
fn covers(wider: &[&str], pattern: &[&str]) -> bool {
    let unheard_of = "x".repeat(MAX_TOPIC_BYTES + 1);
    let (ends, count) = if pattern.last() == Some(&">") { (1, wider.len() + 1) } else { (0, 0) };
    let known = &pattern[..pattern.len() - ends];
    let topic: Vec<&str> = known.iter().map(|level| if *level == "*" { &*unheard_of } else { level }).collect();
    (ends..=count).all(|more| matches(wider, &[&topic[..], &vec![&*unheard_of; more]].concat()))
}
