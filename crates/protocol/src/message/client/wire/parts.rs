//! Parts of messages that several of them have.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytestring::ByteString;
use serde_json::value::RawValue;

use super::Source;
use crate::frame::CompressionOffer;
use crate::message::client::{Close, MAX_HANDSHAKE_POSITIONS, Position, Recipient, TopicName};
use crate::message::fields::{self, Scalar, required, structured};
use crate::message::json::Object;
use crate::message::{CloseCode, Invalid, Json, MAX_PAGE, Payload, Session, TopicPattern};

/// Reads the content of a message, one part of which is required; the attachment is to be added.
pub(in crate::message::client) fn payload<'a>(
    f: &mut impl Source<'a>,
    json: &ByteString,
    has_attachment: bool,
) -> Result<Payload, Invalid> {
    let content = f.scalar("content").shared_text("content", json)?;
    let data = f.raw("data").map(|raw| Json::shared(raw, json));
    if content.is_none() && data.is_none() && !has_attachment {
        return Err(Invalid::field("content: required here, or data, unless the message has an attachment"));
    }
    let meta = object(f.raw("meta"), "meta", json)?;
    Ok(Payload { content, data, meta, attachment: None })
}

/// Reads a field that is an object and passes through.
pub(in crate::message::client) fn object(
    raw: Option<&RawValue>,
    field: &str,
    json: &ByteString,
) -> Result<Option<Json>, Invalid> {
    let object = raw.map(|raw| Json::shared(raw, json));
    match object {
        Some(object) if !object.is_object() => Err(Invalid::field(format!("{field}: a JSON object is expected"))),
        object => Ok(object),
    }
}

/// The topic of a request about its members: a pattern gets a reason of its own.
pub(super) fn topic_with_members<'a>(f: &mut impl Source<'a>) -> Result<TopicName, Invalid> {
    let topic = required(f.text("topic")?, "topic")?;
    if TopicPattern::new(&topic).is_ok_and(|pattern| pattern.is_wildcard()) {
        return Err(Invalid::field("topic: a pattern has no members, only single topics have; name one of them"));
    }
    TopicName::new(&topic)
}

pub(super) fn session<'a>(f: &mut impl Source<'a>, field: &'static str) -> Result<Option<Session>, Invalid> {
    f.text(field)?.map(|secret| Session::new(field, &secret)).transpose()
}

/// Reads the positions in a `handshake`, by topic.
pub(super) fn positions(raw: Option<&RawValue>) -> Result<Vec<(TopicName, Position)>, Invalid> {
    let since: BTreeMap<String, Box<RawValue>> = structured(raw, "since")?.unwrap_or_default();
    if since.len() > MAX_HANDSHAKE_POSITIONS {
        return Err(Invalid::field(format!("since: at most {MAX_HANDSHAKE_POSITIONS} topics are allowed")));
    }
    let position = |(topic, raw): (String, Box<RawValue>)| {
        let position = required(fields::position(Some(&raw), "since")?, "since")?;
        Ok((TopicName::new(&topic)?, position))
    };
    since.into_iter().map(position).collect()
}

pub(super) fn put_recipient(o: &mut Object<'_>, to: &Recipient) {
    match to {
        Recipient::Client(id) => o.uuid("to", *id),
        Recipient::User(user) => o.text("user", user.as_str()),
    }
}

pub(super) fn version(version: Scalar<'_>) -> Result<String, Invalid> {
    let version = required(version.text("protocol_version")?, "protocol_version")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match version.split_once('.') {
        Some((major, minor)) if is_number(major) && is_number(minor) => Ok(version.into()),
        _ => Err(Invalid::field("protocol_version: two numbers are expected, MAJOR.MINOR")),
    }
}

/// The compressions that are known, of those offered.
pub(super) fn compression(names: Option<&RawValue>) -> Result<CompressionOffer, Invalid> {
    let mut offer = CompressionOffer::default();
    let names = structured::<Vec<Cow<'_, str>>>(names, "compression")?.unwrap_or_default();
    names.iter().for_each(|name| offer.add(name));
    Ok(offer)
}

pub(super) fn page(limit: Scalar<'_>, otherwise: u64) -> Result<u64, Invalid> {
    match limit.integer("limit")? {
        None => Ok(otherwise),
        Some(limit @ 1..=MAX_PAGE) => Ok(limit),
        Some(_) => Err(Invalid::field(format!("limit: 1 to {MAX_PAGE} is allowed"))),
    }
}

pub(super) fn choice<T: Default, const N: usize>(
    value: Scalar<'_>,
    field: &str,
    names: [(&str, T); N],
) -> Result<T, Invalid> {
    Ok(optional_choice(value, field, names)?.unwrap_or_default())
}

pub(in crate::message::client) fn optional_choice<T, const N: usize>(
    value: Scalar<'_>,
    field: &str,
    names: [(&str, T); N],
) -> Result<Option<T>, Invalid> {
    let Some(text) = value.text(field)? else { return Ok(None) };
    let allowed = names.each_ref().map(|(name, _)| *name).join(" or ");
    names
        .into_iter()
        .find_map(|(name, choice)| (name == text).then_some(Some(choice)))
        .ok_or_else(|| Invalid::field(format!("{field}: {allowed} is allowed")))
}

/// Refuses an integer out of its bounds.
pub(in crate::message::client) fn bounded(
    value: Option<u64>,
    field: &str,
    bounds: &RangeInclusive<u64>,
) -> Result<(), Invalid> {
    match value {
        Some(number) if !bounds.contains(&number) => {
            Err(Invalid::field(format!("{field}: {} to {} is allowed", bounds.start(), bounds.end())))
        }
        _ => Ok(()),
    }
}

pub(super) fn close(code: Scalar<'_>, reason: Scalar<'_>) -> Result<Close, Invalid> {
    let code = match code.integer("code")? {
        None => CloseCode::NORMAL,
        // A number outside `u16` is not a sendable code either.
        Some(number) => CloseCode(u16::try_from(number).unwrap_or(0)),
    };
    Close::new(code, reason.text("reason")?.unwrap_or_default())
}
