//! The path grammar against its twin. The first octet says whether it is a reverse-path.

use crate::smtp::ForwardPath;
use crate::smtp::path::{forward_path, reverse_path, twin};

pub fn check(input: &[u8]) {
    let Some((&kind, text)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let (read, expected) = if kind & 1 == 0 {
        let read = forward_path(text).map(|(path, rest)| (forward_text(&path), rest.len()));
        (read, twin::forward_path(text))
    } else {
        let read = reverse_path(text);
        let read =
            read.map(|(path, rest)| (path.map_or_else(String::new, |path| path.to_string()), rest.len()));
        (read, twin::reverse_path(text))
    };
    let read = read.map(|(canonical, rest)| twin::Read { canonical, octets: text.len() - rest });
    assert_eq!(read.as_ref().ok(), expected.as_ref(), "{text:?}: {read:?}");
}

fn forward_text(path: &ForwardPath<'_>) -> String {
    match path {
        ForwardPath::Postmaster => "Postmaster".into(),
        ForwardPath::Mailbox(mailbox) => mailbox.to_string(),
    }
}
