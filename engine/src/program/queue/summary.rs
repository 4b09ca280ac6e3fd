//! `sluice queue summary`: the queue in a few numbers, by next hop, and by domain and age.

use super::{Place, ask, parse, stopped};
use crate::admin::client::Answered;
use crate::clock;
use crate::program::{Failed, SOFTWARE, closed_pipe};
use crate::steering::{AGES_MINUTES, HopRow, ShapeRow, Summary, SummaryOptions, Tally};
use std::io::{self, Write};

/// Prints the summary of a running relay, or of a spool whose relay is down.
pub fn summary(place: &Place, options: SummaryOptions, json: bool) -> Result<(), Failed> {
    let path = format!("/v1/queue/summary?senders={}&limit={}", options.senders, options.limit);
    let summary: Summary = match ask(&place.spool, &path)? {
        Some(Answered::Found(body)) => parse(&body)?,
        Some(_) => return Err(Failed::new(SOFTWARE, "the relay does not know /v1/queue/summary")),
        None => read_stopped(place, options)?,
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let printed = match json {
        true => {
            serde_json::to_writer(&mut out, &summary).map_err(io::Error::from).and_then(|()| writeln!(out))
        }
        false => print(&mut out, &summary),
    };
    printed.and_then(|()| out.flush()).or_else(closed_pipe)
}

fn read_stopped(place: &Place, options: SummaryOptions) -> Result<Summary, Failed> {
    let (hops, now) = (place.hop_names(), clock::wall_micros());
    let mut tally = Tally::default();
    stopped::for_each(&place.spool, |subject, parts| {
        tally.add(subject, parts.iter().copied(), &hops, options, now);
        Ok(())
    })??;
    Ok(tally.finish(options, Vec::new()))
}

fn print(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    summary.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))?;
    let totals = &summary.totals;
    if totals.messages == 0 {
        return writeln!(out, "The queue is empty.");
    }
    writeln!(out, "{} messages, {} bytes, {} recipients", totals.messages, totals.octets, totals.recipients)?;
    writeln!(
        out,
        "recipients: {} queued, {} deferred, {} held; messages set aside as damaged: {}",
        totals.queued, totals.deferred, totals.held, totals.messages_damaged
    )?;
    writeln!(out, "oldest: {}\n", clock::mail_date(totals.oldest_micros))?;
    print_hops(out, summary)?;
    print_shape(out, summary)
}

fn print_hops(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    writeln!(
        out,
        "{:>10}  {:>10}  {:>10}  {:<31}  Next hop",
        "Recipients", "Deferred", "Held", "Oldest (UTC)"
    )?;
    for HopRow { next_hop, recipients, deferred, held, oldest_micros, down } in &summary.next_hops {
        let oldest = clock::mail_date(*oldest_micros);
        writeln!(out, "{recipients:>10}  {deferred:>10}  {held:>10}  {oldest}  {next_hop}")?;
        if let Some(down) = down {
            let state = if down.is_slow { "slow" } else { "down" };
            let since = clock::mail_date(down.since_micros);
            writeln!(out, "{:>36}{state} since {since}: {}", "", down.reason)?;
        }
    }
    cut(out, summary.next_hops.len(), summary.next_hops_total)
}

/// As `qshape` prints it: one row a domain, the columns are ages in minutes.
fn print_shape(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let by = if summary.senders { "messages by sender domain" } else { "recipients by domain" };
    writeln!(out, "\n{by} and age in minutes\n")?;
    let names = summary.domains.iter().map(|row| row.domain.chars().count());
    let wide = names.max().unwrap_or(0).max("TOTAL".len());
    let digits = |n: u64| n.to_string().len();
    let column = digits(summary.all.total).max(4);
    write!(out, "{:>wide$} {:>column$}", "", "T")?;
    AGES_MINUTES.iter().try_for_each(|minutes| write!(out, " {minutes:>column$}"))?;
    let rest = format!("{}+", AGES_MINUTES[AGES_MINUTES.len() - 1]);
    writeln!(out, " {rest:>0$}", column.max(rest.len()))?;
    for ShapeRow { domain, total, ages } in std::iter::once(&summary.all).chain(&summary.domains) {
        write!(out, "{domain:>wide$} {total:>column$}")?;
        let (last, others) = ages.split_last().expect("there are columns");
        others.iter().try_for_each(|count| write!(out, " {count:>column$}"))?;
        writeln!(out, " {last:>0$}", column.max(rest.len()))?;
    }
    cut(out, summary.domains.len(), summary.domains_total)
}

fn cut(out: &mut impl Write, shown: usize, total: usize) -> io::Result<()> {
    match total - shown {
        0 => Ok(()),
        more => writeln!(out, "… and {more} more; --limit shows more rows"),
    }
}
