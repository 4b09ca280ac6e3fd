//! The password policy: what a new password must be.

use crate::config::PasswordPolicy;
use crate::program::{DATA_ERROR, Failed};
use crate::smtp::sasl;
use std::io::{BufRead, BufReader};
use zeroize::Zeroizing;

/// The password in the form in which it is hashed.
pub(super) fn check(
    policy: &PasswordPolicy,
    login: &str,
    password: &str,
) -> Result<Zeroizing<String>, Failed> {
    let refuse = |why: &str| {
        Failed::new(DATA_ERROR, format_args!("the password is refused: {why}; nothing was changed"))
    };
    let prepared = sasl::password(password)
        .ok_or_else(|| refuse("it holds characters that no client can be relied on to send alike, or is longer than 1024 octets"))?;
    let length = prepared.chars().count();
    if length < policy.length_min {
        return Err(refuse(&format!(
            "it has {length} characters, at least {} are demanded (auth.password.length_min)",
            policy.length_min
        )));
    }
    let lower = prepared.to_lowercase();
    let local = login.split('@').next().unwrap_or(login);
    if lower == login || lower == local || lower.chars().all(|c| lower.starts_with(c)) {
        return Err(refuse("it is the login, or one character again and again"));
    }
    if lower.replace(login, "").len() < 4 || lower.replace(local, "").len() < 4 {
        return Err(refuse("it is hardly more than the login"));
    }
    let Some(path) = &policy.forbidden else { return Ok(prepared) };
    let failed = |error| Failed::io(format_args!("auth.password.forbidden {}", path.display()), &error);
    for line in BufReader::new(std::fs::File::open(path).map_err(failed)?).split(b'\n') {
        let line = line.map_err(failed)?;
        if String::from_utf8_lossy(&line).trim_end_matches('\r').to_lowercase() == lower {
            return Err(refuse("it is in the list of forbidden passwords (auth.password.forbidden)"));
        }
    }
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S30.
    #[test]
    fn weak_passwords_are_refused_with_the_reason() {
        let path = std::env::temp_dir().join(format!("sluice-forbidden-{}", std::process::id()));
        std::fs::write(&path, b"letmein\r\nCorrectHorseBattery\n\xff\n").unwrap();
        let policy = PasswordPolicy { forbidden: Some(path.clone()), ..PasswordPolicy::default() };
        for (password, why) in [
            ("short", Some("it has 5 characters, at least 12")),
            ("ann@winery.example", Some("it is the login")),
            ("ANN@winery.example", Some("it is the login")),
            ("ann@winery.example1", Some("hardly more")),
            ("aaaaaaaaaaaaaaaa", Some("one character")),
            ("correcthorsebattery", Some("list of forbidden")),
            ("with\u{7}a control", Some("characters that no client")),
            ("correct horse staple", None),
            ("grüße aus dem süden", None),
        ] {
            let found = check(&policy, "ann@winery.example", password);
            match (found, why) {
                (Ok(_), None) => {}
                (Err(failed), Some(why)) => {
                    assert!(failed.sentence.contains(why), "{password}: {}", failed.sentence);
                    assert!(!failed.sentence.contains(password), "{}", failed.sentence);
                }
                (found, _) => panic!("{password}: {found:?}"),
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
