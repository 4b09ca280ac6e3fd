//! Files of scenarios, as in `bench/scenarios/`. Pure but for reading them.
//!
//! A file has `[defaults]` and any number of `[[scenario]]`, with the same keys. Those that are `Each` below may be
//! lists: then a scenario stands for each combination. A key that is not known is refused.

use super::{Ends, Handshakes, Size, Subject, Task, Tls, Work};
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use std::path::Path;

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
    messages_per_connection: Option<Each<u64>>,
    recipients: Option<Each<usize>>,
    tls: Option<Each<Tls>>,
    handshakes: Option<Handshakes>,
    load: Option<Each<u32>>,
    rate: Option<Each<f64>>,
    ingest_cpus: Option<String>,
    delivery_cpus: Option<String>,
    spin: Option<String>,
    servers: Option<Vec<Subject>>,
    rounds: Option<usize>,
    rounds_of_others: Option<usize>,
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
    let rounds = of!(rounds).unwrap_or(plain.rounds);
    let mut all = vec![Work {
        name: name.to_owned(),
        task,
        handshakes: of!(handshakes).unwrap_or(plain.handshakes),
        ingest_cpus: of!(ingest_cpus),
        delivery_cpus: of!(delivery_cpus),
        spin: of!(spin),
        servers: of!(servers).unwrap_or_else(|| Subject::of(task)),
        rounds,
        rounds_of_others: of!(rounds_of_others).unwrap_or(rounds),
        seconds: of!(seconds).unwrap_or(plain.seconds),
        messages: of!(messages),
        warm_up: of!(warm_up).unwrap_or(plain.warm_up),
        ..plain
    }];
    // The last key varies fastest.
    all = each(all, of!(ends), |work, ends| work.ends = ends);
    all = each(all, of!(size), |work, size| work.size = size);
    all = each(all, of!(sessions), |work, sessions| work.sessions = sessions);
    all = each(all, of!(recipients), |work, recipients| work.recipients = recipients);
    all = each(all, of!(messages_per_connection), |work, most| work.messages_per_connection = most);
    all = each(all, of!(tls), |work, tls| work.tls = tls);
    all = each(all, of!(load), |work, load| work.load = Some(load));
    each(all, of!(rate), |work, rate| work.rate = Some(rate))
}

/// Each work with each value of a key; as they are without the key.
fn each<T: Clone>(all: Vec<Work>, values: Option<Each<T>>, set: impl Fn(&mut Work, T)) -> Vec<Work> {
    let Some(values) = values.map(|each| each.values()) else { return all };
    let with = |work: &Work, value: &T| {
        let mut work = work.clone();
        set(&mut work, value.clone());
        work
    };
    all.iter().flat_map(|work| values.iter().map(|value| with(work, value)).collect::<Vec<_>>()).collect()
}
