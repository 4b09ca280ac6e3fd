//! From files to an index: what a start finds, and what it makes of it. Writes nothing.
//!
//! `decide` has the tables (pure), `replay` makes records into an index (pure), `scan` reads batch by batch,
//! `indexed` reads what a sealed segment says of itself.

mod decide;
mod indexed;
mod replay;
mod scan;

pub(crate) use scan::{CutAt, Reading, Unborn, recover};

use crate::id::QueueId;
use std::fmt;

/// What a start found in a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Messages that wait for delivery.
    pub messages: usize,
    /// Messages of which octets are missing or do not verify; they are kept, shown, and not delivered.
    pub messages_damaged: Vec<QueueId>,
    pub segments: usize,
    /// Segments that were taken by their index; of the others all batches were read.
    pub segments_indexed: usize,
    /// Segments with an index that could not be used. That is no damage by itself: what was lost, if
    /// anything, is among the damages.
    pub indexes_lost: usize,
    /// In all segments, read or not.
    pub batches: u64,
    pub records: u64,
    /// Records, attributes and entries of kinds that this version does not know; they were stepped over.
    pub unknown: u64,
    pub bytes_read: u64,
    /// Where the log ended without a seal: the relay did not stop in order.
    pub cut: Option<Cut>,
    /// At most [`DAMAGES_MAX`]; `damages_more` counts the rest.
    pub damages: Vec<Damage>,
    pub damages_more: u64,
}

/// So that a spool of rubbish does not fill the memory with its description.
pub const DAMAGES_MAX: usize = 1000;

impl Recovery {
    fn damage(&mut self, slot: u32, segment: Option<u64>, offset: u64, what: DamageKind) {
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(Damage { slot, segment, offset, what });
        } else {
            self.damages_more += 1;
        }
    }
}

/// The end of the log after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub segment: u64,
    pub offset: u64,
    /// Something unfinished was there. Nobody had been told that it was durable.
    pub torn: bool,
}

/// Something that does not verify and that no crash explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The number in the file's name.
    pub slot: u32,
    /// `None` when not even the header was readable.
    pub segment: Option<u64>,
    pub offset: u64,
    pub what: DamageKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The segment header does not verify: nothing in the file can be read.
    Header,
    /// The file ends before the segment does.
    Short,
    /// The segment belongs to another spool.
    ForeignSpool(u16),
    /// Another file says that it is the same segment.
    Twin,
    /// No batch where one must be; reading went on at the next one.
    Batch,
    /// A record of a durable batch does not verify; the others of the batch were kept.
    Record,
    /// The segment ends without its seal.
    SealMissing,
    /// An extent of this message is missing or does not verify.
    Extent(QueueId),
    /// The device refused to read; the rest of the segment is not known.
    Read(String),
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages wait in {} segments", self.messages, self.segments)?;
        if let Some(cut) = &self.cut {
            let torn = if cut.torn { ", a torn batch was cut off" } else { "" };
            write!(f, "; not stopped in order, log ends in segment {} at {}{torn}", cut.segment, cut.offset)?;
        }
        if !self.messages_damaged.is_empty() {
            write!(f, "; {} damaged messages are set aside", self.messages_damaged.len())?;
        }
        if self.indexes_lost > 0 {
            write!(
                f,
                "; {} segment indexes do not verify, all of these segments was read",
                self.indexes_lost
            )?;
        }
        match self.damages.len() as u64 + self.damages_more {
            0 => Ok(()),
            damages => write!(f, "; {damages} damages"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {:06}.seg", self.slot)?;
        if let Some(segment) = self.segment {
            write!(f, " (segment {segment})")?;
        }
        write!(f, " at {}: {}", self.offset, self.what)
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the file ends before the segment does"),
            Self::Header => f.write_str("the segment header does not verify, the file cannot be read"),
            Self::ForeignSpool(number) => write!(f, "the segment belongs to spool {number}"),
            Self::Twin => f.write_str("another file is the same segment"),
            Self::Batch => f.write_str("no readable batch; reading went on at the next one"),
            Self::Record => f.write_str("a record does not verify; the others of its batch were kept"),
            Self::SealMissing => f.write_str("the segment ends without its seal"),
            Self::Extent(id) => write!(f, "octets of message {id} are missing or do not verify"),
            Self::Read(error) => write!(f, "the device refused to read: {error}"),
        }
    }
}
