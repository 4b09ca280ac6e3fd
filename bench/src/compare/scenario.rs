//! The work to measure, as data: files below `bench/scenarios/`. Pure but for reading them.
//!
//! A file has `[defaults]` and any number of `[[scenario]]`, with the same keys. `size`, `sessions`, `ends`, `load`
//! and `tls` may be lists: then a scenario stands for each combination. A key that is not known is refused.

use super::subject::Subject;
use crate::servers::Kind;
use crate::source::Mix;
use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

const SESSIONS_MAX: usize = 20_000;
/// Postfix and the relay take as many in one transaction without being told to.
const RECIPIENTS_MAX: usize = 1_000;
const SECONDS_MAX: f64 = 600.0;
const ROUNDS_MAX: usize = 99;

/// Generator and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// sluice-bench source and sink: pipelined, every message checked
    Own,
    /// smtp-source and smtp-sink
    Postfix,
}

impl Ends {
    pub fn name(self) -> &'static str {
        match self {
            Ends::Own => "sluice-bench source and sink",
            Ends::Postfix => "smtp-source and smtp-sink",
        }
    }
}

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Takes and delivers.
    EndToEnd,
    /// Takes and stores, and tries nothing.
    Accept,
    /// Is started on a full queue and delivers it.
    Deliver,
    /// Holds sessions that say nothing.
    Idle,
}

/// Which legs are in TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    Off,
    /// From the generator to the server.
    In,
    /// From the server to the sink.
    Out,
    Both,
}

impl Tls {
    pub fn inward(self) -> bool {
        matches!(self, Tls::In | Tls::Both)
    }

    pub fn outward(self) -> bool {
        matches!(self, Tls::Out | Tls::Both)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handshakes {
    Full,
    /// The generator resumes its sessions, and the sink hands out tickets.
    Resumed,
}

/// Octets of each message, or a mix of sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Octets(usize),
    /// `1024:7,65536:3`
    Mix(String),
}

impl Size {
    pub fn mean(&self) -> f64 {
        match self {
            Size::Octets(octets) => *octets as f64,
            Size::Mix(text) => text.parse::<Mix>().map_or(0.0, |mix| mix.mean()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Octets(octets) if octets.is_multiple_of(1024) => write!(f, "{} KiB", octets / 1024),
            Size::Octets(octets) => write!(f, "{octets} octets"),
            Size::Mix(_) => write!(f, "mixed sizes ({:.1} KiB on average)", self.mean() / 1024.0),
        }
    }
}

/// One kind of work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Work {
    pub name: String,
    pub task: Task,
    pub ends: Ends,
    pub size: Size,
    pub sessions: usize,
    /// 0: no limit.
    pub messages_per_connection: u64,
    pub recipients: usize,
    pub tls: Tls,
    pub handshakes: Handshakes,
    /// Open loop at so many percent of the rate that the server reached in a saturated round just before.
    pub load: Option<u32>,
    /// CPU lists of the relay's shards.
    pub ingest_cpus: Option<String>,
    pub delivery_cpus: Option<String>,
    pub servers: Vec<Subject>,
    pub rounds: usize,
    /// How long a measurement is to last: the number of messages follows from the rate of the warm-up.
    pub seconds: f64,
    /// Exactly so many instead.
    pub messages: Option<u64>,
    /// Messages before, not measured.
    pub warm_up: u64,
}

impl Work {
    /// Generator to sink through one server, many messages on a connection, as in most rows.
    pub fn plain(size: usize, sessions: usize) -> Self {
        Work {
            name: "plain".to_owned(),
            task: Task::EndToEnd,
            ends: Ends::Own,
            size: Size::Octets(size),
            sessions,
            messages_per_connection: 0,
            recipients: 1,
            tls: Tls::Off,
            handshakes: Handshakes::Resumed,
            load: None,
            ingest_cpus: None,
            delivery_cpus: None,
            servers: Subject::all(),
            rounds: 3,
            seconds: 3.0,
            messages: None,
            warm_up: 500,
        }
    }

    /// What is done, in words.
    pub fn title(&self) -> String {
        let task = match self.task {
            Task::EndToEnd => "end to end",
            Task::Accept => "accept only",
            Task::Deliver => "deliver only",
            Task::Idle => return format!("{} idle sessions", self.sessions),
        };
        let mut title = format!("{task}, {}, {} sessions", self.size, self.sessions);
        if self.messages_per_connection > 0 {
            title += &format!(", {} on a connection", self.messages_per_connection);
        }
        if self.recipients > 1 {
            title += &format!(", {} recipients", self.recipients);
        }
        if self.tls != Tls::Off {
            let legs = match self.tls {
                Tls::Both => "both legs",
                Tls::In => "inward",
                _ => "outward",
            };
            let kind = if self.handshakes == Handshakes::Full { "full" } else { "resumed" };
            title += &format!(", TLS {legs} ({kind} handshakes)");
        }
        if let Some(load) = self.load {
            title += &format!(", open loop at {load} %");
        }
        if let (Some(ingest), Some(delivery)) = (&self.ingest_cpus, &self.delivery_cpus) {
            title += &format!(", ingest on CPU {ingest}, delivery on {delivery}");
        }
        title + ", " + self.ends.name()
    }

    fn check(&self) -> Result<()> {
        ensure!((1..=SESSIONS_MAX).contains(&self.sessions), "sessions must be from 1 to {SESSIONS_MAX}");
        ensure!(
            (1..=RECIPIENTS_MAX).contains(&self.recipients),
            "recipients must be from 1 to {RECIPIENTS_MAX}"
        );
        ensure!((1..=ROUNDS_MAX).contains(&self.rounds), "rounds must be from 1 to {ROUNDS_MAX}");
        ensure!(self.seconds > 0.0 && self.seconds <= SECONDS_MAX, "seconds must be up to {SECONDS_MAX}");
        ensure!(self.warm_up > 0, "warm_up must be at least 1: the rate is taken from it");
        ensure!(self.load.is_none_or(|load| (1..=100).contains(&load)), "load must be from 1 to 100");
        ensure!(!self.servers.is_empty(), "servers must not be empty");
        match &self.size {
            Size::Octets(octets) => ensure!((1..=64 << 20).contains(octets), "size must be from 1 to 64 MiB"),
            Size::Mix(text) => drop(text.parse::<Mix>().map_err(anyhow::Error::msg)?),
        }
        for cpus in [&self.ingest_cpus, &self.delivery_cpus].into_iter().flatten() {
            cpus.parse::<crate::args::Cpus>().map_err(anyhow::Error::msg)?;
        }
        if self.ends == Ends::Postfix {
            let plain = self.task == Task::EndToEnd && self.load.is_none() && self.recipients == 1;
            let fixed = matches!(self.size, Size::Octets(_)) && self.tls == Tls::Off;
            ensure!(
                plain && fixed && self.messages_per_connection <= 1,
                "with the ends of Postfix: end-to-end, one recipient, one size, no TLS, no load"
            );
        }
        let is_queue = matches!(self.task, Task::Deliver | Task::Idle);
        ensure!(!is_queue || self.load.is_none(), "load is of no use where nothing is sent");
        for subject in &self.servers {
            match (subject, self.task) {
                (Subject::Straight, Task::Deliver | Task::Idle) => {
                    bail!("straight has no queue and no sessions")
                }
                (Subject::Fdatasync, task) if task != Task::Accept => bail!("fdatasync belongs to accept"),
                (Subject::Server(kind), Task::Idle) if *kind != Kind::Relay => {
                    bail!("idle sessions are measured of the relay only")
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// One value, or one scenario for each of several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Each<T> {
    Many(Vec<T>),
    One(T),
}

impl<T: Clone> Each<T> {
    fn values(&self) -> Vec<T> {
        match self {
            Each::Many(values) => values.clone(),
            Each::One(value) => vec![value.clone()],
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    task: Option<Task>,
    ends: Option<Each<Ends>>,
    size: Option<Each<Size>>,
    sessions: Option<Each<usize>>,
    messages_per_connection: Option<u64>,
    recipients: Option<usize>,
    tls: Option<Each<Tls>>,
    handshakes: Option<Handshakes>,
    load: Option<Each<u32>>,
    ingest_cpus: Option<String>,
    delivery_cpus: Option<String>,
    servers: Option<Vec<Subject>>,
    rounds: Option<usize>,
    seconds: Option<f64>,
    messages: Option<u64>,
    warm_up: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Entry,
    #[serde(default)]
    scenario: Vec<Entry>,
}

/// All work that a file asks for, in its order.
pub fn read(path: &Path) -> Result<Vec<Work>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{}", path.display()))
}

pub fn parse(text: &str) -> Result<Vec<Work>> {
    let file: File = toml::from_str(text)?;
    ensure!(file.defaults.name.is_none(), "a name belongs to a scenario, not to the defaults");
    let mut all: Vec<Work> = Vec::new();
    for (number, entry) in file.scenario.iter().enumerate() {
        let name = entry.name.clone().with_context(|| format!("scenario {} has no name", number + 1))?;
        ensure!(all.iter().all(|work| work.name != name), "two scenarios are called {name:?}");
        for work in expand(&name, entry, &file.defaults) {
            work.check().with_context(|| format!("scenario {name:?}"))?;
            all.push(work);
        }
    }
    ensure!(!all.is_empty(), "there is no [[scenario]]");
    Ok(all)
}

fn expand(name: &str, entry: &Entry, defaults: &Entry) -> Vec<Work> {
    macro_rules! of {
        ($key:ident) => {
            entry.$key.clone().or_else(|| defaults.$key.clone())
        };
    }
    let plain = Work::plain(4096, 20);
    let task = of!(task).unwrap_or(plain.task);
    let base = Work {
        name: name.to_owned(),
        task,
        messages_per_connection: of!(messages_per_connection).unwrap_or(0),
        recipients: of!(recipients).unwrap_or(1),
        handshakes: of!(handshakes).unwrap_or(plain.handshakes),
        ingest_cpus: of!(ingest_cpus),
        delivery_cpus: of!(delivery_cpus),
        servers: of!(servers).unwrap_or_else(|| Subject::of(task)),
        rounds: of!(rounds).unwrap_or(plain.rounds),
        seconds: of!(seconds).unwrap_or(plain.seconds),
        messages: of!(messages),
        warm_up: of!(warm_up).unwrap_or(plain.warm_up),
        ..plain.clone()
    };
    let loads = of!(load).map_or(vec![None], |loads| loads.values().into_iter().map(Some).collect());
    let mut all = Vec::new();
    for ends in of!(ends).map_or(vec![plain.ends], |each| each.values()) {
        for size in of!(size).map_or(vec![plain.size.clone()], |each| each.values()) {
            for sessions in of!(sessions).map_or(vec![plain.sessions], |each| each.values()) {
                for tls in of!(tls).map_or(vec![plain.tls], |each| each.values()) {
                    all.extend(loads.iter().map(|load| Work {
                        ends,
                        size: size.clone(),
                        sessions,
                        tls,
                        load: *load,
                        ..base.clone()
                    }));
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stand_for_each_combination_and_defaults_are_taken_over() {
        let text = "[defaults]\nrounds = 5\nseconds = 2.5\n[[scenario]]\nname = \"a\"\nsize = [1024, \"1024:1,4096:1\"]\n\
                    sessions = [1, 20]\nload = [50, 80]\n[[scenario]]\nname = \"b\"\nrounds = 1\ntask = \"idle\"\n";
        let all = parse(text).unwrap();
        assert_eq!(all.len(), 9);
        assert!(all[..8].iter().all(|work| work.rounds == 5 && work.seconds == 2.5 && work.name == "a"));
        assert_eq!((all[0].sessions, all[0].load, all[1].load), (1, Some(50), Some(80)));
        assert_eq!(all[4].size.mean(), 2560.0);
        assert_eq!((all[8].rounds, all[8].task, all[8].servers.len()), (1, Task::Idle, 1));
    }

    #[test]
    fn what_is_not_known_or_makes_no_sense_is_refused() {
        for (line, said) in [
            ("sise = 4096", "unknown field"),
            ("servers = [\"sendmail\"]", "sendmail"),
            ("task = \"relay\"", "unknown variant"),
            ("sessions = 0", "sessions must be"),
            ("sessions = [20, 30000]", "sessions must be"),
            ("size = \"1024\"", "no list of sizes"),
            ("load = 101", "load must be"),
            ("seconds = 0.0", "seconds must be"),
            ("ends = \"postfix\"\nload = 50", "ends of Postfix"),
            ("ends = \"postfix\"\ntls = \"in\"", "ends of Postfix"),
            ("task = \"deliver\"\nservers = [\"straight\"]", "no queue"),
            ("task = \"idle\"\nservers = [\"exim\"]", "relay only"),
            ("servers = [\"fdatasync\"]", "belongs to accept"),
            ("ingest_cpus = \"x\"", "CPU list"),
            ("name = \"b\"", "duplicate key"),
        ] {
            let error = parse(&format!("[[scenario]]\nname = \"a\"\n{line}\n")).expect_err(line);
            assert!(format!("{error:#}").contains(said), "{line}: {error:#}");
        }
        assert!(parse("").is_err());
        assert!(parse("[[scenario]]\nsize = 1\n").is_err(), "no name");
        let twice = "[[scenario]]\nname = \"a\"\n[[scenario]]\nname = \"a\"\n";
        assert!(parse(twice).is_err(), "the same name twice");
    }

    #[test]
    fn every_file_of_the_tree_can_be_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut files = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let all = read(&path).unwrap_or_else(|error| panic!("{error:#}"));
            let mut titles: Vec<_> = all.iter().map(|work| (work.title(), work.servers.clone())).collect();
            titles.dedup();
            assert_eq!(titles.len(), all.len(), "{}: the same work twice", path.display());
            files += 1;
        }
        assert!(files >= 3);
    }
}
