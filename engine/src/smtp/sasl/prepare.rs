//! Logins and passwords in the one form in which they are compared (SASLprep, RFC 4013).

use zeroize::Zeroizing;

/// Octets of a login, prepared (RFC 4616 section 2).
pub const LOGIN_OCTETS_MAX: usize = 255;
/// Octets of a password. Prevents a client from having a megabyte hashed.
pub const PASSWORD_OCTETS_MAX: usize = 1024;

/// A login in the form in which everything here knows it, `None` when it cannot be one.
pub fn login(text: &str) -> Option<String> {
    if text.len() > LOGIN_OCTETS_MAX {
        return None;
    }
    let prepared = stringprep::saslprep(text).ok()?.to_lowercase();
    let sound = (1..=LOGIN_OCTETS_MAX).contains(&prepared.len()) && !prepared.chars().any(char::is_control);
    sound.then_some(prepared)
}

/// A password in the form in which it is hashed; `None` when it cannot be one.
pub fn password(text: &str) -> Option<Zeroizing<String>> {
    if text.len() > PASSWORD_OCTETS_MAX {
        return None;
    }
    let prepared = Zeroizing::new(stringprep::saslprep(text).ok()?.into_owned());
    (!prepared.is_empty()).then_some(prepared)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4013 section 3.
    #[test]
    fn saslprep_has_its_examples() {
        for (text, prepared) in [
            ("I\u{ad}X", Some("ix")),
            ("user", Some("user")),
            ("USER", Some("user")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("ix")),
            ("\u{7}", None),
            ("\u{627}1", None),
            ("", None),
            ("\u{ad}", None),
            ("Joe@Winery.Example", Some("joe@winery.example")),
        ] {
            assert_eq!(login(text).as_deref(), prepared, "{text:?}");
        }
        assert_eq!(password("I\u{ad}X").as_deref().map(String::as_str), Some("IX"));
        assert_eq!(password("\u{7}").as_deref(), None);
        assert_eq!(login(&"a".repeat(256)), None);
        assert_eq!(password(&"a".repeat(1025)).as_deref(), None);
    }
}
