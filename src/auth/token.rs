//! Checks a token (RFC 7519): its signature by one of the keys, then its claims against the settings. Pure except for
//! the clock.

use std::num::NonZeroU32;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use super::identity::{Identity, Rights};
use super::jws::{self, Jws, RawClaims};
use super::keys::Key;
use super::{Denied, MAX_JTI_BYTES, TokenStamp, UsedToken};
use crate::config::{Auth as Settings, Grant, MAX_SUBSCRIPTIONS, MAX_TRIED};
use crate::message::{ClientName, Json, MAX_INTEGER, MAX_TOKEN_BYTES, NAME_BOUNDS, USER_BOUNDS, is_user, now_ms};

const TEXT: &str = "a string";
const PATTERNS: &str = "a list of topics or patterns";
const YES_OR_NO: &str = "true or false";
const DATE: &str = "a number of seconds since 1970";

/// Deepest nesting of `info`, which others get inside of other messages.
const MAX_INFO_NESTING: usize = 32;

/// A verified token.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) identity: Identity,
    /// Its id, if tokens are valid only once.
    pub(super) once: Option<UsedToken>,
}

/// Why a token is refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// No known key can have signed it. A newer key set may contain one that did.
    UnknownKey(String),
    Bad(Denied),
}

fn bad(why: impl Into<String>) -> Refused {
    Refused::Bad(Denied::BadToken(why.into()))
}

/// Checks a token with the known keys. Its `info` has at most `info_bytes`.
pub(super) fn check(token: &str, keys: &[&Key], settings: &Settings, info_bytes: usize) -> Result<Checked, Refused> {
    let jws = Jws::parse(token).map_err(bad)?;
    if jws.is_critical {
        return Err(bad("it has critical extensions (crit), which are not supported"));
    }
    let algorithm = algorithm(&jws)?;
    let id = jws.key_id.as_deref();
    let fits = |key: &&&Key| id.is_none() || key.id.is_none() || id == key.id.as_deref();
    let named: Vec<&&Key> = keys.iter().filter(fits).collect();
    let tried: Vec<_> = named.iter().filter(|key| key.algorithm == algorithm).collect();
    if tried.len() > MAX_TRIED {
        return Err(bad(format!(
            "more than {MAX_TRIED} keys for {algorithm:?} may have signed it; it must name one (kid)"
        )));
    }
    if tried.is_empty() {
        let why = format!("there is no key for {algorithm:?}{}", if id.is_some() { " with its kid" } else { "" });
        return Err(Refused::UnknownKey(why));
    }
    let mut is_foreign = false;
    for key in tried.into_iter().filter(|key| jws.is_signed_by(&key.verifier)) {
        let mut claims = jws.claims().map_err(bad)?;
        // The owner of one issuer's key must not speak for another issuer (RFC 8725 section 3.8).
        let issuer = claim::<String>(&mut claims, "iss", TEXT).map_err(Refused::Bad)?;
        if key.is_of(issuer.as_deref()) {
            return judge(claims, issuer.as_deref(), settings, info_bytes, now_ms()).map_err(Refused::Bad);
        }
        is_foreign = true;
    }
    if is_foreign {
        return Err(bad(UNKNOWN_ISSUER));
    }
    let signed_by_another = "it is signed with an unknown key";
    // If the key that the token names is known, no newer set contains another of that name.
    let is_known = id.is_some() && named.iter().any(|key| key.id.as_deref() == id);
    if is_known { Err(bad(signed_by_another)) } else { Err(Refused::UnknownKey(signed_by_another.into())) }
}

const UNKNOWN_ISSUER: &str = "unknown issuer (iss)";

fn algorithm(jws: &Jws<'_>) -> Result<Algorithm, Refused> {
    let unknown = || {
        let none = jws.alg.eq_ignore_ascii_case("none");
        let what = if none { "it is not signed (alg none)" } else { "its algorithm (alg) is not supported" };
        bad(format!("{what}; use one of {}", jws::algorithms()))
    };
    jws::algorithm(&jws.alg).ok_or_else(unknown)
}

/// Takes a claim, if it is present. Errors do not contain its value.
fn claim<T: DeserializeOwned>(claims: &mut RawClaims, name: &str, kind: &str) -> Result<Option<T>, Denied> {
    let Some(raw) = claims.remove(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
    let wrong = |e: serde_json::Error| {
        // The only invalid string that valid JSON can contain. A number out of range is a syntax error as well.
        let is_half = e.is_syntax() && raw.get().contains('"');
        let why = if is_half { "contains half a surrogate pair" } else { "has the wrong type" };
        Denied::BadToken(format!("its claim {name} {why}; expected {kind}"))
    };
    serde_json::from_str(raw.get()).map(Some).map_err(wrong)
}

fn missing(name: &str) -> Denied {
    Denied::BadToken(format!("its claim {name} is missing"))
}

fn out_of_bounds(name: &str, bounds: &str) -> Denied {
    Denied::BadToken(format!("its claim {name} is out of bounds: {bounds}"))
}

/// A time in whole seconds. It may have a fraction (RFC 7519 section 2).
fn date(claims: &mut RawClaims, name: &str) -> Result<Option<u64>, Denied> {
    let wrong = || Denied::BadToken(format!("its claim {name} has the wrong type; expected {DATE}"));
    let Some(date) = claim::<Number>(claims, name, DATE)? else { return Ok(None) };
    if let Some(whole) = date.as_u64() {
        return Ok(Some(whole));
    }
    let date = date.as_f64().filter(|date| *date >= 0.0).ok_or_else(wrong)?;
    // A number beyond the integers counts as the largest.
    Ok(Some(Duration::try_from_secs_f64(date).map_or(u64::MAX, |date| date.as_secs())))
}

/// Checks the claims, except the issuer's key, against the settings.
fn judge(
    mut claims: RawClaims,
    issuer: Option<&str>,
    settings: &Settings,
    info_bytes: usize,
    now_ms: u64,
) -> Result<Checked, Denied> {
    let claims = &mut claims;
    let leeway_s = settings.leeway_ms.div_ceil(1000);
    let expires_s = date(claims, "exp")?;
    if expires_s.is_none() && (settings.require_expiry || settings.single_use) {
        return Err(missing("exp"));
    }
    let expires_at = expires_s.map(|exp| exp.saturating_add(leeway_s).saturating_mul(1000).min(MAX_INTEGER));
    // Exact to the millisecond, because used tokens are remembered no longer.
    if expires_at.is_some_and(|expires_at| expires_at <= now_ms) {
        return Err(Denied::BadToken("it has expired (exp)".into()));
    }
    if date(claims, "nbf")?.is_some_and(|from| from > (now_ms / 1000).saturating_add(leeway_s)) {
        return Err(Denied::BadToken("it is not valid yet (nbf)".into()));
    }
    if !settings.issuers.is_empty() {
        let issuer = issuer.ok_or_else(|| missing("iss"))?;
        if !settings.issuers.iter().any(|known| known == issuer) {
            return Err(Denied::BadToken(UNKNOWN_ISSUER.into()));
        }
    }
    if !settings.audiences.is_empty() {
        let audience = claim::<Value>(claims, "aud", TEXT)?.ok_or_else(|| missing("aud"))?;
        if !is_for(&audience, &settings.audiences)? {
            return Err(Denied::BadToken("it is meant for another audience (aud)".into()));
        }
    }
    let user = claim::<String>(claims, "sub", TEXT)?.ok_or_else(|| missing("sub"))?;
    if !is_user(&user) {
        return Err(out_of_bounds("sub", USER_BOUNDS));
    }
    let name = match settings.name_claim.as_str() {
        "" => None,
        "sub" => Some(user.clone()),
        other => claim::<String>(claims, other, TEXT)?,
    };
    let name = name
        .map(|name| ClientName::new(&name).map_err(|_| out_of_bounds(&settings.name_claim, NAME_BOUNDS)))
        .transpose()?;
    let grant = Grant {
        publish: claim(claims, "publish", PATTERNS)?,
        subscribe: claim(claims, "subscribe", PATTERNS)?,
        presence: claim(claims, "presence", PATTERNS)?,
        history: claim(claims, "history", PATTERNS)?,
        subscriptions: claim(claims, "subscriptions", PATTERNS)?,
        direct: claim(claims, "direct", YES_OR_NO)?,
        signal: claim(claims, "signal", YES_OR_NO)?,
        list_clients: claim(claims, "list_clients", YES_OR_NO)?,
        broadcast: claim(claims, "broadcast", YES_OR_NO)?,
    };
    if grant.subscriptions.as_ref().is_some_and(|patterns| patterns.len() > MAX_SUBSCRIPTIONS) {
        return Err(out_of_bounds("subscriptions", &format!("at most {MAX_SUBSCRIPTIONS} topics or patterns")));
    }
    let info = claims.remove("info").map(Json::from).filter(|info| !info.is_null());
    if let Some(info) = &info
        && (info.len() > info_bytes || !info.nests_at_most(MAX_INFO_NESTING))
    {
        let bounds = format!("at most {info_bytes} bytes of JSON (limits.info_bytes), nested {MAX_INFO_NESTING} deep");
        return Err(out_of_bounds("info", &bounds));
    }
    let max_rate = claim::<NonZeroU32>(claims, "max_rate", "an integer of at least 1")?;
    // A token whose `jti` and `iat` have other forms is good: it is only not known by them.
    let id = claim::<Box<str>>(claims, "jti", TEXT)
        .or_else(|wrong| if settings.single_use { Err(wrong) } else { Ok(None) })?;
    let id = id.filter(|id| !id.is_empty() && id.len() <= MAX_JTI_BYTES);
    let issued_at = date(claims, "iat").ok().flatten().map(|iat| iat.saturating_mul(1000));
    let once = if settings.single_use {
        let bounds = || format!("1 to {MAX_JTI_BYTES} bytes, because this server accepts each token only once");
        let id = id.clone().ok_or_else(|| out_of_bounds("jti", &bounds()))?;
        Some(UsedToken { id, expires_at: expires_at.unwrap_or(u64::MAX) })
    } else {
        None
    };
    let token = Some(Box::new(TokenStamp { id, issued_at }));
    let rights = Rights::new(&grant, &settings.token, Some(&user));
    Ok(Checked {
        identity: Identity { user: Some(user.into()), name, rights, expires_at, max_rate, info, token },
        once,
    })
}

/// Whether one of the audiences is named (RFC 7519 section 4.1.3).
fn is_for(audience: &Value, audiences: &[String]) -> Result<bool, Denied> {
    let is_one = |named: &str| audiences.iter().any(|known| known == named);
    let wrong = || Denied::BadToken("its claim aud has the wrong type; expected a string or a list of strings".into());
    match audience {
        Value::String(named) => Ok(is_one(named)),
        Value::Array(named) => {
            let named = named.iter().map(|named| named.as_str().ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?;
            Ok(named.into_iter().any(is_one))
        }
        _ => Err(wrong()),
    }
}

/// Why a server with default settings would refuse a new token with these claims, if so.
pub(super) fn what_is_wrong(claims: RawClaims) -> Option<String> {
    let settings = Settings { require_expiry: false, leeway_ms: 0, ..Settings::default() };
    let mut claims = claims;
    // The start of validity is the issuer's choice.
    claims.remove("nbf");
    let issuer = match claim::<String>(&mut claims, "iss", TEXT) {
        Ok(issuer) => issuer,
        Err(denied) => return Some(denied.reason()),
    };
    let judged = judge(claims, issuer.as_deref(), &settings, MAX_TOKEN_BYTES, now_ms());
    judged.err().map(|denied| denied.reason())
}
