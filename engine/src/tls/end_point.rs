//! The channel binding `tls-server-end-point` (RFC 5929 section 4): the hash of the server's certificate.
//!
//! Pure. The hash is that of the certificate's signature, and SHA-256 where that is MD5 or SHA-1; a signature
//! with no hash of its own (Ed25519) has no such binding.

use ring::digest::{self, Algorithm};
use rustls::pki_types::CertificateDer;

/// Object identifiers of `signatureAlgorithm`, without tag and length.
const SIGNATURES: [(&[u8], &Algorithm); 8] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4], &digest::SHA256), // md5WithRSAEncryption
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5], &digest::SHA256), // sha1WithRSAEncryption
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11], &digest::SHA256), // sha256WithRSAEncryption
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12], &digest::SHA384), // sha384WithRSAEncryption
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13], &digest::SHA512), // sha512WithRSAEncryption
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2], &digest::SHA256),       // ecdsa-with-SHA256
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3], &digest::SHA384),       // ecdsa-with-SHA384
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4], &digest::SHA512),       // ecdsa-with-SHA512
];

/// The binding of a certificate, `None` where none is defined.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (certificate_body, _) = element(certificate, 0x30)?;
    let (_, rest) = element(certificate_body, 0x30)?;
    let (algorithm, _) = element(rest, 0x30)?;
    let (identifier, _) = element(algorithm, 0x06)?;
    let (_, hash) = SIGNATURES.into_iter().find(|(known, _)| *known == identifier)?;
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The contents of the DER element with this tag at the beginning, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk()?;
    let (octets, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (long, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (long.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    if found == tag { rest.split_at_checked(octets) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let pem = include_bytes!("../config/tests/tls/certificate.pem");
        let certificate = CertificateDer::from_pem_slice(pem).unwrap();
        let sha256 = digest::digest(&digest::SHA256, &certificate);
        assert_eq!(end_point(&certificate).as_deref(), Some(sha256.as_ref()));
        for end in 0..certificate.len() {
            // Cut anywhere it is no certificate.
            assert_eq!(end_point(&certificate[..end].to_vec().into()), None, "{end}");
        }
    }
}
