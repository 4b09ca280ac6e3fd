//! The ingest shard's part: gives messages out and keeps what is reported of them.

use crate::channel::Receiver;
use crate::clock::wall_micros;
use crate::shard::links::{Disposition, Fate, Loaded, Report, ToIngest};
use sluice_queue::{ContentFlags, Envelope, QueueId, Recipient, RecipientState, RecipientStatus};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

const CONTENT: &[u8] = b"Subject: simulation\r\n\r\nhello\r\n";

#[derive(Default)]
pub struct Book {
    pub messages: RefCell<BTreeMap<QueueId, Entry>>,
    /// Recipients that are not finished.
    open: Cell<usize>,
}

pub struct Entry {
    envelope: Arc<Envelope>,
    pub recipients: Vec<Kept>,
}

/// What is known of one recipient.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub end: Option<(Ended, u64)>,
    /// Attempts that were burnt.
    pub attempts: u16,
    /// When it was reported to wait, and whether the sender was told, by the age of the message.
    pub deferred: Vec<(u64, bool)>,
    /// Status and words of the last report.
    pub last: (String, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Delivered,
    Bounced,
    Expired,
    Held,
}

impl Book {
    pub fn enter(&self, id: QueueId, addresses: &[String], arrived_micros: u64) {
        let envelope = Envelope {
            sender: "sender@inside.test".into(),
            recipients: addresses.iter().map(Recipient::new).collect(),
            arrived_micros,
            ..Envelope::default()
        };
        let recipients = vec![Kept::default(); addresses.len()];
        self.open.set(self.open.get() + addresses.len());
        self.messages.borrow_mut().insert(id, Entry { envelope: Arc::new(envelope), recipients });
    }

    pub fn is_over(&self) -> bool {
        self.open.get() == 0
    }

    /// Every recipient, with the age of its message when it ended.
    pub fn all(&self) -> Vec<Kept> {
        self.messages.borrow().values().flat_map(|entry| entry.recipients.clone()).collect()
    }

    pub fn count(&self, ended: Ended) -> usize {
        self.all().iter().filter(|kept| kept.end.is_some_and(|(end, _)| end == ended)).count()
    }

    pub async fn keep(self: Rc<Self>, mut inbox: Receiver<ToIngest>) {
        loop {
            match inbox.receive().await {
                ToIngest::Load { id, content, reply } => drop(reply.send(Ok(self.load(id, content)))),
                ToIngest::Read { reply, .. } => drop(reply.send(Err("there is no more".into()))),
                ToIngest::Report(Report { id, fates }) => {
                    fates.into_iter().for_each(|fate| self.note(id, fate));
                }
                ToIngest::HoldFaulty { id, recipients } => {
                    recipients.into_iter().for_each(|index| self.end(id, index, Ended::Held));
                }
                _ => {}
            }
        }
    }

    fn load(&self, id: QueueId, content: bool) -> Loaded {
        let messages = self.messages.borrow();
        let entry = &messages[&id];
        Loaded {
            envelope: entry.envelope.clone(),
            states: entry
                .recipients
                .iter()
                .map(|kept| match kept.end {
                    None => RecipientState::NEW,
                    Some(_) => RecipientState { status: RecipientStatus::Delivered, ..RecipientState::NEW },
                })
                .collect(),
            content_bytes: CONTENT.len() as u64,
            flags: ContentFlags::default(),
            head: if content { CONTENT.to_vec() } else { Vec::new() },
        }
    }

    fn end(&self, id: QueueId, index: u32, ended: Ended) {
        let mut messages = self.messages.borrow_mut();
        let entry = messages.get_mut(&id).expect("a message that was handed over");
        let age = wall_micros() - entry.envelope.arrived_micros;
        let kept = &mut entry.recipients[index as usize];
        assert_eq!(kept.end, None, "{id} ends once");
        kept.end = Some((ended, age));
        self.open.set(self.open.get() - 1);
    }

    fn note(&self, id: QueueId, fate: Fate) {
        let ended = match fate.disposition {
            Disposition::Delivered | Disposition::Relayed => Some(Ended::Delivered),
            Disposition::Bounced => Some(Ended::Bounced),
            Disposition::Expired => Some(Ended::Expired),
            Disposition::Deferred { .. } => None,
        };
        if let Some(entry) = self.messages.borrow_mut().get_mut(&id) {
            let age = wall_micros() - entry.envelope.arrived_micros;
            let kept = &mut entry.recipients[fate.recipient as usize];
            kept.attempts = fate.attempts;
            kept.last = (fate.dsn, fate.text);
            if let Disposition::Deferred { notice, .. } = fate.disposition {
                kept.deferred.push((age, notice));
            }
        }
        if let Some(ended) = ended {
            self.end(id, fate.recipient, ended);
        }
    }
}
