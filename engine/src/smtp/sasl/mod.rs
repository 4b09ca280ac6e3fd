//! SASL, the server's side (RFC 4422) as SMTP carries it (RFC 4954): messages in, challenges and questions out.
//!
//! Pure: no clock, no I/O, no randomness; nonces, salts and verdicts come from whoever answers an [`Ask`]. An
//! [`Exchange`] belongs to one session and lives for one AUTH command:
//!
//! ```text
//! begin() ──▶ Challenge ──message──▶ respond() ──▶ Ask ──answer──▶ answered() ──▶ Done, Refused or Challenge
//! ```
//!
//! | mechanism | RFC | its messages |
//! |---|---|---|
//! | PLAIN | 4616 | login and password in one |
//! | LOGIN | draft-murchison-sasl-login | login, then password |
//! | SCRAM-SHA-256, -PLUS | 5802, 7677; bindings 5929, 9266 | `scram` |
//! | OAUTHBEARER | 7628 | a bearer token |
//! | XOAUTH2 | none: Google's, Microsoft's | the same in other words |
//!
//! Logins are prepared by SASLprep and in lower case, passwords by SASLprep (RFC 4013); what it forbids fails.
//! An identity to act as must be empty or the login itself. Passwords, tokens and proofs are [`Secret`]: they
//! are wiped when they are dropped and show nothing in a log.

mod mechanism;
mod oauth;
mod prepare;
pub mod scram;
mod secret;

#[cfg(test)]
mod tests;

pub use mechanism::Mechanism;
pub use prepare::{LOGIN_OCTETS_MAX, PASSWORD_OCTETS_MAX, login, password};
pub use secret::Secret;

use scram::Scram;

/// Something only the keeper of passwords can answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// Salt and iterations of a login, known or not, and a fresh nonce: [`Answer::Parameters`].
    Parameters { login: String },
    /// Is it so?
    Verify(Credentials),
}

/// What a client has shown to prove who it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The password as the client sent it, not prepared.
    Password { login: String, password: Secret },
    /// The client's proof over the text of the exchange (RFC 5802 section 3).
    Scram { login: String, text: String, proof: Secret },
    /// A bearer token (RFC 6750), and whose the client says it is.
    Token { login: Option<String>, token: Secret },
}

impl Credentials {
    /// Empty where only the token knows.
    pub fn login(&self) -> &str {
        match self {
            Self::Password { login, .. } | Self::Scram { login, .. } => login,
            Self::Token { login, .. } => login.as_deref().unwrap_or(""),
        }
    }
}

/// The answer to an [`Ask`]. `I` is what is known of a login that is accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<I> {
    Parameters(scram::Parameters),
    /// `signature`: the server's own proof, of SCRAM.
    Accepted {
        identity: I,
        signature: Option<[u8; scram::OCTETS]>,
    },
    Refused(Refusal),
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong password, unknown login, bad message: nobody learns which.
    Credentials,
    /// Nobody can say just now.
    Unavailable,
    /// Too many failures from this client's network.
    TooManyFailures,
}

/// What the server does after a message of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this (before base64).
    Challenge(Vec<u8>),
    Ask(Ask),
    Refused(Refusal),
}

/// What the server does after an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum After<I> {
    /// Send this, and wait for a message.
    Challenge(Vec<u8>),
    Done(I),
    Refused(Refusal),
}

/// What ties an exchange to its TLS connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// `tls-exporter` (RFC 9266 section 2): with TLS 1.3.
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` (RFC 5929 section 4): the hash of the server's certificate.
    pub end_point: Option<Vec<u8>>,
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Bindings {{ exporter: {}, end_point: {} }}",
            self.exporter.is_some(),
            self.end_point.is_some()
        )
    }
}

impl Bindings {
    pub fn any(&self) -> bool {
        self.exporter.is_some() || self.end_point.is_some()
    }
}

#[derive(Debug)]
enum State<I> {
    /// Of every mechanism: its first message.
    AwaitFirst,
    AwaitLoginPassword {
        login: String,
    },
    Scram(Scram),
    /// A verdict is good, and the client takes note of the server's proof with an empty message.
    AwaitAcknowledged(Option<I>),
    /// A verdict is bad, and the client takes note of that (RFC 7628 section 3.2.3).
    AwaitErrorSeen,
    AwaitVerdict,
    Over,
}

/// One AUTH command.
#[derive(Debug)]
pub struct Exchange<I> {
    mechanism: Mechanism,
    /// The server has announced a mechanism with channel binding.
    plus_offered: bool,
    bindings: Bindings,
    state: State<I>,
}

const LOGIN_ASKS_NAME: &[u8] = b"Username:";
const LOGIN_ASKS_PASSWORD: &[u8] = b"Password:";

impl<I> Exchange<I> {
    /// `plus_offered`: EHLO has announced a mechanism with channel binding.
    pub fn new(mechanism: Mechanism, plus_offered: bool, bindings: Bindings) -> Self {
        Self { mechanism, plus_offered, bindings, state: State::AwaitFirst }
    }

    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The challenge to a client that has sent no initial response.
    pub fn begin(&self) -> &'static [u8] {
        if self.mechanism == Mechanism::Login { LOGIN_ASKS_NAME } else { b"" }
    }

    /// A message of the client, decoded.
    pub fn respond(&mut self, message: &[u8]) -> Next {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitFirst => self.first(message).unwrap_or(Next::Refused(Refusal::Credentials)),
            State::AwaitLoginPassword { login } => self.verify(password_of(login, message)),
            State::Scram(mut scram) => match scram.last(message) {
                Some(credentials) => {
                    self.state = State::Scram(scram);
                    Next::Ask(Ask::Verify(credentials))
                }
                None => Next::Refused(Refusal::Credentials),
            },
            State::AwaitAcknowledged(..) | State::AwaitErrorSeen | State::AwaitVerdict | State::Over => {
                Next::Refused(Refusal::Credentials)
            }
        }
    }

    /// The message after a challenge of [`Exchange::answered`], which ends the exchange: the identity, or a
    /// refusal.
    pub fn acknowledge(&mut self, message: &[u8]) -> Result<I, Refusal> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitAcknowledged(Some(identity)) if message.is_empty() => Ok(identity),
            _ => Err(Refusal::Credentials),
        }
    }

    /// Whether the next message goes to [`Exchange::acknowledge`].
    pub fn awaits_acknowledgement(&self) -> bool {
        matches!(self.state, State::AwaitAcknowledged(_) | State::AwaitErrorSeen)
    }

    fn first(&mut self, message: &[u8]) -> Option<Next> {
        match self.mechanism {
            Mechanism::Plain => Some(self.verify(plain(message))),
            Mechanism::Login => {
                let login = login(str::from_utf8(message).ok()?)?;
                self.state = State::AwaitLoginPassword { login };
                Some(Next::Challenge(LOGIN_ASKS_PASSWORD.to_vec()))
            }
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                let plus = self.mechanism == Mechanism::ScramSha256Plus;
                let scram = Scram::first(message, plus, self.plus_offered, &self.bindings)?;
                let login = scram.login().to_owned();
                self.state = State::Scram(scram);
                Some(Next::Ask(Ask::Parameters { login }))
            }
            Mechanism::OauthBearer => Some(self.verify(oauth::bearer(message))),
            Mechanism::Xoauth2 => Some(self.verify(oauth::xoauth2(message))),
        }
    }

    fn verify(&mut self, credentials: Option<Credentials>) -> Next {
        match credentials {
            Some(credentials) => {
                self.state = State::AwaitVerdict;
                Next::Ask(Ask::Verify(credentials))
            }
            None => Next::Refused(Refusal::Credentials),
        }
    }

    /// The answer to what was asked.
    pub fn answered(&mut self, answer: Answer<I>) -> After<I> {
        match (std::mem::replace(&mut self.state, State::Over), answer) {
            (_, Answer::Refused(refusal)) => self.refused(refusal),
            (State::Scram(mut scram), Answer::Parameters(parameters)) => match scram.challenge(parameters) {
                Some(challenge) => {
                    self.state = State::Scram(scram);
                    After::Challenge(challenge)
                }
                None => After::Refused(Refusal::Unavailable),
            },
            (State::Scram(_), Answer::Accepted { identity, signature: Some(signature) }) => {
                self.state = State::AwaitAcknowledged(Some(identity));
                After::Challenge(scram::server_last(&signature))
            }
            (State::AwaitVerdict, Answer::Accepted { identity, .. }) => After::Done(identity),
            _ => After::Refused(Refusal::Unavailable),
        }
    }

    fn refused(&mut self, refusal: Refusal) -> After<I> {
        if self.mechanism.is_token() && refusal == Refusal::Credentials {
            self.state = State::AwaitErrorSeen;
            return After::Challenge(oauth::error(self.mechanism).to_vec());
        }
        After::Refused(refusal)
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 section 2).
fn plain(message: &[u8]) -> Option<Credentials> {
    let mut parts = message.split(|octet| *octet == 0);
    let (identity, name, secret) = (parts.next()?, parts.next()?, parts.next()?);
    let (identity, name) = (str::from_utf8(identity).ok()?, login(str::from_utf8(name).ok()?)?);
    if parts.next().is_some() || !(identity.is_empty() || login(identity)? == name) {
        return None;
    }
    password_of(name, secret)
}

/// A password that could be one: some directories take an empty one for an anonymous visit (RFC 4513 section
/// 5.1.2), so it goes to none.
fn password_of(login: String, secret: &[u8]) -> Option<Credentials> {
    let sound = (1..=PASSWORD_OCTETS_MAX).contains(&secret.len())
        && !secret.contains(&0)
        && str::from_utf8(secret).is_ok();
    sound.then(|| Credentials::Password { login, password: Secret::new(secret) })
}
