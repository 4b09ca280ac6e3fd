//! `sluice user`: the logins of the password file, and the password policy (S30).
//!
//! Needs no running relay, which reads the file again by itself. A change is written whole beside the file and
//! renamed over it, with mode 0640 and the owner and group that the file had; comments and other lines stay as
//! they are. Two commands at a time take turns by a lock on the directory. A password comes from the terminal
//! without echo or from standard input, never from an argument, which every process could read.

mod ask;
mod edit;
mod policy;

use super::{CONFIGURATION, DATA_ERROR, Failed, NO_INPUT, NO_PERMISSION, TEMPORARY, print};
use crate::auth::hash::Hash;
use crate::auth::users::{self, User};
use crate::auth::{Failure, Keeper, random};
use crate::config::{Auth, Backend, Config};
use crate::resolve::service::Resolvers;
use crate::smtp::sasl::scram::{SALT_OCTETS, Verifier};
use crate::smtp::sasl::{self, Credentials, Secret};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Add(String),
    Passwd(String),
    Remove(String),
    Lock(String),
    Unlock(String),
    List,
    Test(String),
}

/// Does it, with the password file that the configuration names.
pub fn user(config: &Path, command: Command) -> Result<(), Failed> {
    let config = super::check::load_for_queue(config)?;
    let Some(auth) = &config.auth else {
        return Err(Failed::new(
            CONFIGURATION,
            "the configuration has no section [auth], so it knows no logins",
        ));
    };
    if let Command::Test(login) = &command {
        return test(&config, auth, &login_of(login)?);
    }
    let Backend::File(path) = &auth.backend else {
        return Err(Failed::new(
            CONFIGURATION,
            "the logins are not in a file (auth.backend is not \"file\"): manage them where they are",
        ));
    };
    match command {
        Command::Add(login) => add(auth, path, &login_of(&login)?),
        Command::Passwd(login) => passwd(auth, path, &login_of(&login)?),
        Command::Remove(login) => {
            let login = login_of(&login)?;
            edit::change(path, &login, |found| found.map(|_| None).ok_or_else(|| unknown(&login)))?;
            print(&format!("{login}: removed\n"))
        }
        Command::Lock(login) => lock(path, &login_of(&login)?, true),
        Command::Unlock(login) => lock(path, &login_of(&login)?, false),
        Command::List => list(path),
        Command::Test(_) => unreachable!("done above"),
    }
}

fn login_of(text: &str) -> Result<String, Failed> {
    let refuse = || {
        let sentence = format!(
            "{} is no login: allowed are up to 255 letters, digits and signs without spaces and colons, such as an address",
            text.escape_debug()
        );
        Failed::new(DATA_ERROR, sentence)
    };
    sasl::login(text).filter(|login| users::is_login(login)).ok_or_else(refuse)
}

fn unknown(login: &str) -> Failed {
    Failed::new(NO_INPUT, format_args!("{login} is not in the password file"))
}

fn made(auth: &Auth, login: &str, locked: bool) -> Result<User, Failed> {
    let password = ask::new_password(login)?;
    let prepared = policy::check(&auth.password, login, &password)?;
    let iterations = auth.password.scram_iterations;
    let verifier = || Verifier::derive(&prepared, &random::<SALT_OCTETS>(), iterations);
    Ok(User { hash: Hash::make(&prepared, &random()), scram: (iterations > 0).then(verifier), locked })
}

fn add(auth: &Auth, path: &Path, login: &str) -> Result<(), Failed> {
    let there = || {
        Failed::new(
            DATA_ERROR,
            format_args!(
                "{login} is in the password file already; `sluice user passwd` changes the password"
            ),
        )
    };
    if edit::find(path, login)?.is_some() {
        return Err(there());
    }
    let user = made(auth, login, false)?;
    edit::change(path, login, |found| if found.is_some() { Err(there()) } else { Ok(Some(user)) })?;
    print(&format!("{login}: added\n"))
}

fn passwd(auth: &Auth, path: &Path, login: &str) -> Result<(), Failed> {
    let found = edit::find(path, login)?.ok_or_else(|| unknown(login))?;
    let user = made(auth, login, found.locked)?;
    edit::change(path, login, |found| {
        let locked = found.ok_or_else(|| unknown(login))?.locked;
        Ok(Some(User { locked, ..user }))
    })?;
    print(&format!("{login}: password changed\n"))
}

fn lock(path: &Path, login: &str, locked: bool) -> Result<(), Failed> {
    edit::change(path, login, |found| Ok(Some(User { locked, ..found.ok_or_else(|| unknown(login))? })))?;
    print(&format!("{login}: {}\n", if locked { "locked" } else { "unlocked" }))
}

fn list(path: &Path) -> Result<(), Failed> {
    let mut users: Vec<_> = edit::all(path)?.into_iter().collect();
    users.sort_by(|one, other| one.0.cmp(&other.0));
    let width = users.iter().map(|(login, _)| login.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (login, user) in users {
        let state = if user.locked { "locked" } else { "open" };
        let scram = if user.scram.is_some() { "SCRAM" } else { "no SCRAM" };
        let _ = writeln!(text, "{login:width$}  {state:6}  {scram}");
    }
    print(&text)
}

/// Tries a password at the back end, whichever it is, as the relay would.
fn test(config: &Config, auth: &Auth, login: &str) -> Result<(), Failed> {
    let password = ask::password(login)?;
    let failed = |sentence: String| Failed::new(CONFIGURATION, sentence);
    let resolvers = Arc::new(Resolvers::new(&config.resolvers, 0).map_err(failed)?);
    let keeper = Keeper::open(auth, random(), &resolvers).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::io("the test cannot start", &error))?;
    let credentials =
        Credentials::Password { login: login.to_owned(), password: Secret::new(password.as_bytes()) };
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let verified = runtime.block_on(async {
        let verified = tokio::time::timeout(auth.patience, keeper.verify(client, &credentials)).await;
        verified.unwrap_or_else(|_| Err(Failure::Unavailable("no answer in time".into())))
    });
    match verified {
        Ok(verified) => {
            let identity = keeper.identity(verified);
            let senders: Vec<String> = identity.senders.iter().map(ToString::to_string).collect();
            print(&format!("{}: accepted; may send from {}\n", identity.login, senders.join(", ")))
        }
        Err(Failure::Refused) => Err(Failed::new(NO_PERMISSION, format_args!("{login}: refused"))),
        Err(Failure::Unavailable(why)) => {
            Err(Failed::new(TEMPORARY, format_args!("{login}: nobody can say: {why}")))
        }
    }
}
