//! Messages that are not part of a load: signs of life, confirmations, errors.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::super::{Driver, message};

/// A message of this project's server that is not part of the load.
#[derive(Deserialize)]
pub(super) struct Control<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    timestamp: Option<u64>,
    code: Option<u32>,
    #[serde(alias = "reason")]
    pub(super) message: Option<String>,
    pub(super) accepted: Option<bool>,
    re: Option<&'a str>,
    pub(super) client_id: Option<&'a str>,
    pub(super) session: Option<&'a str>,
}

/// Consequence of a message that is not part of the load.
pub(in super::super) enum Notice {
    Nothing,
    /// The server expects this body in return.
    Pong(Vec<u8>),
    /// The message with this number was published.
    Published(u64),
}

/// Parses a message that is not part of a load. Any message that reports a loss is an error.
pub(in super::super) fn understand(driver: Driver, body: &[u8]) -> Result<Notice> {
    match driver {
        Driver::Qws | Driver::QwsWss => understand_json(body),
        Driver::Nats if body == b"PING" => Ok(Notice::Pong(b"PONG\r\n".to_vec())),
        Driver::Nats if body.starts_with(b"-ERR") => bail!("the server sent {}", String::from_utf8_lossy(body)),
        Driver::Nats | Driver::Bare | Driver::Wss => Ok(Notice::Nothing),
    }
}

fn understand_json(body: &[u8]) -> Result<Notice> {
    let notice: Control<'_> = serde_json::from_slice(body).context("a message outside the protocol")?;
    Ok(match notice.kind {
        "ping" => Notice::Pong(
            format!(r#"{{"type":"pong","timestamp":{}}}"#, notice.timestamp.unwrap_or_default()).into_bytes(),
        ),
        "published" => notice.re.and_then(message::published).map_or(Notice::Nothing, Notice::Published),
        "error" | "close" | "gap" | "unsubscribed" => bail!("the server sent {}", notice.summary()),
        _ => Notice::Nothing,
    })
}

impl Control<'_> {
    pub(super) fn summary(&self) -> String {
        let (code, message) = (self.code.unwrap_or_default(), self.message.as_deref().unwrap_or_default());
        format!("{} {code}: {message}", self.kind)
    }
}
