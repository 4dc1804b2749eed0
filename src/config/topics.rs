//! Rules for topics, selected by pattern: the first that matches applies.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, de};

use super::DAY_MS;
use crate::message::{MAX_DELIVER, MAX_TOPIC_BYTES, MAX_USER_BYTES, TopicName, TopicPattern};

/// Longest level that stands for a user.
pub(super) const MAX_USER_LEVEL: usize = 1 + (MAX_USER_BYTES * 4).div_ceil(3);

/// The rule for the topics that a pattern matches. Everything but the pattern may be left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TopicRule {
    /// The topics: a topic, or a pattern with `*` for one level and a final `>` for everything below. A subscription to
    /// a pattern uses the first rule that matches everything the pattern does. Required, because a rule without it
    /// would apply to all topics.
    #[serde(deserialize_with = "pattern")]
    pub pattern: TopicPattern,
    /// Priority of the messages, 0 to 255; 255 is the most urgent. Default 128.
    #[serde(default = "default_of::priority")]
    pub priority: u8,
    /// Treatment of messages for a subscriber that reads too slowly. Default `disconnect`.
    #[serde(default)]
    pub overflow: OverflowPolicy,
    /// How safe a message is before its publisher and its subscribers hear of it. Default `memory`.
    #[serde(default)]
    pub durability: Durability,
    /// Messages kept for new and returning subscribers; 0 keeps none. Default 1,000, at most 1,000,000; on a disk
    /// 1,000,000, at least 1 and at most 2^40.
    #[serde(default)]
    pub history_messages: Option<u64>,
    /// Bytes for these, per topic. In memory, each form in which they are sent counts: at most twice their size.
    /// Default 4 MiB, so that the largest message is kept, too, and at most 1 GiB; on a disk 1 GiB, at least 1 and at
    /// most 2^40.
    #[serde(default)]
    pub history_bytes: Option<u64>,
    /// Age after which they are forgotten, in milliseconds. Default 300,000, at most 30 days; on a disk 7 days, at
    /// least 1 and at most 10 years.
    #[serde(default)]
    pub history_age_ms: Option<u64>,
    /// Whether presence is tracked: who has subscribed, for clients that ask; and how it is shown. In the file `true`
    /// is `"clients"`, and `false` turns it off. Default `"clients"`.
    #[serde(default, deserialize_with = "presence")]
    pub presence: Presence,
    /// Milliseconds for which a member whose connection was lost stays one, so that its return is neither a leave nor a
    /// join. Default 5,000; 0: it leaves at once; at most 600,000.
    #[serde(default = "default_of::presence_grace_ms")]
    pub presence_grace_ms: u64,
    /// Least milliseconds between two events about changes of one member, or about the number of members. Default 100,
    /// at least 10, at most 60,000.
    #[serde(default = "default_of::presence_interval_ms")]
    pub presence_interval_ms: u64,
    /// The clients that may publish, if their permissions ([`Auth`](super::Auth)) allow it. Default `everyone`.
    #[serde(default)]
    pub publish: Who,
    /// The clients that may subscribe and ask for history and presence, likewise. Default `everyone`.
    #[serde(default)]
    pub subscribe: Who,
    /// Whether clients may have durable consumers of the topics. Default true.
    #[serde(default = "default_of::consumers")]
    pub consumers: bool,
    /// Topic to which durable consumers publish the messages that they give up. Default (in the file: an empty string):
    /// none, and these messages are only counted.
    #[serde(default, deserialize_with = "topic_or_none")]
    pub dead_letter: Option<TopicName>,
    /// Deliveries after which a durable consumer gives a message up, unless the client that makes the consumer chooses
    /// another number. Default 0: never; at most 1,000.
    #[serde(default)]
    pub max_deliver: u64,
    /// Whether each topic is the inbox of one user, who may always subscribe to it; others may do so only if their
    /// token says it. The pattern has exactly one `*`, in place of the user, and there is one such rule. Default false.
    #[serde(default)]
    pub inbox: bool,
}

impl TopicRule {
    /// A field that makes no sense, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        let pattern = self.pattern.as_str();
        let stars = pattern.split('.').filter(|&level| level == "*").count();
        if self.inbox && (stars != 1 || pattern.ends_with('>')) {
            return Some(("inbox", "its pattern needs exactly one *, in place of the user, and no >, such as inbox.*"));
        }
        if self.inbox && pattern.len() - 1 + MAX_USER_LEVEL > MAX_TOPIC_BYTES {
            return Some(("inbox", "its pattern is too long for the longest user; use at most 83 bytes beside the *"));
        }
        None
    }

    /// The topic of a user, if this is the rule for inboxes: the pattern with the user in place of `*`.
    pub(crate) fn inbox_of(&self, user: &str) -> Option<TopicName> {
        let inbox = || TopicName::new(&self.pattern.as_str().replace('*', &user_level(user))).ok();
        self.inbox.then(inbox).flatten()
    }
}

/// The level of a topic that stands for a user. A user that is not a level, or begins with `_`, is written as `_` and
/// its base64url (RFC 4648 section 5), so that no two users have the same.
pub(super) fn user_level(user: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if user.bytes().all(is_plain) && !user.starts_with('_') {
        return user.to_owned();
    }
    format!("_{}", BASE64.encode(user))
}

/// How the members of a topic are shown (docs/PROTOCOL.md, "Presence").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Not at all.
    #[serde(skip)]
    Off,
    /// Each connection by itself.
    #[default]
    Clients,
    /// All connections of a user as one.
    Users,
    /// Only how many there are.
    Counts,
}

impl From<bool> for Presence {
    fn from(is_on: bool) -> Self {
        if is_on { Self::Clients } else { Self::Off }
    }
}

/// How safe a message is before its publisher and its subscribers hear of it (docs/DURABILITY.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// In the server's memory: lost when the server ends.
    #[default]
    Memory,
    /// Given to the operating system: outlives the server, and not a loss of power.
    Os,
    /// On the disk: outlives a loss of power as well.
    Fsync,
}

/// The bounds of a topic's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) age_ms: u64,
}

impl TopicRule {
    /// Whether its topics are kept on a disk.
    pub fn is_durable(&self) -> bool {
        self.durability != Durability::Memory
    }

    /// The bounds of the history, with the defaults for what is left out.
    pub(crate) fn history(&self) -> History {
        let (messages, bytes, age_ms) =
            if self.is_durable() { (1_000_000, 1 << 30, 7 * DAY_MS) } else { (1000, 4 << 20, 300_000) };
        History {
            messages: self.history_messages.unwrap_or(messages),
            bytes: self.history_bytes.unwrap_or(bytes),
            age_ms: self.history_age_ms.unwrap_or(age_ms),
        }
    }

    /// Each number with its name, its value, and the least and the greatest one.
    pub(super) fn bounds(&self) -> [(&'static str, u64, u64, u64); 6] {
        let History { messages, bytes, age_ms } = self.history();
        let (least, most) = if self.is_durable() {
            (1, [1 << 40, 1 << 40, 3653 * DAY_MS])
        } else {
            (0, [1_000_000, 1 << 30, 30 * DAY_MS])
        };
        [
            ("history_messages", messages, least, most[0]),
            ("history_bytes", bytes, least, most[1]),
            ("history_age_ms", age_ms, least, most[2]),
            ("max_deliver", self.max_deliver, 0, *MAX_DELIVER.end()),
            ("presence_grace_ms", self.presence_grace_ms, 0, 600_000),
            ("presence_interval_ms", self.presence_interval_ms, 10, 60_000),
        ]
    }
}

/// Treatment of messages for a subscriber that reads too slowly (docs/PROTOCOL.md, "Time and load").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverflowPolicy {
    /// The subscriber is closed with 4413, and resumes from its position later.
    #[default]
    Disconnect,
    /// The oldest queued messages are dropped, and a `gap` names them.
    DropOldest,
    /// Only the newest message of each topic is queued: for state.
    Latest,
    /// Publishers wait for the subscriber, up to `timing.block_timeout_ms`; then their `publish` fails with 503.
    Block,
}

/// The clients that may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Every client.
    #[default]
    Everyone,
    /// Clients authenticated by a token or a certificate.
    Authenticated,
    /// No client.
    Nobody,
}

impl Who {
    /// Whether a client is among them, given whether it is authenticated.
    pub(crate) fn allows(self, is_authenticated: bool) -> bool {
        match self {
            Self::Everyone => true,
            Self::Authenticated => is_authenticated,
            Self::Nobody => false,
        }
    }
}

impl Default for TopicRule {
    fn default() -> Self {
        Self {
            pattern: TopicPattern::everything(),
            priority: 128,
            overflow: OverflowPolicy::default(),
            durability: Durability::default(),
            history_messages: None,
            history_bytes: None,
            history_age_ms: None,
            presence: Presence::default(),
            presence_grace_ms: 5000,
            presence_interval_ms: 100,
            publish: Who::default(),
            subscribe: Who::default(),
            consumers: true,
            dead_letter: None,
            max_deliver: 0,
            inbox: false,
        }
    }
}

/// Defaults of the fields of a rule.
mod default_of {
    use super::TopicRule;

    pub(super) fn priority() -> u8 {
        TopicRule::default().priority
    }

    pub(super) fn presence_grace_ms() -> u64 {
        TopicRule::default().presence_grace_ms
    }

    pub(super) fn presence_interval_ms() -> u64 {
        TopicRule::default().presence_interval_ms
    }

    pub(super) fn consumers() -> bool {
        TopicRule::default().consumers
    }
}

fn presence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Presence, D::Error> {
    deserializer.deserialize_any(PresenceVisitor)
}

/// A truth value, or a text: an untagged enum would not say in an error which texts there are.
struct PresenceVisitor;

impl de::Visitor<'_> for PresenceVisitor {
    type Value = Presence;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("true, false, \"clients\", \"users\" or \"counts\"")
    }

    fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<Presence, E> {
        Ok(is_on.into())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Presence, E> {
        Presence::deserialize(text.into_deserializer())
            .map_err(|_: E| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

fn topic_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TopicName>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { TopicName::new(&text).map(Some).map_err(de::Error::custom) }
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TopicPattern, D::Error> {
    TopicPattern::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str) -> TopicRule {
        TopicRule { pattern: TopicPattern::new(pattern).expect("a pattern"), inbox: true, ..TopicRule::default() }
    }

    #[test]
    fn each_user_has_an_inbox_of_its_own() {
        let inbox = |user: &str| rule("inbox.*").inbox_of(user).map(|topic| topic.as_str().to_owned());
        for (user, expected) in [
            ("ada", "inbox.ada"),
            ("Ada-7_x", "inbox.Ada-7_x"),
            ("ada@example.org", "inbox._YWRhQGV4YW1wbGUub3Jn"),
            ("\u{e9}", "inbox._w6k"),
            // Somebody else, whose inbox must not be that one.
            ("_w6k", "inbox._X3c2aw"),
            ("*", "inbox._Kg"),
        ] {
            assert_eq!(inbox(user).as_deref(), Some(expected), "{user}");
        }
        assert_eq!(TopicRule { inbox: false, ..rule("inbox.*") }.inbox_of("ada"), None);
        let longest = "\u{e9}".repeat(MAX_USER_BYTES / 2);
        let at_most = rule(&format!("{}.*", "x".repeat(82)));
        assert!(at_most.problem().is_none() && at_most.inbox_of(&longest).is_some());
        assert!(rule(&format!("{}.*", "x".repeat(83))).problem().is_some());
    }

    #[test]
    fn presence_is_a_truth_value_or_a_text() {
        let presence = |value: &str| {
            let rule: Result<TopicRule, _> = toml::from_str(&format!("pattern = \"a\"\n{value}"));
            rule.map(|rule| rule.presence).map_err(|e| e.to_string())
        };
        assert_eq!(presence(""), Ok(Presence::Clients));
        assert_eq!(presence("presence = true"), Ok(Presence::Clients));
        assert_eq!(presence("presence = false"), Ok(Presence::Off));
        assert_eq!(presence("presence = \"clients\""), Ok(Presence::Clients));
        assert_eq!(presence("presence = \"users\""), Ok(Presence::Users));
        assert_eq!(presence("presence = \"counts\""), Ok(Presence::Counts));
        for wrong in ["presence = \"off\"", "presence = \"names\"", "presence = 1"] {
            let error = presence(wrong).expect_err("it is none of these");
            assert!(error.contains("\"users\" or \"counts\""), "{error}");
        }
    }

    #[test]
    fn the_pattern_of_inboxes_has_one_star() {
        for (pattern, is_good) in [
            ("inbox.*", true),
            ("*", true),
            ("user.*.inbox", true),
            ("inbox", false),
            ("*.*", false),
            ("inbox.*.>", false),
        ] {
            assert_eq!(rule(pattern).problem().is_none(), is_good, "{pattern}");
        }
    }
}
