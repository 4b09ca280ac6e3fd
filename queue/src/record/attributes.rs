//! The attributes of a commit record: what most messages do not have. Byte table in `FORMAT.md`.
//!
//! An attribute is tag 2, octets 4, value. A tag that this version does not know is stepped over.

use super::{Cursor, Pen};
use crate::ancestry::Origin;
use crate::envelope::Envelope;
use crate::id::QueueId;
use crate::lineage::Lineage;
use crate::parameters::{ByMode, DeliverBy, MailParameters, Notify, RcptParameters, Ret, Schedule};

const HEAD: usize = 2 + 4;
const TAG_ORIGIN: u16 = 1;
const TAG_RET: u16 = 2;
const TAG_ENVID: u16 = 3;
const TAG_RECIPIENT: u16 = 4;
const TAG_FLAGS: u16 = 5;
const TAG_PRIORITY: u16 = 6;
const TAG_DELIVER_BY: u16 = 7;
const TAG_RELEASE: u16 = 8;

/// The highest tag that this version knows.
pub(super) const TAGS: u16 = TAG_RELEASE;

const ORIGIN: usize = 16 + 8;
const RECIPIENT_HEAD: usize = 4 + 1;
const DELIVER_BY: usize = 8 + 1;

const FLAG_SMTPUTF8: u8 = 1;
const FLAG_REQUIRE_TLS: u8 = 2;
const BY_RETURN: u8 = 1;
const BY_TRACE: u8 = 2;

/// Octets of the attributes; `None` when a text does not fit its field.
pub(super) fn bytes(envelope: &Envelope) -> Option<usize> {
    let mut total = envelope.origin.map_or(0, |_| HEAD + ORIGIN);
    if let Some(of) = envelope.parameters.as_deref() {
        total += of.ret.map_or(0, |_| HEAD + 1);
        total += if of.envid.is_empty() { 0 } else { HEAD + fits(&of.envid)? };
        total += if flags(of) == 0 { 0 } else { HEAD + 1 };
        total += if of.schedule.priority == 0 { 0 } else { HEAD + 1 };
        total += of.schedule.deliver_by.map_or(0, |_| HEAD + DELIVER_BY);
        total += of.schedule.release_micros.map_or(0, |_| HEAD + 8);
    }
    for recipient in &envelope.recipients {
        if let Some(of) = recipient.parameters.as_deref() {
            total += HEAD + RECIPIENT_HEAD + fits(&of.orcpt)?;
        }
    }
    Some(total)
}

fn fits(text: &str) -> Option<usize> {
    u16::try_from(text.len()).ok().map(usize::from)
}

fn flags(of: &MailParameters) -> u8 {
    (of.smtputf8 as u8 * FLAG_SMTPUTF8) | (of.require_tls as u8 * FLAG_REQUIRE_TLS)
}

/// Writes what [`bytes`] reckoned.
pub(super) fn put(envelope: &Envelope, pen: &mut Pen<'_>) {
    let head = |pen: &mut Pen<'_>, tag: u16, octets: usize| {
        pen.u16(tag);
        pen.u32(octets as u32);
    };
    if let Some(origin) = envelope.origin {
        head(pen, TAG_ORIGIN, ORIGIN);
        pen.bytes(&origin.lineage.octets());
        pen.u64(origin.id.bits());
    }
    if let Some(of) = envelope.parameters.as_deref() {
        if let Some(ret) = of.ret {
            head(pen, TAG_RET, 1);
            pen.u8(match ret {
                Ret::Full => 1,
                Ret::Headers => 2,
            });
        }
        if !of.envid.is_empty() {
            head(pen, TAG_ENVID, of.envid.len());
            pen.bytes(of.envid.as_bytes());
        }
        if flags(of) != 0 {
            head(pen, TAG_FLAGS, 1);
            pen.u8(flags(of));
        }
        put_schedule(&of.schedule, pen, head);
    }
    for (index, recipient) in envelope.recipients.iter().enumerate() {
        if let Some(of) = recipient.parameters.as_deref() {
            head(pen, TAG_RECIPIENT, RECIPIENT_HEAD + of.orcpt.len());
            pen.u32(index as u32);
            pen.u8(Notify::bits(of.notify));
            pen.bytes(of.orcpt.as_bytes());
        }
    }
}

fn put_schedule(schedule: &Schedule, pen: &mut Pen<'_>, head: impl Fn(&mut Pen<'_>, u16, usize)) {
    if schedule.priority != 0 {
        head(pen, TAG_PRIORITY, 1);
        pen.u8(schedule.priority.to_le_bytes()[0]);
    }
    if let Some(by) = schedule.deliver_by {
        head(pen, TAG_DELIVER_BY, DELIVER_BY);
        pen.u64(by.deadline_micros);
        pen.u8(((by.mode == ByMode::Return) as u8 * BY_RETURN) | (by.trace as u8 * BY_TRACE));
    }
    if let Some(release) = schedule.release_micros {
        head(pen, TAG_RELEASE, 8);
        pen.u64(release);
    }
}

/// The attributes on disk, checked through; the texts stay where they are.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a> {
    rest: Cursor<'a>,
    pub origin: Option<Origin>,
    pub schedule: Schedule,
    /// Those whose tag this version does not know.
    pub unknown: u32,
    /// There are some that only [`Attributes::apply`] looks at.
    more: bool,
}

impl<'a> Attributes<'a> {
    /// `None` when one is not what it should be.
    pub fn decode(rest: Cursor<'a>, recipients: u32) -> Option<Self> {
        let mut found =
            Self { rest: rest.clone(), origin: None, schedule: Schedule::default(), unknown: 0, more: false };
        let mut rest = rest;
        while !rest.rest.is_empty() {
            let (tag, mut value) = take(&mut rest)?;
            match tag {
                TAG_ORIGIN => found.origin = Some(origin(&mut value)?),
                TAG_PRIORITY => found.schedule.priority = i8::from_le_bytes([value.u8()?]),
                TAG_DELIVER_BY => found.schedule.deliver_by = Some(deliver_by(&mut value)?),
                TAG_RELEASE => found.schedule.release_micros = Some(value.u64()?),
                TAG_RET => {
                    ret(&mut value)?;
                    found.more = true;
                }
                TAG_ENVID => {
                    value.text(value.rest.len())?;
                    found.more = true;
                }
                TAG_FLAGS => {
                    value.u8()?;
                    found.more = true;
                }
                TAG_RECIPIENT => {
                    recipient(&mut value).filter(|(index, _)| *index < recipients)?;
                    found.more = true;
                }
                _ => {
                    found.unknown += 1;
                    continue;
                }
            }
            if !value.rest.is_empty() {
                return None;
            }
        }
        Some(found)
    }

    /// Fills in what MAIL and RCPT asked for.
    pub fn apply(&self, envelope: &mut Envelope) {
        envelope.origin = self.origin;
        if !self.more && self.schedule.is_usual() {
            return;
        }
        let mut of = MailParameters { schedule: self.schedule, ..MailParameters::default() };
        let mut rest = self.rest.clone();
        while let Some((tag, mut value)) = take(&mut rest) {
            match tag {
                TAG_RET => of.ret = ret(&mut value),
                TAG_ENVID => of.envid = value.text(value.rest.len()).unwrap_or_default().to_owned(),
                TAG_FLAGS => {
                    let flags = value.u8().unwrap_or_default();
                    of.smtputf8 = flags & FLAG_SMTPUTF8 != 0;
                    of.require_tls = flags & FLAG_REQUIRE_TLS != 0;
                }
                TAG_RECIPIENT => {
                    let Some((index, parameters)) = recipient(&mut value) else { continue };
                    if let Some(recipient) = envelope.recipients.get_mut(index as usize) {
                        recipient.parameters = Some(Box::new(parameters));
                    }
                }
                _ => {}
            }
        }
        envelope.parameters = (of != MailParameters::default()).then(|| Box::new(of));
    }
}

fn take<'a>(rest: &mut Cursor<'a>) -> Option<(u16, Cursor<'a>)> {
    let (tag, length) = (rest.u16()?, rest.u32()?);
    Some((tag, Cursor::new(rest.take(length as usize)?)))
}

fn origin(value: &mut Cursor<'_>) -> Option<Origin> {
    let lineage = Lineage::from_octets(value.take(16)?.try_into().expect("sixteen octets"))?;
    Some(Origin { lineage, id: QueueId::from_bits(value.u64()?) })
}

fn ret(value: &mut Cursor<'_>) -> Option<Ret> {
    match value.u8()? {
        1 => Some(Ret::Full),
        2 => Some(Ret::Headers),
        _ => None,
    }
}

fn deliver_by(value: &mut Cursor<'_>) -> Option<DeliverBy> {
    let (deadline_micros, bits) = (value.u64()?, value.u8()?);
    let mode = if bits & BY_RETURN != 0 { ByMode::Return } else { ByMode::Notify };
    Some(DeliverBy { deadline_micros, mode, trace: bits & BY_TRACE != 0 })
}

fn recipient(value: &mut Cursor<'_>) -> Option<(u32, RcptParameters)> {
    let (index, bits) = (value.u32()?, value.u8()?);
    let orcpt = value.text(value.rest.len())?.to_owned();
    Some((index, RcptParameters { notify: Notify::from_bits(bits), orcpt }))
}
