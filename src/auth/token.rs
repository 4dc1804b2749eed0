//! From a token's text to what it claims (RFC 7519), if one of the keys signed it. Pure but for the clock.

use std::num::NonZeroU32;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::identity::{Identity, Rights};
use super::keys::Key;
use super::{Denied, UsedToken};
use crate::config::{Auth as Settings, Grant};
use crate::message::{ClientName, MAX_INTEGER, MAX_USER_BYTES};
use crate::printable::Printable;

const TEXT: &str = "text";
const PATTERNS: &str = "a list of topics or patterns";
const YES_OR_NO: &str = "true or false";

/// Most keys with which one token is tried: checking a signature takes its time.
const MAX_TRIED: usize = 8;
/// Longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 128;

/// A token that was checked.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) identity: Identity,
    /// What makes it different from all others, where it is good only once.
    pub(super) once: Option<UsedToken>,
}

/// Why a token is not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// No key that is known can have signed it. A newer set may hold one.
    UnknownKey(String),
    Bad(Denied),
}

fn bad(why: impl Into<String>) -> Refused {
    Refused::Bad(Denied::BadToken(why.into()))
}

/// Checks a token with the keys that are known.
pub(super) fn check(token: &str, keys: &[&Key], settings: &Settings) -> Result<Checked, Refused> {
    let header = decode_header(token).map_err(|_| bad("it is no JSON Web Token that is taken here"))?;
    // What must be understood and is not (RFC 7515 section 4.1.11).
    if header.crit.is_some() {
        return Err(bad("it has critical extensions, which are not known here"));
    }
    let (id, algorithm) = (header.kid.as_deref(), header.alg);
    let fits = |key: &&&Key| id.is_none() || key.id.is_none() || id == key.id.as_deref();
    let named: Vec<&&Key> = keys.iter().filter(fits).collect();
    let tried: Vec<_> = named.iter().filter(|key| key.algorithm == algorithm).collect();
    if tried.len() > MAX_TRIED {
        return Err(bad(format!("more than {MAX_TRIED} keys for {algorithm:?} may have signed it; name one (kid)")));
    }
    if tried.is_empty() {
        let why = format!("no key for {algorithm:?} is known here{}", if id.is_some() { " by its kid" } else { "" });
        return Err(Refused::UnknownKey(why));
    }
    let validation = validation(settings, algorithm);
    let mut is_anothers = false;
    for key in tried {
        match decode::<Map<String, Value>>(token, &key.decoding, &validation) {
            // Whoever has one issuer's key does not speak for another (RFC 8725 section 3.8).
            Ok(token) if !key.is_of(token.claims.get("iss")) => is_anothers = true,
            Ok(token) => return claims(token.claims, settings).map_err(Refused::Bad),
            // Another key may have signed it.
            Err(e) if matches!(e.kind(), ErrorKind::InvalidSignature) => {}
            Err(e) => return Err(bad(in_words(e.kind()))),
        }
    }
    if is_anothers {
        return Err(bad(in_words(&ErrorKind::InvalidIssuer)));
    }
    let signed_by_another = "its signature is not by a key that is known here";
    // Where the token names its key and that is known, no newer set holds another one by that name.
    let is_known = id.is_some() && named.iter().any(|key| key.id.as_deref() == id);
    if is_known { Err(bad(signed_by_another)) } else { Err(Refused::UnknownKey(signed_by_another.into())) }
}

fn validation(settings: &Settings, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = settings.leeway_ms.div_ceil(1000);
    validation.validate_nbf = true;
    validation.required_spec_claims.clear();
    let mut require = |claim: &str| {
        validation.required_spec_claims.insert(claim.to_owned());
    };
    require("sub");
    if settings.require_expiry || settings.single_use {
        require("exp");
    }
    if !settings.issuers.is_empty() {
        require("iss");
    }
    if !settings.audiences.is_empty() {
        require("aud");
    }
    if !settings.issuers.is_empty() {
        validation.set_issuer(&settings.issuers);
    }
    validation.validate_aud = !settings.audiences.is_empty();
    if validation.validate_aud {
        validation.set_audience(&settings.audiences);
    }
    validation
}

/// What is wrong with a token, without anything of what stands in it.
fn in_words(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired (exp)".into(),
        ErrorKind::ImmatureSignature => "it is not valid yet (nbf)".into(),
        ErrorKind::InvalidIssuer => "it was issued by somebody else (iss)".into(),
        ErrorKind::InvalidAudience => "it is meant for somebody else (aud)".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("its claim {claim} is missing"),
        ErrorKind::InvalidClaimFormat(claim) => format!("its claim {claim} is of the wrong kind"),
        _ => "it is no JSON Web Token that is taken here".into(),
    }
}

/// A claim, if it is there. What is wrong with one is told without repeating it.
fn claim<T: DeserializeOwned>(claims: &mut Map<String, Value>, name: &str, kind: &str) -> Result<Option<T>, Denied> {
    match claims.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let wrong = |_| Denied::BadToken(format!("its claim {name} is of the wrong kind: {kind} is expected"));
            T::deserialize(value).map(Some).map_err(wrong)
        }
    }
}

fn claims(mut claims: Map<String, Value>, settings: &Settings) -> Result<Checked, Denied> {
    let claims = &mut claims;
    let out_of_bounds =
        |name: &str, bounds: &str| Denied::BadToken(format!("its claim {name} is out of bounds: {bounds}"));
    let user = claim::<String>(claims, "sub", TEXT)?.unwrap_or_default();
    if user.is_empty() || user.len() > MAX_USER_BYTES || !user.chars().all(Printable::shows) {
        let bounds = format!("1 to {MAX_USER_BYTES} bytes without control characters and what does not show");
        return Err(out_of_bounds("sub", &bounds));
    }
    let name = match settings.name_claim.as_str() {
        "sub" => Some(user.clone()),
        other => claim::<String>(claims, other, TEXT)?,
    };
    let name = name
        .map(|name| ClientName::new(&name).map_err(|e| out_of_bounds(&settings.name_claim, &e.message)))
        .transpose()?;
    let grant = Grant {
        publish: claim(claims, "publish", PATTERNS)?,
        subscribe: claim(claims, "subscribe", PATTERNS)?,
        presence: claim(claims, "presence", PATTERNS)?,
        history: claim(claims, "history", PATTERNS)?,
        direct: claim(claims, "direct", YES_OR_NO)?,
        signal: claim(claims, "signal", YES_OR_NO)?,
        list_clients: claim(claims, "list_clients", YES_OR_NO)?,
        broadcast: claim(claims, "broadcast", YES_OR_NO)?,
    };
    let max_rate = claim::<NonZeroU32>(claims, "max_rate", "an integer from 1 on")?;
    // May have a fraction (RFC 7519 section 2); whoever says how long it holds has been heard already.
    let expires_s = claim::<serde_json::Number>(claims, "exp", "a number")?.and_then(|exp| seconds(&exp));
    let expires_at = expires_s.map(|exp| exp.saturating_add(settings.leeway_ms.div_ceil(1000)).saturating_mul(1000));
    let expires_at = expires_at.map(|at| at.min(MAX_INTEGER));
    let once = if settings.single_use {
        let id = claim::<String>(claims, "jti", TEXT)?.unwrap_or_default();
        if id.is_empty() || id.len() > MAX_JTI_BYTES {
            return Err(out_of_bounds(
                "jti",
                &format!("1 to {MAX_JTI_BYTES} bytes, as each token is good only once here"),
            ));
        }
        Some(UsedToken { id: id.into(), expires_at: expires_at.unwrap_or(u64::MAX) })
    } else {
        None
    };
    let rights = Rights::new(&grant, &settings.token);
    Ok(Checked { identity: Identity { user: Some(user.into()), name, rights, expires_at, max_rate }, once })
}

/// Whole seconds of a `NumericDate`.
fn seconds(date: &serde_json::Number) -> Option<u64> {
    if let Some(whole) = date.as_u64() {
        return Some(whole);
    }
    let date = date.as_f64().filter(|date| *date >= 0.0)?;
    std::time::Duration::try_from_secs_f64(date).ok().map(|date| date.as_secs())
}
