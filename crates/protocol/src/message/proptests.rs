//! Every possible message survives a round trip through its frame: in both directions, with each field present and
//! absent, at its bounds, and with characters that JSON has to escape.

use std::borrow::Cow;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proptest::strategy::Union;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::*;
use crate::frame::{Body, Compression, CompressionOffer, FrameDecoder, PREFIX_BYTES, compress};

/// Far above any message generated here.
const MAX: usize = 1 << 20;

/// Text of a hostile peer; `any::<String>()` never contains control characters.
fn text() -> impl Strategy<Value = String> {
    let hard = prop_oneof![
        8 => prop::char::range('a', 'z'),
        1 => any::<char>(),
        1 => prop::char::range('\0', '\u{1f}'),
        1 => prop::sample::select(vec!['"', '\\', '{', '[', '\u{7f}', '\u{2028}', '\u{10ffff}']),
    ];
    prop_oneof![
        4 => prop::collection::vec(hard, 0..150).prop_map(String::from_iter),
        1 => "[ -!#-\\[\\]-~]{0,150}",
    ]
}

/// Text of at most `max` bytes, often exactly that many.
fn text_up_to(max: usize) -> impl Strategy<Value = String> {
    let cut = move |mut text: String| {
        while text.len() > max {
            text.pop();
        }
        text
    };
    prop_oneof![text().prop_map(cut), Just("x".repeat(max)), Just("ü".repeat(max / 2))]
}

fn some_text_up_to(max: usize) -> impl Strategy<Value = String> {
    text_up_to(max).prop_map(|text| if text.is_empty() { "x".into() } else { text })
}

fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(MAX_INTEGER), 0..=MAX_INTEGER]
}

fn client_id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn attachment() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn payload() -> impl Strategy<Value = Payload> {
    let content = prop_oneof![
        4 => text().prop_map(Payload::text),
        2 => attachment().prop_map(Payload::binary),
        2 => json(1).prop_map(Payload::json),
        1 => (text(), attachment(), json(1)).prop_map(|(c, a, d)| Payload::text(c).with_attachment(a).with_data(d)),
    ];
    (content, prop::option::of(object())).prop_map(|(payload, meta)| Payload { meta, ..payload })
}

/// An object that passes through.
fn object() -> impl Strategy<Value = Json> {
    prop::collection::btree_map(text(), text(), 0..4).prop_map(|fields| Json::encode(&fields).expect("JSON"))
}

fn small_object() -> impl Strategy<Value = Json> {
    prop::collection::btree_map("[a-z]{1,9}", "[a-z]{1,9}", 0..9).prop_map(|it| Json::encode(&it).expect("JSON"))
}

fn sender() -> impl Strategy<Value = Sender> {
    (client_id(), maybe_text(), maybe_text())
        .prop_map(|(id, user, name)| Sender::new(id, user.map(Into::into), name.map(Into::into)))
}

fn user() -> impl Strategy<Value = UserName> {
    "[a-z@.]{1,128}".prop_map(|user| UserName::new(&user).expect("a user"))
}

fn recipient() -> impl Strategy<Value = Recipient> {
    prop_oneof![client_id().prop_map(Recipient::Client), user().prop_map(Recipient::User)]
}

fn session() -> impl Strategy<Value = Session> {
    "[!-~]{1,128}".prop_map(|secret| Session::new("session", &secret).expect("a secret"))
}

fn call() -> impl Strategy<Value = Call> {
    let to = prop_oneof![topic_name().prop_map(CallTarget::Topic), recipient().prop_map(CallTarget::Recipient)];
    (to, payload(), within(REQUEST_TIMEOUT_MS)).prop_map(|(to, payload, timeout_ms)| Call { to, payload, timeout_ms })
}

fn failure() -> impl Strategy<Value = Failure> {
    (FAILURE_CODES, some_text_up_to(MAX_FAILURE_BYTES)).prop_map(|(code, why)| Failure::new(code, why).expect("sound"))
}

fn answer() -> impl Strategy<Value = Answer> {
    let request = || some_text_up_to(64).prop_map(|text| CallId::new(&text).expect("a number"));
    prop_oneof![
        (request(), payload(), prop::option::of(failure())).prop_map(|(request, payload, failure)| Answer {
            request,
            payload,
            failure
        }),
        (request(), failure()).prop_map(|(request, failure)| Answer::failed(request, failure)),
    ]
}

/// Any JSON with any white space, as deep as allowed inside `below` other arrays and objects.
fn json(below: usize) -> impl Strategy<Value = Json> {
    raw(below).prop_map(Json::from)
}

fn raw(below: usize) -> impl Strategy<Value = Box<RawValue>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 20, 5, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from);
        items
            .boxed()
            .prop_union(prop::collection::btree_map(text(), inner, 0..5).prop_map(|m| m.into_iter().collect()).boxed())
    });
    let deepest = MAX_NESTING - below;
    prop_oneof![
        4 => value.clone().prop_map(|value| value.to_string()),
        2 => value.prop_map(|value| serde_json::to_string_pretty(&value).unwrap()),
        1 => Just("[".repeat(deepest) + &"]".repeat(deepest)),
        1 => Just("-1.50e+400".to_owned()),
    ]
    .prop_map(|text| RawValue::from_string(text).unwrap())
}

fn topic_name() -> impl Strategy<Value = TopicName> {
    let text =
        prop_oneof![4 => "[A-Za-z0-9_-]{1,8}(\\.[A-Za-z0-9_-]{1,8}){0,4}", 1 => Just("x".repeat(MAX_TOPIC_BYTES))];
    text.prop_map(|text| TopicName::new(&text).unwrap())
}

fn topic_pattern() -> impl Strategy<Value = TopicPattern> {
    let wild = "([A-Za-z0-9_-]{1,8}|\\*)(\\.([A-Za-z0-9_-]{1,8}|\\*)){0,4}(\\.>)?|>";
    let exact = topic_name().prop_map(|topic| topic.as_str().to_owned());
    prop_oneof![exact.boxed(), wild.boxed()].prop_map(|text| TopicPattern::new(&text).unwrap())
}

fn position() -> impl Strategy<Value = Position> {
    (text(), integer()).prop_map(|(epoch, offset)| Position { epoch, offset })
}

fn page() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1), Just(MAX_PAGE), 1..=MAX_PAGE]
}

fn request_id() -> impl Strategy<Value = Option<RequestId>> {
    let id = prop_oneof![
        integer().prop_map(RequestId::Number),
        some_text_up_to(MAX_ID_BYTES).prop_map(|text| RequestId::text(&text).unwrap()),
    ];
    prop::option::of(id)
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![4 => "[!-~]{1,200}", 1 => Just("x".repeat(MAX_TOKEN_BYTES))]
        .prop_map(|token| Token::new(&token).unwrap())
}

fn handshake() -> impl Strategy<Value = Handshake> {
    let name = "[^\\p{Cc}\u{2028}-\u{202e}\u{2066}-\u{2069}]{1,64}"
        .prop_filter("white space alone", |name| !name.trim().is_empty())
        .prop_map(|name| ClientName::new(&name).unwrap());
    let offer = (any::<bool>(), any::<bool>()).prop_map(|(zstd, deflate)| CompressionOffer { zstd, deflate });
    let sessions = (prop::option::of(session()), prop::option::of(session()));
    let since = prop::collection::btree_map("[a-z]{1,9}", position(), 0..4);
    let client = (prop::option::of(name), prop::option::of(token()));
    ("[0-9]{1,20}\\.[0-9]{1,20}", client, (offer, any::<bool>()), sessions, since).prop_map(
        |(protocol_version, (client_name, token), (compression, requests), (resume, attach), since)| {
            let since = since.into_iter().map(|(topic, at)| (TopicName::new(&topic).expect("a topic"), at)).collect();
            Handshake { protocol_version, client_name, token, compression, requests, resume, attach, since }
        },
    )
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    // A client sets one of the two, or neither.
    let replay = prop_oneof![
        Just((None, None)),
        position().prop_map(|position| (Some(position), None)),
        integer().prop_map(|recent| (None, Some(recent))),
    ];
    let delivery = prop_oneof![Just(DeliveryMode::Stream), Just(DeliveryMode::Datagram)];
    let lane = prop_oneof![Just(LaneChoice::Own), Just(LaneChoice::Control), Just(LaneChoice::Bulk)];
    let presence = any::<(bool, bool)>();
    let options =
        (prop::option::of(json(1)), any::<(bool, bool)>(), within(MAX_RATE), prop::option::of(small_object()));
    (topic_pattern(), replay, delivery, lane, presence, options).prop_map(
        |(topic, replay, delivery, lane, (presence, occupancy), options)| {
            let (state, (requests, echo), max_rate, filter) = options;
            let is_topic = !topic.is_wildcard();
            let state = state.filter(|state| is_topic && !state.is_null());
            let (since, recent, requests) = (replay.0.filter(|_| is_topic), replay.1, requests && is_topic);
            let occupancy = occupancy && !presence;
            let plain = Subscribe { since, recent, delivery, lane, ..Subscribe::new(topic) };
            Subscribe { presence, occupancy, state, requests, echo, max_rate, filter, ..plain }
        },
    )
}

fn consumer_name() -> impl Strategy<Value = ConsumerName> {
    prop_oneof![4 => "[A-Za-z0-9_-]{1,64}", 1 => Just("x".repeat(MAX_CONSUMER_BYTES))]
        .prop_map(|name| ConsumerName::new(&name).unwrap())
}

/// Half of them absent, and of the others many at their bounds.
fn within(bounds: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Option<u64>> {
    prop::option::of(prop_oneof![Just(*bounds.start()), Just(*bounds.end()), bounds])
}

fn consumer() -> impl Strategy<Value = ConsumerRequest> {
    let ack = prop::option::of(prop_oneof![Just(AckMode::Each), Just(AckMode::UpTo)]);
    let settings = (within(ACK_WAIT_MS), within(MAX_IN_FLIGHT), within(MAX_DELIVER));
    let durable = (consumer_name(), any::<bool>(), ack, settings).prop_map(|(name, share, ack, settings)| {
        let (ack_wait_ms, max_in_flight, max_deliver) = settings;
        let ack = ack.filter(|ack| !share || *ack == AckMode::Each);
        let consumer = DurableConsumer { name, share, ack, ack_wait_ms, max_in_flight, max_deliver };
        ConsumerRequest::Durable(Box::new(consumer))
    });
    prop_oneof![4 => durable, 1 => Just(ConsumerRequest::Group)]
}

/// A subscription that needs a server's log: from a time on, or of a consumer.
fn subscribe_from_log() -> impl Strategy<Value = Subscribe> {
    let consumer = prop::option::of(consumer());
    (topic_name(), maybe_integer(), consumer, any::<bool>()).prop_map(|(topic, since_time, consumer, presence)| {
        let since_time = since_time.filter(|_| consumer != Some(ConsumerRequest::Group));
        Subscribe { since_time, consumer, presence, ..Subscribe::new(topic) }
    })
}

fn ack() -> impl Strategy<Value = Ack> {
    let offsets = prop::collection::vec(integer(), 1..=MAX_ACK_OFFSETS.min(30));
    let outcome = prop_oneof![
        Just(AckOutcome::Done),
        Just(AckOutcome::Reject),
        within(0..=MAX_DELAY_MS).prop_map(|delay_ms| AckOutcome::Retry { delay_ms }),
    ];
    (topic_name(), consumer_name(), offsets, outcome).prop_map(|(topic, durable, offsets, outcome)| {
        Ack::new(topic, durable, Offsets::new(offsets).unwrap()).with_outcome(outcome)
    })
}

fn close() -> impl Strategy<Value = Close> {
    let code = prop_oneof![1000_u16..=1003, 1007_u16..=1014, 3000_u16..=4999].prop_map(CloseCode);
    (code, text_up_to(MAX_REASON_BYTES)).prop_map(|(code, reason)| Close::new(code, reason).expect("within its bounds"))
}

/// One strategy for each client message.
pub(super) fn client_messages() -> Vec<BoxedStrategy<ClientMessage>> {
    use ClientMessage as M;
    let since = || prop::option::of(position());
    vec![
        handshake().prop_map(M::Handshake).boxed(),
        text().prop_map(|content| M::Text { content: content.into() }).boxed(),
        attachment().prop_map(|attachment| M::Binary { attachment }).boxed(),
        payload().prop_map(M::Broadcast).boxed(),
        (recipient(), payload()).prop_map(|(to, payload)| M::Direct { to, payload }).boxed(),
        (recipient(), json(1)).prop_map(|(to, data)| M::Signal { to, data }).boxed(),
        call().prop_map(|call| M::Request(Box::new(call))).boxed(),
        answer().prop_map(|answer| M::Reply(Box::new(answer))).boxed(),
        request_id().prop_filter_map("an id", |re| re.map(|re| M::Cancel { re })).boxed(),
        (topic_name(), prop::option::of(json(1)))
            .prop_map(|(topic, state)| M::State { topic, state: state.filter(|state| !state.is_null()) })
            .boxed(),
        prop::option::of(integer()).prop_map(|timestamp| M::Ping { timestamp }).boxed(),
        Just(M::Pong).boxed(),
        (page(), prop::option::of(client_id())).prop_map(|(limit, after)| M::ListClients { limit, after }).boxed(),
        subscribe().prop_map(M::Subscribe).boxed(),
        subscribe_from_log().prop_map(M::Subscribe).boxed(),
        ack().prop_map(M::Ack).boxed(),
        (topic_pattern(), any::<bool>()).prop_map(|(topic, forget)| M::Unsubscribe { topic, forget }).boxed(),
        (topic_name(), payload(), prop::option::of(some_text_up_to(MAX_KEY_BYTES)), within(1..=MAX_INTEGER))
            .prop_map(|(topic, payload, key, ttl_ms)| M::Publish {
                topic,
                payload,
                key: key.map(|key| IdempotencyKey::new(&key).unwrap()),
                ttl_ms,
            })
            .boxed(),
        (topic_name(), since(), maybe_integer(), page(), any::<bool>())
            .prop_map(|(topic, since, since_time, limit, reverse)| {
                let since_time = since_time.filter(|_| since.is_none());
                M::History { topic, since, since_time, limit, reverse }
            })
            .boxed(),
        (topic_name(), page(), prop::option::of(client_id()), any::<bool>())
            .prop_map(|(topic, limit, after, counts)| M::Presence { topic, limit, after, counts })
            .boxed(),
        token().prop_map(|token| M::Refresh { token }).boxed(),
        close().prop_map(M::Close).boxed(),
    ]
}

fn maybe_text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(text())
}

fn maybe_integer() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(integer())
}

fn handshake_reply() -> impl Strategy<Value = HandshakeReply> {
    let new = (maybe_integer(), maybe_integer());
    let limits = ([integer(), integer(), integer(), integer()], maybe_integer(), maybe_integer(), new).prop_map(
        |(always, max_unfinished_bytes, max_pending_replies, (max_meta_bytes, max_open_requests))| {
            let [max_message_bytes, ping_interval_ms, ping_timeout_ms, max_request_lanes] = always;
            Limits {
                max_message_bytes,
                ping_interval_ms,
                ping_timeout_ms,
                max_request_lanes,
                max_unfinished_bytes,
                max_pending_replies,
                max_meta_bytes,
                max_open_requests,
            }
        },
    );
    let limits = prop::option::of(limits);
    let id = prop::option::of(client_id());
    let compression = prop::sample::select(vec![Compression::None, Compression::Zstd, Compression::Deflate]);
    let session = (prop::option::of(json(1)), maybe_text(), prop::collection::vec(text(), 0..3));
    let identity = (maybe_text(), maybe_text(), maybe_integer(), maybe_text(), session);
    (any::<bool>(), id, text(), maybe_text(), maybe_text(), limits, compression, identity).prop_map(
        |(accepted, client_id, server_name, protocol_version, reason, limits, compression, identity)| {
            let (user, client_name, expires_at, inbox, (info, session, subscriptions)) = identity;
            let info = info.filter(|info| !info.is_null());
            HandshakeReply {
                accepted,
                client_id,
                server_name,
                protocol_version,
                reason,
                limits,
                compression,
                user,
                client_name,
                expires_at,
                permissions: expires_at.map(permissions),
                inbox,
                info,
                session,
                subscriptions,
            }
        },
    )
}

/// Each of the sixteen combinations, by the number's last bits.
fn permissions(bits: u64) -> Permissions {
    let is = |bit: u64| bits & bit != 0;
    Permissions { broadcast: is(1), direct: is(2), signal: is(4), list_clients: is(8) }
}

fn client_info() -> impl Strategy<Value = ClientInfo> {
    let transport = prop::sample::select(vec!["quic", "webtransport", "websocket"]).prop_map(Cow::Borrowed);
    (member(), integer(), transport)
        .prop_map(|(member, connected_at, transport)| ClientInfo::new(member, connected_at, transport))
}

fn member() -> impl Strategy<Value = Member> {
    let json = || prop::option::of(json(4)).prop_map(|json| json.filter(|json| !json.is_null()));
    let rest = (json(), json(), maybe_integer(), any::<bool>());
    (client_id(), maybe_text(), maybe_text(), rest).prop_map(|(id, name, user, (info, state, clients, away))| Member {
        id,
        name,
        user,
        info,
        state,
        clients,
        away,
    })
}

fn subscribed() -> impl Strategy<Value = Subscribed> {
    let recovered = prop::option::of(any::<bool>());
    let durable = (maybe_text(), maybe_integer(), maybe_integer());
    (text(), maybe_text(), maybe_integer(), recovered, maybe_integer(), maybe_text(), durable).prop_map(
        |(topic, epoch, offset, recovered, lane, reason, (durable, acked, pending))| {
            let may_publish = recovered.map(|it| !it);
            let by_server = recovered == Some(true);
            let plain = Subscribed { epoch, offset, recovered, lane, reason, ..Subscribed::new(topic) };
            Subscribed { may_publish, durable, acked, pending, by_server, ..plain }
        },
    )
}

/// One strategy for each server message.
pub(super) fn server_messages() -> Vec<BoxedStrategy<ServerMessage>> {
    use ServerMessage as M;
    let of_consumer = (maybe_text(), maybe_integer());
    let times = (integer(), maybe_integer());
    let topic_message = (text(), integer(), of_consumer, prop::option::of(sender()), payload(), times).prop_map(
        |(topic, offset, (durable, tries), from, payload, (timestamp, expires_at))| TopicMessage {
            topic,
            offset,
            durable,
            tries,
            from,
            payload,
            timestamp,
            expires_at,
        },
    );
    let stored = prop::option::of(prop_oneof![Just(Stored::Os), Just(Stored::Fsync)]);
    let error = (any::<u16>(), text(), maybe_integer()).prop_map(|(code, message, retry_after_ms)| ErrorReply {
        code,
        message,
        retry_after_ms,
    });
    let closed = (any::<u16>(), text(), maybe_integer()).prop_map(|(code, reason, reconnect_after_ms)| ClosedBy {
        code: CloseCode(code),
        reason,
        reconnect_after_ms,
    });
    vec![
        handshake_reply().prop_map(|reply| M::HandshakeResponse(Box::new(reply))).boxed(),
        (text(), maybe_integer()).prop_map(|(text, timestamp)| M::Text { content: text.into(), timestamp }).boxed(),
        (payload(), maybe_integer()).prop_map(|(payload, timestamp)| M::Binary { payload, timestamp }).boxed(),
        (sender(), payload(), integer())
            .prop_map(|(from, payload, timestamp)| M::Broadcast { from, payload, timestamp })
            .boxed(),
        (sender(), payload(), integer())
            .prop_map(|(from, payload, timestamp)| M::Direct { from, payload, timestamp })
            .boxed(),
        (sender(), json(1), integer()).prop_map(|(from, data, timestamp)| M::Signal { from, data, timestamp }).boxed(),
        (text(), maybe_text(), prop::option::of(sender()), payload(), integer(), integer())
            .prop_map(|(request, topic, from, payload, timestamp, timeout_ms)| {
                M::Request(Box::new(Called { request, topic, from, payload, timestamp, timeout_ms }))
            })
            .boxed(),
        (prop::option::of(sender()), payload(), prop::option::of(failure()), integer())
            .prop_map(|(from, payload, failure, timestamp)| {
                M::Reply(Box::new(Replied { from, payload, failure, timestamp }))
            })
            .boxed(),
        (text(), maybe_text()).prop_map(|(request, reason)| M::Cancel { request, reason }).boxed(),
        (maybe_integer(), integer()).prop_map(|(timestamp, server_time)| M::Pong { timestamp, server_time }).boxed(),
        integer().prop_map(|timestamp| M::Ping { timestamp }).boxed(),
        (prop::collection::vec(client_info(), 0..5), integer(), prop::option::of(client_id()))
            .prop_map(|(clients, total, next)| M::ClientList { clients, total, next })
            .boxed(),
        subscribed().prop_map(M::Subscribed).boxed(),
        (integer(), any::<u8>()).prop_map(|(lane, priority)| M::Lane { lane, priority }).boxed(),
        (text(), integer(), integer(), maybe_text())
            .prop_map(|(topic, first, last, reason)| M::Gap { topic, first, last, reason })
            .boxed(),
        (text(), any::<u16>(), maybe_text())
            .prop_map(|(topic, code, reason)| M::Unsubscribed { topic, code, reason })
            .boxed(),
        topic_message.prop_map(M::Message).boxed(),
        (text(), text(), integer(), any::<bool>(), stored)
            .prop_map(|(topic, epoch, offset, duplicate, stored)| M::Published {
                topic,
                epoch,
                offset,
                duplicate,
                stored,
            })
            .boxed(),
        (text(), text(), maybe_integer(), any::<Option<bool>>(), prop::collection::vec(raw(2), 0..4), any::<bool>())
            .prop_map(|(topic, epoch, offset, recovered, messages, more)| M::History {
                topic,
                epoch,
                offset,
                recovered,
                messages,
                more,
            })
            .boxed(),
        (
            text(),
            prop::collection::vec(member(), 0..5),
            maybe_integer(),
            maybe_integer(),
            prop::option::of(client_id()),
        )
            .prop_map(|(topic, clients, total, users, next)| M::Presence { topic, clients, total, users, next })
            .boxed(),
        (text(), member()).prop_map(|(topic, client)| M::State { topic, client }).boxed(),
        (text(), integer(), integer())
            .prop_map(|(topic, clients, users)| M::Occupancy { topic, clients, users })
            .boxed(),
        (text(), member(), client_id()).prop_map(|(topic, client, was)| M::Return { topic, client, was }).boxed(),
        (text(), member()).prop_map(|(topic, client)| M::Join { topic, client }).boxed(),
        (text(), member()).prop_map(|(topic, client)| M::Leave { topic, client }).boxed(),
        (maybe_integer(), maybe_integer(), maybe_text())
            .prop_map(|(delivered, acked, topic)| M::Ok { delivered, acked, topic })
            .boxed(),
        error.prop_map(M::Error).boxed(),
        integer().prop_map(|expires_at| M::Expiring { expires_at }).boxed(),
        maybe_integer()
            .prop_map(|expires_at| M::Refreshed { expires_at, permissions: expires_at.map(permissions) })
            .boxed(),
        closed.prop_map(M::Close).boxed(),
    ]
}

fn requests() -> impl Strategy<Value = Request> {
    (request_id(), Union::new(client_messages())).prop_map(|(id, message)| {
        let needs_id = matches!(message, ClientMessage::Request(_));
        Request { id: id.or(needs_id.then_some(RequestId::Number(0))), message }
    })
}

fn replies() -> impl Strategy<Value = Reply> {
    (request_id(), Union::new(server_messages())).prop_map(|(re, message)| Reply { re, message })
}

fn framed(encode: impl Fn(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.freeze()
}

fn only_body(frame: Bytes) -> Bytes {
    let mut decoder = FrameDecoder::new(MAX);
    decoder.push(frame);
    let body = decoder.next_body().unwrap().expect("a whole frame");
    assert!(!decoder.is_inside_frame(), "bytes after the frame");
    body
}

/// Decodes the value of `frame`, which is one frame with one JSON object of this type, compressed or not.
fn read<T: Debug>(frame: &Bytes, kind: &str, parse: fn(&Body) -> Result<T, Invalid>) -> T {
    let body = Body::parse(only_body(frame.clone()), Compression::None, MAX).unwrap();
    let object: Map<String, Value> = serde_json::from_slice(&body.json).unwrap_or_else(|_| {
        // Forwarded numbers may exceed every Rust type; the object around them is still valid.
        let fields: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&body.json).unwrap();
        fields.into_iter().map(|(key, raw)| (key, serde_json::from_str(raw.get()).unwrap_or_default())).collect()
    });
    assert_eq!(object["type"], kind);
    for form in [Compression::Zstd, Compression::Deflate] {
        if let Some(packed) = compress(frame, form) {
            assert!(packed.len() < frame.len());
            assert_eq!(Body::parse(packed.slice(PREFIX_BYTES..), form, MAX).unwrap(), body);
        }
    }
    parse(&body).unwrap()
}

proptest! {
    // Enough cases for each message to occur in each of its forms.
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_client_message_survives_a_round_trip(request in requests()) {
        let frame = framed(|out| request.encode(out));
        let got = read(&frame, request.message.type_name(), Request::parse);
        prop_assert_eq!(format!("{got:?}"), format!("{request:?}"));
        prop_assert_eq!(framed(|out| got.encode(out)), frame);
    }

    #[test]
    fn every_server_message_survives_a_round_trip(reply in replies()) {
        let frame = framed(|out| reply.encode(out));
        let got = read(&frame, reply.message.type_name(), Reply::parse);
        prop_assert_eq!(format!("{got:?}"), format!("{reply:?}"));
        prop_assert_eq!(framed(|out| got.encode(out)), frame);
    }

    #[test]
    fn directly_written_echoes_equal_encoded_messages(
        re in request_id(), content in text(), bytes in attachment(), timestamp in integer(),
    ) {
        let text = ServerMessage::Text { content: format!("Echo: {content}").into(), timestamp: Some(timestamp) };
        let echo = framed(|out| encode_echo(&content, re.as_ref(), timestamp, out));
        prop_assert_eq!(echo, framed(|out| text.encode(re.as_ref(), out)));
        let mut echo = framed(|out| encode_binary_head(bytes.len(), re.as_ref(), timestamp, out)).to_vec();
        echo.extend_from_slice(&bytes);
        let binary = ServerMessage::Binary { payload: Payload::binary(bytes), timestamp: Some(timestamp) };
        prop_assert_eq!(echo, framed(|out| binary.encode(re.as_ref(), out)));
    }

    #[test]
    fn consecutive_frames_do_not_affect_each_other(requests in prop::collection::vec(requests(), 1..5)) {
        let together = framed(|out| requests.iter().for_each(|request| request.encode(out)));
        let apart: Vec<_> = requests.iter().flat_map(|request| framed(|out| request.encode(out))).collect();
        prop_assert_eq!(together, apart);
    }

    #[test]
    fn a_damaged_message_is_refused_with_a_short_error_or_still_valid(
        frame in prop_oneof![
            requests().prop_map(|request| framed(|out| request.encode(out))),
            replies().prop_map(|reply| framed(|out| reply.encode(out))),
        ],
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut body = only_body(frame).to_vec();
        for (at, byte) in damage { let at = at.index(body.len()); body[at] = byte; }
        for length in [body.len(), end.index(body.len()) + 1] {
            let body = Bytes::copy_from_slice(&body[..length]);
            for form in [Compression::Zstd, Compression::Deflate] {
                let Ok(body) = Body::parse(body.clone(), form, MAX) else { continue };
                for refused in [Request::parse(&body).err(), Reply::parse(&body).err()].into_iter().flatten() {
                    prop_assert!((1..=MAX_INVALID_CHARS + 3).contains(&refused.message.chars().count()));
                }
            }
        }
    }
}
