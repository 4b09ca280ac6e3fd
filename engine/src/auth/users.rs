//! The password file: what is in it, line by line.
//!
//! ```text
//! # a comment
//! LOGIN:[!]ARGON2ID [SCRAM-SHA-256$…]
//! ```
//!
//! The login stands in the form of [`sasl::login`] and holds no colon; `!` locks it; the second field is the
//! verifier that SCRAM needs. Pure; written by `sluice user`, read by the service thread.

use super::hash::Hash;
use crate::smtp::sasl::{self, scram::Verifier};
use std::collections::HashMap;

/// Octets of the file. Prevents a wrong path from taking memory; room for some 300,000 logins.
pub const FILE_OCTETS_MAX: u64 = 128 << 20;

/// One login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub hash: Hash,
    pub scram: Option<Verifier>,
    pub locked: bool,
}

impl User {
    /// Its line, without an end.
    pub fn write(&self, login: &str) -> String {
        let lock = if self.locked { "!" } else { "" };
        let scram = self.scram.as_ref().map_or_else(String::new, |verifier| format!(" {}", verifier.write()));
        format!("{login}:{lock}{}{scram}", self.hash.write())
    }
}

/// Whether a login can stand in the file.
pub fn is_login(login: &str) -> bool {
    sasl::login(login).as_deref() == Some(login)
        && !login.contains(':')
        && !login.starts_with('#')
        && !login.contains(char::is_whitespace)
}

/// A line: nobody's (a comment, an empty one), or a login's.
///
/// # Errors
/// What is wrong with it, without its text.
pub fn read_line(line: &str) -> Result<Option<(&str, User)>, &'static str> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (login, fields) = line.split_once(':').ok_or("no colon behind the login")?;
    if !is_login(login) {
        return Err("not a login: lower case, no spaces, SASLprep");
    }
    let (locked, fields) = fields.strip_prefix('!').map_or((false, fields), |rest| (true, rest));
    let mut fields = fields.split_whitespace();
    let hash = fields.next().and_then(Hash::read).ok_or("not an argon2id hash ($argon2id$v=19$…)")?;
    let scram = match fields.next() {
        None => None,
        Some(text) => Some(Verifier::read(text).ok_or("not a SCRAM verifier (SCRAM-SHA-256$…)")?),
    };
    if fields.next().is_some() {
        return Err("more than a hash and a SCRAM verifier");
    }
    Ok(Some((login, User { hash, scram, locked })))
}

/// The whole file, by login.
///
/// # Errors
/// The number of the first bad line and what is wrong.
pub fn read(text: &str) -> Result<HashMap<String, User>, String> {
    let mut users = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let read = read_line(line).map_err(|wrong| format!("line {}: {wrong}", number + 1))?;
        let Some((login, user)) = read else { continue };
        if users.insert(login.to_owned(), user).is_some() {
            return Err(format!("line {}: {login} stands there twice", number + 1));
        }
    }
    Ok(users)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const HASH: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let verifier = Verifier::derive("password", b"salt of 16 octets", 4096);
        let scram = verifier.write();
        let text = format!("# people\n\nann@winery.example:{HASH}\nbob:!{HASH} {scram}  \n");
        let users = read(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert!(!users["ann@winery.example"].locked && users["ann@winery.example"].scram.is_none());
        assert!(users["bob"].locked && users["bob"].scram.as_ref() == Some(&verifier));
        assert_eq!(users["bob"].write("bob"), format!("bob:!{HASH} {scram}"));
    }

    #[test]
    fn a_bad_line_is_named_and_not_shown() {
        for (line, wrong) in [
            ("ann", "no colon"),
            ("Ann:x", "not a login"),
            ("a b:x", "not a login"),
            (":x", "not a login"),
            ("ann:secret", "not an argon2id hash"),
            ("ann:", "not an argon2id hash"),
            (&format!("ann:{HASH} secret"), "not a SCRAM verifier"),
            (&format!("bob:{HASH}"), "twice"),
        ] {
            let error = read(&format!("bob:{HASH}\n{line}\n")).unwrap_err();
            assert!(error.starts_with("line 2: ") && error.contains(wrong), "{line}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
