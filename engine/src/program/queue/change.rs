//! `sluice queue hold`, `release`, `retry`, `reroute`, `bounce`, `delete`: sent to the running relay, and
//! what it answers in one line.

use super::{Place, parse, unreachable_relay};
use crate::admin::client::{self, Answered};
use crate::program::{Failed, IO_ERROR, NO_INPUT, UNAVAILABLE, closed_pipe};
use crate::steering::{Answer, Count, Request};
use std::io::{self, Write};

/// Asks for a change and prints its counts. An id that is not in the queue is a failure, though the others
/// are changed.
pub fn change(place: &Place, request: &Request, json: bool) -> Result<(), Failed> {
    let body = serde_json::to_vec(request).expect("a request has a JSON form");
    let answer: Answer = match client::post(&place.spool, "/v1/queue/change", body) {
        Ok(Answered::Found(body)) => parse(&body)?,
        Ok(Answered::NotFound) => {
            return Err(Failed::new(
                UNAVAILABLE,
                "the running relay is of a version that cannot change its queue",
            ));
        }
        Ok(Answered::Refused(status, words)) => {
            return Err(Failed::new(IO_ERROR, format_args!("the relay answered {status}: {words}")));
        }
        Ok(Answered::NotRunning) => {
            let sentence = format!(
                "no relay is running on {}; a queue is changed by its relay: start it and try again",
                place.spool.display()
            );
            return Err(Failed::new(UNAVAILABLE, sentence));
        }
        Err(error) => return Err(unreachable_relay(&place.spool, &error)),
    };
    print(request, &answer, json).or_else(closed_pipe)?;
    if let Some(why) = &answer.failed {
        return Err(Failed::new(UNAVAILABLE, format_args!("not everything was changed: {why}")));
    }
    match answer.unknown.as_slice() {
        [] => Ok(()),
        [id] => Err(Failed::new(NO_INPUT, format_args!("no message {id} in the queue"))),
        [id, rest @ ..] => Err(Failed::new(
            NO_INPUT,
            format_args!("no message {id} in the queue, nor {} others asked for", rest.len()),
        )),
    }
}

#[derive(serde::Serialize)]
struct Told<'a> {
    action: &'a str,
    dry_run: bool,
    #[serde(flatten)]
    answer: &'a Answer,
}

fn print(request: &Request, answer: &Answer, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let action = request.action.word();
    if json {
        serde_json::to_writer(&mut out, &Told { action, dry_run: request.dry_run, answer })?;
        return writeln!(out);
    }
    if answer.matched == Count::default() {
        return writeln!(out, "{action}: no message matches");
    }
    let would = if request.dry_run { "would change" } else { "changed" };
    write!(out, "{action}: {} match; {} {would}", Shown(answer.matched), Shown(answer.changed))?;
    if answer.unchanged != Count::default() {
        write!(out, "; {} unchanged", Shown(answer.unchanged))?;
    }
    if answer.under_way != Count::default() {
        write!(out, "; {} under way, changed if not delivered now", Shown(answer.under_way))?;
    }
    writeln!(out)
}

struct Shown(Count);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Count { messages, recipients } = self.0;
        let s = |n: u64| if n == 1 { "" } else { "s" };
        write!(f, "{messages} message{} ({recipients} recipient{})", s(messages), s(recipients))
    }
}
