//! The tables of a measurement of the spool, and the files that keep them.

use super::{Options, Part, Results, commits, fio};
use crate::figures::{median, short};
use crate::place;
use anyhow::Result;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

pub fn markdown(options: &Options, results: &Results) -> String {
    let mut out = format!(
        "# The spool against its disk, {}\n\n{}\n",
        place::today(),
        place::sentence(options.machine.as_deref(), &options.dir)
    );
    if options.parts.contains(&Part::Commit) {
        limits(&mut out, results);
        commits(&mut out, options, results);
    }
    if options.parts.contains(&Part::Written) {
        written(&mut out, options, results);
    }
    if options.parts.contains(&Part::Backlog) {
        backlog(&mut out, results);
    }
    out
}

fn limits(out: &mut String, results: &Results) {
    out.push_str(
        "\n## The disk: fio, O_DIRECT and O_DSYNC through io_uring, depth 1, blocks written before\n\n\
         | octets | writes/s | p50 µs | p99 µs |\n|--:|--:|--:|--:|\n",
    );
    let mut blocks: Vec<_> = results.limits.iter().map(|limit| limit.block_bytes).collect();
    blocks.sort_unstable();
    blocks.dedup();
    for block in blocks {
        let of = |value: fn(&fio::Figures) -> f64| middle_limit(results, block, value);
        let _ = writeln!(
            out,
            "| {block} | {:.0} | {} | {} |",
            of(|limit| limit.writes_per_second),
            short(of(|limit| limit.p50_us)),
            short(of(|limit| limit.p99_us))
        );
    }
}

fn middle_limit(results: &Results, block: usize, value: fn(&fio::Figures) -> f64) -> f64 {
    let same: Vec<_> = results.limits.iter().filter(|one| one.block_bytes == block).map(value).collect();
    median(&same).unwrap_or(f64::NAN)
}

fn commits(out: &mut String, options: &Options, results: &Results) {
    let _ = writeln!(
        out,
        "\n## Commits of {} octets, outcomes recorded, medians of {} rounds\n\n\
         | pause µs | committers | messages/s | p50 µs | p99 µs | CPU µs | writes | octets written | p50 over fio's 4 KiB | \
         over fio's write of a batch |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        options.size[0], options.rounds
    );
    for pause in &options.pause {
        for committers in &options.committers {
            let same = |one: &&commits::Figures| (one.pause_us, one.committers) == (*pause, *committers);
            let rows: Vec<_> = results.commits.iter().filter(same).collect();
            let middle = |value: fn(&commits::Figures) -> f64| {
                median(&rows.iter().map(|row| value(row)).collect::<Vec<_>>()).unwrap_or(f64::NAN)
            };
            let (p50, writes, written) =
                (middle(|row| row.p50_us), middle(|row| row.batches), middle(|row| row.written_bytes));
            let batch = ((written / writes) as usize).next_multiple_of(4096);
            // The batches of one round are seldom those of another to the octet.
            let blocks = results.limits.iter().map(|limit| limit.block_bytes);
            let batch = blocks.min_by_key(|block| block.abs_diff(batch)).unwrap_or(batch);
            let over = |block: usize| match middle_limit(results, block, |limit| limit.p50_us) {
                limit if limit.is_nan() => "–".to_owned(),
                limit => short(p50 / limit),
            };
            let _ = writeln!(
                out,
                "| {pause} | {committers} | {:.0} | {} | {} | {} | {} | {written:.0} | {} | {} |",
                middle(|row| row.messages_per_second),
                short(p50),
                short(middle(|row| row.p99_us)),
                short(middle(|row| row.cpu_us.unwrap_or(f64::NAN))),
                short(writes),
                over(4096),
                over(batch),
            );
        }
    }
}

fn written(out: &mut String, options: &Options, results: &Results) {
    let _ = writeln!(
        out,
        "\n## What the relay writes, end to end, outcomes included; {} messages each\n\n\
         Factors are octets written over octets of mail; the spool's account counts its own writes, the device's \
         those of everybody.\n\n\
         | octets | sessions | messages/s | spool: factor | writes a message | device: factor | flushes a message | \
         dot→250 p50 ms |\n|--:|--:|--:|--:|--:|--:|--:|--:|",
        options.messages
    );
    let text = |value: Option<f64>| value.map_or("–".to_owned(), short);
    for row in &results.written {
        let _ = writeln!(
            out,
            "| {} | {} | {:.0} | {} | {} | {} | {} | {} |",
            row.size,
            row.sessions,
            row.messages_per_second,
            text(row.spool_factor),
            text(row.spool_writes),
            text(row.device_factor),
            text(row.device_flushes),
            text(row.end_of_data_p50_ms),
        );
    }
}

fn backlog(out: &mut String, results: &Results) {
    out.push_str(
        "\n## A message of 4 KiB when many wait, µs of time, one at a time\n\n\
         | waiting | filled by 64 | commit | load | read | record | out, altogether | load and read here and there |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in &results.backlog {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.backlog,
            short(row.fill_us),
            short(row.commit_us),
            short(row.load_us),
            short(row.read_us),
            short(row.record_us),
            short(row.drain_us()),
            short(row.scattered_us),
        );
    }
}

pub fn save(options: &Options, directory: &Path, text: &str, results: &Results) -> Result<()> {
    let name = place::machine(options.machine.as_deref());
    let all = json!({
        "date": place::today(), "machine": name, "about": place::sentence(Some(&name), &options.dir),
        "limits": results.limits, "commits": results.commits, "written": results.written,
        "backlog": results.backlog,
    });
    place::save(directory, &format!("{name}-spool"), text, &all)
}
