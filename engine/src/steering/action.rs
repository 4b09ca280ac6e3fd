//! What can be done with recipients that wait, the decision for each, and the answer with its counts.
//!
//! | action | a recipient that is not held | a held one |
//! |---|---|---|
//! | hold | is not tried any more | already so |
//! | release | already so | is tried again, at once |
//! | retry | is tried now | stays held, untouched |
//! | reroute | goes there, at once; already so when it does | goes there when it is released |
//! | bounce | its sender gets a DSN, unless there is none | the same |
//! | delete | nobody is told | the same |
//!
//! Pure.

use super::condition::Condition;
use crate::config::SmartHost;
use serde::{Deserialize, Serialize};
use sluice_queue::RecipientState;
use std::fmt;
use std::str::FromStr;

/// Octets of the administrator's own words in a DSN.
const TEXT_BYTES_MAX: usize = 400;

/// What is to be done. As JSON: `"hold"`, `{"reroute": "10.1.0.11:25"}`, `{"bounce": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Hold,
    Release,
    Retry,
    Reroute(Destination),
    /// With words for the sender; empty: a usual sentence.
    Bounce(String),
    Delete,
}

/// Where rerouted mail goes. As text: `HOST:PORT`, `mx:DOMAIN`, `route`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    Host(SmartHost),
    /// The mail exchangers of this domain, in lower case.
    Mx(Box<str>),
    /// Back to where the configuration sends it.
    Route,
}

impl Destination {
    /// As an outcome of the spool has it; empty: back to its route.
    pub fn via(&self) -> String {
        match self {
            Self::Route => String::new(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) if host.socket().is_some() => f.write_str(&host.host),
            Self::Host(SmartHost { host, port }) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(SmartHost { host, port }) => write!(f, "{host}:{port}"),
            Self::Mx(domain) => write!(f, "mx:{domain}"),
            Self::Route => f.write_str("route"),
        }
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |error| format!("{error}; or mx:DOMAIN, or route for its usual way");
        match text.strip_prefix("mx:") {
            _ if text == "route" => Ok(Self::Route),
            Some(domain) => crate::config::domain(domain).map(|domain| Self::Mx(domain.into())),
            None => crate::config::smart_host(text).map(Self::Host).map_err(wrong),
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Action {
    /// The word for the log and for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Reroute(_) => "reroute",
            Self::Bounce(_) => "bounce",
            Self::Delete => "delete",
        }
    }

    /// What has become of a recipient, for the log.
    pub fn done(&self) -> &'static str {
        match self {
            Self::Hold => "held",
            Self::Release => "released",
            Self::Retry => "to be tried now",
            Self::Reroute(_) => "rerouted",
            Self::Bounce(_) => "bounced",
            Self::Delete => "deleted",
        }
    }

    /// It ends the mail: each message gets its line in the log.
    pub fn ends_mail(&self) -> bool {
        matches!(self, Self::Bounce(_) | Self::Delete)
    }

    /// A damaged message is never sent, so there is nothing to steer about it but its end.
    pub fn reaches_damaged(&self) -> bool {
        matches!(self, Self::Delete)
    }

    /// # Errors
    /// A text that a DSN cannot carry.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Bounce(text) if text.len() > TEXT_BYTES_MAX => {
                Err(format!("a text of {} octets; allowed: {TEXT_BYTES_MAX}", text.len()))
            }
            Self::Bounce(text) if text.chars().any(char::is_control) => {
                Err("a text with control characters".into())
            }
            _ => Ok(()),
        }
    }
}

/// What an action means for one recipient that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Change,
    /// It is already so, or the action does not touch recipients like this.
    Leave,
}

/// The table in the head of this file. The recipient is not finished.
pub fn decide(action: &Action, state: RecipientState, via: Option<&str>) -> Decision {
    let change = match action {
        Action::Hold => !state.held,
        Action::Release => state.held,
        Action::Retry => !state.held,
        Action::Reroute(to) => via.unwrap_or_default() != to.via(),
        Action::Bounce(_) | Action::Delete => true,
    };
    if change { Decision::Change } else { Decision::Leave }
}

/// What is asked of the admin interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub action: Action,
    #[serde(default)]
    pub condition: Condition,
    /// Said expressly: a condition without any part means the whole queue.
    #[serde(default)]
    pub all: bool,
    /// Counts and changes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

impl Request {
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn prepare(&mut self) -> Result<(), String> {
        self.action.check()?;
        if self.condition.is_all() && !self.all {
            return Err("no condition and no queue id: name some, or say all".into());
        }
        if self.all && !self.condition.is_all() {
            return Err("all does not go with a condition or queue ids".into());
        }
        self.condition.prepare()
    }
}

/// Messages, and recipients of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub messages: u64,
    pub recipients: u64,
}

/// What a change came to. Each matching recipient is in one of `changed`, `unchanged` and `under_way`; a
/// message is in the first of `changed`, `under_way`, `unchanged` that one of its recipients is in. So each
/// of the two adds up to `matched`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub matched: Count,
    pub changed: Count,
    /// Already so, or untouched by this action.
    pub unchanged: Count,
    /// Being delivered at this moment: the change applies when that does not succeed.
    pub under_way: Count,
    /// Ids asked for that are not in the queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Why not everything was done, when that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Answer {
    /// Counts one message by its recipients.
    pub fn count(&mut self, changed: u64, unchanged: u64, under_way: u64) {
        let place = match (changed, under_way) {
            (0, 0) => &mut self.unchanged,
            (0, _) => &mut self.under_way,
            _ => &mut self.changed,
        };
        place.messages += 1;
        self.matched.messages += 1;
        self.changed.recipients += changed;
        self.unchanged.recipients += unchanged;
        self.under_way.recipients += under_way;
        self.matched.recipients += changed + unchanged + under_way;
    }

    pub fn add(&mut self, other: Self) {
        for (to, from) in [
            (&mut self.matched, other.matched),
            (&mut self.changed, other.changed),
            (&mut self.unchanged, other.unchanged),
            (&mut self.under_way, other.under_way),
        ] {
            to.messages += from.messages;
            to.recipients += from.recipients;
        }
        self.unknown.extend(other.unknown);
        self.failed = self.failed.take().or(other.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Decision::{Change, Leave};

    #[test]
    fn every_action_decides_by_its_table() {
        let to = || Action::Reroute("10.1.0.11:25".parse().unwrap());
        let back = || Action::Reroute(Destination::Route);
        let via = Some("10.1.0.11:25");
        #[rustfmt::skip]
        let table = [
            // action, via, not held, held
            (Action::Hold, None, Change, Leave),
            (Action::Release, None, Leave, Change),
            (Action::Retry, None, Change, Leave),
            (to(), None, Change, Change),
            (to(), via, Leave, Leave),
            (to(), Some("mx:x.test"), Change, Change),
            (back(), None, Leave, Leave),
            (back(), via, Change, Change),
            (Action::Bounce(String::new()), via, Change, Change),
            (Action::Delete, None, Change, Change),
        ];
        for (action, via, open, held) in table {
            for (is_held, expected) in [(false, open), (true, held)] {
                let state = RecipientState { held: is_held, ..RecipientState::NEW };
                assert_eq!(decide(&action, state, via), expected, "{action:?}, {via:?}, held {is_held}");
            }
        }
    }

    #[test]
    fn destinations_have_one_text_form() {
        for (text, shown, via) in [
            ("10.1.0.11", "10.1.0.11:25", "10.1.0.11:25"),
            ("Mail.Inside.Example:2525", "mail.inside.example:2525", "mail.inside.example:2525"),
            ("[2001:db8::1]:26", "[2001:db8::1]:26", "[2001:db8::1]:26"),
            ("mx:Away.Example", "mx:away.example", "mx:away.example"),
            ("route", "route", ""),
        ] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(
                (destination.to_string().as_str(), destination.via().as_str()),
                (shown, via),
                "{text}"
            );
            assert_eq!(shown.parse(), Ok(destination), "{text}");
        }
        for text in ["", "mx:", "mx:a b", "host:0", "host:99999", "a b:25", "mx:10.0.0.1"] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    #[test]
    fn counts_add_up_whatever_the_recipients_of_a_message_come_to() {
        let mut answer = Answer::default();
        for (changed, unchanged, under_way) in [(2, 0, 0), (1, 1, 1), (0, 3, 0), (0, 1, 2)] {
            answer.count(changed, unchanged, under_way);
        }
        let count = |messages, recipients| Count { messages, recipients };
        assert_eq!(
            (answer.matched, answer.changed, answer.unchanged, answer.under_way),
            (count(4, 11), count(2, 3), count(1, 5), count(1, 3))
        );
        let mut twice = answer.clone();
        twice.add(answer);
        assert_eq!(twice.matched, count(8, 22));
    }

    #[test]
    fn a_change_of_everything_must_be_said() {
        let request = |json: &str| serde_json::from_str::<Request>(json).unwrap().prepare();
        assert!(request(r#"{"action": "hold"}"#).is_err());
        assert!(request(r#"{"action": "hold", "all": true}"#).is_ok());
        assert!(request(r#"{"action": "hold", "all": true, "condition": {"domain": "x.test"}}"#).is_err());
        assert!(
            request(r#"{"action": {"reroute": "mx:x.test"}, "condition": {"domain": "x.test"}}"#).is_ok()
        );
        assert!(request(r#"{"action": {"bounce": "a\nb"}, "all": true}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"action": "burn", "all": true}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"action": "hold", "conditions": {}}"#).is_err());
    }
}
