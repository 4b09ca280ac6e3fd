//! What a delivery shard reports: recorded in the spool, and told to the sender where that is due.
//!
//! A DSN and the outcomes that it tells of are committed in one batch, both or neither: after a crash
//! there is never a bounced recipient without its DSN nor a second DSN for the same recipient.

use super::{IngestShard, ShardSpool};
use crate::clock;
use crate::delivery::verdict::Status;
use crate::dsn::{self, Action, Dsn, ReportedRecipient, To};
use crate::observe::{line, log};
use crate::schedule::retry;
use crate::shard::links::{Disposition, Fate, Report};
use sluice_queue::{
    ByMode, CommitError, ContentFlags, Draft, Message, Outcome, OutcomeKind, QueueId, Recipient, Ret,
};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A DSN that the spool could not take is tried again after this.
const DSN_AGAIN: Duration = Duration::from_secs(30);
/// Octets read at a time of a message that is returned whole.
const READ_BYTES: usize = 256 * 1024;

/// Records a report. A DSN takes time and becomes a task.
pub fn apply_report(shard: &Rc<IngestShard>, report: Report) {
    let Some(spool) = shard.spool_of(report.id).cloned() else { return };
    let now = clock::wall_micros();
    if report.fates.iter().any(is_told) {
        let shard = shard.clone();
        let id = report.id;
        // Nothing may be steered of what is decided and only waits for its DSN.
        let decided: Vec<u32> =
            report.fates.iter().filter(|fate| is_final(fate)).map(|fate| fate.recipient).collect();
        shard.steering.begin_telling(id, decided.iter().copied());
        glommio::spawn_local(async move {
            tell(&shard, &spool, report, now, Has::None).await;
            shard.steering.end_telling(id, decided.into_iter());
        })
        .detach();
    } else {
        record(shard, &spool, &report, now);
    }
}

/// Written with the next batch, or after the next tick.
fn record(shard: &IngestShard, spool: &ShardSpool, report: &Report, now: u64) {
    spool.record(report.id, outcomes(&report.fates, now));
    shard.stirred.raise();
}

/// The sender hears of it, if there is one, unless NOTIFY says otherwise.
fn is_told(fate: &Fate) -> bool {
    match fate.disposition {
        Disposition::Delivered => false,
        Disposition::Deferred { notice, .. } => notice,
        Disposition::Relayed | Disposition::Bounced | Disposition::Expired => true,
    }
}

/// Whether the sender wants to hear of it (RFC 3461 section 4.1); without NOTIFY, of failures and delays.
fn is_wanted(recipient: &Recipient, disposition: Disposition) -> bool {
    let Some(notify) = recipient.notify() else { return true };
    match disposition {
        Disposition::Delivered => false,
        // Also what a deadline asks for (RFC 2852).
        Disposition::Relayed => !notify.is_never(),
        Disposition::Deferred { .. } => notify.delay,
        Disposition::Bounced | Disposition::Expired => notify.failure,
    }
}

fn is_final(fate: &Fate) -> bool {
    !matches!(fate.disposition, Disposition::Deferred { .. })
}

/// Recipients, each with its attempts, that an administrator returns to the sender: in these words, or in
/// the usual ones.
pub fn returned(shard: &IngestShard, id: QueueId, recipients: &[(u32, u16)], words: &str) -> Report {
    let text = match words {
        "" => format!("the administrator of {} has returned this message", shard.config.hostname),
        words => format!("the administrator of {} has returned this message: {words}", shard.config.hostname),
    };
    let fate = |&(recipient, attempts): &(u32, u16)| Fate {
        recipient,
        attempts,
        disposition: Disposition::Bounced,
        dsn: Status::RETURNED.to_string(),
        text: text.clone(),
        reply: None,
        remote: String::new(),
    };
    Report { id, fates: recipients.iter().map(fate).collect() }
}

fn outcomes(fates: &[Fate], now: u64) -> Vec<Outcome> {
    fates
        .iter()
        .map(|fate| {
            let (kind, notified) = match fate.disposition {
                Disposition::Delivered | Disposition::Relayed => (OutcomeKind::Delivered, false),
                Disposition::Deferred { notified, .. } => (OutcomeKind::Deferred, notified),
                Disposition::Bounced => (OutcomeKind::Bounced, false),
                Disposition::Expired => (OutcomeKind::Expired, false),
            };
            // Of a delivered recipient nobody asks why.
            let text = if kind == OutcomeKind::Delivered { String::new() } else { fate.text.clone() };
            Outcome {
                recipient: fate.recipient,
                kind,
                attempts: fate.attempts,
                notified,
                at_micros: now,
                text,
            }
        })
        .collect()
}

/// Whether the caller has the shard's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    Turn,
    None,
}

/// Makes the DSN and commits it with the outcomes; tries again while the spool has no room. About a notification that
/// could not be delivered itself it is a notice to the postmaster, where that is wished, and else a line in the log.
pub async fn tell(shard: &IngestShard, spool: &ShardSpool, report: Report, now: u64, has: Has) {
    let message = match spool.load(report.id).await {
        Ok(message) => message,
        Err(error) => {
            log::note("ingest", &format!("{}: error: no DSN, cannot be read: {error}", report.id));
            return record(shard, spool, &report, now);
        }
    };
    let whole = wants_whole(shard, &message, &report);
    let header = match whole {
        true => read_whole(spool, &message).await,
        false => spool.read(report.id, 0, dsn::HEADER_BYTES_MAX).await.unwrap_or_default(),
    };
    let whole = whole && header.len() as u64 == message.content_bytes;
    let returned = (&header[..], whole);
    let made = match message.envelope.sender.is_empty() {
        true => after_a_notification(shard, &message, &report, returned, now),
        false => compose(shard, &message, &report, returned, now, To::Sender),
    };
    let Some(dsn) = made else {
        record(shard, spool, &report, now);
        return copy_to_postmaster(shard, spool, &message, &report, &header, now, has).await;
    };
    loop {
        match commit(shard, spool, &dsn, &report, now, has).await {
            Ok(id) => {
                hand_over(shard, id, dsn, Some(report.id));
                break;
            }
            Err(CommitError::Full) => glommio::timer::sleep(DSN_AGAIN).await,
            // The spool takes nothing until a restart, which finds the message unfinished.
            Err(error) => return log::note("ingest", &format!("{}: error: no DSN: {error}", report.id)),
        }
    }
    copy_to_postmaster(shard, spool, &message, &report, &header, now, has).await;
}

/// A notification failed: it is discarded, and the postmaster may hear of it.
fn after_a_notification(
    shard: &IngestShard,
    message: &Message,
    report: &Report,
    returned: (&[u8], bool),
    now: u64,
) -> Option<Dsn> {
    let failed = report.fates.iter().any(is_failure);
    if failed {
        let what = match message.envelope.listener == dsn::NOTICE {
            true => "postmaster notice",
            false => "notification",
        };
        log::note("ingest", &format!("{}: undeliverable {what} discarded", report.id));
        shard.counters.notifications_discarded_total.add(1);
    }
    let tells = failed && shard.config.dsn.notify.double_bounce && message.envelope.listener != dsn::NOTICE;
    (tells && shard.may_notify(now))
        .then(|| compose(shard, message, report, returned, now, To::Postmaster(DOUBLE_BOUNCE)))
        .flatten()
}

/// What the sender was told, or did not want to be told, for the postmaster.
async fn copy_to_postmaster(
    shard: &IngestShard,
    spool: &ShardSpool,
    message: &Message,
    report: &Report,
    header: &[u8],
    now: u64,
    has: Has,
) {
    let notify = &shard.config.dsn.notify;
    let failed = report.fates.iter().any(is_failure);
    let delayed = report
        .fates
        .iter()
        .any(|fate| matches!(fate.disposition, Disposition::Deferred { notice: true, .. }));
    let what = match (failed && notify.bounce, delayed && notify.delay) {
        (true, _) => BOUNCE,
        (false, true) => DELAY,
        (false, false) => return,
    };
    if message.envelope.sender.is_empty() || has == Has::Turn || !shard.may_notify(now) {
        return;
    }
    if let Some(notice) = compose(shard, message, report, (header, false), now, To::Postmaster(what)) {
        super::notices::accept(shard, spool, notice, now).await;
    }
}

const BOUNCE: &str = "a message could not be delivered";
const DELAY: &str = "a message is delayed";
const DOUBLE_BOUNCE: &str = "a notification could not be delivered and was discarded";

fn is_failure(fate: &Fate) -> bool {
    matches!(fate.disposition, Disposition::Bounced | Disposition::Expired)
}

/// Whether the whole message is to be returned, which is about failures only (RFC 3461 section 4.3).
fn wants_whole(shard: &IngestShard, message: &Message, report: &Report) -> bool {
    let asked = message.envelope.parameters.as_ref().and_then(|of| of.ret);
    let full = asked.map_or(shard.config.dsn.full, |ret| ret == Ret::Full);
    full && message.content_bytes <= shard.config.dsn.full_bytes_max && report.fates.iter().any(is_failure)
}

/// As far as it can be read.
async fn read_whole(spool: &ShardSpool, message: &Message) -> Vec<u8> {
    let mut content = Vec::with_capacity(message.content_bytes as usize);
    while (content.len() as u64) < message.content_bytes {
        match spool.read_loaded(message, content.len() as u64, READ_BYTES).await {
            Ok(more) if !more.is_empty() => content.extend_from_slice(&more),
            _ => break,
        }
    }
    content
}

async fn commit(
    shard: &IngestShard,
    spool: &ShardSpool,
    dsn: &Dsn,
    report: &Report,
    now: u64,
    has: Has,
) -> Result<QueueId, CommitError> {
    // A move must not pass between the id of the DSN and its commit.
    let _turn = match has == Has::None && shard.unmoved.is_emptied(spool.number()) {
        true => Some(shard.turn.take().await),
        false => None,
    };
    let draft = spool.begin(now);
    let id = draft.id();
    shard.steering.arrives(id);
    let committed = commit_draft(spool, draft, dsn, report, now).await;
    if committed.is_err() {
        shard.steering.has_arrived(id);
    }
    committed.map(|()| id)
}

async fn commit_draft(
    spool: &ShardSpool,
    mut draft: Draft,
    dsn: &Dsn,
    report: &Report,
    now: u64,
) -> Result<(), CommitError> {
    spool.append(&mut draft, &dsn.content).await?;
    let finishing = (report.id, outcomes(&report.fates, now));
    spool.commit_with(draft, Arc::new(dsn.envelope.clone()), flags(&dsn.content), finishing).await?;
    Ok(())
}

pub(super) fn flags(content: &[u8]) -> ContentFlags {
    let dot_lines = content.first() == Some(&b'.') || memchr::memmem::find(content, b"\n.").is_some();
    ContentFlags { eight_bit: !content.is_ascii(), dot_lines }
}

/// `about`: the message that it tells of, where there is one.
pub(super) fn hand_over(shard: &IngestShard, id: QueueId, dsn: Dsn, about: Option<QueueId>) {
    shard.counters.dsns_total.add(1);
    let octets = dsn.content.len() as u64;
    match about {
        Some(about) if dsn.envelope.listener == dsn::NOTICE => {
            log::note("ingest", &format!("{about}: postmaster notification: {id}"));
        }
        Some(about) => log::note("ingest", &format!("{about}: sender notification: {id}")),
        None => log::note("ingest", &format!("{id}: postmaster notification")),
    }
    log::write("ingest", |text| line::accepted(text, id, &dsn.envelope, octets));
    if shard.unmoved.contains(id) {
        // It is handed over when it has moved.
        return shard.steering.has_arrived(id);
    }
    let flags = flags(&dsn.content);
    shard.hand_over_fresh(id, &Arc::new(dsn.envelope), Some(Arc::new(dsn.content)), flags);
}

/// A host for `Remote-MTA: dns;`: a name, or an address literal (RFC 3464 section 2.3.5).
fn host_name(remote: &str) -> Option<String> {
    match remote.parse() {
        Ok(IpAddr::V4(_)) => Some(format!("[{remote}]")),
        Ok(IpAddr::V6(_)) => Some(format!("[IPv6:{remote}]")),
        Err(_) => (!remote.is_empty()).then(|| remote.to_owned()),
    }
}

/// The DSN about those recipients of a report that the sender hears of; `None` for a null reverse-path.
fn compose(
    shard: &IngestShard,
    message: &Message,
    report: &Report,
    (header, whole): (&[u8], bool),
    now: u64,
    to: To<'_>,
) -> Option<Dsn> {
    let date = clock::mail_date(now);
    let retry = &shard.config.retry;
    let schedule = message.envelope.schedule();
    let began = message.envelope.arrived_micros.max(schedule.release_micros.unwrap_or(0));
    let returns = schedule.deliver_by.filter(|by| by.mode == ByMode::Return);
    let ends = retry::expires_micros(retry, began);
    let until = clock::mail_date(returns.map_or(ends, |by| ends.min(by.deadline_micros)));
    let expired = Status::EXPIRED.to_string();
    let wanted = |fate: &&Fate| {
        let recipient = message.envelope.recipients.get(fate.recipient as usize);
        let wanted = |recipient: &Recipient| to != To::Sender || is_wanted(recipient, fate.disposition);
        is_told(fate) && recipient.is_some_and(wanted)
    };
    let told: Vec<&Fate> = report.fates.iter().filter(wanted).collect();
    let remotes: Vec<Option<String>> = told.iter().map(|fate| host_name(&fate.remote)).collect();
    let recipients: Vec<_> = told
        .iter()
        .enumerate()
        .filter_map(|(index, fate)| {
            let recipient = message.envelope.recipients.get(fate.recipient as usize)?;
            let address = &recipient.address;
            let (action, status) = match fate.disposition {
                Disposition::Bounced => (Action::Bounced, &fate.dsn),
                Disposition::Expired => (Action::Expired, &expired),
                Disposition::Relayed => (Action::Relayed, &fate.dsn),
                _ => (Action::Delayed { until_date: &until }, &fate.dsn),
            };
            Some(ReportedRecipient {
                address,
                orcpt: recipient.parameters.as_ref().map_or("", |of| &of.orcpt),
                action,
                status,
                text: &fate.text,
                reply: fate.reply.as_deref(),
                remote: remotes[index].as_deref(),
                last_attempt_date: Some(&date),
            })
        })
        .collect();
    dsn::compose(&dsn::Report {
        hostname: &shard.config.hostname,
        postmaster: &shard.config.postmaster,
        queue_id: &report.id.to_string(),
        original: &message.envelope,
        to,
        texts: &shard.config.dsn.texts,
        header,
        whole,
        arrival_date: &clock::mail_date(message.envelope.arrived_micros),
        date: &date,
        now_micros: now,
        recipients: &recipients,
    })
}
