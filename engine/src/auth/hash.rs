//! Password hashes: argon2id (RFC 9106) in the PHC string format.
//!
//! Pure and long: 19 MiB and tens of milliseconds for each, so it never runs on a shard nor on the service
//! thread itself.

use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64Unpadded, Encoding};
use subtle::ConstantTimeEq;

/// KiB of one computation; the file of passwords may not ask for more.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const HASH_OCTETS: usize = 32;
pub const SALT_OCTETS: usize = 16;

/// One hash with its salt and costs.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hash {{ m={},t={},p={} }}", self.memory_kib, self.passes, self.lanes)
    }
}

impl Hash {
    /// With the costs that OWASP asks for: 19 MiB, 2 passes, 1 lane.
    ///
    /// # Panics
    /// When 19 MiB cannot be allocated.
    pub fn make(password: &str, salt: &[u8; SALT_OCTETS]) -> Self {
        let (memory_kib, passes, lanes) =
            (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST);
        let mut made = Self { memory_kib, passes, lanes, salt: salt.to_vec(), hash: vec![0; HASH_OCTETS] };
        made.hash = made.compute(password.as_bytes()).expect("the default costs are allowed");
        made
    }

    fn compute(&self, password: &[u8]) -> Option<Vec<u8>> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(self.hash.len())).ok()?;
        let mut hash = vec![0; self.hash.len()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(password, &self.salt, &mut hash).ok()?;
        Some(hash)
    }

    /// Takes as long for a wrong password as for the right one.
    pub fn verify(&self, password: &str) -> bool {
        self.compute(password.as_bytes()).is_some_and(|hash| hash.as_slice().ct_eq(&self.hash).into())
    }

    /// `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`. `None`: another form, or costs past the bounds.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
        let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let mut costs = costs.split(',');
        let mut cost = |name: &str, max: u32| {
            let value = costs.next()?.strip_prefix(name)?.parse::<u32>().ok()?;
            (1..=max).contains(&value).then_some(value)
        };
        let (memory_kib, passes, lanes) =
            (cost("m=", MEMORY_KIB_MAX)?, cost("t=", PASSES_MAX)?, cost("p=", LANES_MAX)?);
        let octets = |text| Base64Unpadded::decode_vec(text).ok();
        let (salt, hash) = (octets(salt)?, octets(hash)?);
        let sound = costs.next().is_none() && parts.next().is_none();
        let sound = sound && (8..=64).contains(&salt.len()) && (16..=64).contains(&hash.len());
        sound.then_some(Self { memory_kib, passes, lanes, salt, hash })
    }

    /// What [`Hash::read`] reads.
    pub fn write(&self) -> String {
        let Self { memory_kib, passes, lanes, salt, hash } = self;
        let text = |octets: &[u8]| Base64Unpadded::encode_string(octets);
        format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}", text(salt), text(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with the reference implementation (`echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32`).
    const KNOWN: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn a_hash_of_the_reference_implementation_is_verified() {
        let hash = Hash::read(KNOWN).unwrap();
        assert!(hash.verify("password"));
        assert!(!hash.verify("Password"));
        assert_eq!(hash.write(), KNOWN);
    }

    #[test]
    fn what_was_made_is_read_and_verified() {
        let made = Hash::make("correct horse", &[7; SALT_OCTETS]);
        let read = Hash::read(&made.write()).unwrap();
        assert!(read == made && read.verify("correct horse") && !read.verify("correct horsf"));
        assert!(!format!("{made:?}").contains("CTFh"));
    }

    #[test]
    fn other_forms_and_boundless_costs_are_none() {
        for bad in [
            "",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA",
            &KNOWN.replace("v=19", "v=16"),
            &KNOWN.replace("m=65536", "m=4294967295"),
            &KNOWN.replace("t=2", "t=0"),
            &KNOWN.replace("t=2", "t=1000000"),
            &KNOWN.replace("p=1", "p=9999"),
            &KNOWN.replace(",p=1", ""),
            &KNOWN.replace("c29tZXNhbHQ", "c29t"),
            &KNOWN.replace("$c29", "$!29"),
            &format!("{KNOWN}$x"),
            "{SSHA}AAAA",
        ] {
            assert!(Hash::read(bad).is_none(), "{bad}");
        }
    }
}
