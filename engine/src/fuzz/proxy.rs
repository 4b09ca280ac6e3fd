//! The header of the PROXY protocol: read octet by octet it asks for no octet behind its end, and says the same as
//! when it is read whole.

use crate::smtp::proxy::{Parsed, V2_OCTETS_MAX, parse};

pub fn check(input: &[u8]) {
    // As the rim reads: exactly as many octets as are needed.
    let mut have = 0;
    let stepwise = loop {
        match parse(&input[..have]) {
            Ok(Parsed::Needs(more)) => {
                assert!(more > 0);
                have += more;
                assert!(have <= V2_OCTETS_MAX);
                if have > input.len() {
                    break None;
                }
            }
            Ok(Parsed::Header(octets, origin)) => {
                assert_eq!(octets, have, "not an octet behind the header is read");
                break Some(Ok(origin));
            }
            Err(fault) => break Some(Err(fault)),
        }
    };
    match (stepwise, parse(input)) {
        (Some(Ok(origin)), Ok(Parsed::Header(octets, whole))) => assert_eq!((have, origin), (octets, whole)),
        (Some(Ok(_)), Err(_)) | (Some(Err(_)), Ok(_)) => panic!("{}", input.escape_ascii()),
        // Too few octets for a look may still be none that any header begins with.
        (Some(Err(_)), Err(_)) | (None, Ok(Parsed::Needs(_)) | Err(_)) => {}
        (stepwise, whole) => panic!("{stepwise:?} {whole:?}"),
    }
}
