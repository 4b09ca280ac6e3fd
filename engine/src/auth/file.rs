//! Passwords in a file (`users`), verified here.
//!
//! Lives on the service thread; hashes are computed on blocking threads, [`HASHES_AT_ONCE`] at a time. A login
//! that does not exist or is locked costs a hash too, and has a salt for SCRAM too, so that neither the answer
//! nor the time that it takes tells who exists.

use super::hash::{Hash, SALT_OCTETS};
use super::users::{self, User};
use super::watched::{Watched, text};
use super::{Failure, Verified, random, unavailable};
use crate::observe::log;
use crate::smtp::sasl::scram::{Parameters, Verifier};
use crate::smtp::sasl::{self, Secret};
use base64ct::{Base64, Encoding};
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Bounds memory (19 MiB each) and the CPU time that logins take from mail.
pub(super) const HASHES_AT_ONCE: usize = 2;
const NONCE_OCTETS: usize = 18;

/// By login.
type Users = HashMap<String, User>;

pub(super) struct PasswordFile {
    users: Watched<Users>,
    /// For logins that do not exist.
    pretended: Arc<Hash>,
    secret: [u8; 32],
    /// For a file without verifiers.
    scram_iterations: u32,
    /// What most of these users have.
    common: Mutex<Option<(Arc<Users>, u32)>>,
    hashing: Arc<Semaphore>,
    hashes: AtomicU64,
}

impl PasswordFile {
    /// Reads the file. `secret` makes the salts of logins that do not exist.
    pub fn open(path: &Path, secret: [u8; 32], scram_iterations: u32) -> Result<Self, String> {
        let users = Watched::open(path, users::FILE_OCTETS_MAX, users::read)?;
        let nobody = Hash::make("nobody", &random::<SALT_OCTETS>());
        Ok(Self {
            users,
            pretended: Arc::new(nobody),
            secret,
            scram_iterations,
            common: Mutex::default(),
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            hashes: AtomicU64::new(0),
        })
    }

    fn users(&self) -> Arc<Users> {
        self.look(false)
    }

    /// Reads the file again when it has changed, or `at_once`.
    pub fn look(&self, at_once: bool) -> Arc<Users> {
        let (users, news) = self.users.get(at_once);
        if let Some(news) = news {
            log::note("auth", &news);
        }
        users
    }

    /// Hashes computed so far.
    pub fn hashes(&self) -> u64 {
        self.hashes.load(Relaxed)
    }

    pub fn parameters(&self, login: &str) -> Parameters {
        let verifier = self.verifier(login);
        let nonce = Base64::encode_string(&random::<NONCE_OCTETS>());
        Parameters { salt: verifier.salt, iterations: verifier.iterations, nonce }
    }

    fn verifier(&self, login: &str) -> Verifier {
        let users = self.users();
        let known = users.get(login).and_then(|user| user.scram.clone());
        let pretended = Verifier::pretended(&self.secret, login, self.common_iterations(users));
        known.unwrap_or(pretended)
    }

    /// What most verifiers of the file have, which the setting of today may not be: a login that does not exist
    /// must look like them.
    fn common_iterations(&self, users: Arc<Users>) -> u32 {
        let mut common = self.common.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, iterations)) = &*common
            && Arc::ptr_eq(of, &users)
        {
            return *iterations;
        }
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for verifier in users.values().filter_map(|user| user.scram.as_ref()) {
            *counts.entry(verifier.iterations).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|&(iterations, count)| (count, iterations));
        let iterations = most.map_or(self.scram_iterations, |(iterations, _)| iterations);
        *common = Some((users, iterations));
        iterations
    }

    pub fn scram(&self, login: &str, text: &str, proof: &Secret) -> Result<Verified, Failure> {
        let locked = self.users().get(login).is_none_or(|user| user.locked || user.scram.is_none());
        match self.verifier(login).verify(text, proof.expose()) {
            Some(signature) if !locked => {
                Ok(Verified { login: login.to_owned(), addresses: Vec::new(), signature: Some(signature) })
            }
            _ => Err(Failure::Refused),
        }
    }

    pub async fn password(&self, login: &str, secret: &Secret) -> Result<Verified, Failure> {
        let users = self.users();
        let user = users.get(login).filter(|user| !user.locked);
        let (hash, known) =
            user.map_or_else(|| (self.pretended.clone(), false), |user| (Arc::new(user.hash.clone()), true));
        let prepared = secret.expose_text().and_then(sasl::password);
        let known = known && prepared.is_some();
        let permit = self.hashing.clone().acquire_owned().await.map_err(unavailable)?;
        self.hashes.fetch_add(1, Relaxed);
        let verified = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            hash.verify(prepared.as_deref().map_or("", String::as_str))
        });
        if verified.await.map_err(unavailable)? && known {
            return Ok(Verified { login: login.to_owned(), addresses: Vec::new(), signature: None });
        }
        Err(Failure::Refused)
    }
}

/// The secret of a relay, in its spool, made at the first start: after a restart the salts of logins that do not
/// exist must be the same, or a client could tell them from the others.
///
/// # Errors
/// One sentence with the path.
pub fn secret(spool: &Path) -> Result<[u8; 32], String> {
    let path = spool.join("auth.secret");
    let made: [u8; 32] = random();
    let mut options = std::fs::OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
        let hexadecimal: String = made.iter().map(|octet| format!("{octet:02x}")).collect();
        file.write_all(hexadecimal.as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => return Ok(made),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("{} cannot be written: {error}", path.display())),
    }
    let kept = text(&path, 64)?;
    let octet = |at: usize| u8::from_str_radix(kept.get(2 * at..2 * at + 2)?, 16).ok();
    let octets: Option<Vec<u8>> = (0..32).map(octet).collect();
    let damaged = || format!("{} is damaged; remove it, and a new one is made", path.display());
    octets.and_then(|octets| octets.try_into().ok()).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> (PasswordFile, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("sluice-users-{name}-{}", std::process::id()));
        let user = |password: &str, locked| User {
            hash: Hash::make(password, &[1; SALT_OCTETS]),
            scram: Some(Verifier::derive(password, &[2; 16], 4096)),
            locked,
        };
        let lines = [user("annspassword", false).write("ann"), user("bobspassword", true).write("bob")];
        std::fs::write(&path, lines.join("\n")).unwrap();
        (PasswordFile::open(&path, [3; 32], 4096).unwrap(), path)
    }

    /// Whatever is asked, one hash is computed for it: time tells nothing of who exists.
    #[tokio::test]
    async fn every_attempt_costs_one_hash_known_or_not() {
        let (file, path) = file("hashes");
        for (number, (login, password, accepted)) in [
            ("ann", "annspassword", true),
            ("ann", "wrong", false),
            ("nobody", "annspassword", false),
            ("nobody", "nobody", false),
            ("bob", "bobspassword", false),
            ("ann", "\u{7}", false),
        ]
        .into_iter()
        .enumerate()
        {
            let verdict = file.password(login, &Secret::new(password.as_bytes())).await;
            assert_eq!(verdict.is_ok(), accepted, "{login} {password:?}");
            assert_eq!(file.hashes(), number as u64 + 1, "{login} {password:?}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_unknown_login_has_a_salt_that_stays() {
        let (file, path) = file("salts");
        let (known, unknown) = (file.parameters("ann"), file.parameters("nobody"));
        assert_eq!((known.salt.len(), known.iterations), (unknown.salt.len(), unknown.iterations));
        assert_eq!(unknown.salt, file.parameters("nobody").salt);
        assert_ne!(unknown.nonce, file.parameters("nobody").nonce);
        for login in ["ann", "bob", "nobody"] {
            assert_eq!(file.scram(login, "text", &Secret::new(&[0; 32])), Err(Failure::Refused));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_secret_of_a_spool_is_made_once() {
        let spool = std::env::temp_dir().join(format!("sluice-secret-{}", std::process::id()));
        std::fs::create_dir_all(&spool).unwrap();
        let made = secret(&spool).unwrap();
        assert_eq!(secret(&spool), Ok(made));
        std::fs::write(spool.join("auth.secret"), "short").unwrap();
        assert!(secret(&spool).unwrap_err().contains("is damaged"));
        std::fs::remove_dir_all(spool).unwrap();
    }

    #[test]
    fn who_does_not_exist_has_the_iterations_of_most_who_do() {
        let directory = std::env::temp_dir().join(format!("sluice-users-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("users");
        let hash = Hash::make("correct horse", &[7; SALT_OCTETS]).write();
        let line = |login: &str, iterations| {
            let scram = Verifier::derive("correct horse", b"salt of 16 octets", iterations).write();
            format!("{login}:{hash} {scram}\n")
        };
        std::fs::write(&path, "").unwrap();
        let empty = PasswordFile::open(&path, [1; 32], 4_096).unwrap();
        assert_eq!(empty.parameters("nobody").iterations, 4_096);
        std::fs::write(&path, [line("ann", 5_000), line("bob", 5_000), line("eve", 6_000)].concat()).unwrap();
        let file = PasswordFile::open(&path, [1; 32], 4_096).unwrap();
        assert_eq!(file.parameters("ann").iterations, 5_000);
        assert_eq!(file.parameters("nobody").iterations, 5_000);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
