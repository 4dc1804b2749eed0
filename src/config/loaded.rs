//! Reads settings from a TOML file and the environment, which overrides it. Keeps the place of each setting, so that
//! errors can name it, and so that two readings can be compared. Called by the binary at the start and on SIGHUP.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::decode::decode;
use super::schema;
use super::tree::{self, Node, Place, Table, Value};
use super::{Config, ConfigError, Origin, Who};
use crate::Printable;

/// Prefix of the environment variables that are settings; `__` separates a table from its key.
pub const ENV_PREFIX: &str = "QWS_";

/// Nested tables of a setting: more than any has.
const MAX_TABLES: usize = 8;
/// Variables without a setting that a warning names.
const MAX_NAMED: usize = 10;

/// Settings as they were read, with their places and warnings.
#[derive(Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The settings. Flags of the command line are still to be applied here, each with a call of [`flag`](Self::flag).
    pub config: Config,
    set: Table,
    flags: BTreeMap<&'static str, &'static str>,
    /// Variables that name no setting.
    unknown: Vec<String>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        f.debug_struct("Loaded").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads the file, if one is given, and the environment, which overrides it. An empty variable counts as not set;
    /// one that names no setting is among the [`warnings`](Self::warnings). Call [`validate`](Self::validate) after
    /// applying the flags of the command line.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and line or the variable, and what was expected.
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
                    message: describe(&e, &text),
                })?
            }
        };
        let is_ours = |(name, value): &(String, String)| name.starts_with(ENV_PREFIX) && !value.is_empty();
        let mut variables: Vec<_> = environment.into_iter().filter(is_ours).collect();
        // Sorted, a table comes before its keys, whatever their order was.
        variables.sort_unstable();
        let mut unknown = Vec::new();
        for (variable, value) in variables {
            let setting = variable[ENV_PREFIX.len()..].to_ascii_lowercase();
            let path: Vec<&str> = setting.splitn(MAX_TABLES + 2, "__").collect();
            match schema::kind(&path) {
                Some(_) => {
                    let node = Node { value: Value::Raw(value), place: Place::Variable(Arc::from(variable)) };
                    // This fails if the file has a value in place of a table; decoding reports that.
                    let _ = tree::set(&mut set, &path, node);
                }
                None => unknown.push(variable),
            }
        }
        let config = decode(&set)?;
        Ok(Self { config, set, flags: BTreeMap::new(), unknown })
    }

    /// Records that a flag of the command line has set a setting.
    pub fn flag(&mut self, setting: &'static str, flag: &'static str) {
        self.flags.insert(setting, flag);
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// As [`Config::validate`], with the place of the setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.config.validate().map_err(|error| match error.setting().and_then(|setting| self.place(setting)) {
            Some(place) => ConfigError::At { place, error: Box::new(error) },
            None => error,
        })
    }

    /// Probable mistakes that are not errors: variables that name no setting, and settings without effect.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut unlike_any = Vec::new();
        for variable in &self.unknown {
            let setting = variable[ENV_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            let name = Printable::excerpt(variable);
            match schema::similar(&setting) {
                Some(meant) => warnings
                    .push(format!("{name} in the environment names no setting; did you mean {}?", variable_of(&meant))),
                None => unlike_any.push(name.to_string()),
            }
        }
        if !unlike_any.is_empty() {
            let more = unlike_any.len().saturating_sub(MAX_NAMED);
            unlike_any.truncate(MAX_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            warnings.push(format!(
                "{}{more} in the environment: no setting has such a name (Kubernetes sets these variables for a \
                 service named qws)",
                unlike_any.join(", ")
            ));
        }
        let odd = self.config.questionable_settings().into_iter();
        warnings.extend(odd.map(|(setting, why)| match self.place(&setting) {
            Some(place) => format!("{place}: setting {setting}: {why}"),
            None => format!("setting {setting}: {why}"),
        }));
        warnings
    }

    /// The settings whose values differ in `new`, except those that a flag has set, which stay as they are.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let (before, after) = (tree::settings(&self.set), tree::settings(&new.set));
        let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let is_changed = |name: &&&String| before.get(**name) != after.get(**name);
        let is_free = |name: &&&String| !self.flags.contains_key(name.as_str());
        names.iter().filter(is_changed).filter(is_free).map(|name| (**name).clone()).collect()
    }

    /// The place of a setting such as `limits.max_clients` or `topics[1].priority`.
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
                // A list or table from a variable.
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
    /// As [`Loaded::read`], and logs the warnings.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let loaded = Loaded::read(file, environment)?;
        loaded.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(loaded.config)
    }

    /// Settings without effect, or with one that is hardly intended, each with the reason.
    fn questionable_settings(&self) -> Vec<(String, String)> {
        let mut odd = Vec::new();
        for (index, rule) in self.topics.iter().enumerate() {
            let setting = format!("topics[{index}]");
            let pattern = rule.pattern.as_str();
            let earlier = &self.topics[..index];
            if let Some(first) = earlier.iter().position(|earlier| earlier.pattern.covers(&rule.pattern)) {
                let covering = earlier[first].pattern.as_str();
                let why = format!(
                    "the rule for {pattern} never applies: topics[{first}], for {covering}, comes first and matches \
                     all its topics; put the narrower rule first"
                );
                odd.push((setting.clone(), why));
            }
            for (key, who) in [("publish", rule.publish), ("subscribe", rule.subscribe)] {
                if who == Who::Authenticated && !self.authenticates() {
                    let why = format!(
                        "{key} = \"authenticated\" allows no client, because none is authenticated; configure [auth] \
                         or tls.client_ca"
                    );
                    odd.push((setting.clone(), why));
                }
            }
        }
        if !self.http.enabled && (self.http.addr.is_some() || self.http.plain_addr.is_some()) {
            let why = "it is false, so http.addr and http.plain_addr have no effect".to_owned();
            odd.push(("http.enabled".to_owned(), why));
        }
        for origin in self.http.origins.iter().filter(|origin| is_below_public_suffix(origin)) {
            let why = format!(
                "{origin} accepts the pages of everybody who registers a name below it; name your own domain, as in \
                 https://*.example.com"
            );
            odd.push(("http.origins".to_owned(), why));
        }
        if let Some(all) = self.http.proxies.iter().find(|network| network.prefix_len() == 0) {
            let why = format!("{all} is every address, so any client can claim any address; list only your proxies");
            odd.push(("http.proxies".to_owned(), why));
        }
        odd
    }
}

/// Whether an origin such as `https://*.com` or `https://*.co.uk` matches the hosts of everybody who registers a
/// domain. Knows the common forms of such suffixes, not the whole Public Suffix List.
fn is_below_public_suffix(origin: &Origin) -> bool {
    const PRIVATE: [&str; 7] = ["corp", "home", "internal", "lan", "local", "localhost", "test"];
    const SHARED: [&str; 7] = ["ac", "co", "com", "edu", "gov", "net", "org"];
    let origin = origin.to_string();
    let Some((_, below)) = origin.split_once("://*.") else { return false };
    let below = below.split(':').next().unwrap_or_default();
    match below.split_once('.') {
        None => !PRIVATE.contains(&below),
        Some((second, top)) => top.len() == 2 && SHARED.contains(&second),
    }
}

/// The variable for a setting.
fn variable_of(setting: &str) -> String {
    format!("{ENV_PREFIX}{}", setting.replace('.', "__").to_ascii_uppercase())
}

/// The problem in a file and its line. Without the line's text if the file contains secrets.
fn describe(error: &toml::de::Error, text: &str) -> String {
    if !["secret", "password", "admin_token"].iter().any(|word| text.contains(word)) {
        return error.to_string();
    }
    let line =
        error.span().and_then(|span| text.get(..span.start)).map_or(0, |before| before.matches('\n').count()) + 1;
    format!(
        "line {line}: {} (the line is not shown because the file contains secrets)",
        without_values(error.message().trim_end())
    )
}

/// A message without the texts in quotes.
pub(super) fn without_values(message: &str) -> String {
    let mut parts = message.split('"');
    let mut text = parts.next().unwrap_or_default().to_owned();
    while let Some(_value) = parts.next() {
        text.push_str("a string");
        // The end of a value that contains quotes cannot be found.
        match parts.next() {
            Some(rest) if parts.clone().next().is_none() => text.push_str(rest),
            _ => break,
        }
    }
    text
}

#[cfg(test)]
mod tests;
