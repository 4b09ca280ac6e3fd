//! Who verifies logins: AUTH's other half.
//!
//! Lives on the service thread. Sessions put their questions to the [`Keeper`] through the service thread's
//! mailbox and wait for the answer; nothing here is touched by a shard. Hashes are computed on threads of their
//! own, a bounded number at once.
//!
//! | file | what it is |
//! |---|---|
//! | `keeper` | the way of a question: guard, back end, identity |
//! | `guard`, `spending` | delays, lock-outs, what a login may send: pure |
//! | `file`, `users`, `hash` | passwords in a file (argon2id, SCRAM verifiers) |
//! | `ldap`, `dovecot` | passwords elsewhere |
//! | `token`, `https` | bearer tokens by introspection (RFC 7662) |
//! | `senders` | which addresses a login may send from |
//!
//! Every failure to verify is [`Failure::Unavailable`] and never lets anybody in.

mod dovecot;
mod file;
pub mod guard;
pub mod hash;
mod https;
mod keeper;
mod ldap;
mod senders;
mod spending;
mod token;
pub mod users;
mod watched;

/// The way to a directory, for who looks up other things than logins.
pub mod way {
    pub use super::https::Way;
    pub use super::ldap::connect;
}

pub use file::secret;
pub use keeper::Keeper;

/// A verdict of a back end: the login, as it names it, and addresses that it may send from besides its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub login: String,
    pub addresses: Vec<String>,
    /// Of SCRAM.
    pub signature: Option<[u8; crate::smtp::sasl::scram::OCTETS]>,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Wrong: nobody says what.
    Refused,
    /// Nobody could say; the reason is for the log.
    Unavailable(String),
}

/// Whether a password file can be read.
///
/// # Errors
/// One sentence that names the file, the line and what is wrong.
pub fn check_users(path: &std::path::Path) -> Result<(), String> {
    watched::Watched::open(path, users::FILE_OCTETS_MAX, users::read).map(|_| ())
}

/// Whether a file of further addresses can be read.
///
/// # Errors
/// As [`check_users`].
pub fn check_senders(path: &std::path::Path) -> Result<(), String> {
    watched::Watched::open(path, senders::FILE_OCTETS_MAX, senders::read).map(|_| ())
}

/// The text of a file of at most so many octets, such as a password.
///
/// # Errors
/// One sentence with the file's name.
pub fn secret_text(path: &std::path::Path, octets_max: u64) -> Result<String, String> {
    watched::text(path, octets_max)
}

fn unavailable(what: impl std::fmt::Display) -> Failure {
    Failure::Unavailable(what.to_string())
}

/// Fills an array with what nobody can guess.
///
/// # Panics
/// When the kernel gives no random octets.
pub fn random<const N: usize>() -> [u8; N] {
    use ring::rand::SecureRandom;
    let mut octets = [0; N];
    ring::rand::SystemRandom::new().fill(&mut octets).expect("the kernel gives random octets");
    octets
}
