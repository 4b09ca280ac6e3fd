//! One thing that is wrong with a spool, and what it means for mail.

use crate::error::ReadError;
use crate::id::QueueId;
use crate::recovery::DamageKind;
use std::fmt;

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The number in the file's name.
    pub slot: u32,
    /// `None` when not even the header is readable.
    pub segment: Option<u64>,
    pub offset: u64,
    pub flaw: Flaw,
    /// Messages that it is about, as far as they are known.
    pub ids: Vec<QueueId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// What a start reports, too.
    Damage(DamageKind),
    /// One of the two copies of a segment header does not verify; the other one serves.
    HeaderCopy,
    /// The file goes on behind the end of the segment.
    Long,
    /// A message that a start takes for whole cannot be read.
    Message(ReadError),
}

/// What a finding means for mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// No message is concerned.
    Nothing,
    /// The messages named are damaged: kept, shown, not delivered.
    Damaged,
    /// Messages whose records were there are lost if they still waited and have no other copy; outcomes are,
    /// so that messages which were finished may be delivered once more.
    Lost,
    /// What is there is not known until the device reads it.
    Unread,
}

impl Flaw {
    pub fn means(&self) -> Means {
        match self {
            Self::HeaderCopy | Self::Long => Means::Nothing,
            Self::Message(ReadError::Device(_)) | Self::Damage(DamageKind::Read(_)) => Means::Unread,
            Self::Message(_) | Self::Damage(DamageKind::Extent(_)) => Means::Damaged,
            Self::Damage(DamageKind::ForeignSpool(_)) => Means::Nothing,
            Self::Damage(_) => Means::Lost,
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        self.means() == Means::Unread
    }

    /// One word for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HeaderCopy => "header-copy",
            Self::Long => "long",
            Self::Message(_) => "message",
            Self::Damage(kind) => match kind {
                DamageKind::Header => "header",
                DamageKind::Short => "short",
                DamageKind::ForeignSpool(_) => "foreign-spool",
                DamageKind::Twin => "twin",
                DamageKind::Batch => "batch",
                DamageKind::Record => "record",
                DamageKind::SealMissing => "seal-missing",
                DamageKind::Extent(_) => "extent",
                DamageKind::Read(_) => "unread",
            },
        }
    }
}

impl Means {
    /// One word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Damaged => "damaged",
            Self::Lost => "lost",
            Self::Unread => "unread",
        }
    }
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no message is concerned",
            Self::Damaged => "the message is kept, shown as damaged and not delivered",
            Self::Lost => {
                "messages that had their records here are lost if they still waited and have no other copy; \
                 messages whose end was recorded here may be delivered once more"
            }
            Self::Unread => "what is here is not known until the device reads it",
        })
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage(kind) => kind.fmt(f),
            Self::HeaderCopy => {
                f.write_str("this copy of the segment header does not verify, the other one serves")
            }
            Self::Long => f.write_str("the file goes on behind the end of the segment"),
            Self::Message(error) => write!(f, "the message cannot be read: {error}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {:06}.seg", self.slot)?;
        if let Some(segment) = self.segment {
            write!(f, " (segment {segment})")?;
        }
        write!(f, " at {}: {}", self.offset, self.flaw)?;
        if !self.ids.is_empty() {
            let ids: Vec<String> = self.ids.iter().map(QueueId::to_string).collect();
            write!(f, "; messages {}", ids.join(", "))?;
        }
        write!(f, "; {}", self.flaw.means())
    }
}
