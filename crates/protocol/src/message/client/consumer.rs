//! The part of `subscribe` that asks for more than a topic's messages: a durable consumer, or a place in a queue group.
//! What cannot go together in a `subscribe` is refused here, for the parser and for clients that are about to send one.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Serialize;

use super::wire::{Source, bounded, optional_choice};
use super::{DeliveryMode, Subscribe};
use crate::message::{Invalid, is_level};

/// Longest name of a durable consumer, in bytes.
pub const MAX_CONSUMER_BYTES: usize = 64;
/// Bounds of `ack_wait_ms`.
pub const ACK_WAIT_MS: RangeInclusive<u64> = 1000..=3_600_000;
/// `ack_wait_ms` of a consumer that is created without one.
pub const DEFAULT_ACK_WAIT_MS: u64 = 30_000;
/// Bounds of `max_in_flight`.
pub const MAX_IN_FLIGHT: RangeInclusive<u64> = 1..=1000;
/// `max_in_flight` of a consumer that is created without one.
pub const DEFAULT_MAX_IN_FLIGHT: u64 = 100;
/// Bounds of `max_deliver`; 0 means any number of deliveries.
pub const MAX_DELIVER: RangeInclusive<u64> = 0..=1000;

/// Name of a durable consumer, unique within its topic: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ConsumerName(Box<str>);

impl ConsumerName {
    /// Creates a name, if it is valid.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        if name.len() > MAX_CONSUMER_BYTES || !is_level(name) {
            return Err(Invalid::field(format!("durable: 1 to {MAX_CONSUMER_BYTES} of A-Z a-z 0-9 _ - are allowed")));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a subscription takes its messages from, other than the topic itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerRequest {
    /// The topic's queue group, of all its subscriptions with `share` and without `durable`: each message goes to one
    /// of them, at most once.
    Group,
    /// A durable consumer: the server remembers what was acknowledged.
    Durable(Box<DurableConsumer>),
}

/// A durable consumer. Settings that are absent are as they were when it was created, or the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurableConsumer {
    /// Its name.
    pub name: ConsumerName,
    /// Whether several clients share its messages; otherwise a newcomer takes over.
    pub share: bool,
    /// What one acknowledgement covers.
    pub ack: Option<AckMode>,
    /// Milliseconds after which a message that was not acknowledged is delivered again, within [`ACK_WAIT_MS`].
    pub ack_wait_ms: Option<u64>,
    /// Most messages that are delivered and not yet acknowledged, within [`MAX_IN_FLIGHT`].
    pub max_in_flight: Option<u64>,
    /// Most deliveries of one message, within [`MAX_DELIVER`]; 0 means any number.
    pub max_deliver: Option<u64>,
}

impl DurableConsumer {
    /// Names a consumer of one client, with the settings that it has, or the defaults.
    pub fn new(name: ConsumerName) -> Self {
        Self { name, share: false, ack: None, ack_wait_ms: None, max_in_flight: None, max_deliver: None }
    }
}

/// The fields of `subscribe` that are about a consumer, as they are sent.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields of docs/PROTOCOL.md")]
pub struct ConsumerFields {
    pub durable: Option<ConsumerName>,
    pub share: bool,
    pub ack: Option<AckMode>,
    pub ack_wait_ms: Option<u64>,
    pub max_in_flight: Option<u64>,
    pub max_deliver: Option<u64>,
}

impl ConsumerFields {
    /// What they ask for, if it is within bounds; `None` for a plain subscription.
    ///
    /// # Errors
    /// [`Invalid`] names the field.
    pub fn check(self) -> Result<Option<ConsumerRequest>, Invalid> {
        let Self { durable, share, ack, ack_wait_ms, max_in_flight, max_deliver } = self;
        bounded(ack_wait_ms, "ack_wait_ms", &ACK_WAIT_MS)?;
        bounded(max_in_flight, "max_in_flight", &MAX_IN_FLIGHT)?;
        bounded(max_deliver, "max_deliver", &MAX_DELIVER)?;
        if let Some(name) = durable {
            let consumer = DurableConsumer { name, share, ack, ack_wait_ms, max_in_flight, max_deliver };
            return Ok(Some(ConsumerRequest::Durable(Box::new(consumer))));
        }
        let settings = [
            ("ack", ack.is_some()),
            ("ack_wait_ms", ack_wait_ms.is_some()),
            ("max_in_flight", max_in_flight.is_some()),
            ("max_deliver", max_deliver.is_some()),
        ];
        match settings.into_iter().find(|(_, is_set)| *is_set) {
            Some((field, _)) => Err(Invalid::field(format!("{field}: only with durable, the consumer's name"))),
            None => Ok(share.then_some(ConsumerRequest::Group)),
        }
    }
}

/// What one acknowledgement covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// The messages that it names.
    #[default]
    Each,
    /// The message that it names, and all before it.
    UpTo,
}

impl AckMode {
    /// The value of `ack` on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::UpTo => "upto",
        }
    }
}

impl ConsumerRequest {
    /// The durable consumer, if that is what is asked for.
    pub fn durable(&self) -> Option<&DurableConsumer> {
        match self {
            Self::Group => None,
            Self::Durable(consumer) => Some(consumer),
        }
    }

    pub(super) fn read<'a>(f: &mut impl Source<'a>) -> Result<Option<Self>, Invalid> {
        let modes = [AckMode::Each, AckMode::UpTo].map(|mode| (mode.as_str(), mode));
        let fields = ConsumerFields {
            durable: f.text("durable")?.map(|name| ConsumerName::new(&name)).transpose()?,
            share: f.boolean("share")?.unwrap_or(false),
            ack: optional_choice(f.scalar("ack"), "ack", modes)?,
            ack_wait_ms: f.integer("ack_wait_ms")?,
            max_in_flight: f.integer("max_in_flight")?,
            max_deliver: f.integer("max_deliver")?,
        };
        fields.check()
    }
}

impl Subscribe {
    /// Checks what cannot go together.
    ///
    /// # Errors
    /// [`Invalid`] names the field, and what to do.
    pub fn check(&self) -> Result<(), Invalid> {
        let refuse = |message: &str| Err(Invalid::field(message));
        let is_pattern = self.topic.is_wildcard();
        if is_pattern && self.since.is_some() {
            return refuse("since: a pattern has no position; subscribe to each topic");
        }
        if is_pattern && self.since_time.is_some() {
            return refuse("since_time: a pattern has no log; subscribe to each topic");
        }
        if self.since.is_some() && self.since_time.is_some() {
            return refuse("since_time: not together with since; send one of them");
        }
        self.check_options()?;
        match &self.consumer {
            None => Ok(()),
            Some(ConsumerRequest::Group) if is_pattern => refuse("share: not with a pattern; subscribe to each topic"),
            Some(ConsumerRequest::Group) if self.delivery == DeliveryMode::Datagram => {
                refuse("share: not with \"delivery\":\"datagram\", which could lose a message for all members")
            }
            Some(ConsumerRequest::Group) => match () {
                () if self.since.is_some() => refuse("since: not with share alone; add durable to begin earlier"),
                () if self.since_time.is_some() => {
                    refuse("since_time: not with share alone; add durable to begin earlier")
                }
                () if self.recent.is_some() => refuse("recent: not with share alone; add durable to begin earlier"),
                () => Ok(()),
            },
            Some(ConsumerRequest::Durable(_)) if is_pattern => {
                refuse("durable: not with a pattern; subscribe to each topic, under the same name if you like")
            }
            Some(ConsumerRequest::Durable(_)) if self.delivery == DeliveryMode::Datagram => {
                refuse("durable: not with \"delivery\":\"datagram\", which may lose messages")
            }
            Some(ConsumerRequest::Durable(consumer)) if consumer.share && consumer.ack == Some(AckMode::UpTo) => {
                refuse("ack: \"upto\" is not possible with share, whose members each have some of the messages")
            }
            Some(ConsumerRequest::Durable(_)) => Ok(()),
        }
    }

    /// Checks what brings less than all messages, and what needs a topic by its name.
    fn check_options(&self) -> Result<(), Invalid> {
        let refuse = |message: &str| Err(Invalid::field(message));
        let is_pattern = self.topic.is_wildcard();
        if self.requests && is_pattern {
            return refuse("requests: not with a pattern; subscribe to each topic");
        }
        if self.requests && matches!(self.consumer, Some(ConsumerRequest::Durable(_))) {
            return refuse("requests: not with durable; use another subscription, with share if you like");
        }
        if self.state.is_some() && is_pattern {
            return refuse("state: not with a pattern, whose subscribers are no members; subscribe to each topic");
        }
        let less = [("max_rate", self.max_rate.is_some()), ("echo", !self.echo), ("filter", self.filter.is_some())];
        match less.into_iter().find(|(_, is_set)| *is_set) {
            Some((field, _)) if self.consumer.is_some() => {
                let why = "not with durable or share, whose messages are for one client of several";
                Err(Invalid::field(format!("{field}: {why}")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::frame::Body;
    use crate::message::{ClientMessage, Request};

    fn parse(fields: &str) -> Result<Option<ConsumerRequest>, String> {
        let json = Bytes::from(format!(r#"{{"type":"subscribe","id":1,{fields}}}"#));
        match Request::parse(&Body { json, attachment: None }) {
            Ok(Request { message: ClientMessage::Subscribe(subscribe), .. }) => Ok(subscribe.consumer),
            Ok(other) => panic!("{other:?}"),
            Err(invalid) => Err(invalid.message),
        }
    }

    #[test]
    fn a_consumers_name_has_the_alphabet_of_a_level_and_at_most_64_bytes() {
        for good in ["a", "A-Z_9", &"x".repeat(64)] {
            assert!(ConsumerName::new(good).is_ok(), "{good} is a name");
        }
        for bad in ["", "a.b", "a b", "ä", "*", ">", &"x".repeat(65)] {
            assert!(ConsumerName::new(bad).is_err(), "{bad} is not a name");
        }
    }

    #[test]
    fn a_plain_subscribe_asks_for_no_consumer() {
        for plain in [r#""topic":"a.b""#, r#""topic":"a.*""#, r#""topic":"a","share":false,"durable":null,"ack":null"#]
        {
            assert_eq!(parse(plain), Ok(None), "{plain}");
        }
        assert_eq!(parse(r#""topic":"a","share":true"#), Ok(Some(ConsumerRequest::Group)));
    }

    #[test]
    fn the_settings_of_a_durable_consumer_are_those_sent() {
        let read = parse(r#""topic":"a","durable":"w","share":true,"ack":"each","ack_wait_ms":1000,"max_in_flight":1"#);
        let mut expected = DurableConsumer::new(ConsumerName::new("w").expect("a name"));
        expected.share = true;
        expected.ack = Some(AckMode::Each);
        (expected.ack_wait_ms, expected.max_in_flight) = (Some(1000), Some(1));
        assert_eq!(read, Ok(Some(ConsumerRequest::Durable(Box::new(expected)))));
    }

    #[test]
    fn what_cannot_go_together_is_refused_by_the_field_that_has_to_change() {
        for (fields, named) in [
            (r#""topic":"a.*","since":{"epoch":"e","offset":1}"#, "since"),
            (r#""topic":"a.*","since_time":1"#, "since_time"),
            (r#""topic":"a","since":{"epoch":"e","offset":1},"since_time":1"#, "since_time"),
            (r#""topic":"a.*","durable":"w""#, "durable"),
            (r#""topic":"a","durable":"w","delivery":"datagram""#, "durable"),
            (r#""topic":"a.>","share":true"#, "share"),
            (r#""topic":"a","share":true,"delivery":"datagram""#, "share"),
            (r#""topic":"a","share":true,"since":{"epoch":"e","offset":1}"#, "since"),
            (r#""topic":"a","share":true,"since_time":1"#, "since_time"),
            (r#""topic":"a","share":true,"recent":1"#, "recent"),
            (r#""topic":"a","durable":"w","share":true,"ack":"upto""#, "ack"),
            (r#""topic":"a","ack":"each""#, "ack"),
            (r#""topic":"a","share":true,"ack_wait_ms":1000"#, "ack_wait_ms"),
            (r#""topic":"a","max_in_flight":1"#, "max_in_flight"),
            (r#""topic":"a","max_deliver":0"#, "max_deliver"),
        ] {
            let message = parse(fields).expect_err(fields);
            assert!(message.starts_with(&format!("{named}: ")), "{fields}: {message}");
        }
    }
}
