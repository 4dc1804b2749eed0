//! What holds for which topics: rules by pattern, of which the first that matches counts.

use serde::{Deserialize, Deserializer, de};

use crate::message::TopicPattern;

/// What holds for the topics that a pattern matches. Everything but the pattern may be left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TopicRule {
    /// Which topics: a topic, or a pattern with `*` for one level and a last `>` for all below. A subscription to a
    /// pattern goes by the first rule that matches everything which the pattern does. Has no default: a rule without it
    /// would be one for everything.
    #[serde(deserialize_with = "pattern")]
    pub pattern: TopicPattern,
    /// Which topics' messages leave first, 0 to 255, 255 the most urgent. Default 128.
    #[serde(default = "usual::priority")]
    pub priority: u8,
    /// What happens to messages for a subscriber that does not read fast enough. Default `disconnect`.
    #[serde(default)]
    pub overflow: OverflowPolicy,
    /// Messages that are kept for who comes later or comes back. Default 1,000; 0 keeps none; at most 1,000,000.
    #[serde(default = "usual::history_messages")]
    pub history_messages: u64,
    /// Bytes of memory that these may take for each topic, in each form in which they may be sent: at most twice their size. Default
    /// 4 MiB, so that the largest message is kept as well; at most 1 GiB.
    #[serde(default = "usual::history_bytes")]
    pub history_bytes: u64,
    /// How old they may become, in milliseconds. Default 300,000; at most 30 days.
    #[serde(default = "usual::history_age_ms")]
    pub history_age_ms: u64,
    /// Whether the server keeps account of who has subscribed, and tells who asks. Default true.
    #[serde(default = "usual::presence")]
    pub presence: bool,
    /// Who may publish, of those who are allowed it at all ([`Auth`](super::Auth)). Default `everyone`.
    #[serde(default)]
    pub publish: Who,
    /// Who may subscribe, and ask for history and presence, likewise. Default `everyone`.
    #[serde(default)]
    pub subscribe: Who,
}

/// What happens to messages for a subscriber that does not read fast enough (docs/PROTOCOL.md, "Time and load").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverflowPolicy {
    /// It is closed with 4413, and resumes from its position later.
    #[default]
    Disconnect,
    /// The oldest that wait are dropped, and a `gap` tells which.
    DropOldest,
    /// Of each topic only the newest waits: for state.
    Latest,
    /// Publishers wait for it, up to `timing.block_timeout_ms`; then their `publish` fails with 503.
    Block,
}

/// Who may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Every client.
    #[default]
    Everyone,
    /// Clients that have proved who they are, by a token or a certificate.
    Authenticated,
    /// No client.
    Nobody,
}

impl Who {
    /// Whether a client is one of these, given whether it has proved who it is.
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

/// What holds where a rule does not say.
mod usual {
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
