//! Settings from where users keep them: a TOML file, and the environment over it. Keeps where each was set, so that what is
//! wrong with one is told with its place, and so that what has changed can be named after both were read again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::decode::decode;
use super::schema;
use super::tree::{self, Node, Place, Table, Value};
use super::{Config, ConfigError, Who};
use crate::Printable;

/// The environment variables that are settings begin with this; `__` stands between a table and its key.
pub const ENV_PREFIX: &str = "QWS_";

/// Tables in which a setting may stand, one in the other: more than any does.
const MAX_TABLES: usize = 8;
/// Variables without a setting that a warning names.
const MAX_NAMED: usize = 10;

/// Settings that were read, with what is to be said of them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The settings. What the command line says is still to be set here, each with [`flag`](Self::flag).
    pub config: Config,
    set: Table,
    flags: BTreeMap<&'static str, &'static str>,
    /// Variables without a setting.
    unknown: Vec<String>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was set may be a secret.
        f.debug_struct("Loaded").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads the file, where there is one, and the environment over it. A variable that is empty counts as not set, and one
    /// that names no setting is among the [`warnings`](Self::warnings). Call [`validate`](Self::validate) once the command
    /// line has had its say.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and line, or the variable, and what is expected there.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut set = match file {
            None => Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
                tree::parse(path, &text).map_err(|e| ConfigError::Parse {
                    origin: Printable::new(&path.display().to_string()).to_string(),
                    message: in_words(&e, &text),
                })?
            }
        };
        let is_ours = |(name, value): &(String, String)| name.starts_with(ENV_PREFIX) && !value.is_empty();
        let mut variables: Vec<_> = environment.into_iter().filter(is_ours).collect();
        // A table comes before what is in it, in whatever order they were given.
        variables.sort_unstable();
        let mut unknown = Vec::new();
        for (variable, value) in variables {
            let setting = variable[ENV_PREFIX.len()..].to_ascii_lowercase();
            let path: Vec<&str> = setting.splitn(MAX_TABLES + 2, "__").collect();
            match schema::kind(&path) {
                Some(_) => {
                    let node = Node { value: Value::Raw(value), place: Place::Variable(Arc::from(variable)) };
                    // Where it has no place, the file has a value for a table, which is told when that is read.
                    let _ = tree::set(&mut set, &path, node);
                }
                None => unknown.push(variable),
            }
        }
        let config = decode(&set)?;
        Ok(Self { config, set, flags: BTreeMap::new(), unknown })
    }

    /// Notes that a flag of the command line has set a setting.
    pub fn flag(&mut self, setting: &'static str, flag: &'static str) {
        self.flags.insert(setting, flag);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// As [`Config::validate`], each with the place where the setting was set.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.config.validate().map_err(|error| match error.setting().and_then(|setting| self.place(setting)) {
            Some(place) => ConfigError::At { place, error: Box::new(error) },
            None => error,
        })
    }

    /// What is no error, and probably not what was meant: variables that name no setting, and settings without any effect.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut without_like = Vec::new();
        for variable in &self.unknown {
            let setting = variable[ENV_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            let name = Printable::excerpt(variable);
            match schema::similar(&setting) {
                Some(meant) => warnings
                    .push(format!("{name} in the environment names no setting; did you mean {}?", variable_of(&meant))),
                None => without_like.push(name.to_string()),
            }
        }
        if !without_like.is_empty() {
            let more = without_like.len().saturating_sub(MAX_NAMED);
            without_like.truncate(MAX_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            warnings.push(format!(
                "{}{more} in the environment: no setting has that name (Kubernetes sets such variables for a service named \
                 qws)",
                without_like.join(", ")
            ));
        }
        let odd = self.config.odd_settings().into_iter();
        warnings.extend(odd.map(|(setting, why)| match self.place(&setting) {
            Some(place) => format!("{place}: setting {setting}: {why}"),
            None => format!("setting {setting}: {why}"),
        }));
        warnings
    }

    /// The settings that `new` has other values for; those that a flag has set stay as they are.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let (before, after) = (tree::settings(&self.set), tree::settings(&new.set));
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let is_changed = |name: &&&String| before.get(**name) != after.get(**name);
        let is_free = |name: &&&String| !self.flags.contains_key(name.as_str());
        names.iter().filter(is_changed).filter(is_free).map(|name| (**name).clone()).collect()
    }

    /// Where a setting was set; `limits.max_clients`, or `topics[1].priority`.
    fn place(&self, setting: &str) -> Option<Place> {
        if let Some(flag) = self.flags.get(setting).copied() {
            return Some(Place::Flag(flag));
        }
        let mut found = None::<&Node>;
        for part in setting.split('.') {
            let (key, index) = match part.split_once('[') {
                Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
                None => (part, None),
            };
            let table = match found.map(|node| &node.value) {
                None => &self.set,
                Some(Value::Table(table)) => table,
                // A list or table in a variable.
                Some(_) => break,
            };
            let next = table.get(key)?;
            let item = index.and_then(|index| match &next.value {
                Value::List(items) => items.get(index),
                _ => None,
            });
            found = Some(item.unwrap_or(next));
        }
        found.map(|node| node.place.clone())
    }
}

impl Config {
    /// [`Loaded::read`], with its warnings in the log.
    ///
    /// # Errors
    /// Likewise.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let loaded = Loaded::read(file, environment)?;
        loaded.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(loaded.config)
    }

    /// Settings that cannot have any effect beside the others, or have one that is hardly meant, each with the reason.
    fn odd_settings(&self) -> Vec<(String, String)> {
        let mut odd = Vec::new();
        for (index, rule) in self.topics.iter().enumerate() {
            let setting = format!("topics[{index}]");
            let pattern = rule.pattern.as_str();
            let earlier = &self.topics[..index];
            if let Some(first) = earlier.iter().position(|earlier| earlier.pattern.covers(&rule.pattern)) {
                let covering = earlier[first].pattern.as_str();
                let why = format!(
                    "the rule for {pattern} never counts: topics[{first}], for {covering}, comes first and matches all of \
                     it; put the narrower rule first"
                );
                odd.push((setting.clone(), why));
            }
            for (key, who) in [("publish", rule.publish), ("subscribe", rule.subscribe)] {
                if who == Who::Authenticated && !self.asks_who() {
                    let why = format!(
                        "{key} = \"authenticated\" lets no client: none is asked who it is; set [auth] or tls.client_ca"
                    );
                    odd.push((setting.clone(), why));
                }
            }
        }
        if !self.http.enabled && (self.http.addr.is_some() || self.http.plain_addr.is_some()) {
            let why = "it is false, so nothing listens at http.addr and http.plain_addr".to_owned();
            odd.push(("http.enabled".to_owned(), why));
        }
        if let Some(all) = self.http.proxies.iter().find(|network| network.prefix_len() == 0) {
            let why =
                format!("{all} is every address, so every client may say which address it has; name the proxies alone");
            odd.push(("http.proxies".to_owned(), why));
        }
        odd
    }
}

/// The variable for a setting.
fn variable_of(setting: &str) -> String {
    format!("{ENV_PREFIX}{}", setting.replace('.', "__").to_ascii_uppercase())
}

/// What is wrong in a file, with its line, unless there are secrets in the file.
fn in_words(error: &toml::de::Error, text: &str) -> String {
    if !["secret", "password", "admin_token"].iter().any(|word| text.contains(word)) {
        return error.to_string();
    }
    let line =
        error.span().and_then(|span| text.get(..span.start)).map_or(0, |before| before.matches('\n').count()) + 1;
    format!(
        "line {line}: {} (the line is not shown, as the file holds secrets)",
        without_values(error.message().trim_end())
    )
}

/// A message without what stands in quotes.
pub(super) fn without_values(message: &str) -> String {
    let mut parts = message.split('"');
    let mut text = parts.next().unwrap_or_default().to_owned();
    while let Some(_value) = parts.next() {
        text.push_str("a text");
        // A value with quotes in it cannot be told from what follows.
        match parts.next() {
            Some(rest) if parts.clone().next().is_none() => text.push_str(rest),
            _ => break,
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::Congestion;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn read(text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("qws.toml");
        std::fs::write(&path, text).expect("written");
        let told = |e: ConfigError| e.to_string().replace(&folder.path().display().to_string(), "");
        Loaded::read(Some(&path), environment(pairs)).map_err(told)
    }

    fn with(pairs: &[(&str, &str)]) -> Result<Loaded, String> {
        Loaded::read(None, environment(pairs)).map_err(|e| e.to_string())
    }

    #[test]
    fn what_a_variable_holds_is_read_by_the_kind_of_its_setting() {
        let token = "1234567890123456";
        let loaded = with(&[
            ("QWS_NAME", "4711"),
            ("QWS_HTTP__ADMIN_TOKEN", token),
            ("QWS_HTTP__ECHO", "True"),
            ("QWS_AUTH__OWN_NAMES", "0"),
            ("QWS_LIMITS__MAX_CLIENTS", " 10_000 "),
            ("QWS_HTTP__PROXIES", "10.0.0.0/8, 192.0.2.7"),
            ("QWS_AUTH__ISSUERS", "a"),
            ("QWS_AUTH__AUDIENCES", "['a', \"b,c\"]"),
            ("QWS_AUTH__ANONYMOUS__SUBSCRIBE", "chat.>,news"),
            ("QWS_AUTH__TOKEN", "{ direct = true }"),
            ("QWS_TOPICS", "[{ pattern = '>', priority = 7 }]"),
            ("QWS_WEBTRANSPORT__SHORT_LIVED_CERTIFICATE", "FALSE"),
            ("QWS_QUIC__CONGESTION", "cubic"),
            ("QWS_ADDR", "127.0.0.1:0"),
            ("OTHER", "x"),
        ])
        .expect("all are settings");
        let config = &loaded.config;
        assert_eq!((config.name.as_str(), config.limits.max_clients), ("4711", 10_000));
        assert_eq!(config.http.admin_token.as_ref().map(|token| token.expose()), Some(token));
        assert!(config.http.echo && !config.auth.own_names);
        assert_eq!((config.http.proxies.len(), config.auth.issuers.len()), (2, 1));
        assert_eq!(config.auth.audiences, ["a", "b,c"]);
        let anonymous = config.auth.anonymous.as_ref().and_then(|grant| grant.subscribe.as_ref());
        assert_eq!(anonymous.map(|patterns| patterns.as_slice().len()), Some(2));
        assert_eq!((config.auth.token.direct, config.topics[0].priority), (Some(true), 7));
        assert_eq!(config.webtransport.short_lived_certificate, Some(false));
        assert_eq!((config.quic.congestion, config.addr.port()), (Congestion::Cubic, 0));
        assert_eq!(loaded.warnings(), Vec::<String>::new());
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let empty = [("QWS_LOG__LEVEL", ""), ("QWS_LIMITS__MAX_CLIENTS", ""), ("QWS_FOO", "")];
        let loaded = read("[limits]\nmax_clients = 5", &empty).expect("they are ignored");
        assert_eq!((loaded.config.log.level.as_str(), loaded.config.limits.max_clients), ("info", 5));
        assert_eq!(loaded.warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_variable_without_a_setting_is_named_and_no_error() {
        let long = format!("QWS_{}", "A".repeat(2000));
        let parts = format!("QWS_{}", ["A"; 100_000].join("__"));
        let loaded = with(&[
            ("QWS_PORT", "tcp://10.0.0.7:4433"),
            ("QWS_SERVICE_HOST", "10.0.0.7"),
            ("QWS_FOO", "1"),
            ("QWS_", "1"),
            ("QWS_NAME__FIRST", "1"),
            ("QWS_LIMITS__MAX_CLINTS", "5"),
            ("QWS_LIMITS_MAX_CLIENTS", "5"),
            (&long, "1"),
            (&parts, "1"),
        ])
        .expect("none of them is an error");
        let warnings = loaded.warnings();
        for misspelt in ["QWS_LIMITS__MAX_CLINTS", "QWS_LIMITS_MAX_CLIENTS"] {
            let meant = "did you mean QWS_LIMITS__MAX_CLIENTS?";
            let warning = warnings.iter().find(|warning| warning.starts_with(misspelt)).expect("it is named");
            assert!(warning.ends_with(meant), "{warning}");
        }
        let others = warnings.iter().find(|warning| warning.contains("QWS_FOO")).expect("it is named");
        assert!(["QWS_PORT", "QWS_SERVICE_HOST", "Kubernetes"].iter().all(|name| others.contains(name)), "{others}");
        assert!(warnings.iter().all(|warning| warning.len() < 1500), "{warnings:?}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_in_plain_words() {
        for (text, pairs, told) in [
            ("x = 1", &[][..], "/qws.toml, line 1: there is no setting x; docs/quic-websocket.toml shows all"),
            (
                "[limits]\nmax_clients = 'many'",
                &[],
                "/qws.toml, line 2: setting limits.max_clients = \"many\": expected a whole number, such as 100",
            ),
            ("workers = -1", &[], "line 1: setting workers = -1: expected a whole number, such as 100"),
            ("workers = 1.5", &[], "line 1: setting workers = 1.5: expected a whole number"),
            ("name = 5", &[], "setting name = 5: expected text in quotes"),
            ("[http]\n\norigins = 5", &[], "line 3: setting http.origins = 5: expected a list, such as [\"a\", \"b\"]"),
            ("[http]\necho = 'yes'", &[], "setting http.echo = \"yes\": expected true or false"),
            ("limits = 5", &[], "setting limits = 5: expected a table of settings"),
            ("limits = 5", &[("QWS_LIMITS__MAX_CLIENTS", "5")], "setting limits = 5: expected a table of settings"),
            ("[quic]\ncongestion = 'reno'", &[], "expected one of bbr, cubic, newreno"),
            ("[tls]\ntcp_min_version = 1.2", &[], "= 1.2: expected one of \"1.2\", \"1.3\", in quotes"),
            (
                "[limits]\nmax_clinets = 5",
                &[],
                "line 2: there is no setting limits.max_clinets; did you mean limits.max_clients?",
            ),
            ("max_clients = 5", &[], "there is no setting max_clients; did you mean limits.max_clients?"),
            ("[limit]\nmax_clients = 5", &[], "line 1: there is no setting limit; did you mean limits?"),
            ("[[topics]]\npriority = 1", &[], "line 1: setting topics[0]: pattern is missing"),
            (
                "[[topics]]\npattern = '>'\nprioritty = 1",
                &[],
                "line 3: there is no setting topics[0].prioritty; did you mean topics[0].priority?",
            ),
            (
                "[[topics]]\npattern = '>'\npriority = 256",
                &[],
                "topics[0].priority = 256: expected a whole number from 0",
            ),
            ("[[topics]]\npattern = 'a..b'", &[], "line 2: setting topics[0].pattern: topic: "),
            ("", &[("QWS_WORKERS", "many")], "QWS_WORKERS: setting workers = \"many\": expected a whole number"),
            ("", &[("QWS_HTTP__ECHO", "yes")], "QWS_HTTP__ECHO: setting http.echo = \"yes\": expected true or false"),
            ("", &[("QWS_HTTP__ORIGINS", "[a")], "QWS_HTTP__ORIGINS: setting http.origins = \"[a\": expected a list"),
            (
                "",
                &[("QWS_TOPICS", "chat.>")],
                "QWS_TOPICS: setting topics[0] = \"chat.>\": expected a table of settings",
            ),
            ("name =", &[], "line 1, column 7"),
        ] {
            let error = read(text, pairs).expect_err(text);
            assert!(error.contains(told), "{text} {pairs:?}: {error}");
            let is_of_rust = ["u64", "sequence", "string"].iter().any(|word| error.contains(word));
            assert!(!is_of_rust || error.contains("TOML parse error"), "{error}");
        }
    }

    #[test]
    fn bounds_are_told_with_the_place_of_the_setting() {
        let mut loaded = read("[limits]\nmax_clients = 0", &[("QWS_WORKERS", "257")]).expect("these are numbers");
        let told = |loaded: &Loaded| loaded.validate().expect_err("out of bounds").to_string();
        assert_eq!(told(&loaded), "QWS_WORKERS: setting workers = 257: 0 to 256 is allowed");
        loaded.config.workers = 300;
        loaded.flag("workers", "--workers");
        assert_eq!(told(&loaded), "--workers: setting workers = 300: 0 to 256 is allowed");
        loaded.config.workers = 1;
        assert!(told(&loaded).contains("qws.toml, line 2: setting limits.max_clients = 0: 1 to"), "{}", told(&loaded));
        let rule = "\n[[topics]]\npattern = 'a'\n[[topics]]\npattern = 'b'\nhistory_messages = 1000001";
        let error = told(&read(rule, &[]).expect("rules"));
        assert!(error.contains("line 6: setting topics[1].history_messages = 1000001: 0 to 1000000"), "{error}");
    }

    #[test]
    fn settings_without_effect_are_told() {
        let text = "[http]\nenabled = false\naddr = '127.0.0.1:1'\nproxies = ['0.0.0.0/0']\n\
                    [[topics]]\npattern = 'chat.>'\n[[topics]]\npattern = 'chat.*'\nsubscribe = 'authenticated'\n\
                    [[topics]]\npattern = '>'";
        let warnings = read(text, &[]).expect("it is read").warnings();
        let told = |what: &str| assert!(warnings.iter().any(|warning| warning.contains(what)), "{what}: {warnings:?}");
        told("line 4: setting http.proxies: 0.0.0.0/0 is every address");
        told("line 7: setting topics[1]: the rule for chat.* never counts: topics[0], for chat.>, comes first");
        told("topics[1]: subscribe = \"authenticated\" lets no client");
        told("line 2: setting http.enabled: it is false");
        assert_eq!(warnings.len(), 4, "{warnings:?}");
    }

    #[test]
    fn what_has_changed_is_named_but_not_what_a_flag_has_set() {
        let before = "name = 'a'\n[limits]\nmax_clients = 5\nmax_topics = 9\n[[topics]]\npattern = '>'";
        let after = "[http]\norigins = []\n[limits]\nmax_clients = 0x6\nmax_topics = 9\n\n[[topics]]\npattern = '>'";
        let mut old = read(before, &[]).expect("it is read");
        let new = read(after, &[]).expect("it is read");
        assert_eq!(old.changes(&new), ["http.origins", "limits.max_clients", "name"]);
        old.flag("limits.max_clients", "--max-clients");
        assert_eq!(old.changes(&new), ["http.origins", "name"]);
        assert_eq!(old.changes(&old), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = |path: &Path| Loaded::read(Some(path), []).expect_err("no file").to_string();
        let absent = told(&folder.path().join("absent.toml"));
        assert!(absent.contains("absent.toml") && absent.contains("there is no such file"), "{absent}");
        assert!(told(folder.path()).contains("it is a folder"), "{}", told(folder.path()));
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&[0xff, 0xfe]).expect("written");
        assert!(told(file.path()).contains("UTF-8"), "{}", told(file.path()));
        let forbidden = ConfigError::Read { path: "a".into(), cause: std::io::ErrorKind::PermissionDenied.into() };
        assert!(forbidden.to_string().contains("may not read it"), "{forbidden}");
    }
}
