//! What a client asked for with MAIL and RCPT, as far as it lasts longer than the session.
//!
//! Plain data, `Send`. The spool keeps it as attributes of the commit record (`FORMAT.md`, tags 2 to 8) and
//! knows nothing of what it means but for the [`Schedule`], which the index keeps in memory for those
//! messages that have one. Texts are kept as they came, in xtext, and so can be passed on as they are.

/// The parameters of MAIL beside SIZE and BODY.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// RET (RFC 3461 section 4.3).
    pub ret: Option<Ret>,
    /// ENVID in xtext (RFC 3461 section 4.4); empty: not given.
    pub envid: String,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    pub schedule: Schedule,
}

/// The parameters of RCPT (RFC 3461).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    pub notify: Option<Notify>,
    /// ORCPT as it came: address type, semicolon, xtext (or a form of RFC 6533); empty: not given.
    pub orcpt: String,
}

/// What of the original a DSN about a failure brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    Full,
    Headers,
}

/// What the sender wants to be told of. None of the three is NEVER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}

/// What says when a message is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// MT-PRIORITY (RFC 6710), -9 to 9; 0 is what everybody has.
    pub priority: i8,
    /// BY (RFC 2852).
    pub deliver_by: Option<DeliverBy>,
    /// HOLDFOR or HOLDUNTIL (RFC 4865): not before, in microseconds since 1970.
    pub release_micros: Option<u64>,
}

/// RFC 2852.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverBy {
    /// Microseconds since 1970.
    pub deadline_micros: u64,
    pub mode: ByMode,
    /// Each relay tells the sender that it has handed the message on.
    pub trace: bool,
}

/// What happens at the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByMode {
    /// The sender is told of the delay.
    Notify,
    /// The message is returned.
    Return,
}

impl Notify {
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
    const SUCCESS: u8 = 1;
    const FAILURE: u8 = 2;
    const DELAY: u8 = 4;
    /// NOTIFY was given; so that NEVER is not the same as nothing.
    const GIVEN: u8 = 8;

    pub fn is_never(self) -> bool {
        self == Self::NEVER
    }

    pub(crate) fn bits(of: Option<Self>) -> u8 {
        of.map_or(0, |notify| {
            Self::GIVEN
                | (notify.success as u8 * Self::SUCCESS)
                | (notify.failure as u8 * Self::FAILURE)
                | (notify.delay as u8 * Self::DELAY)
        })
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        let has = |bit| bits & bit != 0;
        has(Self::GIVEN).then(|| Self {
            success: has(Self::SUCCESS),
            failure: has(Self::FAILURE),
            delay: has(Self::DELAY),
        })
    }
}

impl Schedule {
    /// Nothing that is not the same for every message.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}
