//! A message on its way out: its envelope, and its content piece by piece.
//!
//! The content is in memory when the message is fresh. Otherwise the ingest shard that has it in its
//! spool is asked, window by window, so that a large message never lies in memory as a whole. On a route that
//! rewrites, the header section is made anew before the transaction begins, so that its size is known; the envelope
//! stays beside it as the spool has it, for DSNs and the log.

use super::client::Rcpt;
use super::hop::Item;
use crate::clock::wall_micros;
use crate::config::Config;
use crate::rewrite::{Rules, header};
use crate::shard::links::{HeldContent, Links, ToIngest};
use crate::smtp::content::Framing;
use crate::smtp::stuffing::Stuffer;
use sluice_queue::{Body, ContentFlags, Envelope, QueueId, Recipient, RecipientState};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Octets written to the socket at a time.
const PIECE_BYTES: usize = 64 * 1024;

pub struct Message {
    pub id: QueueId,
    pub envelope: Arc<Envelope>,
    /// Of the content as it goes out.
    pub content_bytes: u64,
    /// Of the content as the spool has it.
    stored_bytes: u64,
    flags: ContentFlags,
    content: Content,
    /// As the route rewrites it.
    outgoing: Option<Box<Outgoing>>,
    links: Arc<Links>,
}

/// What goes out in place of what the spool has.
#[derive(Default)]
struct Outgoing {
    sender: Option<String>,
    recipients: HashMap<u32, Recipient>,
    /// Takes the place of the first `replaces` octets of the content.
    front: Vec<u8>,
    replaces: u64,
}

/// The header section that is looked at to rewrite it has at most this, or `limits.header_bytes_max`.
const HEADER_BYTES_MAX: u64 = 1024 * 1024;

enum Content {
    Held(HeldContent),
    /// The first window; the rest is asked for.
    Stored(Vec<u8>),
}

impl Message {
    /// The message of an item, from memory or from the spool. The states tell which recipients are
    /// finished; a fresh message has none.
    pub async fn of(item: &Item, links: &Arc<Links>) -> Result<(Self, Option<Vec<RecipientState>>), String> {
        Self::get(item, links, true).await
    }

    /// The same without content, for a message that is not to be sent now.
    pub async fn envelope_of(
        item: &Item,
        links: &Arc<Links>,
    ) -> Result<(Self, Option<Vec<RecipientState>>), String> {
        Self::get(item, links, false).await
    }

    async fn get(
        item: &Item,
        links: &Arc<Links>,
        content: bool,
    ) -> Result<(Self, Option<Vec<RecipientState>>), String> {
        if let Some(fresh) = item.luggage.fresh() {
            let message = Self {
                id: item.id,
                envelope: fresh.envelope.clone(),
                content_bytes: fresh.content.len() as u64,
                stored_bytes: fresh.content.len() as u64,
                flags: fresh.flags,
                content: Content::Held(fresh.content.clone()),
                outgoing: None,
                links: links.clone(),
            };
            return Ok((message, None));
        }
        let (reply, answer) = oneshot::channel();
        links.owner_of(item.id).send(ToIngest::Load { id: item.id, content, reply }).await;
        let loaded = answer.await.map_err(|_| "the ingest shard has stopped".to_string())??;
        let message = Self {
            id: item.id,
            envelope: loaded.envelope,
            content_bytes: loaded.content_bytes,
            stored_bytes: loaded.content_bytes,
            flags: loaded.flags,
            content: Content::Stored(loaded.head),
            outgoing: None,
            links: links.clone(),
        };
        Ok((message, Some(loaded.states)))
    }

    /// The envelope sender towards the next hop.
    pub fn sender(&self) -> &str {
        let other = self.outgoing.as_ref().and_then(|outgoing| outgoing.sender.as_deref());
        other.unwrap_or(&self.envelope.sender)
    }

    /// A recipient, by its index, as the next hop is told it.
    pub fn rcpt(&self, index: u32) -> Rcpt<'_> {
        let other = self.outgoing.as_ref().and_then(|outgoing| outgoing.recipients.get(&index));
        Rcpt::from(other.unwrap_or_else(|| &self.envelope.recipients[index as usize]))
    }

    /// Makes of the message what the route says, for these recipients: at least one, all of whom get the same
    /// envelope sender.
    ///
    /// # Errors
    /// The spool could not give the header section, or it is too long to be looked at.
    pub async fn rewrite(
        &mut self,
        rules: &Rules,
        recipients: &[u32],
        config: &Config,
    ) -> Result<(), String> {
        let envelope = self.envelope.clone();
        let of = |index: &u32| &envelope.recipients[*index as usize];
        let first = recipients.first().map_or("", |index| &of(index).address);
        let mut outgoing =
            Outgoing { sender: rules.sender(&envelope.sender, first, wall_micros()), ..Outgoing::default() };
        let changed = recipients.iter().filter_map(|index| Some((*index, rules.recipient(of(index))?)));
        outgoing.recipients.extend(changed);
        if rules.changes_header() {
            let bound = HEADER_BYTES_MAX.max(config.limits.header_bytes_max);
            let (front, end) = self.header_section(bound).await?;
            outgoing.front = header::rewritten(&front[..end], rules, &config.hostname);
            outgoing.replaces = end as u64;
            self.content_bytes = self.stored_bytes - outgoing.replaces + outgoing.front.len() as u64;
        }
        self.outgoing = Some(Box::new(outgoing));
        Ok(())
    }

    /// The content up to the end of the header section at least, and where that is.
    async fn header_section(&self, bound: u64) -> Result<(Cow<'_, [u8]>, usize), String> {
        let mut front = Cow::Borrowed(match &self.content {
            Content::Held(content) => &content[..],
            Content::Stored(head) => head,
        });
        loop {
            let is_all = front.len() as u64 >= self.stored_bytes;
            if let Some(header::End(end)) = header::end(&front, is_all) {
                return Ok((front, end));
            }
            if front.len() as u64 > bound {
                return Err(format!("its header section has more than {bound} octets, too many to rewrite"));
            }
            let more = self.read(front.len() as u64).await?;
            front.to_mut().extend_from_slice(&more);
        }
    }

    /// What the spool has from an offset on.
    async fn read(&self, offset: u64) -> Result<Vec<u8>, String> {
        let (reply, answer) = oneshot::channel();
        self.links.owner_of(self.id).send(ToIngest::Read { id: self.id, offset, reply }).await;
        let octets = answer.await.map_err(|_| "the ingest shard has stopped".to_string())??;
        match octets.is_empty() {
            true => Err(format!("the spool ended at octet {offset} of {}", self.stored_bytes)),
            false => Ok(octets),
        }
    }

    pub fn is_binary(&self) -> bool {
        self.envelope.body == Body::Binary
    }

    /// Whether there are octets above 127, whatever was declared.
    pub fn is_eight_bit(&self) -> bool {
        self.flags.eight_bit
    }

    /// Whether the header section has octets above 127 (RFC 6532); also when it is longer than what was read.
    pub fn header_is_utf8(&self) -> bool {
        let octets: &[u8] = match &self.content {
            Content::Held(content) => content,
            Content::Stored(head) => head,
        };
        let end = memchr::memmem::find(octets, b"\r\n\r\n");
        let header = &octets[..end.unwrap_or(octets.len())];
        self.flags.eight_bit
            && (!header.is_ascii() || (end.is_none() && (octets.len() as u64) < self.stored_bytes))
    }
}

/// The content in pieces; for DATA dot-stuffed where a line begins with a dot, with end-of-data at the end.
pub struct Pieces<'a> {
    message: &'a Message,
    window: Vec<u8>,
    /// Where the next piece begins, in the content and in the window.
    position: u64,
    in_window: usize,
    framing: Framing,
    /// DATA is to carry lines that begin with a dot.
    stuffs: bool,
    stuffer: Stuffer,
}

impl<'a> Pieces<'a> {
    pub fn new(message: &'a Message, framing: Framing) -> Self {
        let stuffs = framing == Framing::Dots && message.flags.dot_lines;
        let stuffer = Stuffer::default();
        Self { message, window: Vec::new(), position: 0, in_window: 0, framing, stuffs, stuffer }
    }

    /// Appends the next piece to `out`. False when that was the last, end-of-data included.
    pub async fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        if self.position == 0 {
            self.put_front(out);
        }
        if self.position < self.message.stored_bytes {
            let piece = self.piece().await?;
            if self.stuffs {
                let mut stuffer = std::mem::take(&mut self.stuffer);
                let piece = self.slice(piece);
                stuffer.stuff(piece).for_each(|range| out.extend_from_slice(&piece[range]));
                self.stuffer = stuffer;
            } else {
                out.extend_from_slice(self.slice(piece));
            }
            self.in_window += piece;
            self.position += piece as u64;
        }
        if self.position < self.message.stored_bytes {
            return Ok(true);
        }
        if self.framing == Framing::Dots {
            // All but binary content ends with CRLF; without lines to stuff the stuffer has not seen it.
            out.extend_from_slice(if self.stuffs { self.stuffer.finish() } else { b".\r\n" });
        }
        Ok(false)
    }

    /// What takes the place of the front of the content. No line of it begins with a dot.
    fn put_front(&mut self, out: &mut Vec<u8>) {
        let Some(outgoing) = self.message.outgoing.as_ref().filter(|outgoing| outgoing.replaces > 0) else {
            return;
        };
        out.extend_from_slice(&outgoing.front);
        self.position = outgoing.replaces;
        self.in_window = (outgoing.replaces as usize).min(self.window().len());
    }

    fn window(&self) -> &[u8] {
        match &self.message.content {
            Content::Held(content) => content,
            Content::Stored(head) if self.window.is_empty() => head,
            Content::Stored(_) => &self.window,
        }
    }

    fn slice(&self, len: usize) -> &[u8] {
        &self.window()[self.in_window..self.in_window + len]
    }

    /// The length of the next piece; gets the next window when this one is used up.
    async fn piece(&mut self) -> Result<usize, String> {
        if self.in_window == self.window().len() {
            self.window = self.message.read(self.position).await?;
            self.in_window = 0;
        }
        Ok((self.window().len() - self.in_window).min(PIECE_BYTES))
    }
}
