//! The message of a session on its way into the spool: room for it before 354, or before the first chunk, its octets while they come,
//! its commit at end-of-data.
//!
//! Lives on one ingest shard with the task of the session. A draft that is dropped leaves nothing behind.

use super::SessionTask;
use super::cut_through::Offered;
use crate::clock;
use crate::cut_through::Ended;
use crate::intake::IngestShard;
use crate::intake::cut_through::log_tried;
use crate::intake::shares::{Share, bound};
use crate::observe::{line, log};
use crate::session::Refusal;
use crate::space::Level;
use futures_lite::FutureExt as _;
use futures_lite::future::poll_once;
use sluice_queue::{CommitError, ContentFlags, Draft, Envelope, QueueId, Reservation, Stored};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Reserved for a message without SIZE while there is plenty of room: most of them are smaller.
const UNDECLARED_BYTES: u64 = 256 * 1024;
/// More than the Received field that comes before the content.
const TRACE_BYTES: u64 = 2 * 1024;
/// How long a client whose message outgrew its reservation waits for room; below the three minutes that
/// clients wait for a block of content to be taken (RFC 5321 section 4.5.3.2.5).
const ROOM_WAIT: Duration = Duration::from_secs(60);
const ROOM_LOOK: Duration = Duration::from_millis(250);

impl SessionTask<'_> {
    pub(super) async fn open(&mut self) {
        match self.reserve().await {
            Ok((room, share)) => {
                self.share = Some(share);
                let now = clock::wall_micros();
                let draft = self.shard.spool.begin_reserved(now, room);
                let trace = self.session.opened(draft.id(), &clock::mail_date_cached(now), &mut self.out);
                self.draft = Some(draft);
                self.append(&trace).await;
            }
            Err(why) => self.session.open_failed(why, &mut self.out),
        }
    }

    /// Room for the whole message before it is let in: what SIZE says; without it a first part while there
    /// is plenty, and as much as a message may have while there is not.
    async fn reserve(&self) -> Result<(Reservation, Share), Refusal> {
        let shard = self.shard;
        self.spend().await?;
        let level = shard.space.level();
        if level > Level::Open {
            glommio::timer::sleep(shard.space.delay()).await;
        }
        if level == Level::Full {
            return Err(Refusal::NoSpace);
        }
        let limit = self.session.context().limits.message_bytes_max;
        let content = match self.session.declared_size() {
            Some(size) => size,
            None if level == Level::Open => UNDECLARED_BYTES,
            None => limit,
        };
        let content = content.min(limit) + TRACE_BYTES;
        let share = shard.shares.take(self.session.client(), content, self.share_bound());
        let share = share.ok_or(Refusal::NoSpace)?;
        let mut reserving = pin!(shard.spool.reserve(content, self.session.envelope_octets()));
        let reserved = match poll_once(&mut reserving).await {
            Some(reserved) => reserved,
            // A segment is being created.
            None => {
                let bound = async {
                    glommio::timer::sleep(shard.config.spool.write_wait).await;
                    None
                };
                match async { Some(reserving.await) }.or(bound).await {
                    Some(reserved) => reserved,
                    None => return Err(Refusal::Storage),
                }
            }
        };
        let reserved = reserved.map_err(|error| self.storage_failed(&error))?;
        Ok((reserved, share))
    }

    /// What this client may hold of the room on this shard.
    fn share_bound(&self) -> u64 {
        bound(self.shard.space.room(), self.shard.links.ingest.len())
    }

    pub(super) async fn append(&mut self, octets: &[u8]) {
        let Some(mut draft) = self.draft.take() else { return };
        let needed = draft.bytes() + octets.len() as u64;
        if needed > draft.promised()
            && let Err(why) = self.extend(&mut draft, needed).await
        {
            return self.lose(why);
        }
        if draft.append_now(octets) {
            self.draft = Some(draft);
            return;
        }
        match self.unless_it_hangs(self.shard.spool.append(&mut draft, octets)).await {
            Ok(Ok(())) => self.draft = Some(draft),
            Ok(Err(error)) => {
                let why = self.storage_failed(&error);
                self.lose(why);
            }
            Err(why) => self.lose(why),
        }
    }

    /// The draft is gone; the session swallows the rest.
    fn lose(&mut self, why: Refusal) {
        self.lost = why;
        self.session.content_lost(why, &mut self.out);
    }

    /// More than was reserved arrives: reserves ahead of it. Where there is no room the client waits, as
    /// nothing is read from it meanwhile; deliveries may make some.
    async fn extend(&mut self, draft: &mut Draft, needed: u64) -> Result<(), Refusal> {
        let shard = self.shard;
        let limit = self.session.context().limits.message_bytes_max + TRACE_BYTES;
        let ahead = if shard.space.level() == Level::Open { (2 * needed).min(limit) } else { limit };
        let deadline = clock::monotonic_millis() + ROOM_WAIT.as_millis() as u64;
        loop {
            let mut extended = self.extend_within_share(draft, ahead.max(needed)).await;
            if extended == Err(CommitError::Full) {
                extended = self.extend_within_share(draft, needed).await;
            }
            match extended {
                Ok(()) => return Ok(()),
                Err(CommitError::Full)
                    if clock::monotonic_millis() < deadline && !shard.stop.is_stopped() =>
                {
                    glommio::timer::sleep(ROOM_LOOK).await;
                }
                Err(error) => return Err(self.storage_failed(&error)),
            }
        }
    }

    async fn extend_within_share(&mut self, draft: &mut Draft, octets: u64) -> Result<(), CommitError> {
        let bound = self.share_bound();
        if !self.share.as_mut().is_none_or(|share| share.grow(octets, bound)) {
            return Err(CommitError::Full);
        }
        self.shard.spool.extend(draft, octets).await
    }

    /// What the spool's answer is, or that the device hangs.
    async fn unless_it_hangs<T>(&self, work: impl Future<Output = T>) -> Result<T, Refusal> {
        let hang = self.shard.hang.borrow().clone();
        let place = hang.place();
        let mut work = pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if place.poll_stopped(context) => Poll::Ready(Err(Refusal::Storage)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// `is_last`: nothing that the client has sent follows, so its reply can go.
    pub(super) async fn commit(&mut self, is_last: bool) -> io::Result<()> {
        // Replies to commands that came before must not wait for the disk.
        self.flush().await?;
        let envelope = self.session.take_envelope(clock::wall_micros());
        let findings = self.session.findings();
        let flags = ContentFlags { eight_bit: self.session.is_eight_bit(), dot_lines: findings.dot_lines };
        // Until it is durable: so long the room is promised.
        let _share = self.share.take();
        let Some(draft) = self.draft.take() else {
            self.session.committed(Err(self.lost), &mut self.out);
            return Ok(());
        };
        let envelope = Arc::new(envelope);
        let id = draft.id();
        let unfinished = match self.offer(&draft, &envelope, flags).await {
            Offered::Taken(ended) => {
                self.log_accepted(id, &envelope, draft.bytes());
                self.shard.counters.messages_cut_through_total.add(1);
                if let Ended::Tried(tried) = &ended {
                    log_tried(id, &envelope, tried);
                }
                self.session.committed(Ok(()), &mut self.out);
                return Ok(());
            }
            Offered::Refused(said) => {
                self.shard.counters.messages_cut_through_refused_total.add(1);
                self.session.refused_by_next_hop(&said, &envelope, &mut self.out);
                return Ok(());
            }
            Offered::Queue(unfinished) => unfinished,
        };
        self.shard.steering.arrives(id);
        let committing = self.shard.spool.commit(draft, envelope.clone(), flags);
        match self.unless_it_hangs(committing).await {
            Ok(Ok(stored)) => {
                self.log_accepted(stored.id, &envelope, stored.content_bytes);
                if let Some(unfinished) = unfinished {
                    self.see_to(stored.id, &envelope, flags, unfinished);
                    self.session.committed(Ok(()), &mut self.out);
                } else {
                    let fresh = FreshMessage { shard: self.shard, stored, envelope, flags };
                    return self.reply_and_hand_over(fresh, is_last).await;
                }
            }
            Ok(Err(error)) => {
                self.shard.steering.has_arrived(id);
                let refusal = self.storage_failed(&error);
                self.session.committed(Err(refusal), &mut self.out);
            }
            // Should it become durable yet it is delivered, and no change of the queue sees it before that
            // (`IngestShard::claim`): the client may send it once more.
            Err(why) => {
                self.shard.counters.messages_failed_total.add(1);
                self.session.committed(Err(why), &mut self.out);
            }
        }
        Ok(())
    }

    /// The client waits, so it comes first; but a client that does not read holds nothing up.
    async fn reply_and_hand_over(&mut self, fresh: FreshMessage<'_>, is_last: bool) -> io::Result<()> {
        self.session.committed(Ok(()), &mut self.out);
        let mut reply = pin!(async { if is_last { self.flush().await } else { Ok(()) } });
        let replied = poll_once(&mut reply).await;
        drop(fresh);
        match replied {
            Some(replied) => replied,
            None => reply.await,
        }
    }

    fn log_accepted(&self, id: QueueId, envelope: &Envelope, octets: u64) {
        let counters = &self.shard.counters;
        counters.messages_accepted_total.add(1);
        counters.message_bytes_accepted_total.add(octets);
        let (tls, login, findings) = (self.session.tls(), self.session.login(), self.session.findings());
        log::write("ingest", |text| {
            line::accepted(text, id, envelope, octets);
            line::tls(text, tls);
            line::login(text, login);
            // What else was found would have been refused.
            line::repaired(text, findings.bare_cr, findings.bare_lf, findings.nul);
        });
    }

    fn storage_failed(&self, error: &CommitError) -> Refusal {
        self.shard.counters.messages_failed_total.add(1);
        log::note("ingest", &format!("error: a message was not stored: {error}"));
        refusal(error)
    }
}

/// A message that is durable, handed over when this is dropped: whatever becomes of its session.
struct FreshMessage<'a> {
    shard: &'a IngestShard,
    stored: Stored,
    envelope: Arc<Envelope>,
    flags: ContentFlags,
}

impl Drop for FreshMessage<'_> {
    fn drop(&mut self) {
        let content = self.stored.content.take();
        self.shard.hand_over_fresh(self.stored.id, &self.envelope, content, self.flags);
    }
}

fn refusal(error: &CommitError) -> Refusal {
    match error {
        CommitError::Full => Refusal::NoSpace,
        CommitError::Closed => Refusal::ShuttingDown,
        CommitError::Poisoned(_) | CommitError::TooLarge | CommitError::Broken => Refusal::Storage,
    }
}
