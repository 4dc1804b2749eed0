//! What web pages are let in over WebTransport.

use serde::Deserialize;

use super::ConfigError;

/// Most origins.
const MAX_ORIGINS: u64 = 1000;

/// What web pages are let in over WebTransport.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct WebTransport {
    /// Origins of the web pages that may connect, such as `https://app.example.com` or `http://localhost:8080`; others get
    /// status 403. Clients that are no web pages send none, and are let in. At most 1,000. Default: none, which lets in
    /// pages of any origin.
    pub origins: Vec<String>,
}

impl WebTransport {
    /// Settings with their values and bounds.
    pub(super) fn bounds(&self) -> [(&'static str, u64, u64, u64); 1] {
        [("webtransport.origins (how many)", self.origins.len() as u64, 0, MAX_ORIGINS)]
    }

    /// Checks what each origin looks like: one that no browser sends would keep everybody out.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let is_origin = |text: &str| {
            // As browsers write them (RFC 6454 section 6.2).
            let after_scheme = text.split_once("://").map(|(_, host)| host);
            after_scheme.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' ']))
        };
        match self.origins.iter().find(|origin| !is_origin(origin)) {
            None => Ok(()),
            Some(wrong) => Err(ConfigError::Origin { origin: wrong.chars().take(100).collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_sends_is_an_origin() {
        let validate = |origin: &str| WebTransport { origins: vec![origin.into()] }.validate();
        for origin in ["https://app.example.com", "http://localhost:8080", "https://[::1]:4433"] {
            validate(origin).expect("an origin");
        }
        for wrong in ["", "app.example.com", "https://", "https://app.example.com/", "https://*.example.com", "null"] {
            assert!(matches!(validate(wrong), Err(ConfigError::Origin { .. })), "{wrong:?}");
        }
    }
}
