//! Rules for topics, selected by pattern: the first that matches applies.

use serde::{Deserialize, Deserializer, de};

use crate::message::TopicPattern;

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
    /// Messages kept for new and returning subscribers; 0 keeps none. Default 1,000; at most 1,000,000.
    #[serde(default = "default_of::history_messages")]
    pub history_messages: u64,
    /// Bytes of memory for these, per topic, counting each form in which they are sent: at most twice their size.
    /// Default 4 MiB, so that the largest message is kept, too; at most 1 GiB.
    #[serde(default = "default_of::history_bytes")]
    pub history_bytes: u64,
    /// Age after which they are forgotten, in milliseconds. Default 300,000; at most 30 days.
    #[serde(default = "default_of::history_age_ms")]
    pub history_age_ms: u64,
    /// Whether presence is tracked: who has subscribed, for clients that ask. Default true.
    #[serde(default = "default_of::presence")]
    pub presence: bool,
    /// The clients that may publish, if their permissions ([`Auth`](super::Auth)) allow it. Default `everyone`.
    #[serde(default)]
    pub publish: Who,
    /// The clients that may subscribe and ask for history and presence, likewise. Default `everyone`.
    #[serde(default)]
    pub subscribe: Who,
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
            history_messages: 1000,
            history_bytes: 4 << 20,
            history_age_ms: 300_000,
            presence: true,
            publish: Who::default(),
            subscribe: Who::default(),
        }
    }
}

/// Defaults of the fields of a rule.
mod default_of {
    use super::TopicRule;

    pub(super) fn priority() -> u8 {
        TopicRule::default().priority
    }

    pub(super) fn history_messages() -> u64 {
        TopicRule::default().history_messages
    }

    pub(super) fn history_bytes() -> u64 {
        TopicRule::default().history_bytes
    }

    pub(super) fn history_age_ms() -> u64 {
        TopicRule::default().history_age_ms
    }

    pub(super) fn presence() -> bool {
        TopicRule::default().presence
    }
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TopicPattern, D::Error> {
    TopicPattern::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}
