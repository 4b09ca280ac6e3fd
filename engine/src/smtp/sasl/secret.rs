//! Octets that nobody shows and that are wiped when they are dropped.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A password, a token or a proof.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(octets: &[u8]) -> Self {
        Self(Zeroizing::new(octets.to_vec()))
    }

    /// To be used at once and kept nowhere.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The same as text.
    pub fn expose_text(&self) -> Option<&str> {
        str::from_utf8(&self.0).ok()
    }
}

/// In constant time for equal lengths.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing() {
        let shown = format!("{:?}", Secret::new(b"correct horse"));
        assert_eq!(shown, "Secret");
        assert_eq!(Secret::new(b"a"), Secret::new(b"a"));
        assert_ne!(Secret::new(b"a"), Secret::new(b"b"));
    }
}
