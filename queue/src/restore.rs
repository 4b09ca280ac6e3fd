//! Restoring: the messages of a copy of a spool are brought into another one, each once, however often it
//! is done, however it is interrupted, and whatever of them is here or was here before.
//!
//! Lives on the shard of the receiving spool. Whoever reads the copy gives its unfinished messages, in the
//! order of their ids:
//!
//! ```text
//! look ──▶ known: counted, nothing else
//!      └─▶ wanted: begin, octets…, end ──▶ piece ── full, or finish ──▶ one batch: messages and ancestry
//! unreadable: a gap ──────────────────────────▲
//! ```
//!
//! A piece is in flight alone, so pieces become durable in the order of ids; and the ancestry in a piece
//! speaks of nothing behind it. So after a crash everything up to what it says is in, and nothing behind.

use crate::ancestry::{Ancestry, Origin, Standing};
use crate::arrival::Arrival;
use crate::draft::Draft;
use crate::envelope::{Envelope, RecipientState};
use crate::error::CommitError;
use crate::id::QueueId;
use crate::lineage::Lineage;
use crate::pending::Group;
use crate::reading::{Message, Reason};
use crate::record::ContentFlags;
use crate::spool::Spool;
use crate::storage::Storage;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Messages of one batch. Prevents: a crash repeating much work.
const PIECE_MESSAGES_MAX: usize = 128;
/// Octets of a batch. Prevents: the relay's own commits waiting for it.
const PIECE_BYTES_MAX: usize = 512 << 10;

/// An unfinished message of a copy, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// In the spool that was copied.
    pub id: QueueId,
    /// Its origin is `None` unless it had come from yet another spool.
    pub envelope: Envelope,
    /// One per recipient, as the reasons.
    pub states: Vec<RecipientState>,
    pub reasons: Vec<Option<Reason>>,
    pub vias: Vec<(u32, Box<str>)>,
    pub content_bytes: u64,
    pub flags: ContentFlags,
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Self {
        Self {
            id: message.id,
            envelope: message.envelope,
            states: message.states,
            reasons: message.reasons,
            vias: message.vias,
            content_bytes: message.content_bytes,
            flags: message.flags,
        }
    }
}

/// Where a copy comes from, and how it is to be taken.
#[derive(Clone, Debug)]
pub struct Source {
    pub lineage: Lineage,
    /// What all spools of this relay know; one for each of their own lineages among it.
    pub known: Vec<Ancestry>,
    /// Ids that were open drafts at the instant of the copy.
    pub drafts: Vec<QueueId>,
    /// Lineages of this relay's own spools: nothing is learnt about them.
    pub own: BTreeSet<Lineage>,
    /// What was here and is finished is brought in again; what waits here is not.
    pub again: bool,
}

/// What is to be done about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Wanted,
    /// It waits here.
    Here,
    /// It was here and is finished, as far as anybody knows.
    Finished,
    /// It is so old that it may have been here.
    Doubtful,
    /// Ids must rise; this one did not.
    Disorder,
}

/// What became of the messages of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    pub restored: u64,
    /// Octets of content of them.
    pub restored_bytes: u64,
    pub here: u64,
    pub finished: u64,
    pub doubtful: u64,
    /// Could not be read from the copy.
    pub damaged: u64,
    /// Do not fit into this spool.
    pub refused: u64,
}

/// A message that came in: its id here, and the one it has in the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub id: QueueId,
    pub from: QueueId,
}

/// The restoring of one spool's copy into a spool.
pub struct Restore<S: Storage> {
    spool: Spool<S>,
    source: Source,
    arriving: Option<(Incoming, Draft)>,
    piece: Vec<Group>,
    piece_of: Vec<(Restored, u64)>,
    piece_bytes: usize,
    /// The last message that was looked at.
    through: Option<QueueId>,
    gaps: BTreeSet<QueueId>,
    /// A piece was lost: what is behind it must not be taken for the whole.
    broken: bool,
    brought: Brought,
}

impl<S: Storage> Restore<S> {
    pub fn new(spool: Spool<S>, source: Source) -> Self {
        let gaps = source.drafts.iter().copied().collect();
        Self {
            spool,
            source,
            arriving: None,
            piece: Vec::new(),
            piece_of: Vec::new(),
            piece_bytes: 0,
            through: None,
            gaps,
            broken: false,
            brought: Brought::default(),
        }
    }

    /// So far; what waits in a piece is not among it.
    pub fn brought(&self) -> Brought {
        self.brought
    }

    /// Counts a message of the copy and says what is to be done about it. `origin` is that of its envelope.
    pub fn look(&mut self, id: QueueId, origin: Option<Origin>) -> Look {
        if self.through.is_some_and(|through| id <= through) {
            return Look::Disorder;
        }
        let look = self.judge(id, origin);
        if look != Look::Wanted {
            self.pass(id);
        }
        match look {
            Look::Here => self.brought.here += 1,
            Look::Finished => self.brought.finished += 1,
            Look::Doubtful => self.brought.doubtful += 1,
            Look::Wanted | Look::Disorder => {}
        }
        look
    }

    fn judge(&self, id: QueueId, origin: Option<Origin>) -> Look {
        let carrier = Origin { lineage: self.source.lineage, id };
        let first = origin.unwrap_or(carrier);
        if self.spool.holds(first).is_some() {
            return Look::Here;
        }
        if self.source.again {
            return Look::Wanted;
        }
        let standings =
            || self.source.known.iter().flat_map(|known| [known.standing(carrier), known.standing(first)]);
        if standings().any(|standing| standing == Standing::Known) {
            return Look::Finished;
        }
        // A doubt is about a lineage that nobody here has heard of.
        let heard = |known: &Ancestry| known.through(carrier.lineage).is_some();
        let doubtful = self.source.known.iter().any(|known| known.standing(carrier) == Standing::Doubtful);
        if doubtful && !self.source.known.iter().any(heard) { Look::Doubtful } else { Look::Wanted }
    }

    /// Everything up to `id` is dealt with.
    fn pass(&mut self, id: QueueId) {
        self.through = self.through.max(Some(id));
        self.gaps.remove(&id);
    }

    /// The message could not be read from the copy: another copy may have it whole.
    pub fn unreadable(&mut self, id: QueueId) {
        self.arriving = None;
        self.brought.damaged += 1;
        self.pass(id);
        self.gaps.insert(id);
    }

    /// Counts a message that is wanted as restored and does nothing else, to see what a restore would do.
    pub fn would(&mut self, id: QueueId) {
        self.brought.restored += 1;
        self.pass(id);
    }

    /// Begins a message that is wanted.
    pub fn begin(&mut self, incoming: Incoming, now_micros: u64) {
        let draft = self.spool.begin(now_micros);
        self.arriving = Some((incoming, draft));
    }

    /// Adds octets to the message that was begun.
    ///
    /// # Errors
    /// The spool takes no more for now, or at all: nothing of this message is in.
    pub async fn octets(&mut self, octets: &[u8]) -> Result<(), CommitError> {
        let Some((_, draft)) = &mut self.arriving else { return Ok(()) };
        let appended = self.spool.append(draft, octets).await;
        self.broken |= appended.is_err();
        appended
    }

    /// Ends the message that was begun; gives those that are durable by it.
    ///
    /// # Errors
    /// As [`Self::octets`]; besides, nothing of the piece is in. What came in before is.
    pub async fn end(&mut self) -> Result<Vec<Restored>, CommitError> {
        let Some((incoming, draft)) = self.arriving.take() else { return Ok(Vec::new()) };
        let (from, content_bytes) = (incoming.id, incoming.content_bytes);
        if draft.bytes() != content_bytes || !self.is_whole(&incoming) {
            self.unreadable(from);
            return Ok(Vec::new());
        }
        let id = draft.id();
        let mut envelope = incoming.envelope;
        envelope.origin.get_or_insert(Origin { lineage: self.source.lineage, id: from });
        let arrival = Arrival {
            draft,
            envelope: Arc::new(envelope),
            flags: incoming.flags,
            states: incoming.states,
            reasons: incoming.reasons,
            vias: incoming.vias,
        };
        let bytes_max = self.spool.arrival_bytes_max();
        let group = match arrival.group(bytes_max) {
            Ok(group) => group,
            Err(CommitError::TooLarge) => {
                self.brought.refused += 1;
                self.pass(from);
                self.gaps.insert(from);
                return Ok(Vec::new());
            }
            Err(error) => {
                self.broken = true;
                return Err(error);
            }
        };
        let bytes = group.payload_bytes().expect("it was reckoned before");
        let full = self.piece_bytes + bytes > bytes_max.min(PIECE_BYTES_MAX)
            || self.piece.len() == PIECE_MESSAGES_MAX;
        let done = if full { self.flush(&Ancestry::default()).await? } else { Vec::new() };
        self.piece_bytes += bytes;
        self.piece.push(group);
        self.piece_of.push((Restored { id, from }, content_bytes));
        self.pass(from);
        Ok(done)
    }

    fn is_whole(&self, incoming: &Incoming) -> bool {
        let recipients = incoming.envelope.recipients.len();
        recipients > 0
            && incoming.states.len() == recipients
            && incoming.reasons.len() == recipients
            && incoming.vias.iter().all(|(at, _)| (*at as usize) < recipients)
    }

    pub(crate) async fn flush(&mut self, inherited: &Ancestry) -> Result<Vec<Restored>, CommitError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(CommitError::Broken);
        }
        let mut learnt = inherited.clone();
        if let Some(through) = self.through {
            learnt.advance(self.source.lineage, through, self.gaps.iter().copied());
        }
        let learnt = learnt.without(&self.source.own);
        let (piece, of) = (std::mem::take(&mut self.piece), std::mem::take(&mut self.piece_of));
        self.piece_bytes = 0;
        self.spool.bring_in(piece, &learnt).await?;
        self.broken = false;
        self.brought.restored += of.len() as u64;
        self.brought.restored_bytes += of.iter().map(|(_, bytes)| bytes).sum::<u64>();
        Ok(of.into_iter().map(|(restored, _)| restored).collect())
    }

    /// Brings in what is left. The copy has nothing more up to `through`, and `inherited` is what it knew
    /// itself: all of that is in now, or finished.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub async fn finish(
        &mut self,
        through: QueueId,
        inherited: &Ancestry,
    ) -> Result<Vec<Restored>, CommitError> {
        self.arriving = None;
        self.through = self.through.max(Some(through));
        self.flush(inherited).await
    }
}
