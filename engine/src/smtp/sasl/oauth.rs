//! Bearer tokens: OAUTHBEARER (RFC 7628) and XOAUTH2.
//!
//! Both are one message of keys and values with `^A` behind each; OAUTHBEARER has a GS2 header before them.

use super::{Credentials, Mechanism, Secret, login, scram};

/// Octets of a token; below what a line can hold.
const TOKEN_OCTETS_MAX: usize = 8 * 1024;
const SEPARATOR: char = '\x01';

/// `gs2-header ^A auth=Bearer TOKEN ^A ^A` (RFC 7628 section 3.1).
pub(super) fn bearer(message: &[u8]) -> Option<Credentials> {
    let (header, rest) = str::from_utf8(message).ok()?.split_once(SEPARATOR)?;
    let mut fields = header.strip_suffix(',')?.splitn(2, ',');
    if !matches!(fields.next()?, "n" | "y") {
        return None;
    }
    let identity = match fields.next()? {
        "" => None,
        named => Some(login(&scram::saslname(named.strip_prefix("a=")?)?)?),
    };
    let rest = rest.strip_suffix(SEPARATOR)?;
    credentials(identity, auth_of(rest, |key| !matches!(key, "user"))?)
}

/// `user=LOGIN ^A auth=Bearer TOKEN ^A ^A`.
pub(super) fn xoauth2(message: &[u8]) -> Option<Credentials> {
    let text = str::from_utf8(message).ok()?.strip_suffix(SEPARATOR)?;
    let (user, rest) = text.strip_prefix("user=")?.split_once(SEPARATOR)?;
    let identity = if user.is_empty() { None } else { Some(login(user)?) };
    credentials(identity, auth_of(rest, |_| true)?)
}

/// The value of `auth` among pairs that each end in the separator.
fn auth_of(pairs: &str, allowed: impl Fn(&str) -> bool) -> Option<&str> {
    let mut auth = None;
    for pair in pairs.strip_suffix(SEPARATOR)?.split(SEPARATOR) {
        let (key, value) = pair.split_once('=')?;
        let known = !key.is_empty() && key.bytes().all(|octet| octet.is_ascii_alphabetic()) && allowed(key);
        if !known || key == "auth" && auth.replace(value).is_some() {
            return None;
        }
    }
    auth
}

/// `Bearer b64token` (RFC 6750 section 2.1).
fn credentials(login: Option<String>, auth: &str) -> Option<Credentials> {
    let (scheme, token) = auth.split_once(' ')?;
    let bare = token.trim_end_matches('=');
    let sound = scheme.eq_ignore_ascii_case("Bearer")
        && !bare.is_empty()
        && token.len() <= TOKEN_OCTETS_MAX
        && bare.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._~+/".contains(&octet));
    sound.then(|| Credentials::Token { login, token: Secret::new(token.as_bytes()) })
}

/// What a client is told before 535 (RFC 7628 section 3.2.2).
pub(super) fn error(mechanism: Mechanism) -> &'static [u8] {
    match mechanism {
        Mechanism::OauthBearer => br#"{"status":"invalid_token"}"#,
        _ => br#"{"status":"401","schemes":"bearer"}"#,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(found: Option<Credentials>) -> Option<(String, String)> {
        let Credentials::Token { login, token } = found? else { return None };
        Some((login.unwrap_or_default(), token.expose_text()?.to_owned()))
    }

    #[test]
    fn tokens_are_found_where_the_grammars_have_them() {
        let some = |login: &str, token: &str| Some((login.to_owned(), token.to_owned()));
        for (message, found) in [
            (
                "n,a=User@Example.com,\x01host=server\x01port=587\x01auth=Bearer vF9dft4qmTc2Nvb3R==\x01\x01",
                some("user@example.com", "vF9dft4qmTc2Nvb3R=="),
            ),
            ("n,,\x01auth=bearer x.y-z~1\x01\x01", some("", "x.y-z~1")),
            ("y,a=a=2Cb=3Dc,\x01auth=Bearer t\x01\x01", some("a,b=c", "t")),
            ("p=tls-exporter,,\x01auth=Bearer t\x01\x01", None),
            ("n,,\x01auth=Bearer t\x01", None),
            ("n,,\x01auth=Bearer t", None),
            ("n,,\x01auth=Bearer \x01\x01", None),
            ("n,,\x01auth=Bearer a b\x01\x01", None),
            ("n,,\x01auth=Basic dGVzdA==\x01\x01", None),
            ("n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01", None),
            ("n,,\x01host=a\x01\x01", None),
            ("n,a=x=2cy,\x01auth=Bearer t\x01\x01", None),
            ("n,a=,\x01auth=Bearer t\x01\x01", None),
            ("n\x01auth=Bearer t\x01\x01", None),
            ("\x01", None),
            ("", None),
        ] {
            assert_eq!(read(bearer(message.as_bytes())), found, "{message:?}");
        }
        for (message, found) in [
            ("user=Joe@Example.com\x01auth=Bearer ya29.vF9\x01\x01", some("joe@example.com", "ya29.vF9")),
            ("user=\x01auth=Bearer t\x01\x01", some("", "t")),
            ("user=joe\x01auth=Bearer \x01\x01", None),
            ("user=joe\x01auth=Bearer t\x01", None),
            ("auth=Bearer t\x01\x01", None),
            ("user=joe\x01\x01", None),
        ] {
            assert_eq!(read(xoauth2(message.as_bytes())), found, "{message:?}");
        }
        let long = format!("user=\x01auth=Bearer {}\x01\x01", "a".repeat(TOKEN_OCTETS_MAX + 1));
        assert_eq!(read(xoauth2(long.as_bytes())), None);
    }
}
