//! Command lines: no line makes the parser panic, and what it took says the same when it is written in
//! canonical form and read again. Its parameters are read as well.

use crate::smtp::command::{AUTH_OCTETS_MAX, Command};
use crate::smtp::parameters::Offers;
use crate::smtp::{ForwardPath, parse_command, xclient};

pub fn check(line: &[u8]) {
    let Ok(command) = parse_command(line) else { return };
    assert!(line.len() + 2 <= AUTH_OCTETS_MAX && !line.iter().any(u8::is_ascii_control));
    let Some(once) = canonical(&command) else { return };
    assert!(once.chars().all(|c| c == ' ' || !c.is_control()), "{once:?}");
    let again = parse_command(once.as_bytes());
    let again = again.unwrap_or_else(|fault| panic!("{once:?} is {fault:?}"));
    assert_eq!(canonical(&again).as_deref(), Some(&*once));
    for offers in [Offers::ALL, Offers::default()] {
        match command {
            Command::Mail(mail) => drop(mail.parameters.of_mail(&offers)),
            Command::Rcpt(rcpt) => {
                let _ = rcpt.parameters.of_rcpt(&offers, false);
                let _ = rcpt.parameters.of_rcpt(&offers, true);
            }
            Command::Xclient(argument) => drop(xclient::parse(argument)),
            _ => {}
        }
    }
}

/// The command as text, without parameters; `None` where it is its verb alone.
fn canonical(command: &Command<'_>) -> Option<String> {
    Some(match command {
        Command::Ehlo(name) => format!("EHLO {name}"),
        Command::Helo(name) => format!("HELO {name}"),
        Command::Mail(mail) => {
            format!("MAIL FROM:<{}>", mail.sender.map(|of| of.to_string()).unwrap_or_default())
        }
        Command::Rcpt(rcpt) => match rcpt.path {
            ForwardPath::Postmaster => "RCPT TO:<Postmaster>".into(),
            ForwardPath::Mailbox(mailbox) => format!("RCPT TO:<{mailbox}>"),
        },
        Command::Bdat(chunk) => format!("BDAT {}{}", chunk.octets, if chunk.last { " LAST" } else { "" }),
        _ => return None,
    })
}
