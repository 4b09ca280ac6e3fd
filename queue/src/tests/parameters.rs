//! What MAIL and RCPT asked for stays with the message: in the record, over a start by batches and by
//! indexes, when it is moved within its spool, into another one, and into a copy.

use super::harness::*;
use crate::parameters::{ByMode, DeliverBy, MailParameters, Notify, RcptParameters, Ret, Schedule};
use crate::*;
use futures_lite::future::{block_on, or, pending};
use std::sync::Arc;

fn all() -> MailParameters {
    MailParameters {
        ret: Some(Ret::Headers),
        envid: "QQ+3D314".into(),
        smtputf8: true,
        require_tls: true,
        schedule: Schedule {
            priority: -9,
            deliver_by: Some(DeliverBy { deadline_micros: NOW + 7, mode: ByMode::Return, trace: true }),
            release_micros: Some(NOW + 5),
        },
    }
}

fn asking(mail: Option<MailParameters>, rcpt: [Option<RcptParameters>; 3]) -> Arc<Envelope> {
    let mut envelope = Envelope::clone(&envelope(3));
    envelope.parameters = mail.map(Box::new);
    for (recipient, asked) in envelope.recipients.iter_mut().zip(rcpt) {
        recipient.parameters = asked.map(Box::new);
    }
    Arc::new(envelope)
}

pub fn envelopes() -> Vec<Arc<Envelope>> {
    let rcpt = |notify, orcpt: &str| Some(RcptParameters { notify, orcpt: orcpt.into() });
    let failure = Notify { failure: true, ..Notify::NEVER };
    let both = Notify { success: true, failure: true, delay: true };
    let only = |schedule| MailParameters { schedule, ..MailParameters::default() };
    let by = DeliverBy { deadline_micros: 1, mode: ByMode::Notify, trace: false };
    vec![
        asking(Some(all()), [rcpt(Some(both), "rfc822;a@b.example"), None, rcpt(None, "utf-8;\\x{FC}@b")]),
        asking(None, [rcpt(Some(Notify::NEVER), ""), rcpt(Some(failure), ""), None]),
        asking(None, [None, None, None]),
        asking(
            Some(MailParameters { ret: Some(Ret::Full), ..MailParameters::default() }),
            [None, None, None],
        ),
        asking(Some(MailParameters { smtputf8: true, ..MailParameters::default() }), [None, None, None]),
        asking(Some(only(Schedule { priority: 9, ..Schedule::default() })), [None, None, None]),
        asking(Some(only(Schedule { deliver_by: Some(by), ..Schedule::default() })), [None, None, None]),
        asking(Some(only(Schedule { release_micros: Some(9), ..Schedule::default() })), [None, None, None]),
    ]
}

pub async fn deliver_all<S: Storage>(spool: &Spool<S>) -> Vec<QueueId> {
    let mut ids = Vec::new();
    for envelope in envelopes() {
        let mut draft = spool.begin(NOW);
        spool.append(&mut draft, &content(1, 3000)).await.unwrap();
        ids.push(spool.commit(draft, envelope, ContentFlags::default()).await.unwrap().id);
    }
    ids
}

async fn are_whole<S: Storage>(spool: &Spool<S>, ids: &[QueueId]) {
    for (id, expected) in ids.iter().zip(envelopes()) {
        let expected = Envelope { origin: None, ..Envelope::clone(&expected) };
        let found = spool.load(*id).await.unwrap().envelope;
        assert_eq!(Envelope { origin: None, ..found }, expected);
        assert_eq!(spool.facts(*id, |facts| facts.schedule()), Some(expected.schedule()));
    }
}

#[test]
fn parameters_come_back_after_a_restart_and_a_move_within_the_spool() {
    let storage = MemoryStorage::new();
    let ids = opened(storage.clone(), small(), |spool, _| async move {
        let ids = deliver_all(&spool).await;
        are_whole(&spool, &ids).await;
        // What keeps a segment is moved out of it.
        for round in 0..100 {
            let id = deliver_in(&spool, &content(round, 6000), 1).await.unwrap().id;
            spool.record(id, delivered(1));
        }
        spool.sync().await.unwrap();
        let mut moved = 0;
        while let Compacted { messages, more: true, .. } = spool.compact_step().await.unwrap() {
            moved += messages;
        }
        assert_eq!(moved, ids.len());
        are_whole(&spool, &ids).await;
        spool.close().await.unwrap();
        ids
    });
    opened(storage, small(), |spool, recovery| async move {
        assert_eq!((recovery.unknown, &recovery.damages[..]), (0, &[][..]));
        are_whole(&spool, &ids).await;
        for id in &ids {
            spool.record(*id, delivered(3));
        }
        assert_eq!(spool.messages(), 0);
        assert_eq!(spool.facts(ids[0], |facts| facts.schedule()), None);
    });
}

#[test]
fn parameters_go_along_into_another_spool() {
    let (from, to) = (MemoryStorage::new(), MemoryStorage::new());
    let from = block_on(Spool::open(from, SpoolNumber::new(9).unwrap(), small())).unwrap().0;
    let to = block_on(Spool::open(to, number(), small())).unwrap().0;
    let writers = async {
        or(from.writer(), to.writer()).await;
        pending().await
    };
    let body = async {
        deliver_all(&from).await;
        let mut moving = Move::new(from.clone(), to.clone());
        let mut ids = Vec::new();
        loop {
            let moved = moving.step(NOW).await.unwrap();
            ids.extend(moved.moved.iter().map(|restored| restored.id));
            if !moved.more {
                break;
            }
        }
        are_whole(&to, &ids).await;
        assert_eq!(ids.len(), envelopes().len());
    };
    let other = async {
        to.writer().await;
        pending().await
    };
    block_on(or(or(writers, other), body));
}
