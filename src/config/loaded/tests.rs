//! Settings from files and the environment: places, values, and errors in plain words.

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
fn a_variable_is_parsed_by_the_type_of_its_setting() {
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
fn an_unknown_variable_is_a_warning() {
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
fn errors_name_the_place_in_plain_words() {
    for (text, pairs, told) in [
        ("x = 1", &[][..], "/qws.toml, line 1: there is no setting x; docs/quic-websocket.toml lists all"),
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
        ("[[topics]]\npattern = '>'\npriority = 256", &[], "topics[0].priority = 256: expected a whole number from 0"),
        ("[[topics]]\npattern = 'a..b'", &[], "line 2: setting topics[0].pattern: topic: "),
        ("", &[("QWS_WORKERS", "many")], "QWS_WORKERS: setting workers = \"many\": expected a whole number"),
        ("", &[("QWS_HTTP__ECHO", "yes")], "QWS_HTTP__ECHO: setting http.echo = \"yes\": expected true or false"),
        ("", &[("QWS_HTTP__ORIGINS", "[a")], "QWS_HTTP__ORIGINS: setting http.origins = \"[a\": expected a list"),
        ("", &[("QWS_TOPICS", "chat.>")], "QWS_TOPICS: setting topics[0] = \"chat.>\": expected a table of settings"),
        ("name =", &[], "line 1, column 7"),
    ] {
        let error = read(text, pairs).expect_err(text);
        assert!(error.contains(told), "{text} {pairs:?}: {error}");
        let is_of_rust = ["u64", "sequence", "string"].iter().any(|word| error.contains(word));
        assert!(!is_of_rust || error.contains("TOML parse error"), "{error}");
    }
}

#[test]
fn out_of_bounds_errors_name_the_place() {
    let mut loaded = read("[limits]\nmax_clients = 0", &[("QWS_WORKERS", "257")]).expect("these are numbers");
    let told = |loaded: &Loaded| loaded.validate().expect_err("out of bounds").to_string();
    assert_eq!(told(&loaded), "QWS_WORKERS: setting workers = 257: expected 0 to 256");
    loaded.config.workers = 300;
    loaded.flag("workers", "--workers");
    assert_eq!(told(&loaded), "--workers: setting workers = 300: expected 0 to 256");
    loaded.config.workers = 1;
    assert!(
        told(&loaded).contains("qws.toml, line 2: setting limits.max_clients = 0: expected 1 to"),
        "{}",
        told(&loaded)
    );
    let rule = "\n[[topics]]\npattern = 'a'\n[[topics]]\npattern = 'b'\nhistory_messages = 1000001";
    let error = told(&read(rule, &[]).expect("rules"));
    assert!(error.contains("line 6: setting topics[1].history_messages = 1000001: expected 0 to 1000000"), "{error}");
}

#[test]
fn settings_without_effect_are_warned_about() {
    let text = "[http]\nenabled = false\naddr = '127.0.0.1:1'\nproxies = ['0.0.0.0/0']\n\
                    [[topics]]\npattern = 'chat.>'\n[[topics]]\npattern = 'chat.*'\nsubscribe = 'authenticated'\n\
                    [[topics]]\npattern = '>'";
    let warnings = read(text, &[]).expect("it is read").warnings();
    let told = |what: &str| assert!(warnings.iter().any(|warning| warning.contains(what)), "{what}: {warnings:?}");
    told("line 4: setting http.proxies: 0.0.0.0/0 is every address");
    told("line 7: setting topics[1]: the rule for chat.* never applies: topics[0], for chat.>, comes first");
    told("topics[1]: subscribe = \"authenticated\" allows no client");
    told("line 2: setting http.enabled: it is false");
    assert_eq!(warnings.len(), 4, "{warnings:?}");
}

#[test]
fn an_origin_below_a_public_suffix_is_warned_about() {
    for (origin, is_warned) in [
        ("https://*.com", true),
        ("https://*.com:8443", true),
        ("https://*.co.uk", true),
        ("https://*.example.com", false),
        ("https://*.example.co.uk", false),
        ("https://*.qws.io", false),
        ("http://*.localhost:8080", false),
        ("https://*.internal", false),
        ("https://example.com", false),
        ("null", false),
    ] {
        let warnings = read(&format!("[http]\norigins = ['{origin}']"), &[]).expect("it is read").warnings();
        let expected = format!("line 2: setting http.origins: {origin} accepts the pages of everybody");
        assert_eq!(warnings.iter().any(|warning| warning.contains(&expected)), is_warned, "{origin}: {warnings:?}");
    }
}

#[test]
fn changes_are_named_except_those_of_flags() {
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
fn errors_about_an_unreadable_file_name_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = |path: &Path| Loaded::read(Some(path), []).expect_err("no file").to_string();
    let absent = told(&folder.path().join("absent.toml"));
    assert!(absent.contains("absent.toml") && absent.contains("there is no such file"), "{absent}");
    assert!(told(folder.path()).contains("it is a folder"), "{}", told(folder.path()));
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&[0xff, 0xfe]).expect("written");
    assert!(told(file.path()).contains("UTF-8"), "{}", told(file.path()));
    let forbidden = ConfigError::Read { path: "a".into(), cause: std::io::ErrorKind::PermissionDenied.into() };
    assert!(forbidden.to_string().contains("permission denied"), "{forbidden}");
}
