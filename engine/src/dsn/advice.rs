//! What the sender of a message that failed can do, by the enhanced status code (RFC 3463) of the failure.
//!
//! Pure. Only where the code says enough: a wrong advice is worse than none.

use super::text::Language;
use super::{Action, ReportedRecipient};

#[derive(Clone, Copy)]
struct Advice {
    /// Subject and detail of the codes; detail `None`: every other one of the subject.
    codes: &'static [(u16, Option<u16>)],
    english: &'static str,
    german: &'static str,
}

const TABLE: [Advice; 10] = [
    Advice {
        codes: &[(1, Some(1)), (1, Some(3)), (1, Some(6))],
        english: "Please check the address for a typing mistake: the recipient's server knows no such mailbox.",
        german: "Bitte prüfen Sie die Adresse auf Tippfehler: Der Server des Empfängers kennt kein solches Postfach.",
    },
    Advice {
        codes: &[(1, Some(2)), (1, Some(10)), (4, Some(4))],
        english: "Please check the part of the address behind the @: there is no mail server for it.",
        german: "Bitte prüfen Sie den Teil der Adresse hinter dem @: Es gibt dafür keinen Mailserver.",
    },
    Advice {
        codes: &[(2, Some(1))],
        english: "The mailbox takes no mail at present. Please reach the recipient in another way.",
        german: "Das Postfach nimmt zur Zeit keine Nachrichten an. Bitte erreichen Sie den Empfänger auf anderem Weg.",
    },
    Advice {
        codes: &[(2, Some(2))],
        english: "The mailbox is full. Please send the message again later, or reach the recipient in another way.",
        german: "Das Postfach ist voll. Bitte senden Sie die Nachricht später noch einmal, oder erreichen Sie den Empfänger auf anderem Weg.",
    },
    Advice {
        codes: &[(2, Some(3)), (3, Some(4))],
        english: "The message is too large there. Please send it without large attachments.",
        german: "Die Nachricht ist dort zu groß. Bitte senden Sie sie ohne große Anhänge.",
    },
    Advice {
        codes: &[(4, Some(6))],
        english: "The mail systems send it in a circle, which only their administrators can end.",
        german: "Die Mailsysteme schicken sie im Kreis, was nur ihre Verwalter beenden können.",
    },
    Advice {
        codes: &[(4, Some(7)), (4, Some(1))],
        english: "The recipient's mail system could not be reached for a long time. Please send the message again later, or reach the recipient in another way.",
        german: "Das Mailsystem des Empfängers war lange nicht zu erreichen. Bitte senden Sie die Nachricht später noch einmal, oder erreichen Sie den Empfänger auf anderem Weg.",
    },
    Advice {
        codes: &[(6, Some(7))],
        english: "The recipient's mail system takes no addresses or subjects with characters beyond ASCII. Please use an address without them.",
        german: "Das Mailsystem des Empfängers nimmt keine Adressen mit Umlauten oder anderen besonderen Zeichen an. Bitte verwenden Sie eine Adresse ohne solche.",
    },
    Advice {
        codes: &[(7, Some(30)), (7, Some(10))],
        english: "The message may only go over an encrypted connection, which the recipient's mail system does not offer.",
        german: "Die Nachricht darf nur verschlüsselt übertragen werden, was das Mailsystem des Empfängers nicht anbietet.",
    },
    Advice {
        codes: &[(7, None)],
        english: "A rule there refuses the message. Only the administrators of the server that said so can tell more.",
        german: "Eine Regel dort weist die Nachricht ab. Mehr können nur die Verwalter des Servers sagen, der so geantwortet hat.",
    },
];

/// Empty when there is none.
pub(super) fn advice(recipient: &ReportedRecipient<'_>, language: Language) -> &'static str {
    if !matches!(recipient.action, Action::Bounced | Action::Expired) {
        return "";
    }
    let mut numbers = recipient.status.split('.').skip(1).map(|number| number.parse::<u16>().ok());
    let (Some(Some(subject)), Some(Some(detail))) = (numbers.next(), numbers.next()) else { return "" };
    let means = |code: &(u16, Option<u16>)| code.0 == subject && code.1.is_none_or(|known| known == detail);
    match TABLE.iter().find(|advice| advice.codes.iter().any(means)) {
        Some(advice) if language == Language::German => advice.german,
        Some(advice) => advice.english,
        None => "",
    }
}
