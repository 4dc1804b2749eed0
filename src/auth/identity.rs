//! A client's identity and its permissions, made by `auth` from a token, a certificate or the settings. Pure.

use std::fmt;
use std::num::NonZeroU32;

use super::TokenStamp;
use crate::config::{Grant, Patterns};
use crate::message::{ClientName, Json, Permissions, TopicPattern};

/// The proven identity of a client, valid until it expires.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The token's `sub` or the certificate's subject; `None` for an anonymous client.
    pub(crate) user: Option<Box<str>>,
    /// The name in the token, which other clients cannot choose.
    pub(crate) name: Option<ClientName>,
    pub(crate) rights: Rights,
    /// Time of its expiry, in Unix milliseconds; `None` if it never expires.
    pub(crate) expires_at: Option<u64>,
    /// Messages per second that the client may send, if its token says so.
    pub(crate) max_rate: Option<NonZeroU32>,
    /// What its token says about the user, for others.
    pub(crate) info: Option<Json>,
    /// The claims by which its token can be revoked, if it has one.
    pub(crate) token: Option<Box<TokenStamp>>,
}

impl Identity {
    /// Any client of a server without authentication.
    pub(crate) fn unrestricted() -> Self {
        Self {
            user: None,
            name: None,
            rights: Rights::all(),
            expires_at: None,
            max_rate: None,
            info: None,
            token: None,
        }
    }
}

/// The permissions of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Everything is allowed, whatever the other fields are.
    all: bool,
    publish: Patterns,
    subscribe: Patterns,
    /// What the client's own token says of `subscribe`, and not the settings.
    claimed: Patterns,
    presence: Patterns,
    history: Patterns,
    /// Subscriptions that the server makes. `subscribe` and `history` contain them.
    subscriptions: Patterns,
    pub(crate) direct: bool,
    pub(crate) signal: bool,
    pub(crate) list_clients: bool,
    pub(crate) broadcast: bool,
}

impl Rights {
    fn all() -> Self {
        let everything = Patterns::everything();
        Self {
            all: true,
            publish: everything.clone(),
            subscribe: everything.clone(),
            claimed: everything.clone(),
            presence: everything.clone(),
            history: everything,
            subscriptions: Patterns::default(),
            direct: true,
            signal: true,
            list_clients: true,
            broadcast: true,
        }
    }

    /// The permissions that the settings grant, for a user if the client is one.
    pub(crate) fn granted(grant: &Grant, user: Option<&str>) -> Self {
        Self { claimed: Patterns::default(), ..Self::new(grant, grant, user) }
    }

    /// The permissions in `grant`, the claims of a token; for its missing fields, those in `otherwise`.
    pub(crate) fn new(grant: &Grant, otherwise: &Grant, user: Option<&str>) -> Self {
        let patterns = |one: &Option<Patterns>, other: &Option<Patterns>| {
            one.as_ref().or(other.as_ref()).map(|patterns| patterns.for_user(user))
        };
        let own = |one: &Option<Patterns>| one.as_ref().map(|patterns| patterns.for_user(user)).unwrap_or_default();
        let subscribe = patterns(&grant.subscribe, &otherwise.subscribe).unwrap_or_default();
        let subscriptions = patterns(&grant.subscriptions, &otherwise.subscriptions).unwrap_or_default().distinct();
        let history = patterns(&grant.history, &otherwise.history).unwrap_or_else(|| subscribe.clone());
        let direct = grant.direct.or(otherwise.direct).unwrap_or(false);
        Self {
            all: false,
            publish: patterns(&grant.publish, &otherwise.publish).unwrap_or_default(),
            presence: patterns(&grant.presence, &otherwise.presence).unwrap_or_else(|| subscribe.clone()),
            history: history.and(&subscriptions),
            subscribe: subscribe.and(&subscriptions),
            claimed: own(&grant.subscribe).and(&own(&grant.subscriptions)),
            subscriptions,
            direct,
            signal: grant.signal.or(otherwise.signal).unwrap_or(direct),
            list_clients: grant.list_clients.or(otherwise.list_clients).unwrap_or(direct),
            broadcast: grant.broadcast.or(otherwise.broadcast).unwrap_or(false),
        }
    }

    /// The permissions as the client is told them; `None` if everything is allowed.
    pub(crate) fn told(&self) -> Option<Permissions> {
        let mut told = Permissions::default();
        told.broadcast = self.broadcast;
        told.direct = self.direct;
        told.signal = self.signal;
        told.list_clients = self.list_clients;
        (!self.all).then_some(told)
    }

    pub(crate) fn publish(&self, topic: &str) -> bool {
        self.all || self.publish.match_topic(topic)
    }

    pub(crate) fn subscribe(&self, wanted: &TopicPattern) -> bool {
        self.all || self.subscribe.cover(wanted)
    }

    /// Whether the client may subscribe to inboxes of others that `wanted` matches: its own token has to say so.
    pub(crate) fn inboxes(&self, wanted: &TopicPattern) -> bool {
        self.all || self.claimed.cover(wanted)
    }

    /// Whether the client may list and follow the members of the topics that `wanted` matches.
    pub(crate) fn presence(&self, wanted: &TopicPattern) -> bool {
        self.all || self.presence.cover(wanted)
    }

    /// The subscriptions that the server makes for the client.
    pub(crate) fn subscriptions(&self) -> &[TopicPattern] {
        self.subscriptions.as_slice()
    }

    /// Whether the client may read past messages of the topics that `wanted` matches.
    pub(crate) fn history(&self, wanted: &TopicPattern) -> bool {
        self.all || self.history.cover(wanted)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all {
            return f.write_str("may:     everything");
        }
        let topics = |patterns: &Patterns| {
            let texts: Vec<_> = patterns.as_slice().iter().map(TopicPattern::as_str).collect();
            if texts.is_empty() { "nothing".to_owned() } else { texts.join(" ") }
        };
        writeln!(f, "may:     publish to {}", topics(&self.publish))?;
        writeln!(f, "         subscribe to {}", topics(&self.subscribe))?;
        writeln!(f, "         list the members of {}", topics(&self.presence))?;
        writeln!(f, "         read the history of {}", topics(&self.history))?;
        if !self.subscriptions.as_slice().is_empty() {
            writeln!(f, "         is subscribed to {}", topics(&self.subscriptions))?;
        }
        let others = [
            (self.direct, "send to single clients"),
            (self.signal, "signal to single clients"),
            (self.list_clients, "list the connected clients"),
            (self.broadcast, "send to all clients"),
        ];
        let others: Vec<_> = others.iter().filter_map(|(may, what)| may.then_some(*what)).collect();
        write!(
            f,
            "         {}",
            if others.is_empty() { "no messages to other clients".to_owned() } else { others.join(", ") }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(toml: &str) -> Grant {
        toml::from_str(toml).expect("a grant")
    }

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::new(text).expect("a pattern")
    }

    #[test]
    fn nothing_is_allowed_without_a_grant() {
        let nothing = Rights::new(&Grant::default(), &Grant::default(), None);
        assert!(!nothing.publish("a") && !nothing.subscribe(&pattern("a")) && !nothing.presence(&pattern("a")));
        assert!(!nothing.history(&pattern("a")) && !nothing.direct && !nothing.signal && !nothing.broadcast);
        assert!(!nothing.list_clients);
        assert!(Rights::all().subscribe(&pattern(">")));
    }

    #[test]
    fn a_subscription_wider_than_the_grant_is_not_allowed() {
        let rights =
            Rights::new(&grant("subscribe = ['chat.*', 'user.ada.>']\npublish = 'chat.*'"), &Grant::default(), None);
        for allowed in ["chat.lobby", "chat.*", "user.ada.inbox", "user.ada.>", "user.ada.*.x"] {
            assert!(rights.subscribe(&pattern(allowed)), "{allowed}");
        }
        for refused in ["chat", "chat.a.b", "chat.>", "*.lobby", ">", "user.*.inbox", "user.>"] {
            assert!(!rights.subscribe(&pattern(refused)), "{refused}");
        }
        assert!(rights.publish("chat.lobby") && !rights.publish("user.ada.inbox"));
    }

    #[test]
    fn only_the_token_itself_opens_inboxes_of_others() {
        let all = grant("subscribe = '>'");
        let (inbox, other) = (pattern("inbox.ada"), pattern("inbox.*"));
        assert!(Rights::granted(&all, None).subscribe(&inbox) && !Rights::granted(&all, None).inboxes(&inbox));
        assert!(!Rights::new(&Grant::default(), &all, None).inboxes(&inbox));
        let claimed = Rights::new(&grant("subscribe = 'inbox.ada'"), &all, None);
        assert!(claimed.inboxes(&inbox) && !claimed.inboxes(&other));
        assert!(Rights::all().inboxes(&other));
    }

    #[test]
    fn history_and_presence_follow_subscribe_and_the_token_overrides_the_configuration() {
        let otherwise = grant("subscribe = 'a'\ndirect = true\nbroadcast = true");
        let rights = Rights::new(&grant("history = []\nbroadcast = false"), &otherwise, None);
        assert!(rights.subscribe(&pattern("a")) && rights.presence(&pattern("a")) && !rights.history(&pattern("a")));
        assert!(rights.direct && rights.signal && rights.list_clients && !rights.broadcast);
    }

    #[test]
    fn subscriptions_of_the_server_are_permitted_with_their_history_and_nothing_else() {
        let rights = Rights::new(
            &grant("subscriptions = ['news', 'news', 'user.${user}.>', 'user.ada.>']"),
            &Grant::default(),
            Some("ada"),
        );
        let texts: Vec<_> = rights.subscriptions().iter().map(TopicPattern::as_str).collect();
        assert_eq!(texts, ["news", "user.ada.>"]);
        for text in texts {
            let text = pattern(text);
            assert!(
                rights.subscribe(&text) && rights.history(&text) && rights.inboxes(&text) && !rights.presence(&text)
            );
        }
        assert!(!rights.publish("news") && !rights.subscribe(&pattern("user.bob.x")));
        let settings = grant("subscriptions = 'news'\nsubscribe = 'a'\nhistory = []");
        let rights = Rights::new(&grant("subscribe = 'b'"), &settings, Some("ada"));
        assert!(
            rights.subscribe(&pattern("news")) && rights.subscribe(&pattern("b")) && !rights.subscribe(&pattern("a"))
        );
        assert!(
            rights.history(&pattern("news")) && !rights.history(&pattern("b")) && !rights.inboxes(&pattern("news"))
        );
        let none = Rights::new(&grant("subscriptions = []"), &settings, Some("ada"));
        assert!(none.subscriptions().is_empty() && !none.subscribe(&pattern("news")));
    }
}
