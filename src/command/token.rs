//! `quic-websocket token`: creates and inspects tokens.

use std::io::{Read, Write};
use std::num::{IntErrorKind, NonZeroU32};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use quic_websocket::Config;
use quic_websocket::auth::{Claims, SigningKey, explain};
use quic_websocket::config::{AuthKey, Loaded, Patterns, TokenAlgorithm};
use quic_websocket::message::{Json, Token};

use super::say;
use crate::settings::environment;

/// Subcommands of `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it.
    Mint(Box<Mint>),
    /// Show a token's content and, with --config, whether the server accepts it; exit code 1 if it is invalid or
    /// refused.
    Explain(Explain),
}

/// Flags of `token mint`.
#[derive(Debug, Args)]
pub(crate) struct Mint {
    /// User (claim sub): 1 to 128 bytes
    #[arg(long = "sub", value_name = "USER")]
    user: String,
    /// Name that others see, which other clients cannot choose
    #[arg(long)]
    name: Option<String>,
    /// How long the token is valid: 30s, 15m, 12h or 7d, or never to have no end
    #[arg(long, default_value = "1h", value_parser = positive_life, value_name = "TIME")]
    expires: Life,
    /// Not valid until this long from now, such as 15m
    #[arg(long, value_parser = life, value_name = "TIME")]
    not_before: Option<Life>,
    /// Topic or pattern that may be published to, in which a level ${user} is the user; may be repeated
    #[arg(long, value_name = "TOPIC", value_parser = pattern)]
    publish: Vec<String>,
    /// Topic or pattern that may be subscribed to, in which a level ${user} is the user; may be repeated
    #[arg(long, value_name = "TOPIC", value_parser = pattern)]
    subscribe: Vec<String>,
    /// Topic or pattern whose members may be listed; may be repeated [default: those of --subscribe]
    #[arg(long, value_name = "TOPIC", value_parser = pattern)]
    presence: Vec<String>,
    /// Topic or pattern whose history may be read; may be repeated [default: those of --subscribe]
    #[arg(long, value_name = "TOPIC", value_parser = pattern)]
    history: Vec<String>,
    /// Topic or pattern to which the server subscribes the client, with its history; may be repeated, at most 32
    #[arg(long, value_name = "TOPIC", value_parser = pattern)]
    subscriptions: Vec<String>,
    /// What others see about the user, in lists of clients: any JSON, such as '{"avatar":"ada.png"}'
    #[arg(long, value_name = "JSON", value_parser = json)]
    info: Option<Json>,
    /// Allow sending to single clients, which includes --signal and --list-clients
    #[arg(long)]
    direct: bool,
    /// Allow signaling (WebRTC) with single clients
    #[arg(long)]
    signal: bool,
    /// Allow listing the connected clients
    #[arg(long)]
    list_clients: bool,
    /// Allow sending to all clients
    #[arg(long)]
    broadcast: bool,
    /// Messages per second that the client may send [default: the server's setting]
    #[arg(long, value_name = "MESSAGES", value_parser = rate)]
    max_rate: Option<NonZeroU32>,
    /// Issuer (claim iss)
    #[arg(long = "iss", value_name = "ISSUER")]
    issuer: Option<String>,
    /// Audience: the servers that accept it (claim aud)
    #[arg(long = "aud", value_name = "AUDIENCE")]
    audience: Option<String>,
    /// Unique id (claim jti), by which the token can be revoked [default: random]
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    #[command(flatten)]
    key: Key,
}

/// Flags of the signing key.
#[derive(Debug, Args)]
struct Key {
    /// Sign with the first secret in this configuration file of a server
    #[arg(long, value_name = "FILE", conflicts_with_all = ["secret_file", "private_key"])]
    config: Option<PathBuf>,
    /// Sign with the secret in this file
    #[arg(long, value_name = "FILE", conflicts_with = "private_key")]
    secret_file: Option<PathBuf>,
    /// Sign with the private key in this PEM file
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// Signing algorithm [default: HS256 with a secret, EdDSA with a private key]
    #[arg(long, value_enum)]
    algorithm: Option<TokenAlgorithm>,
    /// Name of the key, written to the token as kid
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
}

/// Flags of `token explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The token; - reads it from standard input
    token: String,
    /// Show whether a server with this configuration file accepts it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A duration; `None` without end.
#[derive(Debug, Clone, Copy)]
struct Life(Option<Duration>);

fn life(text: &str) -> Result<Life, String> {
    const EXPECTED: &str = "expected a number with s, m, h or d, such as 12h, or never";
    if text == "never" {
        return Ok(Life(None));
    }
    let number = text.trim_end_matches(char::is_alphabetic);
    let seconds = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(EXPECTED.into()),
    };
    let number = match number.parse::<u32>() {
        Ok(number) => number,
        Err(e) if *e.kind() == IntErrorKind::PosOverflow => {
            return Err(format!("the number is greater than {}; use never for no end", u32::MAX));
        }
        Err(_) => return Err(EXPECTED.into()),
    };
    Ok(Life(Some(Duration::from_secs(u64::from(number) * seconds))))
}

/// As [`life`], but not zero.
fn positive_life(text: &str) -> Result<Life, String> {
    match life(text)? {
        Life(Some(Duration::ZERO)) => Err("a token valid for no time is useless; use 1s or more".into()),
        life => Ok(life),
    }
}

fn rate(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| format!("expected a whole number from 1 to {}", u32::MAX))
}

fn json(text: &str) -> Result<Json, String> {
    Json::parse(text).map_err(|e| format!("expected JSON, such as {{\"avatar\":\"ada.png\"}} or \"text\": {e}"))
}

fn pattern(text: &str) -> Result<String, String> {
    text.parse::<Patterns>().map(|_| text.to_owned())
}

pub(crate) fn run(command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Mint(mint) => mint.run(),
        TokenCommand::Explain(explain) => explain.run(),
    }
}

impl Mint {
    fn run(self) -> anyhow::Result<ExitCode> {
        let key = self.key.read()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is set to a time before 1970")?;
        let list = |patterns: Vec<String>| (!patterns.is_empty()).then_some(patterns);
        let granted = |flag: bool| flag.then_some(true);
        let claims = Claims {
            sub: self.user,
            exp: self.expires.0.map(|life| (now + life).as_secs()),
            iat: Some(now.as_secs()),
            nbf: self.not_before.and_then(|wait| wait.0).map(|wait| (now + wait).as_secs()),
            iss: self.issuer,
            aud: self.audience,
            jti: Some(self.jti.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())),
            name: self.name,
            publish: list(self.publish),
            subscribe: list(self.subscribe),
            presence: list(self.presence),
            history: list(self.history),
            subscriptions: list(self.subscriptions),
            info: self.info,
            direct: granted(self.direct),
            signal: granted(self.signal),
            list_clients: granted(self.list_clients),
            broadcast: granted(self.broadcast),
            max_rate: self.max_rate,
        };
        say(key.sign(&claims)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Key {
    fn read(self) -> anyhow::Result<SigningKey> {
        if let Some(path) = &self.config {
            let config = read(path)?;
            let secret = config.auth.keys.iter().find(|key| key.secret.is_some() || key.secret_file.is_some());
            let Some(key) = secret else {
                bail!("{} contains no secret in auth.keys; use --private-key or --secret-file", path.display());
            };
            return Ok(SigningKey::from_config(key)?);
        }
        if let Some(path) = &self.private_key {
            let algorithm = self.algorithm.unwrap_or(TokenAlgorithm::EdDSA);
            return Ok(SigningKey::from_pem(algorithm, self.key_id, path)?);
        }
        let Some(secret_file) = self.secret_file else {
            bail!("no key to sign with; use --config, --secret-file or --private-key");
        };
        let algorithm = self.algorithm.unwrap_or(TokenAlgorithm::HS256);
        Ok(SigningKey::from_config(&AuthKey::secret_in(secret_file, algorithm, self.key_id))?)
    }
}

/// The settings of a server. Warnings go to standard error, where nothing takes them for a token.
fn read(path: &Path) -> anyhow::Result<Config> {
    let loaded = Loaded::read(Some(path), environment())?;
    for warning in loaded.warnings() {
        // A warning that cannot be written is ignored.
        let _ = writeln!(std::io::stderr(), "Warning: {warning}");
    }
    Ok(loaded.config)
}

impl Explain {
    fn run(self) -> anyhow::Result<ExitCode> {
        let text = if self.token == "-" {
            let mut text = String::new();
            // No token is longer; a longer text fails the check of its bounds.
            std::io::stdin().take(64 * 1024).read_to_string(&mut text).context("cannot read standard input")?;
            text
        } else {
            self.token
        };
        let token = Token::new(text.trim()).map_err(|e| anyhow::anyhow!("{e}"))?;
        let config = self.config.as_deref().map(read).transpose()?;
        if let Some(config) = &config {
            config.validate()?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let explained = runtime.block_on(explain(&token, config))?;
        say(&explained)?;
        let is_good = explained.is_token() && explained.is_accepted() != Some(false);
        Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit_or_never() {
        let seconds = |text| life(text).map(|life| life.0.map(|life| life.as_secs()));
        assert_eq!(
            ["30s", "15m", "12h", "7d"].map(|text| seconds(text).expect("a life")),
            [30, 900, 43_200, 604_800].map(Some)
        );
        assert_eq!(seconds("never"), Ok(None));
        for wrong in ["", "12", "h", "1w", "-1h", "1.5h", "99999999999d", "12\u{fc}"] {
            let error = seconds(wrong).expect_err(wrong);
            let of_rust = ["invalid digit", "empty string", "target type"];
            assert!(!of_rust.iter().any(|words| error.contains(words)), "{wrong}: {error}");
        }
    }
}
