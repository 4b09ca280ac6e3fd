//! AUTH (RFC 4954): one exchange of SASL messages, and what is known of the client after it.
//!
//! The exchange itself is `smtp::sasl`. Where it asks something, [`Step::Authenticate`] has the rim put the
//! question to the keeper of passwords and bring the answer ([`Session::answered`]).
//!
//! Replies: 334 with a challenge; 235 2.7.0; 535 5.7.8 to a wrong password, an unknown login and a bad SASL
//! message alike; 454 4.7.0 when nobody can say, or after too many failures from the client's network; 501 5.5.2
//! to what is not base64, 501 5.7.0 to `*`, 500 5.5.6 to a line over [`AUTH_OCTETS_MAX`]; 504 5.5.4 to an unknown
//! mechanism; 503 5.5.1 before EHLO, within a transaction and after AUTH; 538 5.7.11 without TLS; 502 5.5.1 where
//! the listener does not offer it. A failure counts as an error, so `limits.errors_max` bounds guessing in one
//! session.
//!
//! A login lasts as long as the connection. Passwords go from the line to the question and nowhere else;
//! [`Session::take_secret_seen`] tells the rim to wipe what it has read.

use super::{Handled, Note, Refused, Session, State, Step};
use crate::policy::Identity;
use crate::smtp::command::{AUTH_OCTETS_MAX, Auth};
use crate::smtp::reply;
use crate::smtp::sasl::{After, Answer, Ask, Exchange, Mechanism, Next, Refusal};
use base64ct::{Base64, Encoding};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What AUTH has come to on this connection.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    exchange: Option<Exchange<Arc<Identity>>>,
    /// What the rim is to ask.
    ask: Option<Ask>,
    /// Whose credentials are being looked at, for the log.
    login: String,
    /// Who has proved to be who, and how.
    proved: Option<(Arc<Identity>, Mechanism)>,
    secret_seen: bool,
    /// The last refusal has a note of its own kind.
    pub(super) refusal_noted: bool,
}

/// The beginning of a command line that may be as long as a token.
const VERB: &[u8] = b"AUTH ";

pub(super) fn auth(session: &mut Session, auth: &Auth<'_>, out: &mut Vec<u8>) -> Handled {
    session.authentication.secret_seen |= auth.initial.is_some();
    if session.context.mechanisms.is_empty() {
        return Err((&reply::NOT_OFFERED).into());
    }
    if !session.hello.as_ref().is_some_and(|hello| hello.extended) {
        return Err((&reply::AUTH_HELLO_FIRST).into());
    }
    if session.identity().is_some() {
        return Err((&reply::AUTH_ACTIVE).into());
    }
    if session.state != State::AwaitMail {
        return Err((&reply::AUTH_IN_TRANSACTION).into());
    }
    if session.tls.is_none() {
        return Err((&reply::AUTH_NEEDS_TLS).into());
    }
    let mechanism = Mechanism::find(auth.mechanism).filter(|mechanism| session.offers_mechanism(*mechanism));
    let Some(mechanism) = mechanism else { return Err((&reply::AUTH_MECHANISM_UNKNOWN).into()) };
    let bindings = session.tls.as_ref().map(|tls| tls.bindings.clone()).unwrap_or_default();
    let exchange = Exchange::new(mechanism, session.offers_mechanism(Mechanism::ScramSha256Plus), bindings);
    let begin = exchange.begin();
    session.authentication.exchange = Some(exchange);
    session.authentication.login.clear();
    match auth.initial {
        None => {
            session.challenge(begin, out);
            Ok(None)
        }
        // An empty initial response (section 4).
        Some("=") => session.message(b"", out),
        Some(text) => session.response(text.as_bytes(), out),
    }
}

impl Session {
    fn offers_mechanism(&self, mechanism: Mechanism) -> bool {
        let bound = || self.tls.as_ref().is_some_and(|tls| tls.bindings.any());
        self.context.mechanisms.contains(&mechanism) && (mechanism != Mechanism::ScramSha256Plus || bound())
    }

    /// What EHLO says of AUTH: only what would work now.
    pub(super) fn auth_line(&self) -> Option<String> {
        if self.tls.is_none() || self.identity().is_some() || self.context.mechanisms.is_empty() {
            return None;
        }
        let offered = Mechanism::ALL.into_iter().filter(|mechanism| self.offers_mechanism(*mechanism));
        Some(offered.fold("AUTH".to_owned(), |line, mechanism| line + " " + mechanism.name()))
    }

    /// Who the client has proved to be.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.authentication.proved.as_ref().map(|(identity, _)| identity)
    }

    /// Login and mechanism, for the log.
    pub fn login(&self) -> Option<(&str, &'static str)> {
        let (identity, mechanism) = self.authentication.proved.as_ref()?;
        Some((identity.login.as_str(), mechanism.name()))
    }

    /// Octets that a line may have here with its CRLF.
    pub(super) fn line_octets_max(&self, line: &[u8]) -> usize {
        let of_auth = || {
            !self.context.mechanisms.is_empty()
                && line.get(..VERB.len()).is_some_and(|verb| verb.eq_ignore_ascii_case(VERB))
        };
        if self.state == State::AwaitResponse || of_auth() { AUTH_OCTETS_MAX } else { super::LINE_OCTETS_MAX }
    }

    /// A line that answers 334.
    pub(super) fn response_line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Step> {
        self.authentication.secret_seen = true;
        let handled = match line {
            b"*" => Err((&reply::AUTH_CANCELLED).into()),
            line => self.response(line, out),
        };
        self.since = self.now;
        handled.unwrap_or_else(|refused| self.refuse_response(refused, out))
    }

    /// A line in place of a response that cannot be one; ends the exchange.
    pub(super) fn refuse_response(&mut self, refused: Refused, out: &mut Vec<u8>) -> Option<Step> {
        self.authentication.exchange = None;
        self.state = State::AwaitMail;
        self.since = self.now;
        let replied = out.len();
        let step = self.refuse(refused, out);
        self.note_refusal(b"AUTH", &out[replied..]);
        step
    }

    fn response(&mut self, text: &[u8], out: &mut Vec<u8>) -> Handled {
        let text = str::from_utf8(text).map_err(|_| Refused::from(&reply::AUTH_NOT_BASE64))?;
        let message = Base64::decode_vec(text).map_err(|_| Refused::from(&reply::AUTH_NOT_BASE64))?;
        self.message(&Zeroizing::new(message), out)
    }

    /// A message of the client, decoded.
    fn message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Handled {
        let exchange = self.authentication.exchange.as_mut().expect("a message belongs to an exchange");
        if exchange.awaits_acknowledgement() {
            let ended = exchange.acknowledge(message);
            return self.auth_ended(ended, out);
        }
        match exchange.respond(message) {
            Next::Challenge(challenge) => {
                self.challenge(&challenge, out);
                Ok(None)
            }
            Next::Refused(refusal) => self.auth_ended(Err(refusal), out),
            Next::Ask(ask) => {
                let login = match &ask {
                    Ask::Parameters { login } => login,
                    Ask::Verify(credentials) => credentials.login(),
                };
                login.clone_into(&mut self.authentication.login);
                self.authentication.ask = Some(ask);
                self.state = State::AwaitAnswer;
                Ok(Some(Step::Authenticate))
            }
        }
    }

    fn challenge(&mut self, challenge: &[u8], out: &mut Vec<u8>) {
        reply::AUTH_CHALLENGE.put_with(out, Base64::encode_string(challenge));
        self.state = State::AwaitResponse;
    }

    /// What the rim is to ask, once, after [`Step::Authenticate`].
    ///
    /// # Panics
    /// At any other time.
    pub fn take_ask(&mut self) -> Ask {
        self.authentication.ask.take().expect("there is one question for each Step::Authenticate")
    }

    /// The answer to what [`Step::Authenticate`] had the rim ask. The session may be closed by it.
    ///
    /// # Panics
    /// When nothing was asked.
    pub fn answered(&mut self, now: u64, answer: Answer<Arc<Identity>>, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::AwaitAnswer, "answered() answers Step::Authenticate");
        (self.now, self.since) = (now, now);
        let exchange = self.authentication.exchange.as_mut().expect("a question belongs to an exchange");
        let ended = match exchange.answered(answer) {
            After::Challenge(challenge) => return self.challenge(&challenge, out),
            After::Done(identity) => self.auth_ended(Ok(identity), out),
            After::Refused(refusal) => self.auth_ended(Err(refusal), out),
        };
        if let Err(refused) = ended {
            self.refuse(refused, out);
            self.authentication.refusal_noted = false;
        }
    }

    fn auth_ended(&mut self, ended: Result<Arc<Identity>, Refusal>, out: &mut Vec<u8>) -> Handled {
        let exchange = self.authentication.exchange.take().expect("what ends has begun");
        self.state = State::AwaitMail;
        let refusal = match ended {
            Ok(identity) => {
                self.authentication.proved = Some((identity, exchange.mechanism()));
                reply::AUTH_OK.put(out);
                return Ok(None);
            }
            Err(refusal) => refusal,
        };
        let (answer, reason) = match refusal {
            Refusal::Credentials => (&reply::AUTH_FAILED, "authentication failure"),
            Refusal::Unavailable => (&reply::AUTH_UNAVAILABLE, "the back end is not available"),
            Refusal::TooManyFailures => (&reply::AUTH_LOCKED, "too many failures from this network"),
        };
        let (name, login) = (exchange.mechanism().name(), &self.authentication.login);
        let mut note = format!("unknown[{}]: SASL {name} authentication failed: {reason}", self.client);
        if !login.is_empty() {
            note = format!("{note}, sasl_username={login}");
        }
        self.note(Note::AuthFailed(note));
        Err(Refused::from(answer).noted())
    }

    /// Everything that AUTH has taught is forgotten (RFC 3207 section 4.2).
    pub(super) fn forget_login(&mut self) {
        *self.authentication = Authentication::default();
    }

    /// Whether a line since the last call may have held a secret: the rim wipes its buffers then.
    pub fn take_secret_seen(&mut self) -> bool {
        std::mem::take(&mut self.authentication.secret_seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Context, LINE_OCTETS_MAX};

    /// Cut there, the rest of a line that is too long looks like a command, and is none.
    #[test]
    fn the_rest_of_a_swallowed_line_is_no_auth_command() {
        let context = Arc::new(Context::new(&crate::policy::tests::config(), 2));
        let mut out = Vec::new();
        let mut session = Session::new(context, "192.0.2.9:4711".parse().unwrap(), None, 0, &mut out);
        let long = [b"NOOP ".to_vec(), vec![b'x'; LINE_OCTETS_MAX]].concat();
        assert_eq!(session.advance(0, &long, &mut out), (long.len(), Step::Read));
        out.clear();
        assert_eq!(session.advance(0, b"AUTH PLAIN =\r\n", &mut out), (14, Step::Read));
        assert!(out.starts_with(b"500 5.5.2 Command line too long\r\n"), "{}", out.escape_ascii());
    }

    /// What a client shows of a secret never gets into a note or a Debug output.
    #[test]
    fn no_secret_is_shown() {
        let command = crate::smtp::parse_command(b"AUTH PLAIN AGFubgBzZWNyZXQ=").unwrap();
        assert!(!format!("{command:?}").contains("AGFub"), "{command:?}");
        let context = Arc::new(Context::new(&crate::policy::tests::config(), 2));
        let facts = crate::tls::TlsFacts {
            version: "TLSv1.3",
            cipher: String::new(),
            resumed: false,
            name: None,
            client: None,
            bindings: Default::default(),
        };
        let mut out = Vec::new();
        let client = "192.0.2.9:4711".parse().unwrap();
        let mut session = Session::new(context, client, Some(facts), 0, &mut out);
        let input = b"EHLO c\r\nAUTH PLAIN\r\nAGFubgBzZWNyZXQ\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\n";
        let (_, step) = session.advance(0, input, &mut out);
        assert_eq!(step, Step::Authenticate);
        let shown = format!("{session:?} {:?} {:?}", session.take_notes(), session.take_ask()).to_lowercase();
        assert!(!shown.contains("agfub") && !shown.contains("secret\""), "{shown}");
        assert!(session.take_secret_seen() && !session.take_secret_seen());
    }
}
