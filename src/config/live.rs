//! Settings that may change while the server runs: those that are looked up for each request, and concern nothing that is
//! there already.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Config, Http, WebRtc};

/// Whether a setting, by its name with its tables, is one that [`Reload::apply`](crate::Reload::apply) takes over.
pub fn is_live(setting: &str) -> bool {
    ["http.origins", "http.proxies", "http.admin_token"].contains(&setting) || setting.starts_with("webrtc.")
}

/// What these are now. Read for each request, never for a message.
#[derive(Debug)]
pub(crate) struct Live {
    http: RwLock<Arc<Http>>,
    webrtc: RwLock<Arc<WebRtc>>,
}

impl Live {
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        let (http, webrtc) = (Arc::new(config.http.clone()), Arc::new(config.webrtc.clone()));
        Arc::new(Self { http: RwLock::new(http), webrtc: RwLock::new(webrtc) })
    }

    pub(crate) fn http(&self) -> Arc<Http> {
        Arc::clone(&self.http.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn webrtc(&self) -> Arc<WebRtc> {
        Arc::clone(&self.webrtc.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes them over from other settings.
    pub(crate) fn take(&self, config: &Config) {
        let Http { origins, proxies, admin_token, .. } = config.http.clone();
        let http = Http { origins, proxies, admin_token, ..(*self.http()).clone() };
        *self.http.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(http);
        *self.webrtc.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.webrtc.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_live_is_taken_over_and_the_rest_stays() {
        let live = Live::new(&Config::default());
        let mut config = Config::default();
        config.http.origins = vec!["https://app.example".parse().expect("an origin")];
        config.http.enabled = false;
        config.webrtc.stun = vec!["stun:a".into()];
        live.take(&config);
        assert_eq!((live.http().origins.len(), live.http().enabled), (1, true));
        assert_eq!(live.webrtc().stun, ["stun:a"]);
        for (setting, expected) in [("http.origins", true), ("webrtc.turn_secret", true), ("http.enabled", false)] {
            assert_eq!(is_live(setting), expected, "{setting}");
        }
    }
}
