//! What the relay writes for a message, end to end: accepted, delivered to the sink, its outcome recorded.
//!
//! The relay under test is the program, between the own generator and sink, as in a comparison.

use crate::compare::scenario::Work;
use crate::compare::subject::Subject;
use crate::compare::{self, Bench, measure};
use crate::servers::{Kind, WorkDirectory};
use crate::stop::Stop;
use anyhow::Result;
use clap::Parser;
use serde::Serialize;
use std::path::Path;

#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    options: compare::Options,
}

/// Per message; octets are those of the whole content that the generator sends.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub size: usize,
    pub sessions: usize,
    pub messages_per_second: f64,
    /// Octets that the spool wrote over octets of mail, and its data-sync writes.
    pub spool_factor: Option<f64>,
    pub spool_writes: Option<f64>,
    /// The same of the whole block device, other programs' writes among them, and its flushes.
    pub device_factor: Option<f64>,
    pub device_flushes: Option<f64>,
    pub end_of_data_p50_ms: Option<f64>,
}

pub fn measure(
    relay: &Path,
    work: &WorkDirectory,
    size: usize,
    sessions: usize,
    messages: u64,
) -> Result<Figures> {
    let mut options = Defaults::parse_from(["written"]).options;
    options.relay = relay.to_owned();
    let warm_up = (messages / 10).max(1);
    let plain = Work { messages: Some(messages), warm_up, ..Work::plain(size, sessions) };
    let stop = Stop::default();
    let rates = Default::default();
    let bench = Bench { options: &options, directory: work.path(), certificate: None, stop: &stop, rates };
    let figures = measure::measure(&bench, Subject::Server(Kind::Relay), &plain)?;
    let factor = |kib: f64| kib * 1024.0 / size as f64;
    Ok(Figures {
        size,
        sessions,
        messages_per_second: figures.messages_per_second,
        spool_factor: figures.spool_kib.map(factor),
        spool_writes: figures.spool_writes,
        device_factor: figures.written_kib.map(factor),
        device_flushes: figures.flushes,
        end_of_data_p50_ms: figures.end_of_data.map(|latency| latency.p50_ms),
    })
}
