//! Permissions, as settings and as claims of a token. Knows no token: `auth` reads both into these types.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};

use super::topics::{MAX_USER_LEVEL, user_level};
use crate::message::{MAX_TOPIC_BYTES, TopicPattern};
use crate::pattern_index::{PatternIndex, Sought};

/// Most subscriptions that the server makes for one client.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 32;

/// The level of a pattern in a grant that stands for the client's user.
const USER: &str = "${user}";

/// Permissions, in the configuration and as claims of a token. A field left out is taken from the configuration's
/// default, or is not granted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Grant {
    /// Topics that may be published to.
    pub publish: Option<Patterns>,
    /// Topics and patterns that may be subscribed to.
    pub subscribe: Option<Patterns>,
    /// Topics whose members may be asked for and followed. Default: those of `subscribe`.
    pub presence: Option<Patterns>,
    /// Topics whose past messages may be read (`history`, `since`, `recent`). Default: those of `subscribe`.
    pub history: Option<Patterns>,
    /// Subscriptions that the server makes for the client after its handshake, which this permits with their history;
    /// at most 32.
    pub subscriptions: Option<Patterns>,
    /// Whether the client may send to single clients.
    pub direct: Option<bool>,
    /// Whether the client may negotiate WebRTC with single clients. Default: as `direct`.
    pub signal: Option<bool>,
    /// Whether the client may list the connected clients. Default: as `direct`.
    pub list_clients: Option<bool>,
    /// Whether the client may send to all clients.
    pub broadcast: Option<bool>,
}

/// A list of at most 256 topics and patterns. In place of one level, a pattern may have `${user}`: it then grants
/// nothing until the list is [for a user](Self::for_user). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    texts: Arc<[TopicPattern]>,
    /// Index of the list if it is longer than [`FEW`](Self::FEW).
    index: Option<Arc<PatternIndex<()>>>,
    /// Patterns with `${user}`.
    of_users: Option<Arc<[UserPattern]>>,
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts && self.of_users == other.of_users
    }
}

impl Eq for Patterns {}

impl Patterns {
    /// Maximum number of patterns in one list.
    pub const MAX: usize = 256;

    /// Longest list whose patterns are compared one by one.
    const FEW: usize = 8;

    fn new(texts: Vec<TopicPattern>) -> Self {
        let index = (texts.len() > Self::FEW).then(|| {
            let mut index = PatternIndex::default();
            texts.iter().for_each(|text| index.add(text, ()));
            Arc::new(index)
        });
        Self { texts: texts.into(), index, of_users: None }
    }

    fn read(texts: &[String]) -> Result<Self, String> {
        let (of_users, texts): (Vec<&String>, Vec<&String>) = texts.iter().partition(|text| text.contains('$'));
        let texts = texts.iter().map(|text| TopicPattern::new(text).map_err(|e| e.to_string()));
        let of_users: Vec<_> = of_users.iter().map(|text| UserPattern::new(text)).collect::<Result<_, _>>()?;
        let patterns = Self::new(texts.collect::<Result<_, _>>()?);
        Ok(Self { of_users: (!of_users.is_empty()).then(|| of_users.into()), ..patterns })
    }

    /// The list that matches everything.
    pub fn everything() -> Self {
        Self::new(vec![TopicPattern::everything()])
    }

    /// The list for a user: each `${user}` is the user's level, written as in the name of an inbox. Without a user,
    /// patterns with `${user}` are left out.
    #[must_use]
    pub fn for_user(&self, user: Option<&str>) -> Self {
        let Some(of_users) = &self.of_users else { return self.clone() };
        let level = user.map(user_level);
        let own = of_users.iter().filter_map(|pattern| pattern.at(level.as_deref()?));
        Self::new(self.texts.iter().cloned().chain(own).collect())
    }

    /// The patterns of both lists. Those with `${user}` are left out.
    #[must_use]
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self.texts.is_empty(), other.texts.is_empty()) {
            (_, true) => self.clone(),
            (true, _) => other.clone(),
            _ => Self::new(self.texts.iter().chain(other.texts.iter()).cloned().collect()),
        }
    }

    /// The list without repetitions; for short lists.
    #[must_use]
    pub(crate) fn distinct(self) -> Self {
        let is_first = |(at, text): &(usize, &TopicPattern)| !self.texts[..*at].contains(text);
        let texts: Vec<_> = self.texts.iter().enumerate().filter(is_first).map(|(_, text)| text.clone()).collect();
        if texts.len() == self.texts.len() { self } else { Self::new(texts) }
    }

    /// Number of patterns.
    pub(crate) fn len(&self) -> usize {
        self.texts.len() + self.of_users.as_ref().map_or(0, |patterns| patterns.len())
    }

    /// Whether one of the patterns covers everything that `wanted` matches.
    pub fn cover(&self, wanted: &TopicPattern) -> bool {
        self.cover_text(wanted.as_str())
    }

    /// Whether one of the patterns matches a topic.
    pub fn match_topic(&self, topic: &str) -> bool {
        self.cover_text(topic)
    }

    fn cover_text(&self, text: &str) -> bool {
        match &self.index {
            Some(index) => index.covers(&Sought::new(text)),
            None => self.texts.iter().any(|pattern| pattern.covers_text(text)),
        }
    }

    /// The patterns in their order, without those with `${user}`.
    pub fn as_slice(&self) -> &[TopicPattern] {
        &self.texts
    }
}

/// Reads one pattern.
impl FromStr for Patterns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(&[text.to_owned()])
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A list with one item may be written without brackets.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Texts {
            One(String),
            Many(Vec<String>),
        }
        let texts = match Texts::deserialize(deserializer) {
            Ok(Texts::One(text)) => vec![text],
            Ok(Texts::Many(texts)) if texts.len() <= Self::MAX => texts,
            Ok(Texts::Many(_)) => return Err(de::Error::custom(format!("use at most {} patterns", Self::MAX))),
            Err(_) => return Err(de::Error::custom("expected a list of topics or patterns")),
        };
        Self::read(&texts).map_err(de::Error::custom)
    }
}

/// A pattern in which one level is `${user}`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UserPattern(Box<str>);

impl UserPattern {
    fn new(text: &str) -> Result<Self, String> {
        let most = MAX_TOPIC_BYTES - MAX_USER_LEVEL;
        let levels = text.split('.').filter(|&level| level == USER).count();
        let others = text.replace(USER, "x");
        if levels != 1 || text.matches(USER).count() != 1 || others.contains('$') || text.len() - USER.len() > most {
            return Err(format!("topic: use ${{user}} once, as a whole level, and at most {most} bytes beside it"));
        }
        TopicPattern::new(&others).map(|_| Self(text.into())).map_err(|e| e.to_string())
    }

    /// The pattern for the user with this level.
    fn at(&self, level: &str) -> Option<TopicPattern> {
        // The bounds were checked with the longest level.
        TopicPattern::new(&self.0.replace(USER, level)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MAX_USER_BYTES;

    fn patterns(texts: &[&str]) -> Result<Patterns, String> {
        Patterns::read(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_pattern_of_users_is_each_users_own() {
        let all = patterns(&["chat.*", "inbox.${user}.>", "${user}"]).expect("patterns");
        let texts = |user| -> Vec<String> {
            all.for_user(user).as_slice().iter().map(|pattern| pattern.as_str().to_owned()).collect()
        };
        assert_eq!(texts(Some("ada")), ["chat.*", "inbox.ada.>", "ada"]);
        assert_eq!(texts(Some("a.>")), ["chat.*", "inbox._YS4-.>", "_YS4-"], "no user is a wildcard or two levels");
        assert_eq!(texts(Some("*")), ["chat.*", "inbox._Kg.>", "_Kg"]);
        assert_eq!(texts(None), ["chat.*"]);
        let ada = all.for_user(Some("ada"));
        assert!(ada.match_topic("inbox.ada.x") && !ada.match_topic("inbox.bob.x") && !ada.match_topic("inbox.*.x"));
        assert!(!all.match_topic("inbox.ada.x") && !all.match_topic("inbox.${user}.x"), "it belongs to no user yet");
        assert_eq!((all.len(), ada.len()), (3, 3));
        assert_ne!(ada, all.for_user(Some("bob")));
    }

    #[test]
    fn a_pattern_of_users_fits_whatever_the_user_is() {
        let most = "x".repeat(MAX_TOPIC_BYTES - MAX_USER_LEVEL - 1);
        let longest = "\u{e9}".repeat(MAX_USER_BYTES / 2);
        let good = patterns(&[&format!("{most}.${{user}}")]).expect("a pattern");
        assert_eq!(good.for_user(Some(&longest)).len(), 1);
        for bad in [
            &format!("x{most}.${{user}}"),
            "${user}.${user}",
            "a.x${user}",
            "${user}.x${user}",
            "${user}x.a",
            "$user",
            "${name}.a",
            "a.$",
            "${user}..a",
            "a.>.${user}",
            "${user",
        ] {
            let error = patterns(&[bad]).expect_err(bad);
            assert!(error.starts_with("topic: use "), "{bad}: {error}");
        }
    }
}
