//! Settings that may change while the server runs: those that are looked up for each request, and concern nothing that is
//! there already.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{Config, Http, Secret, WebRtc};

/// Whether a setting, by its name with its tables, is one that [`Reload::apply`](crate::Reload::apply) takes over.
pub fn is_live(setting: &str) -> bool {
    ["http.origins", "http.proxies", "http.admin_token"].contains(&setting) || setting.starts_with("webrtc.")
}

/// What these are now. Read for each request, never for a message.
#[derive(Debug)]
pub(crate) struct Live {
    http: RwLock<Arc<Http>>,
    webrtc: RwLock<Arc<WebRtc>>,
    /// The admin token while none is set.
    made_token: Option<Secret>,
}

impl Live {
    /// `made_token` is the admin token while none is set, if there is to be one.
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
    fn what_is_live_is_taken_over_and_the_rest_stays() {
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
