//! Reads topics back in all three ways that the protocol has: history forwards and backwards, and a replay.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::connection::{Connection, Dialer};
use super::content;
use super::history::now;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After this long without a message a replay has ended.
const SILENCE: Duration = Duration::from_secs(1);

/// Offsets and labels, in the order in which they came.
type Records = Vec<(u64, String)>;

/// Prints a line for each topic: `{"do":"read", ...}`.
pub(crate) async fn run(dialer: &Dialer, topics: &[Arc<str>], both_ways: bool) -> Result<()> {
    let mut connection = dialer.connect("reader").await?;
    for topic in topics {
        let at = now();
        let (head, records) = history(&mut connection, topic, false).await?;
        let (gaps, replayed) = replay(&mut connection, topic, &head).await?;
        let mut event = json!({
            "at": at, "do": "read", "topic": topic, "epoch": head["epoch"], "newest": head["offset"],
            "records": records, "gaps": gaps, "replayed": replayed,
        });
        if both_ways {
            let (_, mut backwards) = history(&mut connection, topic, true).await?;
            backwards.reverse();
            event["backwards"] = json!(backwards);
        }
        println!("{event}");
    }
    connection.close().await;
    Ok(())
}

/// The next message of these types, or an error if there is none.
async fn reply(connection: &mut Connection, kind: &str) -> Result<Value> {
    loop {
        let body =
            timeout(PATIENCE, connection.receive()).await.context("no reply")?.context("the connection ended")?;
        connection.answer(&body).await;
        match body.json["type"].as_str() {
            Some(found) if found == kind => return Ok(body.json),
            Some("error" | "close") => bail!("{}", body.json),
            _ => {}
        }
    }
}

/// All pages of a topic's history, and the first page's other fields.
async fn history(connection: &mut Connection, topic: &str, reverse: bool) -> Result<(Value, Records)> {
    let mut head = Value::Null;
    let mut records = Records::new();
    let mut request = json!({ "type": "history", "id": "h", "topic": topic, "limit": 1000, "reverse": reverse });
    loop {
        connection.send(&request, None).await?;
        let mut page = reply(connection, "history").await?;
        for message in page["messages"].as_array().context("a page without messages")? {
            let data = message["data"].as_str().map(|data| BASE64_STANDARD.decode(data)).transpose()?;
            let label = content::read(&message["content"], data.as_deref());
            records.push((message["offset"].as_u64().context("a message without an offset")?, label));
        }
        let more = page["more"] == true;
        let epoch = page["epoch"].clone();
        if head.is_null() {
            page["messages"] = Value::Null;
            head = page;
        }
        match records.last() {
            Some((offset, _)) if more => request["since"] = json!({ "epoch": epoch, "offset": offset }),
            _ => return Ok((head, records)),
        }
    }
}

/// What a subscription from before the first message brings, up to the newest.
async fn replay(connection: &mut Connection, topic: &str, head: &Value) -> Result<(Vec<(u64, u64)>, Records)> {
    let (mut gaps, mut records) = (Vec::new(), Records::new());
    let Some(newest) = head["offset"].as_u64().filter(|newest| *newest > 0) else { return Ok((gaps, records)) };
    let since = json!({ "epoch": head["epoch"], "offset": 0 });
    connection.send(&json!({ "type": "subscribe", "id": "r", "topic": topic, "since": since }), None).await?;
    let mut seen = 0;
    while seen < newest {
        let Ok(body) = timeout(SILENCE, connection.receive()).await else { break };
        let body = body.context("the connection ended")?;
        connection.answer(&body).await;
        match body.json["type"].as_str() {
            Some("message") if body.json["topic"] == topic => {
                seen = body.json["offset"].as_u64().context("a message without an offset")?;
                records.push((seen, content::read(&body.json["content"], body.attachment.as_deref())));
            }
            Some("gap") if body.json["topic"] == topic => {
                let bound = |name: &str| body.json[name].as_u64().context("a gap without bounds");
                gaps.push((bound("first")?, bound("last")?));
                seen = bound("last")?;
            }
            Some("error" | "close") => bail!("{}", body.json),
            _ => {}
        }
    }
    connection.send(&json!({ "type": "unsubscribe", "id": "u", "topic": topic }), None).await?;
    reply(connection, "ok").await?;
    Ok((gaps, records))
}
