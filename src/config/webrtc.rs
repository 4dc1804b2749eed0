//! Settings for WebRTC between browsers: STUN servers, which tell them their addresses, and TURN servers, which relay.

use reqwest::Url;
use serde::Deserialize;

use super::http::secret_or_none;
use super::{ConfigError, Secret};

/// Maximum number of servers of each kind.
const MAX_SERVERS: u64 = 16;

/// STUN and TURN servers for WebRTC, told to clients that may send `signal`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WebRtc {
    /// STUN servers (RFC 8489), such as `stun:stun.example.com:3478`. At most 16. Default: none.
    pub stun: Vec<String>,
    /// TURN servers (RFC 8656), such as `turns:turn.example.com:5349?transport=tcp`. At most 16. Default: none.
    pub turn: Vec<String>,
    /// Secret shared with the TURN servers, from which each user gets credentials that expire (the TURN REST API,
    /// `use-auth-secret` in coturn). Default: none.
    #[serde(deserialize_with = "secret_or_none")]
    pub turn_secret: Option<Secret>,
    /// Lifetime of these credentials in milliseconds. Default an hour; a minute to 30 days.
    pub turn_credential_ms: u64,
    /// Fixed user name instead of `turn_secret`, told to all clients. Default: none.
    pub turn_username: Option<String>,
    /// Password of `turn_username`. Default: none.
    #[serde(deserialize_with = "secret_or_none")]
    pub turn_password: Option<Secret>,
}

impl Default for WebRtc {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            turn: Vec::new(),
            turn_secret: None,
            turn_credential_ms: 3_600_000,
            turn_username: None,
            turn_password: None,
        }
    }
}

impl WebRtc {
    /// Settings with their values and bounds.
    pub(super) fn bounds(&self) -> [(&'static str, u64, u64, u64); 3] {
        [
            ("webrtc.stun (how many)", self.stun.len() as u64, 0, MAX_SERVERS),
            ("webrtc.turn (how many)", self.turn.len() as u64, 0, MAX_SERVERS),
            ("webrtc.turn_credential_ms", self.turn_credential_ms, 60_000, 30 * 86_400_000),
        ]
    }

    /// Checks the form of the addresses (RFC 7064, RFC 7065), because a browser refuses all of them if one is wrong,
    /// and that there are credentials for TURN servers.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let lists = [("webrtc.stun", &self.stun, ["stun", "stuns"]), ("webrtc.turn", &self.turn, ["turn", "turns"])];
        for (setting, servers, schemes) in lists {
            for server in servers {
                if let Err(why) = check(server, schemes) {
                    return Err(ConfigError::IceServer { setting, server: server.chars().take(100).collect(), why });
                }
            }
        }
        if self.turn_secret.is_some() && (self.turn_username.is_some() || self.turn_password.is_some()) {
            let why = "credentials are either created with the secret or fixed";
            let other = "webrtc.turn_username and webrtc.turn_password";
            return Err(ConfigError::Excluded { setting: "webrtc.turn_secret", other, why });
        }
        let has_credentials =
            self.turn_secret.is_some() || (self.turn_username.is_some() && self.turn_password.is_some());
        if !self.turn.is_empty() && !has_credentials {
            let other = "webrtc.turn_secret, or webrtc.turn_username and webrtc.turn_password";
            return Err(ConfigError::Needs { setting: "webrtc.turn", other });
        }
        Ok(())
    }
}

/// Checks an address as browsers do: RFC 7064, RFC 7065.
fn check(server: &str, schemes: [&str; 2]) -> Result<(), &'static str> {
    let is_turn = schemes[0] == "turn";
    let expected = match is_turn {
        false => "expected stun: or stuns:, a host and optionally a port, such as stun:stun.example.com:3478",
        true => {
            "expected turn: or turns:, a host and optionally a port, such as turn:turn.example.com, and optionally \
             ?transport=udp or ?transport=tcp"
        }
    };
    let (scheme, rest) = server.split_once(':').ok_or(expected)?;
    let (host, query) = rest.split_once('?').map_or((rest, None), |(host, query)| (host, Some(query)));
    let is_query_known = query.is_none_or(|query| is_turn && ["transport=udp", "transport=tcp"].contains(&query));
    // A host and port have the same form with another scheme.
    let is_host = !host.is_empty()
        && !host.contains(['/', '\\', '@', '#', ' '])
        && Url::parse(&format!("http://{host}")).is_ok_and(|url| url.port() != Some(0));
    if schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) && is_host && is_query_known {
        return Ok(());
    }
    Err(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_browsers_accept_are_allowed() {
        let secret = Some(Secret::from("secret".to_owned()));
        let validate = |stun: &str, turn: &str| {
            let (stun, turn) = (vec![stun.to_owned()], vec![turn.to_owned()]);
            WebRtc { stun, turn, turn_secret: secret.clone(), ..WebRtc::default() }.validate()
        };
        validate("stun:stun.example.com", "turns:turn.example.com:5349?transport=tcp").expect("servers");
        validate("stuns:[2001:db8::1]:3478", "turn:192.0.2.1").expect("servers");
        for (stun, turn) in [
            ("stun.example.com", "turn:a"),
            ("stun:", "turn:a"),
            ("stun://a", "turn:a"),
            ("stun:a", "stun:a"),
            ("turn:a", "turn:a"),
            ("stun:a", "turn:user@a"),
            ("stun:a?transport=udp", "turn:a"),
            ("stun:a:99999", "turn:a"),
            ("stun:a b", "turn:a"),
            ("stun:a", "turn:a:0"),
            ("stun:a", "turn:a?transport=quic"),
            ("stun:a", "turn:a/b"),
        ] {
            assert!(matches!(validate(stun, turn), Err(ConfigError::IceServer { .. })), "{stun} {turn}");
        }
    }

    #[test]
    fn a_relay_needs_credentials() {
        let turn = vec!["turn:turn.example.com".to_owned()];
        let without = WebRtc { turn: turn.clone(), turn_username: Some("ada".into()), ..WebRtc::default() };
        assert!(matches!(without.validate(), Err(ConfigError::Needs { .. })));
        let with = WebRtc { turn_password: Some(Secret::from("secret".to_owned())), ..without };
        with.validate().expect("both are there");
        let both = WebRtc { turn_secret: with.turn_password.clone(), ..with };
        assert!(matches!(both.validate(), Err(ConfigError::Excluded { .. })), "one of the two would not count");
    }
}
