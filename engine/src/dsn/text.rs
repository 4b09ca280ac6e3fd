//! The part of a DSN that people read.
//!
//! Pure; ASCII, or UTF-8 about a message that came with SMTPUTF8. Says first what happened, then to whom and why, then what to do.

use super::fields::wrapped;
use super::{Action, Report, ReportedRecipient, TOLD_RECIPIENTS_MAX};

/// Which kinds of news the report has.
struct News {
    failed: bool,
    delayed: bool,
    relayed: bool,
}

fn news(report: &Report<'_>) -> News {
    let any = |is: fn(&Action<'_>) -> bool| report.recipients.iter().any(|recipient| is(&recipient.action));
    News {
        failed: any(|action| matches!(action, Action::Bounced | Action::Expired)),
        delayed: any(|action| matches!(action, Action::Delayed { .. })),
        relayed: any(|action| matches!(action, Action::Relayed)),
    }
}

pub(super) fn subject(report: &Report<'_>) -> &'static str {
    match news(report) {
        News { failed: true, delayed: false, relayed: false } => "Your message could not be delivered",
        News { failed: true, .. } => "Your message could not be delivered to everybody",
        News { delayed: true, .. } => "Your message is delayed",
        News { .. } => "Your message was handed on",
    }
}

pub(super) fn explanation(report: &Report<'_>, utf8: bool) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut paragraph = |text: &str| {
        octets.extend_from_slice(&wrapped(text, 0, utf8));
        octets.extend_from_slice(b"\r\n");
    };
    paragraph(&format!("This is the mail system at {}.", report.hostname));
    let arrival = report.arrival_date;
    paragraph(&match news(report) {
        News { failed: true, delayed: false, relayed: false } => format!(
            "Your message of {arrival} could not be delivered to the recipients below. It will not be tried \
             again for them. Recipients that are not listed are not concerned."
        ),
        News { failed: true, .. } => format!(
            "This is what became of your message of {arrival} for the recipients below. For those that it \
             could not be delivered to it will not be tried again."
        ),
        News { delayed: true, .. } => format!(
            "Your message of {arrival} has not been delivered yet to the recipients below. This is only a \
             notice: there is no need to send it again. Delivery goes on being tried."
        ),
        News { .. } => format!(
            "Your message of {arrival} was handed on for the recipients below to a mail system that may not \
             tell you what became of it there. This is only a notice, as you asked for one."
        ),
    });
    for recipient in report.recipients.iter().take(TOLD_RECIPIENTS_MAX) {
        octets.extend_from_slice(&about(recipient, utf8));
    }
    if let Some(more) = report.recipients.len().checked_sub(TOLD_RECIPIENTS_MAX).filter(|&more| more > 0) {
        octets.extend_from_slice(&wrapped(
            &format!("... and {more} more, listed in the report below."),
            0,
            utf8,
        ));
        octets.extend_from_slice(b"\r\n");
    }
    let help = format!(
        "If you cannot do anything about the reason given, please write to {}, and include this \
         message. It is known there as {}.",
        report.postmaster, report.queue_id
    );
    octets.extend_from_slice(&wrapped(&help, 0, utf8));
    octets
}

fn about(recipient: &ReportedRecipient<'_>, utf8: bool) -> Vec<u8> {
    let mut octets = wrapped(&format!("<{}>", recipient.address), 2, utf8);
    let reason = match recipient.action {
        Action::Bounced => recipient.text.to_owned(),
        Action::Relayed => format!("It was handed on: {}", recipient.text),
        Action::Expired => format!("It was tried until its time was over. The last try: {}", recipient.text),
        Action::Delayed { until_date } => {
            format!("It will be tried until {until_date}. The last try: {}", recipient.text)
        }
    };
    octets.extend_from_slice(&wrapped(&reason, 4, utf8));
    octets.extend_from_slice(b"\r\n");
    octets
}
