//! Every message, with every field that it may have, comes back from its frame as it went in.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::*;
use crate::frame::{Body, Compression, FrameDecoder};

/// Any text, escapes, controls and what lies beyond the basic plane included.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect())]
}

fn content() -> impl Strategy<Value = ByteString> {
    text().prop_map(ByteString::from)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_u64, 0..=MAX_INTEGER, Just(MAX_INTEGER)]
}

fn id() -> impl Strategy<Value = RequestId> {
    prop_oneof![
        integer().prop_map(RequestId::Number),
        "[a-z\"\\\\é🚀]{1,16}".prop_map(|text| RequestId::text(&text).expect("at most 64 bytes")),
    ]
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        (content(), of(bytes())).prop_map(|(content, attachment)| Payload { content: Some(content), attachment }),
        bytes().prop_map(Payload::binary),
    ]
}

/// Any JSON, as it stands in a message.
fn raw() -> impl Strategy<Value = Box<RawValue>> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f32>().prop_map(Into::into),
        text().prop_map(Into::into),
    ];
    let value = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            vec((text(), inner), 0..4).prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    });
    value.prop_map(|value| serde_json::value::to_raw_value(&value).expect("JSON"))
}

fn topic() -> impl Strategy<Value = TopicName> {
    "[A-Za-z0-9_-]{1,9}(\\.[A-Za-z0-9_-]{1,9}){0,4}".prop_map(|name| TopicName::new(&name).expect("a topic"))
}

fn pattern() -> impl Strategy<Value = TopicPattern> {
    "(\\*|[a-z]{1,9})(\\.(\\*|[a-z]{1,9})){0,4}(\\.>)?".prop_map(|name| TopicPattern::new(&name).expect("a pattern"))
}

fn position() -> impl Strategy<Value = Position> {
    ("[A-Za-z0-9_-]{1,22}", integer()).prop_map(|(epoch, offset)| Position { epoch, offset })
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let name = "\\PC{1,64}".prop_filter_map("a name", |name| ClientName::new(&name).ok());
    let key = "\\PC{1,32}".prop_map(|key| IdempotencyKey::new(&key).expect("at most 128 bytes"));
    let code = (0..=u16::MAX).prop_map(CloseCode).prop_filter("sendable", |code| code.is_sendable());
    let close = (code, "\\PC{0,30}").prop_map(|(code, reason)| Close::new(code, reason).expect("at most 120 bytes"));
    let handshake = ("[0-9]{1,3}\\.[0-9]{1,3}", of(name), of(text()), any::<bool>()).prop_map(
        |(protocol_version, client_name, token, zstd)| Handshake { protocol_version, client_name, token, zstd },
    );
    let delivery = prop_oneof![Just(Delivery::Stream), Just(Delivery::Datagram)];
    let lane = prop_oneof![Just(LaneChoice::Own), Just(LaneChoice::Control)];
    let subscribe = (pattern(), of(position()), of(1..=MAX_PAGE), delivery, lane, any::<bool>()).prop_map(
        |(topic, since, recent, delivery, lane, presence)| Subscribe {
            // A pattern has no position.
            since: since.filter(|_| !topic.is_wildcard()),
            topic,
            recent,
            delivery,
            lane,
            presence,
        },
    );
    prop_oneof![
        handshake.prop_map(ClientMessage::Handshake),
        content().prop_map(|content| ClientMessage::Text { content }),
        bytes().prop_map(|attachment| ClientMessage::Binary { attachment }),
        payload().prop_map(ClientMessage::Broadcast),
        (uuid(), payload()).prop_map(|(to, payload)| ClientMessage::Direct { to, payload }),
        (uuid(), raw()).prop_map(|(to, data)| ClientMessage::Signal { to, data }),
        of(integer()).prop_map(|timestamp| ClientMessage::Ping { timestamp }),
        Just(ClientMessage::Pong),
        (1..=MAX_PAGE, of(uuid())).prop_map(|(limit, after)| ClientMessage::ListClients { limit, after }),
        subscribe.prop_map(ClientMessage::Subscribe),
        pattern().prop_map(|topic| ClientMessage::Unsubscribe { topic }),
        (topic(), payload(), of(key)).prop_map(|(topic, payload, key)| ClientMessage::Publish { topic, payload, key }),
        (topic(), of(position()), 1..=MAX_PAGE, any::<bool>())
            .prop_map(|(topic, since, limit, reverse)| ClientMessage::History { topic, since, limit, reverse }),
        topic().prop_map(|topic| ClientMessage::Presence { topic }),
        close.prop_map(ClientMessage::Close),
    ]
}

/// What servers say of clients and topics.
fn topic_message() -> impl Strategy<Value = ServerMessage> {
    let member = || (uuid(), of(text())).prop_map(|(id, name)| Member { id, name });
    let subscribed = (text(), of(text()), of(integer()), of(any::<bool>()), of(integer()), of(text())).prop_map(
        |(topic, epoch, offset, recovered, lane, reason)| Subscribed { topic, epoch, offset, recovered, lane, reason },
    );
    let message = (text(), integer(), of(uuid()), payload(), integer())
        .prop_map(|(topic, offset, from, payload, timestamp)| TopicMessage { topic, offset, from, payload, timestamp });
    prop_oneof![
        subscribed.prop_map(ServerMessage::Subscribed),
        (integer(), any::<u8>()).prop_map(|(lane, priority)| ServerMessage::Lane { lane, priority }),
        (text(), integer(), integer(), of(text())).prop_map(|(topic, first, last, reason)| ServerMessage::Gap {
            topic,
            first,
            last,
            reason
        }),
        (text(), any::<u16>(), of(text())).prop_map(|(topic, code, reason)| ServerMessage::Unsubscribed {
            topic,
            code,
            reason
        }),
        message.prop_map(ServerMessage::Message),
        (text(), text(), integer(), any::<bool>()).prop_map(|(topic, epoch, offset, duplicate)| {
            ServerMessage::Published { topic, epoch, offset, duplicate }
        }),
        (text(), text(), vec(raw(), 0..4), any::<bool>())
            .prop_map(|(topic, epoch, messages, more)| ServerMessage::History { topic, epoch, messages, more }),
        (text(), vec(member(), 0..4)).prop_map(|(topic, clients)| ServerMessage::Presence { topic, clients }),
        (text(), member()).prop_map(|(topic, client)| ServerMessage::Join { topic, client }),
        (text(), member()).prop_map(|(topic, client)| ServerMessage::Leave { topic, client }),
    ]
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let limits = [(); 4].map(|()| integer()).prop_map(|[bytes, interval, timeout, lanes]| Limits {
        max_message_bytes: bytes,
        ping_interval_ms: interval,
        ping_timeout_ms: timeout,
        max_request_lanes: lanes,
    });
    let greeting = (any::<bool>(), of(uuid()), text(), of(text()), of(text()), of(limits), any::<bool>()).prop_map(
        |(accepted, client_id, server_name, protocol_version, reason, limits, zstd)| HandshakeReply {
            accepted,
            client_id,
            server_name,
            protocol_version,
            reason,
            limits,
            zstd,
        },
    );
    let client = (uuid(), of(text()), integer(), text()).prop_map(|(id, name, connected_at, transport)| ClientInfo {
        id,
        name,
        connected_at,
        transport: transport.into(),
    });
    let error = (any::<u16>(), text(), of(integer())).prop_map(|(code, message, retry_after_ms)| ErrorReply {
        code,
        message,
        retry_after_ms,
    });
    let closed = (any::<u16>(), text(), of(integer())).prop_map(|(code, reason, reconnect_after_ms)| ClosedBy {
        code: CloseCode(code),
        reason,
        reconnect_after_ms,
    });
    prop_oneof![
        10 => topic_message(),
        1 => greeting.prop_map(ServerMessage::HandshakeResponse),
        1 => (content(), of(integer())).prop_map(|(content, timestamp)| ServerMessage::Text { content, timestamp }),
        1 => (payload(), of(integer())).prop_map(|(payload, timestamp)| ServerMessage::Binary { payload, timestamp }),
        1 => (uuid(), payload(), integer())
            .prop_map(|(from, payload, timestamp)| ServerMessage::Broadcast { from, payload, timestamp }),
        1 => (uuid(), payload(), integer())
            .prop_map(|(from, payload, timestamp)| ServerMessage::Direct { from, payload, timestamp }),
        1 => (uuid(), raw(), integer())
            .prop_map(|(from, data, timestamp)| ServerMessage::Signal { from, data, timestamp }),
        1 => (of(integer()), integer())
            .prop_map(|(timestamp, server_time)| ServerMessage::Pong { timestamp, server_time }),
        1 => integer().prop_map(|timestamp| ServerMessage::Ping { timestamp }),
        1 => (vec(client, 0..4), integer(), of(uuid()))
            .prop_map(|(clients, total, next)| ServerMessage::ClientList { clients, total, next }),
        1 => of(integer()).prop_map(|delivered| ServerMessage::Ok { delivered }),
        1 => error.prop_map(ServerMessage::Error),
        1 => closed.prop_map(ServerMessage::Close),
    ]
}

/// The one body of the frame in `frame`.
fn only_body(frame: BytesMut) -> Body {
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(frame.freeze());
    let body = decoder.next_body().expect("a frame").expect("a whole one");
    assert_eq!(decoder.next_body(), Ok(None), "one message is one frame");
    assert!(!decoder.is_inside_frame(), "and nothing behind it");
    Body::parse(body, Compression::None, 1 << 20).expect("a body")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_a_client_says_is_what_a_server_hears(id in of(id()), message in client_message()) {
        let mut frame = BytesMut::new();
        message.encode(id.as_ref(), &mut frame);
        let heard = Request::parse(&only_body(frame)).expect("a message");
        prop_assert_eq!(&heard.id, &id);
        // Raw JSON has no equality of its own; its text is shown.
        prop_assert_eq!(format!("{:?}", heard.message), format!("{message:?}"));
    }

    #[test]
    fn what_a_server_says_is_what_a_client_hears(re in of(id()), message in server_message()) {
        let mut frame = BytesMut::new();
        message.encode(re.as_ref(), &mut frame);
        let heard = Reply::parse(&only_body(frame)).expect("a message");
        prop_assert_eq!(&heard.re, &re);
        prop_assert_eq!(format!("{:?}", heard.message), format!("{message:?}"));
    }
}
