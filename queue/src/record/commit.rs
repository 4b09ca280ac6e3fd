//! The commit record: what makes extents a message. Byte table in the parent module's head.
//!
//! The same id may be committed again later, with the states of that time and other extents: the later
//! record wins. So a message can be moved without another record type.

use super::attributes::{self, Attributes};
use super::{Cursor, ExtentAt, Pen};
use crate::ancestry::Origin;
use crate::envelope::{Body, Envelope, Recipient, RecipientState, RecipientStatus};
use crate::parameters::Schedule;

const FIXED: usize = 8 + 8 + 8 + 1 + 1 + 4 + 4 + 4 * 2;
const EXTENT: usize = 8 + 4 + 4 + 4;
const RECIPIENT: usize = 1 + 2 + 1 + 2;
const _: () = assert!(FIXED == 42 && EXTENT == 20 && RECIPIENT == 6);

/// What is known of the octets of a message without reading them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentFlags {
    /// Some octet is above 127.
    pub eight_bit: bool,
    /// Some line starts with a dot, so a sender must stuff (RFC 5321 section 4.5.2).
    pub dot_lines: bool,
}

impl ContentFlags {
    pub(crate) const fn bits(self) -> u8 {
        self.eight_bit as u8 | (self.dot_lines as u8) << 1
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self { eight_bit: bits & 1 != 0, dot_lines: bits & 2 != 0 }
    }
}

/// Payload octets of a commit record; `None` when a text or a count does not fit its field.
pub(crate) fn commit_bytes(envelope: &Envelope, extents: usize) -> Option<usize> {
    let fits = |text: &str| u16::try_from(text.len()).ok().map(usize::from);
    let mut total = FIXED + EXTENT * extents;
    for text in [&envelope.sender, &envelope.listener, &envelope.helo, &envelope.client] {
        total += fits(text)?;
    }
    for recipient in &envelope.recipients {
        total += RECIPIENT + fits(&recipient.address)?;
    }
    total += attributes::bytes(envelope)?;
    u32::try_from(total).ok().map(|_| total)
}

/// The fields of a commit record to be. `states` is empty when every recipient is new.
pub(crate) struct CommitToWrite<'a> {
    pub id: u64,
    pub content_bytes: u64,
    pub flags: ContentFlags,
    pub envelope: &'a Envelope,
    pub extents: &'a [ExtentAt],
    pub tail: Option<ExtentAt>,
    pub states: &'a [RecipientState],
}

impl CommitToWrite<'_> {
    pub(super) fn put(&self, pen: &mut Pen<'_>) {
        let envelope = self.envelope;
        pen.u64(self.id);
        pen.u64(envelope.arrived_micros);
        pen.u64(self.content_bytes);
        pen.u8(self.flags.bits());
        pen.u8(envelope.body.code());
        pen.u32((self.extents.len() + self.tail.iter().len()) as u32);
        pen.u32(envelope.recipients.len() as u32);
        let texts = [&envelope.sender, &envelope.listener, &envelope.helo, &envelope.client];
        texts.iter().for_each(|text| pen.u16(text.len() as u16));
        for extent in self.extents.iter().chain(&self.tail) {
            pen.u64(extent.segment);
            pen.u32(extent.position);
            pen.u32(extent.octets);
            pen.u32(extent.crc);
        }
        texts.iter().for_each(|text| pen.bytes(text.as_bytes()));
        for (index, recipient) in envelope.recipients.iter().enumerate() {
            let state = self.states.get(index).copied().unwrap_or(RecipientState::NEW);
            pen.u8(state.status.code());
            pen.u16(state.attempts);
            pen.u8(state_flags(state));
            pen.u16(recipient.address.len() as u16);
            pen.bytes(recipient.address.as_bytes());
        }
        attributes::put(envelope, pen);
    }
}

/// Version 1 had 0 or 1 here, for notified: the same.
const FLAG_NOTIFIED: u8 = 1;
const FLAG_HELD: u8 = 2;

fn state_flags(state: RecipientState) -> u8 {
    (state.notified as u8 * FLAG_NOTIFIED) | (state.held as u8 * FLAG_HELD)
}

impl RecipientStatus {
    pub(crate) const CODE_MAX: u8 = 5;

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Delivered => 1,
            Self::Bounced => 2,
            Self::Expired => 3,
            Self::Deleted => 4,
            Self::Moved => 5,
        }
    }

    pub(crate) const fn of(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Waiting,
            1 => Self::Delivered,
            2 => Self::Bounced,
            3 => Self::Expired,
            4 => Self::Deleted,
            5 => Self::Moved,
            _ => return None,
        })
    }
}

/// A commit record on disk, checked through; its texts stay where they are.
#[derive(Clone, Debug)]
pub(crate) struct CommitView<'a> {
    pub id: u64,
    pub arrived_micros: u64,
    pub content_bytes: u64,
    pub flags: ContentFlags,
    pub body: Body,
    pub recipients: u32,
    texts: [&'a str; 4],
    extents: Cursor<'a>,
    people: Cursor<'a>,
    attributes: Attributes<'a>,
}

impl<'a> CommitView<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut rest = Cursor::new(payload);
        let (id, arrived_micros, content_bytes) = (rest.u64()?, rest.u64()?, rest.u64()?);
        let flags = ContentFlags::from_bits(rest.u8()?);
        let body = Body::of(rest.u8()?);
        let (extent_count, recipients) = (rest.u32()?, rest.u32()?);
        let lengths = [rest.u16()?, rest.u16()?, rest.u16()?, rest.u16()?];
        let extents = Cursor::new(rest.take(EXTENT.checked_mul(extent_count as usize)?)?);
        let mut texts = [""; 4];
        for (text, length) in texts.iter_mut().zip(lengths) {
            *text = rest.text(length as usize)?;
        }
        let people = rest.clone();
        for _ in 0..recipients {
            take_recipient(&mut rest)?;
        }
        let attributes = Attributes::decode(rest, recipients)?;
        let view = Self {
            id,
            arrived_micros,
            content_bytes,
            flags,
            body,
            recipients,
            texts,
            extents,
            people,
            attributes,
        };
        let sum = view.extents().try_fold(0u64, |sum, extent| sum.checked_add(extent.octets as u64));
        (sum == Some(content_bytes) && recipients > 0).then_some(view)
    }

    /// The payload without what only people look at: listener, helo and client are left empty.
    pub(super) fn put_slim(&self, out: &mut Vec<u8>) {
        out.extend(self.id.to_le_bytes());
        out.extend(self.arrived_micros.to_le_bytes());
        out.extend(self.content_bytes.to_le_bytes());
        out.extend([self.flags.bits(), self.body.code()]);
        out.extend(((self.extents.rest.len() / EXTENT) as u32).to_le_bytes());
        out.extend(self.recipients.to_le_bytes());
        out.extend((self.texts[0].len() as u16).to_le_bytes());
        out.extend([0; 3 * 2]);
        out.extend_from_slice(self.extents.rest);
        out.extend_from_slice(self.texts[0].as_bytes());
        // Attributes follow the recipients.
        out.extend_from_slice(self.people.rest);
    }

    pub fn extents(&self) -> impl Iterator<Item = ExtentAt> + use<'a> {
        let mut rest = self.extents.clone();
        std::iter::from_fn(move || {
            let segment = rest.u64()?;
            Some(ExtentAt { segment, position: rest.u32()?, octets: rest.u32()?, crc: rest.u32()? })
        })
    }

    pub fn sender(&self) -> &'a str {
        self.texts[0]
    }

    pub fn origin(&self) -> Option<Origin> {
        self.attributes.origin
    }

    pub fn schedule(&self) -> Schedule {
        self.attributes.schedule
    }

    /// Attributes whose tag this version does not know.
    pub fn unknown_attributes(&self) -> u32 {
        self.attributes.unknown
    }

    /// Addresses and states.
    pub fn people(&self) -> impl Iterator<Item = (&'a str, RecipientState)> + Clone + use<'a> {
        let mut rest = self.people.clone();
        (0..self.recipients).map_while(move |_| take_recipient(&mut rest))
    }

    pub fn envelope(&self) -> Envelope {
        let [sender, listener, helo, client] = self.texts.map(str::to_owned);
        let mut envelope = Envelope {
            sender,
            recipients: self.people().map(|(address, _)| Recipient::new(address)).collect(),
            body: self.body,
            arrived_micros: self.arrived_micros,
            listener,
            helo,
            client,
            ..Envelope::default()
        };
        self.attributes.apply(&mut envelope);
        envelope
    }
}

fn take_recipient<'a>(rest: &mut Cursor<'a>) -> Option<(&'a str, RecipientState)> {
    let status = RecipientStatus::of(rest.u8()?)?;
    let (attempts, flags) = (rest.u16()?, rest.u8()?);
    let (notified, held) = (flags & FLAG_NOTIFIED != 0, flags & FLAG_HELD != 0);
    let state = RecipientState { status, attempts, notified, held };
    let length = rest.u16()?;
    Some((rest.text(length as usize)?, state))
}
