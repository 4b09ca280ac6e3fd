//! The part of a DSN that people read.
//!
//! Pure, ASCII only. Says first what happened, then to whom and why, then what to do.

use super::fields::wrapped;
use super::{Action, Report, ReportedRecipient, TOLD_RECIPIENTS_MAX};

/// Whether the report is a notice of delay.
fn is_delay(report: &Report<'_>) -> bool {
    report.recipients.iter().all(|recipient| matches!(recipient.action, Action::Delayed { .. }))
}

pub(super) fn subject(report: &Report<'_>) -> &'static str {
    if is_delay(report) { "Your message is delayed" } else { "Your message could not be delivered" }
}

pub(super) fn explanation(report: &Report<'_>) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut paragraph = |text: &str| {
        octets.extend_from_slice(&wrapped(text, 0));
        octets.extend_from_slice(b"\r\n");
    };
    paragraph(&format!("This is the mail system at {}.", report.hostname));
    if is_delay(report) {
        paragraph(&format!(
            "Your message of {} has not been delivered yet to the recipients below. This is only a \
             notice: there is no need to send it again. Delivery goes on being tried.",
            report.arrival_date
        ));
    } else {
        paragraph(&format!(
            "Your message of {} could not be delivered to the recipients below. It will not be tried \
             again for them. Recipients that are not listed are not concerned.",
            report.arrival_date
        ));
    }
    for recipient in report.recipients.iter().take(TOLD_RECIPIENTS_MAX) {
        octets.extend_from_slice(&about(recipient));
    }
    if let Some(more) = report.recipients.len().checked_sub(TOLD_RECIPIENTS_MAX).filter(|&more| more > 0) {
        octets.extend_from_slice(&wrapped(&format!("... and {more} more, listed in the report below."), 0));
        octets.extend_from_slice(b"\r\n");
    }
    let help = format!(
        "If you cannot do anything about the reason given, please write to {}, and include this \
         message. It is known there as {}.",
        report.postmaster, report.queue_id
    );
    octets.extend_from_slice(&wrapped(&help, 0));
    octets
}

fn about(recipient: &ReportedRecipient<'_>) -> Vec<u8> {
    let mut octets = wrapped(&format!("<{}>", recipient.address), 2);
    let reason = match recipient.action {
        Action::Bounced => recipient.text.to_owned(),
        Action::Expired => format!("It was tried until its time was over. The last try: {}", recipient.text),
        Action::Delayed { until_date } => {
            format!("It will be tried until {until_date}. The last try: {}", recipient.text)
        }
    };
    octets.extend_from_slice(&wrapped(&reason, 4));
    octets.extend_from_slice(b"\r\n");
    octets
}
