//! What a row of a table is about.

use super::scenario::Task;
use crate::servers::Kind;
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Subject {
    /// Generator straight into sink: what no server can exceed here
    Straight,
    /// One write of 4 KiB and one fdatasync after the other
    Fdatasync,
    Server(Kind),
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Subject::Straight => "straight (no server)",
            Subject::Fdatasync => "fdatasync of 4 KiB",
            Subject::Server(kind) => kind.name(),
        }
    }

    pub fn all() -> Vec<Subject> {
        std::iter::once(Subject::Straight).chain(Kind::ALL.map(Subject::Server)).collect()
    }

    /// All that the task can be measured of.
    pub fn of(task: Task) -> Vec<Subject> {
        match task {
            Task::EndToEnd | Task::Accept => Subject::all(),
            Task::Deliver => Kind::ALL.map(Subject::Server).to_vec(),
            Task::Idle => vec![Subject::Server(Kind::Relay)],
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "straight" => Ok(Subject::Straight),
            "fdatasync" => Ok(Subject::Fdatasync),
            _ => Kind::from_str(text, false).map(Subject::Server).map_err(|_| {
                let known: Vec<_> = Kind::value_variants()
                    .iter()
                    .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
                    .collect();
                format!("{text:?} is none of straight, fdatasync, {}", known.join(", "))
            }),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}
