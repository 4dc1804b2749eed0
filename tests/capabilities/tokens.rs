//! Which clients are accepted: tokens of each kind, by each kind of key, and none that only look like them.

#![allow(clippy::expect_used, clippy::panic)] // A test fails by panicking.

use crate::common::over::Over;
use crate::common::tokens::{SECRET, asking, auth, bearer, claims, handshake, now, part, refused, signed, token};
use crate::common::{TestServer, now_ms};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};

async fn server(more: &str) -> TestServer {
    let auth = asking(more);
    TestServer::start_with(|config| config.auth = auth).await
}

#[tokio::test]
async fn a_client_is_the_user_of_its_token() {
    for over in Over::ALL {
        let server = server("").await;
        let mut ada = over.newcomer(&server).await;
        let exp = now() + 600;
        let named = json!({"name": "Ada", "exp": exp, "direct": true});
        let response = ada.handshake_with(handshake(&token(named))).await;
        assert_eq!((&response["user"], &response["client_name"]), (&json!("ada"), &json!("Ada")));
        assert_eq!(response["expires_at"], (exp + 30) * 1000, "the leeway is added");
        ada.control.say(json!({"type": "list_clients"})).await;
        let list = ada.control.expect("client_list").await;
        assert_eq!((&list["clients"][0]["user"], &list["clients"][0]["name"]), (&json!("ada"), &json!("Ada")));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_without_a_token_is_accepted_only_if_configured() {
    for over in Over::ALL {
        let strict = server("").await;
        let hello = json!({"type": "handshake", "protocol_version": "1.0", "client_name": "Eve"});
        let (reason, code) = refused(over, &strict, hello.clone()).await;
        assert!(reason.contains("token is required"), "{reason}");
        assert_eq!(code, 4401);
        strict.stop().await;

        let open = server("[anonymous]\nsubscribe = ['public.>']").await;
        let mut guest = over.newcomer(&open).await;
        let response = guest.handshake_with(hello).await;
        assert_eq!(response["user"], Value::Null);
        guest.control.say(json!({"type": "subscribe", "topic": "public.news"})).await;
        guest.control.expect("subscribed").await;
        guest.control.say(json!({"type": "publish", "topic": "public.news", "content": "x"})).await;
        guest.control.expect_error(403).await;
        open.stop().await;
    }
}

#[tokio::test]
async fn an_invalid_token_is_refused_with_the_reason() {
    for over in Over::ALL {
        let server = server("issuers = ['issuer']\naudiences = ['qws', 'other']\nleeway_ms = 5000").await;
        let good = json!({"iss": "issuer", "aud": "qws"});
        let with = |changes: Value| {
            let mut all = good.clone();
            all.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
            token(all)
        };
        for (changes, expected) in [
            (json!({"exp": now() - 10}), "expired"),
            (json!({"exp": null}), "exp is missing"),
            (json!({"exp": "soon"}), "exp has the wrong type; expected a number"),
            (json!({"nbf": "now"}), "nbf has the wrong type"),
            (json!({"iss": ["issuer"]}), "iss has the wrong type; expected a string"),
            (json!({"aud": {"qws": 1}}), "aud has the wrong type"),
            (json!({"aud": ["qws", 5]}), "aud has the wrong type"),
            (json!({"exp": -5}), "exp has the wrong type"),
            (json!({"nbf": now() + 60}), "not valid yet"),
            (json!({"iss": "another"}), "unknown issuer (iss)"),
            (json!({"iss": null}), "iss is missing"),
            (json!({"aud": "elsewhere"}), "meant for another audience (aud)"),
            (json!({"aud": null}), "aud is missing"),
            (json!({"sub": null}), "sub is missing"),
            (json!({"sub": ""}), "sub is out of bounds"),
            (json!({"sub": "x".repeat(129)}), "sub is out of bounds"),
            (json!({"sub": "a\nb"}), "sub is out of bounds"),
            (json!({"sub": "ad\u{202e}a"}), "sub is out of bounds"),
            (json!({"sub": "ada\u{200b}"}), "sub is out of bounds"),
            (json!({"sub": "ad\u{ad}a"}), "sub is out of bounds"),
            (json!({"sub": "ada\u{e0041}"}), "sub is out of bounds"),
            (json!({"sub": " ada"}), "sub is out of bounds"),
            (json!({"sub": 5}), "sub has the wrong type; expected a string"),
            (json!({"name": "a\u{202e}b"}), "name is out of bounds"),
            (json!({"publish": ["a..b"]}), "publish has the wrong type"),
            (json!({"subscribe": 7}), "subscribe has the wrong type"),
            (json!({"subscribe": vec!["x"; 257]}), "subscribe has the wrong type"),
            (json!({"direct": "yes"}), "direct has the wrong type"),
            (json!({"max_rate": 0}), "max_rate has the wrong type"),
        ] {
            let (reason, code) = refused(over, &server, handshake(&with(changes.clone()))).await;
            assert!(reason.contains(expected), "{changes}: {reason}");
            assert_eq!(code, 4401, "{changes}");
        }
        for changes in [
            json!({}),
            json!({"exp": now() - 3}),
            json!({"exp": (now() as f64) + 60.5}),
            json!({"nbf": now() + 3}),
            json!({"aud": ["elsewhere", "other"]}),
            json!({"publish": "a.*", "unknown": {"of": "the issuer"}}),
        ] {
            let mut client = over.newcomer(&server).await;
            client.handshake_with(handshake(&with(changes))).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_token_signed_by_no_known_key_is_refused() {
    for over in Over::ALL {
        let server = server("").await;
        let good = token(json!({}));
        let (head, signature) = good.rsplit_once('.').expect("a token");
        let (header, _) = head.split_once('.').expect("a token");
        let other_secret = EncodingKey::from_secret(b"another secret of more than 32 bytes, for tests alone");
        let none = part(&json!({"alg": "none", "typ": "JWT"}));
        let body = part(&claims(&json!({})));
        let mut critical = Header::new(Algorithm::HS256);
        critical.crit = Some(vec!["b64".into()]);
        for (what, bad) in [
            ("another secret", signed(&Header::new(Algorithm::HS256), &other_secret, &claims(&json!({})))),
            ("another body", format!("{header}.{}.{signature}", part(&claims(&json!({"sub": "eve"}))))),
            ("no signature", format!("{head}.")),
            ("half a signature", format!("{head}.{}", &signature[..20])),
            ("alg none", format!("{none}.{body}.")),
            ("alg none with a signature", format!("{none}.{body}.{signature}")),
            ("alg NONE", format!("{}.{body}.", part(&json!({"alg": "NONE"})))),
            ("another kind of kid", {
                let head = format!("{}.{body}", part(&json!({"alg": "HS256", "kid": 5})));
                format!("{head}.{}", crate::common::tokens::signature(&head))
            }),
            ("two parts", head.to_owned()),
            ("four parts", format!("{good}.x")),
            ("no base64", "a!.b!.c!".to_owned()),
            ("no JSON", "eA.eA.eA".to_owned()),
            ("a word", "password".to_owned()),
            ("another algorithm by the same secret", {
                let key = EncodingKey::from_secret(SECRET.as_bytes());
                signed(&Header::new(Algorithm::HS512), &key, &claims(&json!({})))
            }),
            ("critical extensions", {
                signed(&critical, &EncodingKey::from_secret(SECRET.as_bytes()), &claims(&json!({})))
            }),
        ] {
            let (reason, code) = refused(over, &server, handshake(&bad)).await;
            assert!(reason.starts_with("token: "), "{what}: {reason}");
            assert_eq!(code, 4401, "{what}");
        }
        bearer(over, &server, json!({})).await.control.lives("a client with a valid token").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn the_subject_may_be_the_displayed_name() {
    let server = server("name_claim = 'sub'\n[anonymous]").await;
    let mut ada = Over::Native.newcomer(&server).await;
    let response = ada.handshake_with(handshake(&token(json!({"sub": "Ada", "name": "Eve"})))).await;
    assert_eq!((&response["user"], &response["client_name"]), (&json!("Ada"), &json!("Ada")));
    let named = json!({"type": "handshake", "protocol_version": "1.0", "client_name": "ada"});
    assert_eq!(refused(Over::Native, &server, named).await.1, 4403, "it is reserved for its user");
    server.stop().await;
}

#[tokio::test]
async fn an_expiry_beyond_all_integers_is_the_largest_integer() {
    const LAST: u64 = (1 << 53) - 1;
    let server = server("").await;
    for exp in [json!(LAST / 1000 + 1), json!(LAST), json!(u64::MAX), json!(1e18)] {
        let mut client = Over::Native.newcomer(&server).await;
        let response = client.handshake_with(handshake(&token(json!({"exp": exp})))).await;
        assert_eq!(response["expires_at"], LAST, "{exp}");
    }
    server.stop().await;
}

/// A key pair in files, and its signing key.
fn pair(folder: &std::path::Path, name: &str, kind: &'static rcgen::SignatureAlgorithm) -> (String, String) {
    let pair = KeyPair::generate_for(kind).expect("a key pair");
    let public = folder.join(name);
    std::fs::write(&public, pair.public_key_pem()).expect("written");
    (public.display().to_string(), pair.serialize_pem())
}

#[tokio::test]
async fn each_key_verifies_only_its_own_algorithm() {
    let folder = tempfile::tempdir().expect("a folder");
    let (rsa, rsa_private) = pair(folder.path(), "rsa.pem", &rcgen::PKCS_RSA_SHA256);
    let (ec, ec_private) = pair(folder.path(), "ec.pem", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (ed, ed_private) = pair(folder.path(), "ed.pem", &rcgen::PKCS_ED25519);
    let secrets = folder.path().join("secret");
    let long = "s".repeat(64);
    std::fs::write(&secrets, format!("\n{long}\n")).expect("written");
    let secrets = secrets.display();
    let keys = auth(&format!(
        "
        [[keys]]
        id = 'rsa'
        algorithm = 'RS256'
        public_key = '{rsa}'
        [[keys]]
        algorithm = 'ES256'
        public_key = '{ec}'
        [[keys]]
        algorithm = 'EdDSA'
        public_key = '{ed}'
        [[keys]]
        algorithm = 'HS384'
        secret_file = '{secrets}'
        [[keys]]
        id = 'sixtyfour'
        algorithm = 'HS512'
        secret_file = '{secrets}'
        "
    ));
    let server = TestServer::start_with(|config| config.auth = keys).await;
    for over in Over::ALL {
        let rsa_key = EncodingKey::from_rsa_pem(rsa_private.as_bytes()).expect("a key");
        let ec_key = EncodingKey::from_ec_pem(ec_private.as_bytes()).expect("a key");
        let ed_key = EncodingKey::from_ed_pem(ed_private.as_bytes()).expect("a key");
        let secret = EncodingKey::from_secret(long.as_bytes());
        let header = |algorithm, id: Option<&str>| {
            let mut header = Header::new(algorithm);
            header.kid = id.map(str::to_owned);
            header
        };
        for (algorithm, id, key) in [
            (Algorithm::RS256, None, &rsa_key),
            (Algorithm::RS256, Some("rsa"), &rsa_key),
            (Algorithm::ES256, None, &ec_key),
            (Algorithm::ES256, Some("any: the key has no name"), &ec_key),
            (Algorithm::EdDSA, None, &ed_key),
            (Algorithm::HS384, None, &secret),
            (Algorithm::HS512, Some("sixtyfour"), &secret),
        ] {
            let mut client = over.newcomer(&server).await;
            client.handshake_with(handshake(&signed(&header(algorithm, id), key, &claims(&json!({}))))).await;
        }
        // The public key is not a secret: a server must not accept it as one (RFC 8725 section 2.1).
        let public_as_secret = std::fs::read(&rsa).expect("the public key");
        let der_as_secret = {
            use rustls::pki_types::SubjectPublicKeyInfoDer;
            use rustls::pki_types::pem::PemObject;
            SubjectPublicKeyInfoDer::from_pem_slice(&public_as_secret).expect("a public key").to_vec()
        };
        for (what, algorithm, id, key) in [
            ("the public key's text as a secret", Algorithm::HS384, None, EncodingKey::from_secret(&public_as_secret)),
            ("named as the RSA key", Algorithm::HS512, Some("rsa"), EncodingKey::from_secret(&public_as_secret)),
            ("the public key's bytes as a secret", Algorithm::HS512, None, EncodingKey::from_secret(&der_as_secret)),
            ("an algorithm without a key", Algorithm::HS256, None, secret.clone()),
            ("another padding by the RSA key", Algorithm::PS256, None, rsa_key.clone()),
            ("a longer hash by the RSA key", Algorithm::RS512, None, rsa_key.clone()),
            ("an unknown name", Algorithm::RS256, Some("gone"), rsa_key.clone()),
        ] {
            let bad = signed(&header(algorithm, id), &key, &claims(&json!({})));
            let (reason, code) = refused(over, &server, handshake(&bad)).await;
            assert!(reason.starts_with("token: "), "{what}: {reason}");
            assert_eq!(code, 4401, "{what}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_single_use_token_is_refused_the_second_time() {
    for over in Over::ALL {
        let server = server("single_use = true").await;
        let (first, second) = (token(json!({"jti": "one"})), token(json!({"jti": "two"})));
        over.newcomer(&server).await.handshake_with(handshake(&first)).await;
        let (reason, code) = refused(over, &server, handshake(&first)).await;
        assert!(reason.contains("used before"), "{reason}");
        assert_eq!(code, 4401);
        let (reason, _) = refused(over, &server, handshake(&token(json!({})))).await;
        assert!(reason.contains("jti"), "{reason}");
        let mut client = over.newcomer(&server).await;
        client.handshake_with(handshake(&second)).await;
        client.control.say(json!({"type": "refresh", "token": second})).await;
        client.control.expect_error(401).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_is_warned_before_its_token_expires_and_then_closed() {
    let server = server("leeway_ms = 0\nwarn_ms = 60000").await;
    let exp = now() + 2;
    let warned = async |over| {
        let mut client = bearer(over, &server, json!({"exp": exp})).await;
        let warning = client.control.expect("expiring").await;
        assert_eq!(warning["expires_at"], exp * 1000);
        client.control.lives("until then").await;
        let closed = client.expect_close(4401).await;
        assert!(closed["reason"].as_str().expect("why").contains("expired"));
        assert!(now_ms() >= exp * 1000, "not before its time");
    };
    tokio::join!(warned(Over::Native), warned(Over::WebTransport), warned(Over::WebSocket));
    server.stop().await;
}

#[tokio::test]
async fn a_refresh_renews_without_reconnecting_and_ends_what_is_no_longer_allowed() {
    let server = server("leeway_ms = 0").await;
    let exp = now() + 2;
    let renewed = async |over| {
        let first = json!({"exp": exp, "subscribe": ["chat.>", "news"], "publish": "chat.>"});
        let mut client = bearer(over, &server, first).await;
        for topic in ["chat.lobby", "news"] {
            client.control.say(json!({"type": "subscribe", "topic": topic, "lane": "control"})).await;
        }
        client.control.expect("expiring").await;
        client.control.expect("subscribed").await;
        client.control.expect("subscribed").await;

        let mut refresh =
            async |token: String| client.control.say(json!({"type": "refresh", "id": 1, "token": token})).await;
        refresh(token(json!({"sub": "eve"}))).await;
        refresh("rubbish".into()).await;
        let later = now() + 3600;
        refresh(token(json!({"exp": later, "subscribe": "chat.lobby"}))).await;
        assert!(client.control.expect_error(403).await.contains("another user"));
        client.control.expect_error(401).await;
        let ended = client.control.expect("unsubscribed").await;
        assert_eq!((&ended["topic"], &ended["code"]), (&json!("news"), &json!(403)));
        let refreshed = client.control.expect("refreshed").await;
        assert_eq!((&refreshed["re"], &refreshed["expires_at"]), (&json!(1), &json!(later * 1000)));

        client.control.say(json!({"type": "publish", "topic": "chat.lobby", "content": "x"})).await;
        client.control.expect_error(403).await;
        crate::common::until("the first token's end", || now() > exp).await;
        let mut other = bearer(over, &server, json!({"publish": "chat.lobby"})).await;
        other.control.say(json!({"type": "publish", "id": 2, "topic": "chat.lobby", "content": "still there"})).await;
        other.control.expect("published").await;
        assert_eq!(client.control.expect("message").await["content"], "still there");
    };
    tokio::join!(renewed(Over::Native), renewed(Over::WebTransport), renewed(Over::WebSocket));
    server.stop().await;
}

#[tokio::test]
async fn two_users_with_the_same_name_are_both_accepted_and_distinguished_by_user() {
    for over in Over::ALL {
        let server = server("").await;
        let mut clients = Vec::new();
        for sub in ["ada", "eve"] {
            let mut client = over.newcomer(&server).await;
            let named = json!({"sub": sub, "name": "Ada", "list_clients": true});
            let response = client.handshake_with(handshake(&token(named))).await;
            assert_eq!((&response["user"], &response["client_name"]), (&json!(sub), &json!("Ada")));
            clients.push(client);
        }
        clients[0].control.say(json!({"type": "list_clients"})).await;
        let list = clients[0].control.expect("client_list").await;
        let mut listed: Vec<_> =
            list["clients"].as_array().expect("a list").iter().map(|c| (&c["user"], &c["name"])).collect();
        listed.sort_by_key(|(user, _)| user.to_string());
        assert_eq!(listed, [(&json!("ada"), &json!("Ada")), (&json!("eve"), &json!("Ada"))]);
        let mut chosen = handshake(&token(json!({"sub": "max"})));
        chosen["client_name"] = "ada".into();
        let (reason, code) = refused(over, &server, chosen).await;
        assert!(reason.starts_with("client_name: ") && reason.contains("choose another"), "{reason}");
        assert_eq!(code, 4403, "a name that can be another one");
        server.stop().await;
    }
}

#[tokio::test]
async fn an_exclusive_name_from_a_token_belongs_to_one_user() {
    for over in Over::ALL {
        let server = server("exclusive_names = true\n[anonymous]\ndirect = true").await;
        let named = |name: &str| json!({"type": "handshake", "protocol_version": "1.0", "client_name": name});
        let mut early = over.newcomer(&server).await;
        early.handshake_with(named("\u{410}da")).await;
        let mut bob = over.newcomer(&server).await;
        bob.handshake_with(named("Bob")).await;

        let ada = bearer(over, &server, json!({"name": "Ada"})).await;
        let closed = early.expect_close(4403).await;
        assert!(closed["reason"].as_str().expect("why").contains("another user's"));
        for name in ["Ada", "ada", "A d a", "\u{410}da", "Ad\u{200d}a"] {
            let (reason, code) = refused(over, &server, named(name)).await;
            assert!(reason.starts_with("client_name: "), "{name:?}: {reason}");
            assert_eq!(code, 4403, "{name:?}");
        }
        let mut eve = handshake(&token(json!({"sub": "eve"})));
        eve["client_name"] = "Ada".into();
        assert_eq!(refused(over, &server, eve).await.1, 4403, "another user's token does not help");
        let namesake = handshake(&token(json!({"sub": "eve", "name": "ada"})));
        assert_eq!(refused(over, &server, namesake).await.1, 4403, "not even one with the name in it");
        let mut elsewhere = bearer(over, &server, json!({"name": "Ada"})).await;
        elsewhere.control.lives("the same user on another device").await;
        elsewhere.control.say(json!({"type": "close"})).await;
        elsewhere.closed().await;
        bob.control.lives("a client with another name").await;

        ada.vanish();
        crate::common::until("her leaving", || server.status.clients() == 1).await;
        over.newcomer(&server).await.handshake_with(named("Ada")).await;
        server.stop().await;
    }
}

#[tokio::test]
async fn names_come_only_from_tokens_if_configured() {
    for over in Over::ALL {
        let server = server("own_names = false").await;
        let mut client = over.newcomer(&server).await;
        let mut message = handshake(&token(json!({"direct": true})));
        message["client_name"] = "Ada".into();
        client.handshake_with(message).await;
        client.control.say(json!({"type": "list_clients"})).await;
        assert_eq!(client.control.expect("client_list").await["clients"][0]["name"], Value::Null);
        server.stop().await;
    }
}

#[tokio::test]
async fn claims_that_are_not_text_are_named_and_unknown_ones_ignored() {
    let server = server("").await;
    let by_hand = |claims: String| {
        let head = format!("{}.{}", part(&json!({"alg": "HS256"})), crate::common::tokens::encoded(&claims));
        format!("{head}.{}", crate::common::tokens::signature(&head))
    };
    let exp = now() + 600;
    let token = by_hand(format!(r#"{{"sub":"ada","exp":{exp},"\ud83d":1,"nick":"\ud83d","deep":{{"\udc00":[]}}}}"#));
    Over::Native.newcomer(&server).await.handshake_with(handshake(&token)).await;
    for (claim, says) in [
        (r#""name":"\ud83d""#, "its claim name contains half a surrogate pair; expected a string"),
        (r#""publish":["a","\udc00"]"#, "its claim publish has the wrong type; expected a list of topics"),
        (r#""nbf":1e999"#, "its claim nbf has the wrong type; expected a number of seconds since 1970"),
    ] {
        let token = by_hand(format!(r#"{{"sub":"ada","exp":{exp},{claim}}}"#));
        let (reason, _) = refused(Over::Native, &server, handshake(&token)).await;
        assert!(reason.contains(says), "{claim}: {reason}");
    }
    server.stop().await;
}

#[tokio::test]
async fn ed25519_is_accepted_under_both_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let (public, private) = pair(folder.path(), "ed.pem", &rcgen::PKCS_ED25519);
    let key = EncodingKey::from_ed_pem(private.as_bytes()).expect("a key");
    for configured in ["EdDSA", "Ed25519"] {
        let settings = auth(&format!("[[keys]]\nalgorithm = '{configured}'\npublic_key = '{public}'"));
        let server = TestServer::start_with(|config| config.auth = settings).await;
        for alg in ["EdDSA", "Ed25519"] {
            let head = format!("{}.{}", part(&json!({"alg": alg})), part(&claims(&json!({}))));
            let signature = jsonwebtoken::crypto::sign(head.as_bytes(), &key, Algorithm::EdDSA).expect("a signature");
            let mut client = Over::Native.newcomer(&server).await;
            client.handshake_with(handshake(&format!("{head}.{signature}"))).await;
        }
        server.stop().await;
    }
}
