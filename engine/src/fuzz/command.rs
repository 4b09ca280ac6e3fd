//! Command lines: no line makes the parser panic, and what it took says the same when it is written in
//! canonical form and read again. Parameters are read as if everything had been announced, and as if nothing
//! had.

use crate::smtp::command::{Command, LINE_OCTETS_MAX, Mail};
use crate::smtp::parameters::{Offers, Parameters};
use crate::smtp::{ForwardPath, parse_command};

pub fn check(line: &[u8]) {
    let Ok(command) = parse_command(line) else { return };
    assert!(line.len() + 2 <= LINE_OCTETS_MAX || matches!(command, Command::Auth(_)));
    assert!(!line.iter().any(u8::is_ascii_control));
    read_parameters(&command);
    let Some(once) = canonical(&command) else { return };
    assert!(once.chars().all(|c| c == ' ' || !c.is_control()), "{once:?}");
    // A domain in UTF-8 may be longer by its A-labels than a path may be.
    let Ok(again) = parse_command(once.as_bytes()) else {
        return assert!(!once.is_ascii() || !line.is_ascii(), "{once:?}");
    };
    assert_eq!(canonical(&again).as_deref(), Some(&*once));
}

fn read_parameters(command: &Command<'_>) {
    let readable = |parameters: Parameters<'_>, of_mail: bool| {
        for offers in [Offers::ALL, Offers::default()] {
            let (one, other) = match of_mail {
                true => (
                    format!("{:?}", parameters.of_mail(&offers)),
                    format!("{:?}", parameters.of_mail(&offers)),
                ),
                false => (
                    format!("{:?}", parameters.of_rcpt(&offers, offers.smtputf8)),
                    format!("{:?}", parameters.of_rcpt(&offers, offers.smtputf8)),
                ),
            };
            assert_eq!(one, other);
        }
    };
    match command {
        Command::Mail(mail) => readable(mail.parameters, true),
        Command::Rcpt(rcpt) => readable(rcpt.parameters, false),
        _ => {}
    }
}

/// The command as text without parameters; `None` where it is its verb alone.
fn canonical(command: &Command<'_>) -> Option<String> {
    Some(match command {
        Command::Ehlo(name) => format!("EHLO {name}"),
        Command::Helo(name) => format!("HELO {name}"),
        Command::Mail(mail) => canonical_mail(mail),
        Command::Rcpt(rcpt) => match rcpt.path {
            ForwardPath::Postmaster => "RCPT TO:<Postmaster>".into(),
            ForwardPath::Mailbox(mailbox) => format!("RCPT TO:<{mailbox}>"),
        },
        Command::Bdat(chunk) => format!("BDAT {}{}", chunk.octets, if chunk.last { " LAST" } else { "" }),
        _ => return None,
    })
}

fn canonical_mail(mail: &Mail<'_>) -> String {
    let sender = mail.sender.map(|mailbox| mailbox.to_string()).unwrap_or_default();
    format!("MAIL FROM:<{sender}>")
}
