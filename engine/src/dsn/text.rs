//! The part of a DSN that people read, and its subject.
//!
//! Pure. For each kind of news the template of that kind with the recipients that it is about; with several languages
//! one text after the other. Says what happened, to whom and why in whose words, then what to do.

use super::advice::advice;
use super::template::{Template, Variable, built_in};
use super::{Action, Report, ReportedRecipient, TOLD_RECIPIENTS_MAX, To};
use crate::dsn::fields::wrapped;
use crate::smtp::parameters::orcpt;

/// What a template is about, and the name of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Failed,
    Delayed,
    Relayed,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Failed, Self::Delayed, Self::Relayed];

    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
        }
    }

    fn of(action: &Action<'_>) -> Self {
        match action {
            Action::Bounced | Action::Expired => Self::Failed,
            Action::Delayed { .. } => Self::Delayed,
            Action::Relayed => Self::Relayed,
        }
    }
}

/// The languages that reasons and advice are known in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    German,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::English, Self::German];

    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag() == text)
    }

    /// RFC 5646.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }
}

/// The templates of each kind, at least one; by [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts([Vec<Template>; 3]);

impl Default for Texts {
    fn default() -> Self {
        Self::built_in(&[Language::English])
    }
}

impl Texts {
    pub fn built_in(languages: &[Language]) -> Self {
        let of = |kind| {
            let read =
                |language: &Language| Template::read(built_in(kind, *language)).expect("they are tested");
            languages.iter().map(read).collect()
        };
        Self(Kind::ALL.map(of))
    }

    pub fn set(&mut self, kind: Kind, template: Template) {
        self.0[kind as usize] = vec![template];
    }

    pub fn of(&self, kind: Kind) -> &[Template] {
        &self.0[kind as usize]
    }
}

/// The kinds of news that the report has.
fn kinds(report: &Report<'_>) -> Vec<Kind> {
    let has = |kind: &Kind| report.recipients.iter().any(|recipient| Kind::of(&recipient.action) == *kind);
    Kind::ALL.into_iter().filter(has).collect()
}

/// The tags of the languages that the text is in.
pub(super) fn languages(report: &Report<'_>) -> String {
    let Some(kind) = kinds(report).first().copied().filter(|_| report.to == To::Sender) else {
        return "en".into();
    };
    let tags: Vec<&str> = report.texts.of(kind).iter().map(|template| template.language.tag()).collect();
    tags.join(", ")
}

/// The author's name.
pub(super) fn from<'a>(report: &Report<'a>) -> &'a str {
    match kinds(report).first() {
        Some(&kind) if report.to == To::Sender => &report.texts.of(kind)[0].from,
        _ => "Mail Delivery System",
    }
}

pub(super) fn subject(report: &Report<'_>) -> String {
    if let To::Postmaster(what) = report.to {
        return format!("Postmaster notice: {what}");
    }
    let kinds = kinds(report);
    let Some(&first) = kinds.first() else { return String::new() };
    let of = |template: &Template| template.subject(kinds.len() > 1, |variable| value(report, variable));
    report.texts.of(first).iter().map(of).collect::<Vec<_>>().join(" / ")
}

pub(super) fn explanation(report: &Report<'_>, utf8: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if let To::Postmaster(what) = report.to {
        let (queue_id, sender) = (report.queue_id, &report.original.sender);
        let about = format!(
            "This is a copy for the postmaster of {}: {what}. It is about the message {queue_id} from <{sender}> of {}. \
             Which of these notices are sent is said by dsn.notify_postmaster.",
            report.hostname, report.arrival_date
        );
        out.extend_from_slice(&wrapped(&about, 0, utf8));
        out.extend_from_slice(b"\r\n");
        let english = Texts::default();
        for kind in kinds(report) {
            let recipients = of_kind(report, kind);
            for recipient in recipients.iter().take(TOLD_RECIPIENTS_MAX) {
                let language = english.of(kind)[0].language;
                out.extend_from_slice(&wrapped(&format!("<{}>", recipient.address), 2, utf8));
                out.extend_from_slice(&wrapped(&reason(recipient, language), 4, utf8));
                out.extend_from_slice(b"\r\n");
            }
        }
        return out;
    }
    for kind in kinds(report) {
        let recipients = of_kind(report, kind);
        let told = recipients.len().min(TOLD_RECIPIENTS_MAX);
        for template in report.texts.of(kind) {
            if !out.is_empty() {
                out.extend_from_slice(b"\r\n----------\r\n\r\n");
            }
            let of = |index: usize, variable| of_recipient(recipients[index], variable, template.language);
            let more = more(recipients.len() - told, template.language);
            out.extend_from_slice(&template.text(utf8, |variable| value(report, variable), told, of, more));
        }
    }
    out
}

fn of_kind<'r, 'a>(report: &'r Report<'a>, kind: Kind) -> Vec<&'r ReportedRecipient<'a>> {
    report.recipients.iter().filter(|recipient| Kind::of(&recipient.action) == kind).collect()
}

fn more(count: usize, language: Language) -> Option<String> {
    (count > 0).then(|| match language {
        Language::English => format!("... and {count} more, listed in the report below."),
        Language::German => format!("... und {count} weitere, im Bericht unten aufgezählt."),
    })
}

fn value(report: &Report<'_>, variable: Variable) -> String {
    match variable {
        Variable::Hostname => report.hostname.to_owned(),
        Variable::Postmaster => report.postmaster.to_owned(),
        Variable::QueueId => report.queue_id.to_owned(),
        Variable::ArrivalDate => report.arrival_date.to_owned(),
        Variable::Sender => report.original.sender.clone(),
        Variable::Count => report.recipients.len().to_string(),
        _ => String::new(),
    }
}

fn of_recipient(recipient: &ReportedRecipient<'_>, variable: Variable, language: Language) -> String {
    match variable {
        Variable::Recipient => recipient.address.to_owned(),
        Variable::OriginalRecipient => match orcpt::plain(recipient.orcpt) {
            Some((_, original)) => original,
            None => recipient.address.to_owned(),
        },
        Variable::Status => recipient.status.to_owned(),
        Variable::Host => recipient.remote.unwrap_or_default().to_owned(),
        Variable::Reply => recipient.reply.unwrap_or_default().to_owned(),
        Variable::Until => match recipient.action {
            Action::Delayed { until_date } => until_date.to_owned(),
            _ => String::new(),
        },
        Variable::Reason => reason(recipient, language),
        Variable::Advice => advice(recipient, language).to_owned(),
        _ => String::new(),
    }
}

fn reason(recipient: &ReportedRecipient<'_>, language: Language) -> String {
    let text = recipient.text;
    match (recipient.action, language) {
        (Action::Bounced, _) => text.to_owned(),
        (Action::Relayed, Language::English) => format!("It was handed on: {text}"),
        (Action::Relayed, Language::German) => format!("Sie wurde weitergegeben: {text}"),
        (Action::Expired, Language::English) => {
            format!("It was tried until its time was over. The last try: {text}")
        }
        (Action::Expired, Language::German) => {
            format!("Es wurde versucht, bis die Zeit dafür um war. Der letzte Versuch: {text}")
        }
        (Action::Delayed { until_date }, Language::English) => {
            format!("It will be tried until {until_date}. The last try: {text}")
        }
        (Action::Delayed { until_date }, Language::German) => {
            format!("Es wird bis {until_date} versucht. Der letzte Versuch: {text}")
        }
    }
}
