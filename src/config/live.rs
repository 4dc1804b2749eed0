//! Settings that may change while the server runs: those that are looked up for each request and affect no existing
//! connection. Replaced on SIGHUP; read by `http` and by sessions.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{Config, Http, Secret, WebRtc};

/// Whether [`Reload::apply`](crate::Reload::apply) takes over changes of this setting. `setting` is its name with its
/// tables.
pub fn is_live(setting: &str) -> bool {
    ["http.origins", "http.proxies", "http.admin_token"].contains(&setting) || setting.starts_with("webrtc.")
}

/// Their present values. Read for each request, never for a message.
#[derive(Debug)]
pub(crate) struct Live {
    http: RwLock<Arc<Http>>,
    webrtc: RwLock<Arc<WebRtc>>,
    /// The generated admin token, used while none is set.
    made_token: Option<Secret>,
}

impl Live {
    /// `made_token` is the generated admin token, if there is to be one; it is used while none is set.
    pub(crate) fn new(config: &Config, made_token: Option<Secret>) -> Arc<Self> {
        let mut http = config.http.clone();
        http.admin_token = http.admin_token.or_else(|| made_token.clone());
        let (http, webrtc) = (Arc::new(http), Arc::new(config.webrtc.clone()));
        Arc::new(Self { http: RwLock::new(http), webrtc: RwLock::new(webrtc), made_token })
    }

    pub(crate) fn http(&self) -> Arc<Http> {
        Arc::clone(&self.http.read())
    }

    pub(crate) fn webrtc(&self) -> Arc<WebRtc> {
        Arc::clone(&self.webrtc.read())
    }

    /// Takes them over from other settings.
    pub(crate) fn take(&self, config: &Config) {
        let Http { origins, proxies, admin_token, .. } = config.http.clone();
        let admin_token = admin_token.or_else(|| self.made_token.clone());
        let http = Http { origins, proxies, admin_token, ..(*self.http()).clone() };
        *self.http.write() = Arc::new(http);
        *self.webrtc.write() = Arc::new(config.webrtc.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_settings_are_taken_over() {
        let live = Live::new(&Config::default(), Some("made".to_owned().into()));
        let mut config = Config::default();
        config.http.origins = vec!["https://app.example".parse().expect("an origin")];
        config.http.enabled = false;
        config.webrtc.stun = vec!["stun:a".into()];
        let admin = || live.http().admin_token.as_ref().map(|token| token.expose().to_owned());
        live.take(&config);
        assert_eq!((live.http().origins.len(), live.http().enabled), (1, true));
        assert_eq!(admin().as_deref(), Some("made"), "while none is set");
        config.http.admin_token = Some("set".to_owned().into());
        live.take(&config);
        assert_eq!(admin().as_deref(), Some("set"));
        assert_eq!(live.webrtc().stun, ["stun:a"]);
        for (setting, expected) in [("http.origins", true), ("webrtc.turn_secret", true), ("http.enabled", false)] {
            assert_eq!(is_live(setting), expected, "{setting}");
        }
    }
}
