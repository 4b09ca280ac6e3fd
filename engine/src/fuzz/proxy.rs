//! The header of the PROXY protocol: what is read of it never goes beyond its end, and comes to the same however
//! the octets come.

use crate::smtp::proxy::{Parsed, V2_OCTETS_MAX, parse};

pub fn check(input: &[u8]) {
    let whole = parse(input);
    if let Ok(Parsed::Header(octets, _)) = whole {
        assert!(octets <= input.len().min(V2_OCTETS_MAX));
        assert_eq!(parse(&input[..octets]), whole);
    }
    // As a connection is read: exactly as many octets as are asked for.
    let mut read = 0;
    loop {
        match parse(&input[..read]) {
            Ok(Parsed::Needs(more)) => {
                assert!(more > 0 && read + more <= V2_OCTETS_MAX);
                if let Ok(Parsed::Header(octets, _)) = whole {
                    assert!(read + more <= octets, "{more} more than {read} are beyond {octets}");
                }
                read += more;
                if read > input.len() {
                    return assert!(!matches!(whole, Ok(Parsed::Header(..))));
                }
            }
            Ok(header) => return assert_eq!(Ok(header), whole),
            Err(_) => return assert!(whole.is_err()),
        }
    }
}
