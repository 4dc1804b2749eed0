//! Encoding and decoding of `subscribe`.

use bytestring::ByteString;

use super::Source;
use super::parts::{bounded, choice, object};
use crate::message::client::{
    AckMode, ConsumerRequest, DeliveryMode, LaneChoice, MAX_FILTER_BYTES, MAX_RATE, Subscribe,
};
use crate::message::fields::{self, Scalar};
use crate::message::json::Object;
use crate::message::{Invalid, Json};

impl Subscribe {
    pub(super) fn read<'a>(f: &mut impl Source<'a>, json: &ByteString) -> Result<Self, Invalid> {
        let (presence, occupancy) = presence(f.scalar("presence"))?;
        let (max_rate, filter) = (f.integer("max_rate")?, object(f.raw("filter"), "filter", json)?);
        bounded(max_rate, "max_rate", &MAX_RATE)?;
        if filter.as_ref().is_some_and(|filter| filter.len() > MAX_FILTER_BYTES) {
            return Err(Invalid::field(format!("filter: at most {MAX_FILTER_BYTES} bytes are allowed")));
        }
        Ok(Self {
            topic: f.pattern()?,
            since: fields::position(f.raw("since"), "since")?,
            since_time: f.integer("since_time")?,
            recent: f.integer("recent")?,
            delivery: choice(
                f.scalar("delivery"),
                "delivery",
                [("stream", DeliveryMode::Stream), ("datagram", DeliveryMode::Datagram)],
            )?,
            lane: choice(
                f.scalar("lane"),
                "lane",
                [("own", LaneChoice::Own), ("control", LaneChoice::Control), ("bulk", LaneChoice::Bulk)],
            )?,
            presence,
            occupancy,
            state: f.raw("state").map(|raw| Json::shared(raw, json)),
            consumer: ConsumerRequest::read(f)?,
            requests: f.boolean("requests")?.unwrap_or(false),
            max_rate,
            echo: f.boolean("echo")?.unwrap_or(true),
            filter,
        })
    }

    pub(super) fn put(&self, o: &mut Object<'_>) {
        o.text("topic", self.topic.as_str());
        o.optional("since", self.since.as_ref());
        o.optional_integer("since_time", self.since_time);
        o.optional_integer("recent", self.recent);
        if self.delivery == DeliveryMode::Datagram {
            o.text("delivery", "datagram");
        }
        match self.lane {
            LaneChoice::Own => {}
            LaneChoice::Control => o.text("lane", "control"),
            LaneChoice::Bulk => o.text("lane", "bulk"),
        }
        if self.presence {
            o.boolean("presence", true);
        } else if self.occupancy {
            o.text("presence", "counts");
        }
        o.optional_json("state", self.state.as_ref());
        match &self.consumer {
            None => {}
            Some(ConsumerRequest::Group) => o.boolean("share", true),
            Some(ConsumerRequest::Durable(consumer)) => {
                o.text("durable", consumer.name.as_str());
                if consumer.share {
                    o.boolean("share", true);
                }
                o.optional_text("ack", consumer.ack.map(AckMode::as_str));
                o.optional_integer("ack_wait_ms", consumer.ack_wait_ms);
                o.optional_integer("max_in_flight", consumer.max_in_flight);
                o.optional_integer("max_deliver", consumer.max_deliver);
            }
        }
        if self.requests {
            o.boolean("requests", true);
        }
        o.optional_integer("max_rate", self.max_rate);
        if !self.echo {
            o.boolean("echo", false);
        }
        o.optional_json("filter", self.filter.as_ref());
    }
}

/// Whether a subscription hears of members, and whether of their numbers.
fn presence(wanted: Scalar<'_>) -> Result<(bool, bool), Invalid> {
    match wanted {
        Scalar::Absent => Ok((false, false)),
        Scalar::Boolean(wanted) => Ok((wanted, false)),
        Scalar::Text(text) if text == "counts" => Ok((false, true)),
        _ => Err(Invalid::field("presence: true, false or \"counts\" is expected")),
    }
}
