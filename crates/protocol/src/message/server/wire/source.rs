//! Every field of a server's message, as it was read.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::message::fields::{self, Scalar};

/// Every field of any server message, unchecked.
#[derive(Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) re: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) content: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) from: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) timestamp: Scalar<'a>,
    #[serde(borrow, default, deserialize_with = "fields::even_null")]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) accepted: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) client_id: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) server_name: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) protocol_version: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) reason: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) limits: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) compression: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) server_time: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) clients: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) client: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) total: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) next: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) topic: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) epoch: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) offset: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) recovered: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) lane: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) priority: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) first: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) last: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) duplicate: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) subscriptions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) more: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) delivered: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) code: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) message: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) retry_after_ms: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) reconnect_after_ms: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) user: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) client_name: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) expires_at: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) permissions: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) may_publish: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) durable: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) acked: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) pending: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) tries: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) stored: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) name: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) timeout_ms: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) request: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) error: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) session: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) by: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) users: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) was: Scalar<'a>,
    #[serde(borrow, default)]
    pub(super) inbox: Scalar<'a>,
}
