use super::*;
use crate::smtp::chunks::Chunk;
use crate::smtp::path::Domain;

const JOE: Mailbox<'static> = Mailbox { local: "joe", domain: Domain::Name("x.example") };

/// RFC 5321 section 4.1.1.
#[test]
fn every_verb_is_read_in_any_case() {
    let parameters = |text| Parameters::after_path(text).unwrap();
    let mail = |text| Command::Mail(Mail { sender: Some(JOE), utf8: false, parameters: parameters(text) });
    let rcpt = |path| Command::Rcpt(Rcpt { path, utf8: false, parameters: parameters("") });
    for (line, expected) in [
        ("EHLO client.example", Command::Ehlo("client.example")),
        ("ehlo [192.0.2.1]", Command::Ehlo("[192.0.2.1]")),
        ("EhLo [IPv6:2001:db8::1]", Command::Ehlo("[IPv6:2001:db8::1]")),
        ("HELO MY_PC", Command::Helo("MY_PC")),
        ("HELO odd+name=:/@!", Command::Helo("odd+name=:/@!")),
        ("MAIL FROM:<joe@x.example>", mail("")),
        ("mail from:<joe@x.example>", mail("")),
        ("MAIL FROM: <joe@x.example>", mail("")),
        ("MAIL FROM:<joe@x.example>  ", mail("")),
        ("MAIL FROM:<joe@x.example> SIZE=12 FOO", mail(" SIZE=12 FOO")),
        ("MAIL FROM:<@a,@b:joe@x.example>", mail("")),
        ("MAIL FROM:<>", Command::Mail(Mail { sender: None, utf8: false, parameters: parameters("") })),
        ("RCPT TO:<joe@x.example>", rcpt(ForwardPath::Mailbox(JOE))),
        ("rcpt to:<postmaster>", rcpt(ForwardPath::Postmaster)),
        ("DATA", Command::Data),
        ("data  ", Command::Data),
        ("RSET", Command::Rset),
        ("NOOP", Command::Noop),
        ("NOOP anything at all", Command::Noop),
        ("VRFY joe", Command::Vrfy),
        ("HELP", Command::Help),
        ("HELP MAIL", Command::Help),
        ("QUIT", Command::Quit),
        ("EXPN list", Command::NotOffered(NotOffered::Expn)),
        ("ETRN x.example", Command::NotOffered(NotOffered::Etrn)),
        ("STARTTLS", Command::StartTls),
        ("starttls", Command::StartTls),
        ("AUTH PLAIN", Command::Auth(Auth { mechanism: "PLAIN", initial: None })),
        ("auth  scram-sha-256  = ", Command::Auth(Auth { mechanism: "scram-sha-256", initial: Some("=") })),
        ("AUTH PLAIN AGEAYg==", Command::Auth(Auth { mechanism: "PLAIN", initial: Some("AGEAYg==") })),
        ("BDAT 12 LAST", Command::Bdat(Chunk { octets: 12, last: true })),
        ("bdat  0  last ", Command::Bdat(Chunk { octets: 0, last: true })),
        ("BDAT 00000000000000000007", Command::Bdat(Chunk { octets: 7, last: false })),
        ("BDAT 18446744073709551616", Command::Bdat(Chunk { octets: u64::MAX, last: false })),
        ("TURN", Command::NotOffered(NotOffered::Turn)),
    ] {
        assert_eq!(parse_command(line.as_bytes()), Ok(expected), "{line}");
    }
}

#[test]
fn what_is_no_command_says_why() {
    for (line, fault) in [
        (&b""[..], Fault::UnknownVerb),
        (b" ", Fault::UnknownVerb),
        (b" NOOP", Fault::UnknownVerb),
        (b"NOOPS", Fault::UnknownVerb),
        (b"STARTTLSX", Fault::UnknownVerb),
        (b"\xff\xfe", Fault::UnknownVerb),
        (b"GET / HTTP/1.1", Fault::ForeignProtocol),
        (b"post /", Fault::ForeignProtocol),
        (b"NOOP\0", Fault::ControlCharacter),
        (b"NOOP\r", Fault::ControlCharacter),
        (b"DATA\t", Fault::ControlCharacter),
        (b"EHLO", Fault::HelloName),
        (b"EHLO ", Fault::HelloName),
        (b"EHLO two words", Fault::HelloName),
        (b"EHLO a(b)", Fault::HelloName),
        (b"HELO a;b", Fault::HelloName),
        (b"HELO b\xc3\xbcro", Fault::HelloName),
        (b"MAIL", Fault::MailKeyword),
        (b"MAIL FROM", Fault::MailKeyword),
        (b"MAIL FROM <joe@x.example>", Fault::MailKeyword),
        (b"MAIL TO:<joe@x.example>", Fault::MailKeyword),
        (b"MAIL FROM:", Fault::ReversePath(PathFault::NoBrackets)),
        (b"MAIL FROM:joe@x.example", Fault::ReversePath(PathFault::NoBrackets)),
        (b"MAIL FROM:<joe>", Fault::ReversePath(PathFault::NoDomain)),
        (b"MAIL FROM:<j\xc3@x>", Fault::ReversePath(PathFault::NonAscii)),
        (b"MAIL FROM:<j\xf6@x>", Fault::ReversePath(PathFault::NonAscii)),
        (b"MAIL FROM:<joe@x.example>SIZE=1", Fault::Argument),
        (b"BDAT", Fault::ChunkSize),
        (b"BDAT LAST", Fault::ChunkSize),
        (b"BDAT -1", Fault::ChunkSize),
        (b"BDAT +1", Fault::ChunkSize),
        (b"BDAT 0x10", Fault::ChunkSize),
        (b"BDAT 5,LAST", Fault::ChunkSize),
        (b"BDAT 000000000000000000007", Fault::ChunkSize),
        (b"BDAT\t5", Fault::ChunkSize),
        (b"BDAT 5\tLAST", Fault::ChunkSize),
        (b"BDAT:5", Fault::ChunkSize),
        (b"BDATA 5", Fault::UnknownVerb),
        (b"BDAT 5 LAS", Fault::ChunkMarker(5)),
        (b"BDAT 5 LAST LAST", Fault::ChunkMarker(5)),
        (b"BDAT 5 6", Fault::ChunkMarker(5)),
        (b"RCPT", Fault::RcptKeyword),
        (b"RCPT TO:<>", Fault::ForwardPath(PathFault::NullForwardPath)),
        (b"RCPT TO:<joe@x.example> \xff", Fault::ForwardPath(PathFault::NonAscii)),
        (b"DATA now", Fault::Argument),
        (b"RSET x", Fault::Argument),
        (b"QUIT x", Fault::Argument),
        (b"VRFY", Fault::MissingArgument),
    ] {
        assert_eq!(parse_command(line), Err(fault), "{}", line.escape_ascii());
    }
}

/// RFC 5321 section 4.5.3.1.4.
#[test]
fn lines_are_limited_to_the_octet() {
    let noop = |octets: usize| format!("{:x<1$}", "NOOP ", octets - 2);
    assert_eq!(parse_command(noop(512).as_bytes()), Ok(Command::Noop));
    assert_eq!(parse_command(noop(513).as_bytes()), Err(Fault::TooLong));
    let mail = |octets: usize| format!("{: <1$}", "MAIL FROM:<>", octets - 2);
    assert!(parse_command(mail(2048).as_bytes()).is_ok());
    assert_eq!(parse_command(mail(2049).as_bytes()), Err(Fault::TooLong));
    let name = "h".repeat(255);
    assert_eq!(parse_command(format!("EHLO {name}").as_bytes()), Ok(Command::Ehlo(&name)));
    assert_eq!(parse_command(format!("EHLO {name}h").as_bytes()), Err(Fault::HelloName));
}

#[test]
fn no_line_of_few_octets_makes_the_parser_panic() {
    let alphabet = b"<>@:\"\\.[ =M\xc3";
    for prefix in ["MAIL FROM:", "RCPT TO:", "EHLO ", "MAIL FROM:<a@b> "] {
        for number in 0..alphabet.len().pow(4) {
            let mut line = prefix.as_bytes().to_vec();
            line.extend((0..4).map(|place| alphabet[number / alphabet.len().pow(place) % alphabet.len()]));
            if let Ok(Command::Mail(Mail { sender: Some(mailbox), utf8, .. })) = parse_command(&line) {
                assert_eq!(mailbox.to_string().is_ascii(), !utf8);
            }
        }
    }
}
