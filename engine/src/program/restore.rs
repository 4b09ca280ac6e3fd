//! `sluice queue restore DIR`: brings the mail of a copy into the relay that runs on the spool, or, when none
//! does, into the spool itself, which this process then holds as a relay would.

use super::queue::{parse, unreachable_relay};
use super::run::lock_spool;
use super::{DATA_ERROR, Failed, IO_ERROR, NO_INPUT, SOFTWARE, TEMPORARY, UNAVAILABLE, closed_pipe};
use crate::admin::client::{self, Answered};
use crate::admin::restore::{Known, receiver, source};
use crate::intake::restore::{ITEMS_MAX, knowledge, take_in};
use crate::intake::{ShardSpool, Size, Turn, open_spool, spool_numbers};
use crate::restore::copy::{CopiedSpool, Copy, How, Seen};
use crate::restore::wire::{Item, lineage_of};
use crate::restore::{Knowledge, Report};
use glommio::{LocalExecutorBuilder, Placement};
use hyper::StatusCode;
use sluice_queue::{Ancestry, SpoolNumber};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Octets that are sent together.
const CHUNK_BYTES: usize = 256 << 10;
/// Between lines that say how far it is, on a terminal.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Restores and prints what was done.
pub fn restore(
    spool: &Path,
    segment_bytes: u64,
    directory: &Path,
    how: How,
    json: bool,
) -> Result<(), Failed> {
    if let (Ok(from), Ok(to)) = (directory.canonicalize(), spool.canonicalize())
        && from == to
    {
        return Err(Failed::new(NO_INPUT, format_args!("{} is the spool itself", directory.display())));
    }
    let copy = Copy::open(directory).map_err(|error| Failed::new(NO_INPUT, error))?;
    let (mut report, mut damages, mut more, mut unnamed) = (Report::default(), Vec::new(), 0, Vec::new());
    let mut take = |of: &CopiedSpool, (seen, one): (Seen, Report)| {
        report.add(&one);
        damages.extend(seen.damages);
        more += seen.damages_more;
        if seen.unnamed {
            unnamed.push(of.directory.display().to_string());
        }
        report.stopped.is_none()
    };
    match known(spool)? {
        Some(known) => {
            for of in &copy.spools {
                if !take(of, send(spool, of.clone(), how, known.clone())?) {
                    break;
                }
            }
        }
        None => stopped(spool, segment_bytes, copy.spools.clone(), how, take)?,
    }
    print(&report, how, json).or_else(closed_pipe)?;
    damages.iter().for_each(|damage| eprintln!("sluice: {damage}"));
    if more > 0 {
        eprintln!("sluice: and {more} more damages");
    }
    conclude(&report, damages.len() as u64 + more, &unnamed)
}

/// What is left to say, and the exit code.
fn conclude(report: &Report, damages: u64, unnamed: &[String]) -> Result<(), Failed> {
    if let Some(why) = &report.stopped {
        return Err(Failed::new(
            TEMPORARY,
            format_args!(
                "ended before the end of the copy: {why}; what is in is in, do it again for the rest"
            ),
        ));
    }
    if let Some(first) = unnamed.first() {
        return Err(Failed::new(
            DATA_ERROR,
            format_args!(
                "{first} was written by version 0.1, which gave spools no name: nothing tells what of it was here before; --again brings everything that does not wait here"
            ),
        ));
    }
    if damages > 0 || report.damaged > 0 || report.refused > 0 {
        return Err(Failed::new(
            DATA_ERROR,
            "the copy is damaged; what can be read of it is restored. A better copy brings messages named above; those of which not even the name can be read only with --again",
        ));
    }
    if report.doubtful > 0 {
        return Err(Failed::new(
            DATA_ERROR,
            format_args!(
                "{} messages are so old that they may have been here; --again brings them",
                report.doubtful
            ),
        ));
    }
    Ok(())
}

/// What the relay on the spool knows; `None` when none runs.
fn known(spool: &Path) -> Result<Option<Vec<Ancestry>>, Failed> {
    match client::get(spool, "/v1/restore") {
        Ok(Answered::Found(body)) => Ok(Some(parse::<Known>(&body)?.ancestries())),
        Ok(Answered::NotRunning) => Ok(None),
        Ok(Answered::NotFound) => {
            Err(Failed::new(SOFTWARE, "the relay that runs is of a version that knows no restore"))
        }
        Ok(Answered::Refused(_, words)) => Err(Failed::new(UNAVAILABLE, words)),
        Err(error) => Err(unreachable_relay(spool, &error)),
    }
}

/// Sends the copy of one spool to the relay.
fn send(spool: &Path, of: CopiedSpool, how: How, known: Vec<Ancestry>) -> Result<(Seen, Report), Failed> {
    let (chunks, body) = mpsc::channel::<Vec<u8>>(ITEMS_MAX);
    let reader = thread::spawn(move || {
        let mut chunk = Vec::new();
        let seen = of.read(
            how,
            &known,
            |item| {
                item.encode(&mut chunk);
                chunk.len() < CHUNK_BYTES || chunks.blocking_send(std::mem::take(&mut chunk)).is_ok()
            },
            teller(&of),
        );
        let some = !chunk.is_empty();
        let sent = !some || chunks.blocking_send(chunk).is_ok();
        seen.map(|seen| (seen, some && sent))
    });
    let answered = client::stream(spool, "/v1/restore", body);
    let (seen, _) =
        reader.join().expect("the reader does not panic").map_err(|e| Failed::new(IO_ERROR, e))?;
    match answered {
        Ok(None) => Ok((seen, Report::default())),
        Ok(Some(Answered::Found(body))) => Ok((seen, parse(&body)?)),
        Ok(Some(Answered::Refused(StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE, words))) => {
            Err(Failed::new(UNAVAILABLE, words))
        }
        Ok(Some(Answered::Refused(_, words))) => Err(Failed::new(SOFTWARE, words)),
        Ok(Some(Answered::NotFound | Answered::NotRunning)) => {
            Err(Failed::new(UNAVAILABLE, "the relay has just been stopped; do it again"))
        }
        Err(error) => Err(Failed::new(
            TEMPORARY,
            format_args!("the relay went away ({error}); what is in is in, do it again for the rest"),
        )),
    }
}

/// Says how far it is, where somebody looks.
fn teller(of: &CopiedSpool) -> impl Fn(usize, usize) + use<> {
    let (shown, number) = (io::stderr().is_terminal(), of.number.get());
    let last = std::cell::Cell::new(Instant::now());
    move |done, all| {
        if shown && last.get().elapsed() >= TOLD_EVERY {
            last.set(Instant::now());
            eprintln!("shard-{number:04}: {done} of {all} messages");
        }
    }
}

/// Without a relay.
fn stopped(
    spool: &Path,
    segment_bytes: u64,
    copies: Vec<CopiedSpool>,
    how: How,
    mut take: impl FnMut(&CopiedSpool, (Seen, Report)) -> bool,
) -> Result<(), Failed> {
    let _lock = lock_spool(spool)?;
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name("restore")
        .make()
        .map_err(|error| Failed::new(super::OS_ERROR, format_args!("io_uring cannot be used: {error}")))?;
    executor.run(async {
        let spools = open_all(spool, segment_bytes).await.map_err(|error| Failed::new(IO_ERROR, error))?;
        let writers: Vec<_> = spools
            .iter()
            .cloned()
            .map(|spool| glommio::spawn_local(async move { spool.writer().await }))
            .collect();
        for of in &copies {
            let one = take_copy(&spools, of.clone(), how).await?;
            if !take(of, one) {
                break;
            }
        }
        for spool in spools {
            spool.close().await.map_err(|error| Failed::new(IO_ERROR, error))?;
        }
        for writer in writers {
            writer.await;
        }
        Ok(())
    })
}

async fn open_all(path: &Path, segment_bytes: u64) -> Result<Vec<ShardSpool>, String> {
    let mut numbers = spool_numbers(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if numbers.is_empty() {
        numbers.extend(SpoolNumber::new(0));
    }
    let mut spools = Vec::new();
    for number in numbers {
        spools.push(open_spool(Size { segment_bytes, bytes_max: u64::MAX }, path, number).await?.0);
    }
    Ok(spools)
}

async fn take_copy(spools: &[ShardSpool], of: CopiedSpool, how: How) -> Result<(Seen, Report), Failed> {
    let shards: Vec<Knowledge> = spools.iter().map(|spool| knowledge(std::iter::once(spool))).collect();
    let mut all = Knowledge::default();
    shards.iter().for_each(|one| all.merge(one.clone()));
    let (feed, mut items) = mpsc::channel(ITEMS_MAX);
    let known = all.known();
    let reader =
        thread::spawn(move || of.read(how, &known, |item| feed.blocking_send(item).is_ok(), teller(&of)));
    let report = match items.recv().await {
        Some(Item::Begin(begin)) => {
            let lineage = lineage_of(&begin.lineage).expect("it was made of one");
            let receiver = &spools[receiver(lineage, &shards)];
            let source = source(lineage, &begin, &all);
            take_in(receiver, &Turn::default(), source, how.dry_run, items, async |_| {}).await
        }
        _ => Report::default(),
    };
    let seen = reader.join().expect("the reader does not panic").map_err(|e| Failed::new(IO_ERROR, e))?;
    Ok((seen, report))
}

fn print(report: &Report, how: How, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, report)?;
        return writeln!(out);
    }
    let Report { restored, restored_bytes, here, finished, doubtful, damaged, refused, .. } = report;
    match how.dry_run {
        true => write!(out, "{restored} messages would be restored")?,
        false => write!(out, "{restored} messages restored ({restored_bytes} bytes)")?,
    }
    write!(out, "; {here} wait here already, {finished} are finished")?;
    for (count, what) in
        [(doubtful, "may have been here"), (damaged, "cannot be read"), (refused, "do not fit here")]
    {
        if *count > 0 {
            write!(out, ", {count} {what}")?;
        }
    }
    writeln!(out)
}
