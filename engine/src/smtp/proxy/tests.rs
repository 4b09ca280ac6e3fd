//! Headers by table; every one whole, in every length that is too short, and with something behind it.

use super::*;

fn client(client: &str, destination: &str) -> Origin {
    Origin::Client { client: client.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 25];

fn v6() -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&octets("2001:db8::1")[..], &octets("2001:db8::2"), &[0x12, 0x34, 0, 25]].concat()
}

/// A header with TLVs and a right checksum among them.
fn with_checksum() -> Vec<u8> {
    let tlvs: &[u8] = &[4, 0, 2, 0, 0, 3, 0, 4, 0, 0, 0, 0, 1, 0, 1, b'h'];
    let mut header = v2(0x21, 0x11, &[&V4[..], tlvs].concat());
    let sum = crc32c::crc32c(&header).to_be_bytes();
    let at = V2_HEAD + V4.len() + 8;
    header[at..at + 4].copy_from_slice(&sum);
    header
}

fn sound() -> Vec<(Vec<u8>, Origin)> {
    let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let broadcast = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    let noise = [&V4[..], &[0xee, 0, 3, 1, 2, 3]].concat();
    let many = [&V4[..], &[4, 0x0f, 0xf1], &[0; 0xff1]].concat();
    assert_eq!(many.len(), V2_BODY_MAX);
    vec![
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 25\r\n".to_vec(),
            client("192.0.2.1:4660", "198.51.100.2:25"),
        ),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(), client("0.0.0.0:0", "0.0.0.0:0")),
        (b"PROXY TCP6 :: :: 0 0\r\n".to_vec(), client("[::]:0", "[::]:0")),
        (longest.into(), client(broadcast, broadcast)),
        (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Balancer),
        (b"PROXY UNKNOWN whatever stands here\r\n".to_vec(), Origin::Balancer),
        (v2(0x21, 0x11, &V4), client("192.0.2.1:4660", "198.51.100.2:25")),
        (v2(0x21, 0x21, &v6()), client("[2001:db8::1]:4660", "[2001:db8::2]:25")),
        (v2(0x21, 0x11, &noise), client("192.0.2.1:4660", "198.51.100.2:25")),
        (v2(0x21, 0x11, &many), client("192.0.2.1:4660", "198.51.100.2:25")),
        (with_checksum(), client("192.0.2.1:4660", "198.51.100.2:25")),
        (v2(0x20, 0x00, &[]), Origin::Balancer),
        (v2(0x20, 0x11, &[1, 2, 3]), Origin::Balancer),
        (v2(0x21, 0x00, &[9; 40]), Origin::Balancer),
    ]
}

#[test]
fn sound_headers_name_the_client_and_no_octet_behind_them_is_asked_for() {
    for (header, origin) in sound() {
        let text = header.escape_ascii().to_string();
        assert_eq!(parse(&header), Ok(Parsed::Header(header.len(), origin)), "{text}");
        let followed = [&header[..], b"EHLO c\r\n\x16\x03\x01"].concat();
        assert_eq!(parse(&followed), Ok(Parsed::Header(header.len(), origin)), "{text}");
        for len in 0..header.len() {
            match parse(&header[..len]) {
                Ok(Parsed::Needs(more)) => {
                    assert!(more > 0 && len + more <= header.len(), "{len} {more} {text}")
                }
                other => panic!("{other:?} after {len} of {text}"),
            }
        }
        // As the rim reads it.
        let (mut len, mut reads) = (0, 0);
        while let Ok(Parsed::Needs(more)) = parse(&header[..len]) {
            (len, reads) = (len + more, reads + 1);
        }
        assert!(len == header.len() && reads < 60, "{reads} reads for {text}");
    }
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_it_shows() {
    use ProxyFault::*;
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let mut broken_sum = with_checksum();
    *broken_sum.last_mut().unwrap() ^= 1;
    let tlv = |octets: &[u8]| v2(0x21, 0x11, &[&V4[..], octets].concat());
    let table: &[(&[u8], ProxyFault)] = &[
        (b"EHLO", NoHeader),
        (b"E", NoHeader),
        (b"\x16\x03\x01", NoHeader),
        (b"proxy tcp4", NoHeader),
        (b"PROXY\tTCP4", NoHeader),
        (b"\r\n\r\n\0\r\nQUIT\r", NoHeader),
        (b"PROXY TCP4\r\n", Addresses),
        (b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n", Unsupported),
        (b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", Unsupported),
        (b"PROXY TCP4 ::1 ::1 1 1\r\n", Addresses),
        (b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n", Addresses),
        (b"PROXY TCP4 1.1.1.1\0 1.1.1.1 1 1\r\n", Addresses),
        (b"PROXY TCP4 \xff 1.1.1.1 1 1 \r\n", Addresses),
        (&long, TooLong),
        (&v2(0x11, 0x11, &V4), Unsupported),
        (&v2(0x22, 0x11, &V4), Unsupported),
        (&v2(0x21, 0x12, &V4), Unsupported),
        (&v2(0x21, 0x31, &[0; 216]), Unsupported),
        (&v2(0x21, 0x11, &V4[..11]), Addresses),
        (&v2(0x21, 0x21, &V4), Addresses),
        (&v2(0x21, 0x11, &[0; V2_BODY_MAX + 1]), TooLong),
        (&tlv(&[1, 0]), Tlv),
        (&tlv(&[1, 0, 2, 0]), Tlv),
        (&tlv(&[1, 0xff, 0xff]), Tlv),
        (&tlv(&[3, 0, 3, 0, 0, 0]), Tlv),
        (&tlv(&[3, 0, 4, 0, 0, 0, 0]), Checksum),
        (&broken_sum, Checksum),
    ];
    for (input, fault) in table {
        assert_eq!(parse(input), Err(*fault), "{}", input.escape_ascii());
        // Whatever is cut off, it never becomes a sound header.
        for len in 0..input.len() {
            assert!(
                !matches!(parse(&input[..len]), Ok(Parsed::Header(..))),
                "{len} {}",
                input.escape_ascii()
            );
        }
    }
}

/// Every octet of every sound header changed to some others: no panic, and never more octets than there are.
#[test]
fn damaged_headers_are_answered_without_a_panic() {
    for (header, _) in sound().into_iter().filter(|(header, _)| header.len() < 300) {
        for at in 0..header.len() {
            for octet in [0, 1, 3, b' ', b'\r', b'\n', b'0', 0x7f, 0xff] {
                let mut damaged = header.clone();
                damaged[at] = octet;
                if let Ok(Parsed::Header(octets, _)) = parse(&damaged) {
                    assert!(octets <= damaged.len());
                }
            }
        }
    }
}
