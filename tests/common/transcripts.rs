//! Reads docs/transcripts and compares runs with them, by the rules of docs/transcripts/README.md.

use std::collections::BTreeMap;
use std::path::Path;

use quic_websocket::Config;
use quic_websocket::config::Durability;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::forms::Form;
use super::tokens;

/// One file.
#[derive(Debug)]
pub struct Transcript {
    /// The file, without its ending.
    pub file: String,
    pub head: Head,
    /// The steps with their line numbers.
    pub steps: Vec<(usize, Step)>,
}

/// The first line of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// A sentence that says what it shows.
    pub transcript: String,
    /// Sections of docs/PROTOCOL.md.
    pub sections: Vec<u8>,
    /// Settings that differ from the defaults.
    #[serde(default)]
    pub server: Map<String, Value>,
    /// The claims of the example tokens.
    #[serde(default)]
    tokens: BTreeMap<String, TokenClaims>,
    /// The carriers that it runs on; empty means all.
    #[serde(default)]
    pub carriers: Vec<String>,
    /// Optional features that a client library needs for it.
    #[serde(default)]
    pub needs: Vec<String>,
    /// The sides that it tests; empty means both.
    #[serde(default, rename = "for")]
    pub whom: Vec<String>,
    /// Whether client ids must sort as their examples do.
    #[serde(default)]
    pub ids_in_order: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenClaims {
    claims: Value,
    expires_in_s: u64,
}

/// One step: a client or the operator, one verb, and its modifiers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    #[serde(default)]
    pub client: String,
    pub operator: Option<String>,

    pub connects: Option<Value>,
    pub connected: Option<Value>,
    pub sends: Option<Value>,
    pub sends_body: Option<String>,
    pub sends_frame: Option<String>,
    pub receives: Option<Value>,
    pub finishes: Option<String>,
    pub finished: Option<String>,
    pub closed: Option<u64>,
    pub leaves: Option<Value>,

    pub call: Option<String>,
    pub returns: Option<Value>,
    pub fails: Option<Value>,
    pub event: Option<String>,

    pub with: Option<Value>,
    #[serde(rename = "as")]
    pub label: Option<String>,
    pub of: Option<String>,
    pub attachment: Option<String>,
    pub frame: Option<String>,
    #[serde(default = "control")]
    pub on: String,
    pub compressed: Option<bool>,
    #[serde(default)]
    pub may: Vec<String>,
    #[serde(default)]
    pub in_any_order: bool,
    pub client_id: Option<String>,
    pub code: Option<u64>,
    pub reason: Option<String>,
}

fn control() -> String {
    "control".into()
}

impl Step {
    pub fn attachment(&self) -> Option<Vec<u8>> {
        self.attachment.as_deref().map(bytes)
    }

    /// The label of a call.
    pub fn label(&self) -> &str {
        self.label.as_deref().or(self.call.as_deref()).expect("a call")
    }
}

/// Decodes hexadecimal bytes; white space is ignored.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("a byte");
    digits.chunks(2).map(byte).collect()
}

/// The name and text of each file.
pub fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("its text"))
        })
        .collect();
    files.sort();
    files
}

impl Transcript {
    /// All transcripts.
    pub fn all() -> Vec<Self> {
        files().into_iter().map(|(file, text)| Self::read(file, &text)).collect()
    }

    fn read(file: String, text: &str) -> Self {
        let mut lines = text.lines().enumerate();
        let (_, head) = lines.next().expect("a first line");
        let head = serde_json::from_str(head).unwrap_or_else(|e| panic!("{file}: {e}"));
        let step = |(number, line): (usize, &str)| {
            let step = serde_json::from_str(line).unwrap_or_else(|e| panic!("{file}:{}: {e}", number + 1));
            (number + 1, step)
        };
        let steps = lines.map(step).collect();
        Self { file, head, steps }
    }

    pub fn is_for(&self, whom: &str) -> bool {
        self.head.whom.is_empty() || self.head.whom.iter().any(|one| one == whom)
    }

    pub fn runs_on(&self, carrier: &str) -> bool {
        self.head.carriers.is_empty() || self.head.carriers.iter().any(|one| one == carrier)
    }

    /// The clients with calls or events, which a library can play.
    pub fn subjects(&self) -> Vec<String> {
        let mut subjects = Vec::new();
        for (_, step) in &self.steps {
            if (step.call.is_some() || step.event.is_some()) && !subjects.contains(&step.client) {
                subjects.push(step.client.clone());
            }
        }
        subjects
    }

    /// Applies its settings to those of a test server, which keeps durable topics in this directory.
    pub fn configure(&self, config: &mut Config, dir: &Path) {
        let toml = toml::to_string(&self.head.server).expect("settings");
        let needed: Config = toml::from_str(&toml).unwrap_or_else(|e| panic!("{}: {e}", self.file));
        let (addr, tls, workers) = (config.addr, config.tls.clone(), config.workers);
        *config = needed;
        (config.addr, config.tls, config.workers) = (addr, tls, workers);
        config.timing.drain_timeout_ms = 2000;
        if config.topics.iter().any(|rule| rule.durability != Durability::Memory) {
            config.store.dir = Some(dir.to_owned());
            config.store.segment_bytes = 1 << 20;
            config.store.min_free_bytes = 0;
        }
        config.webtransport.short_lived_certificate = Some(false);
    }

    /// Begins a run, with signed tokens in place of the examples.
    pub fn run(&self) -> Run {
        let mut run = Run::default();
        if self.head.ids_in_order {
            let clients = self.steps.iter().filter_map(|(_, step)| step.connected.as_ref());
            run.order = clients.filter_map(|fields| fields["client_id"].as_str().map(str::to_owned)).collect();
            run.order.sort();
        }
        let keys = self.head.server.get("auth").map_or(&Value::Null, |auth| &auth["keys"][0]["secret"]);
        for (example, TokenClaims { claims, expires_in_s }) in &self.head.tokens {
            let mut claims = claims.clone();
            claims["exp"] = json!(tokens::now() + expires_in_s);
            let key = jsonwebtoken::EncodingKey::from_secret(keys.as_str().expect("a secret").as_bytes());
            let token = tokens::signed(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), &key, &claims);
            run.bind(Kind::Token, &json!(example), &json!(token)).expect("tokens differ");
        }
        run
    }
}

/// What a field's value stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The value itself.
    Literal,
    Client,
    Request,
    Epoch,
    Offset,
    Time,
    Lane,
    Token,
    Session,
    /// The number of a request to another client.
    Call,
    /// Text for people: any.
    Text,
    /// Any number of milliseconds.
    Wait,
    Carrier,
}

impl Kind {
    fn of(field: &str, is_top: bool, value: &Value) -> Self {
        match field {
            "id" if is_top => Self::Request,
            "re" => Self::Request,
            "id" | "client_id" | "from" | "to" | "after" | "next" | "was" => Self::Client,
            "session" | "resume" | "attach" => Self::Session,
            "request" => Self::Call,
            "epoch" => Self::Epoch,
            "offset" | "first" | "last" => Self::Offset,
            "timestamp" | "since_time" | "server_time" | "connected_at" | "expires_at" => Self::Time,
            "lane" if value.is_number() => Self::Lane,
            "token" => Self::Token,
            "message" | "reason" => Self::Text,
            "retry_after_ms" | "reconnect_after_ms" => Self::Wait,
            "transport" => Self::Carrier,
            _ => Self::Literal,
        }
    }
}

/// The values that the examples stand for in one run.
#[derive(Debug, Default)]
pub struct Run {
    bound: Vec<(Kind, Value, Value)>,
    /// The ids of the clients in order, if that matters.
    order: Vec<String>,
    /// The carrier's name, if it is known.
    carrier: &'static str,
}

/// How to compare a message with its example.
#[derive(Debug, Clone, Copy)]
pub struct Compare<'a> {
    /// Fields that may be absent or present.
    pub may: &'a [String],
    /// Whether other fields may be present.
    pub is_open: bool,
    /// Whether fields may be absent.
    pub is_partial: bool,
}

impl Run {
    /// Sets the carrier, which lists of clients name.
    pub fn over(self, carrier: &'static str) -> Self {
        Self { carrier, ..self }
    }

    fn actual(&self, kind: Kind, example: &Value) -> Option<&Value> {
        let bound = self.bound.iter().find(|(of, known, _)| *of == kind && known == example);
        bound.map(|(_, _, actual)| actual)
    }

    fn bind(&mut self, kind: Kind, example: &Value, actual: &Value) -> Result<(), String> {
        if let Some(known) = self.actual(kind, example) {
            let same = if known == actual { Ok(()) } else { Err(format!("{actual} where {example} was {known}")) };
            return same;
        }
        for (of, other, known) in &self.bound {
            if *of != kind {
                continue;
            }
            // Two examples of a time or an epoch may stand for the same value: topics may share an epoch.
            let is_taken = !matches!(kind, Kind::Time | Kind::Epoch) && known == actual;
            let order = |one: &Value, two: &Value| one.as_u64().cmp(&two.as_u64());
            let swaps = kind == Kind::Offset && order(other, example) != order(known, actual);
            if is_taken || swaps {
                return Err(format!("{actual} for {example}, where {other} was {known}"));
            }
        }
        if kind == Kind::Offset && (example == 0) != (actual == 0) {
            return Err(format!("{actual} for {example}"));
        }
        self.bound.push((kind, example.clone(), actual.clone()));
        Ok(())
    }

    /// Whether a client's id lies so that all ids will sort as their examples do: each has an equal part of all values.
    pub fn is_in_order(&self, example: &Value) -> bool {
        let Some(place) = self.order.iter().position(|id| example == id) else { return true };
        let id = self.actual(Kind::Client, example).and_then(Value::as_str).expect("a client's id");
        usize::from_str_radix(&id[..2], 16).expect("hexadecimal") * self.order.len() / 256 == place
    }

    /// Forgets a client's id.
    pub fn forget_client(&mut self, example: &Value) {
        self.bound.retain(|(kind, known, _)| *kind != Kind::Client || known != example);
    }

    /// A client's id in this run.
    pub fn client(&self, example: &str) -> Option<String> {
        self.actual(Kind::Client, &json!(example)).and_then(Value::as_str).map(str::to_owned)
    }

    /// An example with the values of this run.
    pub fn fill(&self, example: &Value) -> Value {
        self.fill_in(example, true)
    }

    fn fill_in(&self, example: &Value, is_top: bool) -> Value {
        match example {
            Value::Object(fields) => {
                let mut filled = Map::new();
                for (field, value) in fields {
                    let kind = Kind::of(field, is_top, value);
                    let value = match self.actual(kind, value) {
                        // The client chose no id.
                        Some(Value::Null) if kind == Kind::Request => continue,
                        Some(actual) => actual.clone(),
                        None if is_opaque(field) => value.clone(),
                        None => self.fill_in(value, false),
                    };
                    filled.insert(field.clone(), value);
                }
                Value::Object(filled)
            }
            Value::Array(values) => values.iter().map(|value| self.fill_in(value, false)).collect(),
            other => other.clone(),
        }
    }

    /// Compares a value with its example, and binds what is new in it.
    pub fn compare(&mut self, example: &Value, actual: &Value, how: Compare<'_>) -> Result<(), String> {
        self.compare_in(example, actual, how, true)
            .map_err(|wrong| format!("{wrong}\nexpected {example}\ngot {actual}"))
    }

    fn compare_in(&mut self, example: &Value, actual: &Value, how: Compare<'_>, is_top: bool) -> Result<(), String> {
        match (example, actual) {
            (Value::Object(expected), Value::Object(got)) => {
                let may = |field: &String| how.may.contains(field);
                let more = got.keys().find(|field| !expected.contains_key(*field) && !may(field));
                if let Some(more) = more.filter(|_| !how.is_open) {
                    return Err(format!("{more} was not expected"));
                }
                for (field, value) in expected {
                    let kind = Kind::of(field, is_top, value);
                    match got.get(field) {
                        // The client chooses an id for each request.
                        chosen if how.is_open && kind == Kind::Request => {
                            self.bound.retain(|(of, known, _)| *of != kind || known != value);
                            self.bound.push((kind, value.clone(), chosen.cloned().unwrap_or_default()));
                        }
                        None if how.is_partial || may(field) => {}
                        None => return Err(format!("{field} is missing")),
                        Some(actual) if kind == Kind::Literal && is_opaque(field) => same(field, value, actual)?,
                        Some(actual) => {
                            self.compare_field(kind, value, actual, how).map_err(|wrong| format!("{field}: {wrong}"))?
                        }
                    }
                }
                Ok(())
            }
            (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
                expected.iter().zip(got).try_for_each(|(one, other)| self.compare_in(one, other, how, false))
            }
            (expected, got) => same("it", expected, got),
        }
    }

    fn compare_field(&mut self, kind: Kind, example: &Value, actual: &Value, how: Compare<'_>) -> Result<(), String> {
        let is = match kind {
            Kind::Literal => return self.compare_in(example, actual, how, false),
            Kind::Carrier if self.carrier.is_empty() => actual == example,
            Kind::Carrier => actual == self.carrier,
            Kind::Text => actual.as_str().is_some_and(|text| !text.is_empty()),
            Kind::Wait => actual.is_u64(),
            Kind::Offset | Kind::Time | Kind::Lane if !actual.is_u64() => false,
            Kind::Client | Kind::Epoch | Kind::Token | Kind::Session | Kind::Call if !actual.is_string() => false,
            kind => return self.bind(kind, example, actual),
        };
        if is { Ok(()) } else { Err(format!("{actual} for {example}")) }
    }
}

/// Whether everything inside a field is its sender's, and literal.
fn is_opaque(field: &str) -> bool {
    matches!(field, "data" | "meta" | "state" | "info")
}

fn same(what: &str, expected: &Value, got: &Value) -> Result<(), String> {
    if expected == got { Ok(()) } else { Err(format!("{what} is {got}, not {expected}")) }
}

/// Decodes a body of any form to a message, its attachment, and whether it was compressed.
pub fn open(body: &[u8]) -> (Value, Option<Vec<u8>>, bool) {
    match body {
        [first @ (2 | 3), ..] => {
            let form = if *first == 2 { Form::Zstd } else { Form::Deflate };
            let (message, attachment, _) = open(&form.inflated(body));
            (message, attachment, true)
        }
        [1, rest @ ..] => {
            let (length, rest) = rest.split_first_chunk().expect("a length");
            let (json, attachment) = rest.split_at(u32::from_be_bytes(*length) as usize);
            (serde_json::from_slice(json).expect("JSON"), Some(attachment.to_vec()), false)
        }
        json => (serde_json::from_slice(json).expect("JSON"), None, false),
    }
}

/// Encodes a body, compressed with zstd if it is compressed.
pub fn body(message: &Value, attachment: Option<&[u8]>, is_compressed: bool) -> Vec<u8> {
    let body = match attachment {
        Some(attachment) => super::with_attachment(message, attachment),
        None => message.to_string().into_bytes(),
    };
    if is_compressed { Form::Zstd.body(&body) } else { body }
}
