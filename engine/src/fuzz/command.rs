//! Command lines: no line makes the parser panic, and what it took says the same when it is written in
//! canonical form and read again.

use crate::smtp::command::{Command, LINE_OCTETS_MAX, Mail};
use crate::smtp::{ForwardPath, parse_command};
use sluice_queue::Body;

pub fn check(line: &[u8]) {
    let Ok(command) = parse_command(line) else { return };
    assert!(line.len() + 2 <= LINE_OCTETS_MAX && !line.iter().any(u8::is_ascii_control));
    let Some(once) = canonical(&command) else { return };
    assert!(once.chars().all(|c| c == ' ' || !c.is_control()), "{once:?}");
    let again = parse_command(once.as_bytes());
    let again = again.unwrap_or_else(|fault| panic!("{once:?} is {fault:?}"));
    assert_eq!(canonical(&again).as_deref(), Some(&*once));
    if let (Command::Mail(one), Command::Mail(other)) = (&command, &again) {
        assert_eq!((one.size, one.body), (other.size, other.body));
    }
}

/// The command as text; `None` where it is its verb alone.
fn canonical(command: &Command<'_>) -> Option<String> {
    Some(match command {
        Command::Ehlo(name) => format!("EHLO {name}"),
        Command::Helo(name) => format!("HELO {name}"),
        Command::Mail(mail) => canonical_mail(mail),
        Command::Rcpt(ForwardPath::Postmaster) => "RCPT TO:<Postmaster>".into(),
        Command::Rcpt(ForwardPath::Mailbox(mailbox)) => format!("RCPT TO:<{mailbox}>"),
        Command::Bdat(chunk) => format!("BDAT {}{}", chunk.octets, if chunk.last { " LAST" } else { "" }),
        _ => return None,
    })
}

fn canonical_mail(mail: &Mail<'_>) -> String {
    let mut text = "MAIL FROM:<".to_owned();
    text.extend(mail.sender.map(|mailbox| mailbox.to_string()));
    text.push('>');
    text.extend(mail.size.map(|size| format!(" SIZE={size}")));
    text.extend(mail.body.map(|body| match body {
        Body::SevenBit => " BODY=7BIT",
        Body::EightBit => " BODY=8BITMIME",
        Body::Binary => " BODY=BINARYMIME",
    }));
    text
}
