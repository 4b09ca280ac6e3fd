//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677), and the verifiers that it
//! needs of a password (RFC 5803).
//!
//! Pure. The session holds the text of the exchange, the keeper of passwords the verifiers: the proof goes to
//! it, and no key comes from it. A login that does not exist has a salt too ([`Verifier::pretended`]), the same
//! each time, so that a client sees no difference.

use super::{Bindings, Credentials, Secret, login};
use base64ct::{Base64, Encoding};
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;

/// Octets of SHA-256.
pub const OCTETS: usize = digest::SHA256_OUTPUT_LEN;
/// RFC 7677 section 4 asks for at least so many.
pub const ITERATIONS_MIN: u32 = 4_096;
/// More would only burden clients.
pub const ITERATIONS_MAX: u32 = 10_000_000;
pub const SALT_OCTETS: usize = 16;
/// Octets of a nonce of the client.
const NONCE_OCTETS_MAX: usize = 256;

/// What the server tells a client of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub salt: Vec<u8>,
    pub iterations: u32,
    /// Printable ASCII without a comma.
    pub nonce: String,
}

/// What the server keeps of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub salt: Vec<u8>,
    pub iterations: u32,
    stored_key: [u8; OCTETS],
    server_key: [u8; OCTETS],
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier {{ iterations: {} }}", self.iterations)
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; OCTETS] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    tag.as_ref().try_into().expect("SHA-256 has 32 octets")
}

fn hash(octets: &[u8]) -> [u8; OCTETS] {
    digest::digest(&digest::SHA256, octets).as_ref().try_into().expect("SHA-256 has 32 octets")
}

impl Verifier {
    /// Of a prepared password. Long: an HMAC for each iteration.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let mut salted = zeroize::Zeroizing::new([0; OCTETS]);
        let count = NonZeroU32::new(iterations).expect("iterations are at least 1");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, count, salt, password.as_bytes(), &mut *salted);
        let client_key = zeroize::Zeroizing::new(mac(&*salted, b"Client Key"));
        Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: hash(&*client_key),
            server_key: mac(&*salted, b"Server Key"),
        }
    }

    /// Of a login that does not exist; nobody can make a proof for it.
    pub fn pretended(secret: &[u8], login: &str, iterations: u32) -> Self {
        let from = |what: &str| mac(secret, format!("{what}\0{login}").as_bytes());
        let salt = from("salt")[..SALT_OCTETS].to_vec();
        Self { salt, iterations, stored_key: from("stored key"), server_key: from("server key") }
    }

    /// The server's signature when the proof over the text is right (RFC 5802 section 3).
    pub fn verify(&self, text: &str, proof: &[u8]) -> Option<[u8; OCTETS]> {
        let mut client_key = mac(&self.stored_key, text.as_bytes());
        if proof.len() != OCTETS {
            return None;
        }
        client_key.iter_mut().zip(proof).for_each(|(octet, shown)| *octet ^= shown);
        let right: bool = hash(&client_key).ct_eq(&self.stored_key).into();
        right.then(|| mac(&self.server_key, text.as_bytes()))
    }

    /// `SCRAM-SHA-256$ITERATIONS:SALT$STORED-KEY:SERVER-KEY` (RFC 5803 section 3).
    pub fn read(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let ((iterations, salt), (stored, server)) = (head.split_once(':')?, keys.split_once(':')?);
        let key = |text: &str| Base64::decode_vec(text).ok()?.try_into().ok();
        let iterations = iterations.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
        let salt = Base64::decode_vec(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Self { salt, iterations, stored_key: key(stored)?, server_key: key(server)? })
    }

    /// What [`Verifier::read`] reads.
    pub fn write(&self) -> String {
        let text = |octets: &[u8]| Base64::encode_string(octets);
        let (salt, stored, server) = (text(&self.salt), text(&self.stored_key), text(&self.server_key));
        format!("SCRAM-SHA-256${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// One exchange.
#[derive(Debug)]
pub struct Scram {
    login: String,
    /// What `c=` must hold.
    binding: Vec<u8>,
    client_first: String,
    client_nonce: String,
    /// Once it was sent.
    server_first: Option<(String, String)>,
}

impl Scram {
    /// `client-first-message` (RFC 5802 section 7). `None`: it is none, or a third party has changed what the
    /// server offers (section 6).
    pub(super) fn first(message: &[u8], plus: bool, plus_offered: bool, bindings: &Bindings) -> Option<Self> {
        let text = str::from_utf8(message).ok()?;
        let (flag, rest) = text.split_once(',')?;
        let (identity, bare) = rest.split_once(',')?;
        let header = &text[..text.len() - bare.len()];
        let mut binding = header.as_bytes().to_vec();
        match (flag, plus) {
            ("n", false) => {}
            ("y", false) if !plus_offered => {}
            (flag, true) => binding.extend_from_slice(match flag.strip_prefix("p=")? {
                "tls-exporter" => bindings.exporter.as_ref()?,
                "tls-server-end-point" => bindings.end_point.as_ref()?,
                _ => return None,
            }),
            _ => return None,
        }
        let mut fields = bare.split(',');
        let login = login(&saslname(fields.next()?.strip_prefix("n=")?)?)?;
        let client_nonce = fields.next()?.strip_prefix("r=")?.to_owned();
        let sound = (1..=NONCE_OCTETS_MAX).contains(&client_nonce.len()) && is_printable(&client_nonce);
        // What follows are extensions; an unknown one may be left aside.
        if !sound || !fields.all(|field| is_attribute(field) && !field.starts_with("m=")) {
            return None;
        }
        let named = match identity {
            // Some clients name nobody so.
            "" | "a=" => None,
            named => Some(super::login(&saslname(named.strip_prefix("a=")?)?)?),
        };
        if named.is_some_and(|named| named != login) {
            return None;
        }
        Some(Self { login, binding, client_first: bare.to_owned(), client_nonce, server_first: None })
    }

    pub(super) fn login(&self) -> &str {
        &self.login
    }

    /// `server-first-message`, once.
    pub(super) fn challenge(&mut self, parameters: Parameters) -> Option<Vec<u8>> {
        if self.server_first.is_some() || parameters.nonce.is_empty() || !is_printable(&parameters.nonce) {
            return None;
        }
        let nonce = format!("{}{}", self.client_nonce, parameters.nonce);
        let salt = Base64::encode_string(&parameters.salt);
        let text = format!("r={nonce},s={salt},i={}", parameters.iterations);
        let challenge = text.clone().into_bytes();
        self.server_first = Some((text, nonce));
        Some(challenge)
    }

    /// `client-final-message`.
    pub(super) fn last(&mut self, message: &[u8]) -> Option<Credentials> {
        let (server_first, nonce) = self.server_first.take()?;
        let (without_proof, proof) = str::from_utf8(message).ok()?.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let binding = Base64::decode_vec(fields.next()?.strip_prefix("c=")?).ok()?;
        let told = fields.next()?.strip_prefix("r=")?;
        if binding != self.binding || told != nonce || !fields.all(is_attribute) {
            return None;
        }
        let proof = zeroize::Zeroizing::new(Base64::decode_vec(proof).ok()?);
        let text = format!("{},{server_first},{without_proof}", self.client_first);
        Some(Credentials::Scram { login: self.login.clone(), text, proof: Secret::new(&proof) })
    }
}

/// `server-final-message`.
pub(super) fn server_last(signature: &[u8; OCTETS]) -> Vec<u8> {
    format!("v={}", Base64::encode_string(signature)).into_bytes()
}

/// `saslname`: a comma stands as `=2C`, an equals sign as `=3D`.
pub(super) fn saslname(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let mut parts = text.split('=');
    name.push_str(parts.next()?);
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        name.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

fn is_printable(nonce: &str) -> bool {
    nonce.bytes().all(|octet| octet.is_ascii_graphic() && octet != b',')
}

/// `ALPHA "=" value`.
fn is_attribute(field: &str) -> bool {
    matches!(field.as_bytes(), [letter, b'=', _, ..] if letter.is_ascii_alphabetic())
}
