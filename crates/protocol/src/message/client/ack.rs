//! The fields of `ack`: what became of messages of a durable consumer.

use super::wire::{Source, bounded, optional_choice};
use super::{ConsumerName, Invalid};
use crate::message::fields::{required, structured};
use crate::message::{MAX_INTEGER, TopicMessage, TopicName};

/// Most offsets of one `ack`.
pub const MAX_ACK_OFFSETS: usize = 1000;
/// Longest `delay_ms` of an `ack`: a day.
pub const MAX_DELAY_MS: u64 = 86_400_000;

/// The fields of `ack`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ack {
    /// The topic.
    pub topic: TopicName,
    /// The durable consumer that delivered the messages.
    pub durable: ConsumerName,
    /// The messages.
    pub offsets: Offsets,
    /// What became of them.
    pub outcome: AckOutcome,
}

impl Ack {
    /// Says that these messages are done.
    pub fn new(topic: TopicName, durable: ConsumerName, offsets: impl Into<Offsets>) -> Self {
        Self { topic, durable, offsets: offsets.into(), outcome: AckOutcome::Done }
    }

    /// Says something else of them.
    #[must_use]
    pub fn with_outcome(mut self, outcome: AckOutcome) -> Self {
        self.outcome = outcome;
        self
    }

    pub(super) fn read<'a>(f: &mut impl Source<'a>) -> Result<Self, Invalid> {
        let topic = f.topic()?;
        let durable = ConsumerName::new(&required(f.text("durable")?, "durable")?)?;
        let offsets = match (f.integer("offset")?, structured::<Vec<u64>>(f.raw("offsets"), "offsets")?) {
            (Some(_), Some(_)) => return Err(Invalid::field("offsets: not together with offset; send one of them")),
            (Some(offset), None) => offset.into(),
            (None, Some(offsets)) => Offsets::new(offsets)?,
            (None, None) => return Err(Invalid::field("offset: required here, or offsets")),
        };
        let outcomes = [
            ("done", AckOutcome::Done),
            ("retry", AckOutcome::Retry { delay_ms: None }),
            ("reject", AckOutcome::Reject),
        ];
        let outcome = optional_choice(f.scalar("outcome"), "outcome", outcomes)?.unwrap_or_default();
        let outcome = match (outcome, f.integer("delay_ms")?) {
            (AckOutcome::Retry { .. }, delay_ms) => AckOutcome::Retry { delay_ms },
            (outcome, None) => outcome,
            (_, Some(_)) => return Err(Invalid::field("delay_ms: only with \"outcome\":\"retry\"")),
        };
        outcome.check()?;
        Ok(Self { topic, durable, offsets, outcome })
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckOutcome {
    /// It is done, and not delivered again.
    #[default]
    Done,
    /// It is to be delivered again.
    Retry {
        /// After this many milliseconds, at most [`MAX_DELAY_MS`]; at once if absent.
        delay_ms: Option<u64>,
    },
    /// It cannot be done: it goes to the dead-letter topic, if the topic has one, and is not delivered again.
    Reject,
}

impl AckOutcome {
    /// Checks the bounds of a delay.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn check(self) -> Result<(), Invalid> {
        match self {
            Self::Retry { delay_ms } => bounded(delay_ms, "delay_ms", &(0..=MAX_DELAY_MS)),
            Self::Done | Self::Reject => Ok(()),
        }
    }

    /// The value of `outcome` on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retry { .. } => "retry",
            Self::Reject => "reject",
        }
    }
}

/// The offsets of an `ack`: 1 to [`MAX_ACK_OFFSETS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offsets(Inner);

/// One is the common case, and needs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Inner {
    One(u64),
    Many(Vec<u64>),
}

impl Offsets {
    /// Creates a list, if it is within bounds.
    ///
    /// # Errors
    /// [`Invalid`] names the field and its bounds.
    pub fn new(offsets: Vec<u64>) -> Result<Self, Invalid> {
        if !(1..=MAX_ACK_OFFSETS).contains(&offsets.len()) {
            return Err(Invalid::field(format!("offsets: 1 to {MAX_ACK_OFFSETS} of them are allowed")));
        }
        if offsets.iter().any(|&offset| offset > MAX_INTEGER) {
            return Err(Invalid::field("offsets: unsigned integers of at most 53 bits are expected"));
        }
        Ok(Self(match offsets[..] {
            [offset] => Inner::One(offset),
            _ => Inner::Many(offsets),
        }))
    }

    /// The offsets, in the order in which they were sent.
    pub fn as_slice(&self) -> &[u64] {
        match &self.0 {
            Inner::One(offset) => std::slice::from_ref(offset),
            Inner::Many(offsets) => offsets,
        }
    }
}

impl From<&TopicMessage> for Offsets {
    fn from(message: &TopicMessage) -> Self {
        message.offset.into()
    }
}

impl From<u64> for Offsets {
    fn from(offset: u64) -> Self {
        Self(Inner::One(offset))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::frame::Body;
    use crate::message::{ClientMessage, Request};

    fn parse(fields: &str) -> Result<Ack, String> {
        let json = Bytes::from(format!(r#"{{"type":"ack","topic":"t","durable":"w",{fields}}}"#));
        match Request::parse(&Body { json, attachment: None }) {
            Ok(Request { message: ClientMessage::Ack(ack), .. }) => Ok(ack),
            Ok(other) => panic!("{other:?}"),
            Err(invalid) => Err(invalid.message),
        }
    }

    #[test]
    fn an_ack_names_one_message_or_many() {
        assert_eq!(parse(r#""offset":7"#).map(|ack| ack.offsets.as_slice().to_vec()), Ok(vec![7]));
        assert_eq!(parse(r#""offsets":[9,7]"#).map(|ack| ack.offsets.as_slice().to_vec()), Ok(vec![9, 7]));
        let most = format!(r#""offsets":[1{}]"#, ",1".repeat(999));
        assert_eq!(parse(&most).map(|ack| ack.offsets.as_slice().len()), Ok(1000));
        for wrong in [
            r#""offset":null"#,
            r#""offset":7,"offsets":[7]"#,
            r#""offsets":[]"#,
            r#""offsets":7"#,
            r#""offsets":[-1]"#,
            r#""offsets":[9007199254740992]"#,
            &most.replace("[1", "[1,1"),
        ] {
            let message = parse(wrong).expect_err(wrong);
            assert!(message.starts_with("offset"), "{wrong}: {message}");
        }
    }

    #[test]
    fn only_a_retry_has_a_delay() {
        let outcome = |fields: &str| parse(fields).map(|ack| ack.outcome);
        assert_eq!(outcome(r#""offset":1"#), Ok(AckOutcome::Done));
        assert_eq!(outcome(r#""offset":1,"outcome":"retry""#), Ok(AckOutcome::Retry { delay_ms: None }));
        let delayed = r#""offset":1,"outcome":"retry","delay_ms":86400000"#;
        assert_eq!(outcome(delayed), Ok(AckOutcome::Retry { delay_ms: Some(MAX_DELAY_MS) }));
        for wrong in
            [r#""outcome":"reject","delay_ms":1"#, r#""delay_ms":0"#, r#""outcome":"retry","delay_ms":86400001"#]
        {
            let message = outcome(&format!(r#""offset":1,{wrong}"#)).expect_err(wrong);
            assert!(message.starts_with("delay_ms: "), "{wrong}: {message}");
        }
    }
}
