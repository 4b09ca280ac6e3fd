//! The way of a question about a login: guard, back end, identity.
//!
//! Lives on the service thread, on its tokio runtime. A question waits for its delay, then for a place at the
//! back end, all of it bounded: [`QUESTIONS_MAX`] at a time, `auth.patience` at the back end. Whatever goes
//! wrong on the way is [`Refusal::Unavailable`].

use super::dovecot::Dovecot;
use super::file::PasswordFile;
use super::guard::{Admission, Guard, Outcome};
use super::ldap::Directory;
use super::senders::{self, Senders};
use super::spending::Spending;
use super::token::Tokens;
use super::watched::Watched;
use super::{Failure, Verified, unavailable};
use crate::clock;
use crate::config::{self, Auth, Backend};
use crate::observe::log;
use crate::policy::{Identity, SenderPattern};
use crate::resolve::service::Resolvers;
use crate::smtp::sasl::{Answer, Ask, Credentials, Refusal};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// Prevents delayed guessers from taking memory.
const QUESTIONS_MAX: usize = 4096;

pub struct Keeper {
    settings: Auth,
    passwords: Passwords,
    tokens: Option<Tokens>,
    senders: Option<Watched<Senders>>,
    guard: Mutex<Guard>,
    spending: Mutex<Spending>,
    places: Semaphore,
    /// What the back end suffered from last, so that it is told once.
    trouble: Mutex<Option<String>>,
}

enum Passwords {
    None,
    File(Box<PasswordFile>),
    Ldap(Box<Directory>),
    Dovecot(Dovecot),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Reads what the settings name. `secret` makes the salts of logins that do not exist.
    ///
    /// # Errors
    /// One sentence that names the file and what is wrong with it.
    pub fn open(settings: &Auth, secret: [u8; 32], resolvers: &Arc<Resolvers>) -> Result<Self, String> {
        let passwords = match &settings.backend {
            Backend::None => Passwords::None,
            Backend::File(path) => {
                let iterations = settings.password.scram_iterations.max(1);
                Passwords::File(Box::new(PasswordFile::open(path, secret, iterations)?))
            }
            Backend::Ldap(ldap) => {
                Passwords::Ldap(Box::new(Directory::new(ldap, resolvers, settings.resolver)?))
            }
            Backend::Dovecot(socket) => Passwords::Dovecot(Dovecot::new(socket)),
        };
        let token = |token: &config::Introspection| Tokens::new(token, resolvers, settings.resolver);
        let senders =
            |path: &std::path::PathBuf| Watched::open(path, senders::FILE_OCTETS_MAX, senders::read);
        Ok(Self {
            passwords,
            tokens: settings.token.as_ref().map(token).transpose()?,
            senders: settings.senders.as_ref().map(senders).transpose()?,
            guard: Mutex::new(Guard::new(&settings.guessing)),
            spending: Mutex::new(Spending::new(&settings.limits)),
            places: Semaphore::new(QUESTIONS_MAX),
            trouble: Mutex::default(),
            settings: settings.clone(),
        })
    }

    /// The longest that an answer takes.
    pub fn patience(settings: &Auth) -> std::time::Duration {
        settings.patience + settings.guessing.delay_max
    }

    /// Password hashes computed so far.
    pub fn hashes(&self) -> u64 {
        if let Passwords::File(file) = &self.passwords { file.hashes() } else { 0 }
    }

    /// Reads the files again now.
    pub fn reload(&self) {
        if let Passwords::File(file) = &self.passwords {
            file.look(true);
        }
        self.further_senders(true);
    }

    /// Whether a login may send one message more, to so many recipients.
    pub fn spend(&self, login: &str, recipients: usize) -> bool {
        lock(&self.spending).spend(clock::monotonic_millis(), login, recipients as u64)
    }

    /// Answers what a session asks for a client.
    pub async fn answer(&self, client: IpAddr, ask: Ask) -> Answer<Arc<Identity>> {
        let Ok(_place) = self.places.try_acquire() else { return Answer::Refused(Refusal::Unavailable) };
        match (ask, &self.passwords) {
            (Ask::Parameters { login }, Passwords::File(file)) => Answer::Parameters(file.parameters(&login)),
            (Ask::Parameters { .. }, _) => Answer::Refused(Refusal::Unavailable),
            (Ask::Verify(credentials), _) => self.guarded(client, credentials).await,
        }
    }

    async fn guarded(&self, client: IpAddr, credentials: Credentials) -> Answer<Arc<Identity>> {
        let login = credentials.login().to_owned();
        let admission = lock(&self.guard).begins(clock::monotonic_millis(), client, &login);
        let delay = match admission {
            Admission::After(millis) => std::time::Duration::from_millis(millis),
            Admission::LockedOut => return Answer::Refused(Refusal::TooManyFailures),
        };
        let mut attempt = Attempt { keeper: self, client, login: &login, outcome: Outcome::Unknown };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let verified = tokio::time::timeout(self.settings.patience, self.verify(client, &credentials)).await;
        let verified = verified.unwrap_or_else(|_| {
            Err(unavailable(format_args!("no answer within {} s", self.settings.patience.as_secs())))
        });
        match verified {
            Ok(verified) => {
                attempt.outcome = Outcome::Accepted;
                *lock(&self.trouble) = None;
                let signature = verified.signature;
                Answer::Accepted { identity: Arc::new(self.identity(verified)), signature }
            }
            Err(Failure::Refused) => {
                attempt.outcome = Outcome::Failed;
                *lock(&self.trouble) = None;
                Answer::Refused(Refusal::Credentials)
            }
            Err(Failure::Unavailable(trouble)) => {
                self.tell(trouble);
                Answer::Refused(Refusal::Unavailable)
            }
        }
    }

    fn tell(&self, trouble: String) {
        let mut told = lock(&self.trouble);
        if told.as_ref() != Some(&trouble) {
            log::note("auth", &format!("error: logins cannot be verified: {trouble}"));
            *told = Some(trouble);
        }
    }

    /// Asks the back end, without a guard.
    pub async fn verify(&self, client: IpAddr, credentials: &Credentials) -> Result<Verified, Failure> {
        match (credentials, &self.passwords) {
            (Credentials::Password { login, password }, Passwords::File(file)) => {
                file.password(login, password).await
            }
            (Credentials::Password { login, password }, Passwords::Ldap(ldap)) => {
                ldap.verify(login, password).await
            }
            (Credentials::Password { login, password }, Passwords::Dovecot(dovecot)) => {
                dovecot.verify(client, login, password).await
            }
            (Credentials::Scram { login, text, proof }, Passwords::File(file)) => {
                file.scram(login, text, proof)
            }
            (Credentials::Token { login, token }, _) => match &self.tokens {
                Some(tokens) => tokens.verify(login.as_deref(), token).await,
                None => Err(unavailable("no token introspection")),
            },
            _ => Err(unavailable("no back end for this mechanism")),
        }
    }

    /// Which addresses a login may send from.
    pub fn identity(&self, verified: Verified) -> Identity {
        let Verified { login, addresses, .. } = verified;
        if !self.settings.bind_senders {
            return Identity { login, senders: vec![SenderPattern::Any] };
        }
        let own =
            if login.contains('@') { login.clone() } else { format!("{login}@{}", self.settings.domain) };
        let mut senders = vec![SenderPattern::Address(own)];
        // What the directory holds are addresses, never patterns.
        let address = |text: &String| {
            SenderPattern::read(text).filter(|pattern| matches!(pattern, SenderPattern::Address(_)))
        };
        senders.extend(addresses.iter().filter_map(address));
        if let Some(further) = self.further_senders(false)
            && let Some(patterns) = further.get(&login)
        {
            senders.extend(patterns.iter().cloned());
        }
        Identity { login, senders }
    }

    fn further_senders(&self, at_once: bool) -> Option<Arc<Senders>> {
        let (senders, news) = self.senders.as_ref()?.get(at_once);
        if let Some(news) = news {
            log::note("auth", &news);
        }
        Some(senders)
    }
}

/// An attempt that was taken in: its end is counted, also when it is dropped.
struct Attempt<'a> {
    keeper: &'a Keeper,
    client: IpAddr,
    login: &'a str,
    outcome: Outcome,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Self { keeper, client, login, outcome } = self;
        let locked = lock(&keeper.guard).ended(clock::monotonic_millis(), *client, login, *outcome);
        if locked {
            let minutes = keeper.settings.guessing.lockout.as_secs().div_ceil(60);
            let text = format!(
                "warning: unknown[{client}]: locked out for {minutes} min after too many failed logins, sasl_username={}",
                login.escape_default()
            );
            log::note("auth", &text);
        }
    }
}
