//! A message on its way out: its envelope, and its content piece by piece.
//!
//! The content is in memory when the message is fresh. Otherwise the ingest shard that has it in its
//! spool is asked, window by window, so that a large message never lies in memory as a whole.

use super::hop::Item;
use crate::shard::links::{HeldContent, Links, ToIngest};
use crate::smtp::content::Framing;
use crate::smtp::stuffing::Stuffer;
use sluice_queue::{Body, ContentFlags, Envelope, QueueId, RecipientState};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Octets written to the socket at a time.
const PIECE_BYTES: usize = 64 * 1024;

pub struct Message {
    pub id: QueueId,
    pub envelope: Arc<Envelope>,
    pub content_bytes: u64,
    flags: ContentFlags,
    content: Content,
    links: Arc<Links>,
}

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
                flags: fresh.flags,
                content: Content::Held(fresh.content.clone()),
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
            flags: loaded.flags,
            content: Content::Stored(loaded.head),
            links: links.clone(),
        };
        Ok((message, Some(loaded.states)))
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
            && (!header.is_ascii() || (end.is_none() && (octets.len() as u64) < self.content_bytes))
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
        if self.position < self.message.content_bytes {
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
        if self.position < self.message.content_bytes {
            return Ok(true);
        }
        if self.framing == Framing::Dots {
            // All but binary content ends with CRLF; without lines to stuff the stuffer has not seen it.
            out.extend_from_slice(if self.stuffs { self.stuffer.finish() } else { b".\r\n" });
        }
        Ok(false)
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
            let (reply, answer) = oneshot::channel();
            let id = self.message.id;
            self.message.links.owner_of(id).send(ToIngest::Read { id, offset: self.position, reply }).await;
            self.window = answer.await.map_err(|_| "the ingest shard has stopped".to_string())??;
            self.in_window = 0;
            if self.window.is_empty() {
                return Err(format!(
                    "the spool ended at octet {} of {}",
                    self.position, self.message.content_bytes
                ));
            }
        }
        Ok((self.window().len() - self.in_window).min(PIECE_BYTES))
    }
}
