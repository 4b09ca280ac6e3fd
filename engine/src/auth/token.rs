//! Bearer tokens by introspection (RFC 7662).
//!
//! Lives on the service thread. An answer that a token is good is kept for at most [`KEPT_MAX`] and never past
//! its expiry, by the token's hash, so that a client which sends often does not ask often, and a token that is
//! withdrawn is good for a minute at most. Answers that it is bad are not kept.

use super::https::Way;
use super::{Failure, Verified, unavailable};
use crate::config::Introspection;
use crate::resolve::service::Resolvers;
use crate::smtp::sasl::{self, Secret};
use base64ct::{Base64, Encoding};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

const KEPT_MAX: Duration = Duration::from_secs(60);
/// Tokens kept.
const TOKENS_MAX: usize = 10_000;
/// Questions at a time.
const AT_ONCE: usize = 16;
const SECRET_OCTETS_MAX: u64 = 4096;

pub(super) struct Tokens {
    settings: Introspection,
    way: Way,
    places: Semaphore,
    kept: Mutex<HashMap<[u8; 32], (Instant, String)>>,
}

/// What of the answer matters (RFC 7662 section 2.2).
#[derive(Deserialize)]
struct Claims {
    active: bool,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Tokens {
    pub fn new(
        settings: &Introspection,
        resolvers: &Arc<Resolvers>,
        resolver: Option<usize>,
    ) -> Result<Self, String> {
        let way = Way::new(&settings.server, settings.authorities.as_deref(), resolvers, resolver)?;
        secret_of(settings)?;
        let places = Semaphore::new(AT_ONCE);
        Ok(Self { settings: settings.clone(), way, places, kept: Mutex::default() })
    }

    /// Whose token it is; `hint`: whose the client says it is.
    pub async fn verify(&self, hint: Option<&str>, token: &Secret) -> Result<Verified, Failure> {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.expose());
        let key: [u8; 32] = digest.as_ref().try_into().expect("SHA-256 has 32 octets");
        let login = match self.find(&key) {
            Some(login) => login,
            None => self.ask(&key, token).await?,
        };
        if hint.is_some_and(|hint| hint != login) {
            return Err(Failure::Refused);
        }
        Ok(Verified { login, addresses: Vec::new(), signature: None })
    }

    fn find(&self, key: &[u8; 32]) -> Option<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, login)| login.clone())
    }

    async fn ask(&self, key: &[u8; 32], token: &Secret) -> Result<String, Failure> {
        let _place = self.places.acquire().await.map_err(unavailable)?;
        let secret = secret_of(&self.settings).map_err(Failure::Unavailable)?;
        // RFC 6749 section 2.3.1: each half is form-encoded before both are joined.
        let pair = format!("{}:{}", encode(&self.settings.client_id), encode(&secret));
        let authorization = format!("Basic {}", Base64::encode_string(pair.as_bytes()));
        let text = token.expose_text().ok_or(Failure::Refused)?;
        let form = format!("token={}&token_type_hint=access_token", encode(text));
        let (code, body) = self.way.post(form, &authorization).await.map_err(Failure::Unavailable)?;
        if code != 200 {
            return Err(unavailable(format_args!("token introspection is answered {code}")));
        }
        let claims: Claims = serde_json::from_slice(&body)
            .map_err(|_| unavailable("the answer to token introspection is not as RFC 7662 wants it"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let (login, valid) = judge(&self.settings, &claims, now).ok_or(Failure::Refused)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= TOKENS_MAX {
            let now = Instant::now();
            kept.retain(|_, (until, _)| *until > now);
        }
        if kept.len() < TOKENS_MAX {
            kept.insert(*key, (Instant::now() + valid, login.clone()));
        }
        Ok(login)
    }
}

/// Whose it is and for how long that may be kept; `None` when it does not let anybody in. `now` in seconds.
fn judge(settings: &Introspection, claims: &Claims, now: f64) -> Option<(String, Duration)> {
    let scoped =
        |wanted: &String| claims.scope.as_deref().unwrap_or("").split(' ').any(|scope| scope == wanted);
    let meant = |wanted: &String| match &claims.aud {
        None => false,
        Some(Audience::One(one)) => one == wanted,
        Some(Audience::Many(many)) => many.contains(wanted),
    };
    let good = claims.active
        && claims.exp.is_none_or(|until| until > now)
        && claims.nbf.is_none_or(|from| from <= now)
        && settings.scope.as_ref().is_none_or(scoped)
        && settings.audience.as_ref().is_none_or(meant);
    let login = sasl::login(claims.others.get(&settings.username)?.as_str()?)?;
    let left =
        claims.exp.map_or(KEPT_MAX, |until| Duration::try_from_secs_f64(until - now).unwrap_or_default());
    good.then(|| (login, left.min(KEPT_MAX)))
}

fn secret_of(settings: &Introspection) -> Result<zeroize::Zeroizing<String>, String> {
    let text = super::watched::text(&settings.client_secret_file, SECRET_OCTETS_MAX)?;
    Ok(zeroize::Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// `application/x-www-form-urlencoded`.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(octet.into()),
            _ => encoded.push_str(&format!("%{octet:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;

    fn judged(answer: &str) -> Option<(String, u64)> {
        let settings = Introspection {
            server: Server { tls: false, host: "127.0.0.1".into(), port: 1, path: "/".into() },
            authorities: None,
            client_id: String::new(),
            client_secret_file: "none".into(),
            scope: Some("smtp".into()),
            audience: Some("relay".into()),
            username: "username".into(),
        };
        let claims = serde_json::from_str(answer).ok()?;
        judge(&settings, &claims, 1000.0).map(|(login, valid)| (login, valid.as_secs()))
    }

    #[test]
    fn a_token_is_good_for_its_scope_audience_and_time() {
        let good = r#"{"active":true,"scope":"mail smtp","aud":["relay","other"],"exp":1030,"username":"Ann@Winery.example"}"#;
        assert_eq!(judged(good), Some(("ann@winery.example".into(), 30)));
        assert_eq!(judged(&good.replace("1030", "9999")).unwrap().1, 60);
        assert_eq!(judged(&good.replace(r#","exp":1030"#, "")).unwrap().1, 60);
        assert_eq!(judged(&good.replace(r#"["relay","other"]"#, r#""relay""#)).unwrap().1, 30);
        for (from, to) in [
            ("true", "false"),
            ("mail smtp", "mail smtps"),
            (r#""scope":"mail smtp","#, ""),
            (r#"["relay","other"]"#, r#"["other"]"#),
            (r#""aud":["relay","other"],"#, ""),
            ("1030", "1000"),
            ("1030", r#"1030,"nbf":1001"#),
            ("username", "sub"),
            (r#""Ann@Winery.example""#, "7"),
            (r#""active":true,"#, ""),
        ] {
            assert_eq!(judged(&good.replacen(from, to, 1)), None, "{from} -> {to}");
        }
        assert_eq!(encode("a b&c=d/é"), "a%20b%26c%3Dd%2F%C3%A9");
    }
}
