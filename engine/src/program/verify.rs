//! `sluice queue verify`: reads a whole spool, bodies too, and says what is wrong with it. Writes nothing,
//! also while a relay runs on it.

use super::{DATA_ERROR, Failed, IO_ERROR, NO_INPUT, NO_PERMISSION, closed_pipe};
use crate::admin::client::{self, Answered};
use crate::intake::{spool_directory, spool_numbers};
use sluice_queue::{Finding, OpenError, SpoolNumber, Verified, verify as verify_spool};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Messages of a finding that are named; the others are counted.
const IDS_NAMED_MAX: usize = 20;

/// Verifies the spools of all shards. A clean spool ends well; damage is [`DATA_ERROR`], and a device that
/// did not read everything [`IO_ERROR`].
pub fn verify(spool: &Path, json: bool) -> Result<(), Failed> {
    let failed = |error: &io::Error| Failed::io(format_args!("the spool {}", spool.display()), error);
    let numbers = spool_numbers(spool).map_err(|error| failed(&error))?;
    if numbers.is_empty() && !spool.join("lock").exists() {
        let sentence =
            format!("{} is no spool: it holds neither a lock nor a shard directory", spool.display());
        return Err(Failed::new(NO_INPUT, sentence));
    }
    let live = is_live(spool)?;
    let (mut findings, mut unread) = (0, false);
    let mut out = io::BufWriter::new(io::stdout().lock());
    for number in numbers {
        let directory = spool_directory(spool, number);
        let start = Instant::now();
        let found = verify_spool(&directory, number, live).map_err(|error| refused(&directory, &error))?;
        let took = start.elapsed();
        findings += found.findings.len() as u64 + found.findings_more;
        unread |= found.unread();
        let printed = match json {
            true => print_json(&mut out, number, &found, took),
            false => print_text(&mut out, &directory, &found, took),
        };
        printed.or_else(closed_pipe)?;
    }
    out.flush().or_else(closed_pipe)?;
    match (findings, unread) {
        (0, _) => Ok(()),
        (_, true) => Err(Failed::new(IO_ERROR, "the device did not read all of the spool")),
        (n, false) => Err(Failed::new(DATA_ERROR, format_args!("the spool is damaged; findings: {n}"))),
    }
}

fn is_live(spool: &Path) -> Result<bool, Failed> {
    match client::get(spool, "/v1/queue?limit=1") {
        Ok(Answered::NotRunning) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failed::new(
            NO_PERMISSION,
            format_args!(
                "the spool {} belongs to another user; run this as root or as the relay's user",
                spool.display()
            ),
        )),
        // It answers, whatever it says.
        Ok(_) | Err(_) => Ok(true),
    }
}

fn refused(directory: &Path, error: &OpenError) -> Failed {
    let code = match error {
        OpenError::Device(_) => IO_ERROR,
        OpenError::Newer { .. } | OpenError::Options(_) => DATA_ERROR,
    };
    Failed::new(code, format_args!("{}: {error}", directory.display()))
}

fn print_text(out: &mut impl Write, directory: &Path, found: &Verified, took: Duration) -> io::Result<()> {
    let directory = directory.display();
    for finding in &found.findings {
        let Finding { slot, offset, flaw, ids, .. } = finding;
        let segment = finding.segment.map_or("unknown".into(), |segment| segment.to_string());
        writeln!(out, "{directory}/{slot:06}.seg, segment {segment}, offset {offset}: {flaw}")?;
        writeln!(out, "    {}", flaw.means())?;
        if !ids.is_empty() {
            let named: Vec<String> = ids.iter().take(IDS_NAMED_MAX).map(ToString::to_string).collect();
            let more = ids.len().saturating_sub(IDS_NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(out, "    messages: {}{more}", named.join(" "))?;
        }
    }
    if found.findings_more > 0 {
        writeln!(out, "{directory}: {} findings more", found.findings_more)?;
    }
    writeln!(
        out,
        "{directory}: {} segments, {} batches, {} records; {} messages wait and are whole, {} bytes; {} \
         damaged; {} bytes read in {:.1} s, {:.0} MB/s; {}",
        found.segments,
        found.batches,
        found.records,
        found.messages,
        found.content_bytes,
        found.messages_damaged.len(),
        found.bytes_read,
        took.as_secs_f64(),
        megabytes_per_second(found, took),
        if found.is_clean() { "clean" } else { "NOT clean" },
    )
}

fn megabytes_per_second(found: &Verified, took: Duration) -> f64 {
    found.bytes_read as f64 / 1e6 / took.as_secs_f64().max(1e-6)
}

/// One object a line: the findings, then the summary of the spool.
fn print_json(out: &mut impl Write, number: SpoolNumber, found: &Verified, took: Duration) -> io::Result<()> {
    for finding in &found.findings {
        let ids: Vec<String> = finding.ids.iter().map(ToString::to_string).collect();
        let line = serde_json::json!({
            "type": "finding",
            "spool": number.get(),
            "file": format!("{:06}.seg", finding.slot),
            "segment": finding.segment,
            "offset": finding.offset,
            "flaw": finding.flaw.name(),
            "text": finding.flaw.to_string(),
            "means": finding.flaw.means().name(),
            "messages": ids,
        });
        writeln!(out, "{line}")?;
    }
    let damaged: Vec<String> = found.messages_damaged.iter().map(ToString::to_string).collect();
    let line = serde_json::json!({
        "type": "summary",
        "spool": number.get(),
        "clean": found.is_clean(),
        "segments": found.segments,
        "batches": found.batches,
        "records": found.records,
        "messages": found.messages,
        "octets": found.content_bytes,
        "damaged": damaged,
        "findings": found.findings.len() as u64 + found.findings_more,
        "octets_read": found.bytes_read,
        "seconds": took.as_secs_f64(),
        "megabytes_per_second": megabytes_per_second(found, took),
    });
    writeln!(out, "{line}")
}
