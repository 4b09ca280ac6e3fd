//! What a session does about clients that waste its time: guessing, commands without progress, octets that
//! come too slowly, sessions without an end (Postfix's smtpd_soft_error_limit, smtpd_junk_command_limit and
//! smtpd_min_data_rate).
//!
//! Replies: 421 4.7.0 to one invalid recipient more than `limits.invalid_recipients_max`; 421 4.4.2 when
//! content comes with fewer than `limits.bytes_per_second_min` on an average over `limits.slow_window`, when
//! a line that was begun is not complete within that window, and after `limits.session_time_max` (a message
//! that is on its way then has as much time again); 450 4.7.1 to MAIL and RCPT beyond the client's
//! [`Allowance`]; 554 5.5.0 in place of the greeting to a client that talks before it.
//!
//! An error past `limits.soft_errors_max` is answered after a pause ([`Step::Pause`]), each longer by
//! `limits.error_delay`. For clients in `limits.exempt` nothing of this holds.

use super::refused::Argument;
use super::{Context, Refused, Session, State, Step};
use crate::load::Level;
use crate::smtp::command::{Command, Fault};
use crate::smtp::reply::{self, Answer};
use std::net::IpAddr;

/// How much more a client may send now; the largest number: as much as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    pub messages: u32,
    pub recipients: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { messages: u32::MAX, recipients: u32::MAX }
    }
}

/// What has happened since the last [`Session::take_tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// MAIL and RCPT that were accepted.
    pub messages: u32,
    pub recipients: u32,
    /// MAIL and RCPT that the allowance refused.
    pub limited: u32,
    /// Replies that are held back.
    pub pauses: u32,
    pub junk_commands: u32,
    pub invalid_recipients: u32,
    /// Sessions ended: for errors or invalid recipients, too slow, too long, talked before the greeting.
    pub abusive: u32,
    pub slow: u32,
    pub overlong: u32,
    pub early_talkers: u32,
}

/// Why a connection gets no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    Overloaded,
    AddressConnections,
    NetworkConnections,
    AddressRate,
    NetworkRate,
}

impl TurnedAway {
    pub(super) fn answer(self) -> &'static Answer {
        match self {
            Self::Overloaded => &reply::OVERLOADED,
            Self::AddressConnections => &reply::TOO_MANY_FROM_ADDRESS,
            Self::NetworkConnections => &reply::TOO_MANY_FROM_NETWORK,
            Self::AddressRate => &reply::TOO_OFTEN_FROM_ADDRESS,
            Self::NetworkRate => &reply::TOO_OFTEN_FROM_NETWORK,
        }
    }
}

/// The answer in place of a greeting. Close afterwards.
pub fn turned_away(context: &Context, why: TurnedAway, out: &mut Vec<u8>) {
    why.answer().put_with(out, &context.hostname);
}

/// What time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Idle,
    Slow,
    Overlong,
}

#[derive(Debug)]
pub(super) struct Guard {
    /// The limits of the listener hold for this client.
    holds: bool,
    level: Level,
    began: u64,
    junk: u32,
    invalid_recipients: u32,
    /// Since when octets of content are counted, and how many have come.
    window: Option<u64>,
    octets: u64,
    /// When the line began that is not complete yet.
    line: Option<u64>,
    allowance: Allowance,
    tally: Tally,
}

impl Guard {
    pub(super) fn new(context: &Context, client: IpAddr, now: u64) -> Self {
        Self {
            holds: !context.guard.exempts(client),
            level: Level::Normal,
            began: now,
            junk: 0,
            invalid_recipients: 0,
            window: None,
            octets: 0,
            line: None,
            allowance: Allowance::default(),
            tally: Tally::default(),
        }
    }

    /// MAIL: whether the client may send another message now.
    pub(super) fn draw_message(&mut self) -> Result<(), Refused> {
        let Self { allowance, tally, .. } = self;
        draw(&mut allowance.messages, &mut tally.messages, &mut tally.limited, &reply::MESSAGE_RATE)
    }

    /// RCPT: whether the client may name another recipient now.
    pub(super) fn draw_recipient(&mut self) -> Result<(), Refused> {
        let Self { allowance, tally, .. } = self;
        draw(&mut allowance.recipients, &mut tally.recipients, &mut tally.limited, &reply::RECIPIENT_RATE)
    }
}

/// Commands that bring no message any further.
pub(super) fn is_junk(command: &Result<Command<'_>, Fault>) -> bool {
    matches!(
        command,
        Ok(Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Noop
            | Command::Rset
            | Command::Vrfy
            | Command::Help
            | Command::Xclient(_))
    )
}

impl Session {
    /// Whether the limits for clients hold for this one.
    pub fn is_limited(&self) -> bool {
        self.guard.holds
    }

    /// The state of the relay from now on; see `crate::load`.
    pub fn set_load(&mut self, level: Level) {
        self.guard.level = level;
    }

    /// What the client may send until the next call.
    pub fn allow(&mut self, allowance: Allowance) {
        self.guard.allowance = allowance;
    }

    /// What has happened since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.guard.tally)
    }

    /// The rim let the client wait for so long while content was on its way: no fault of the client.
    pub fn excuse(&mut self, millis: u64) {
        self.since = self.since.saturating_add(millis);
        if let Some(since) = &mut self.guard.window {
            *since = since.saturating_add(millis);
        }
    }

    /// The client has sent octets before it was greeted (RFC 5321 section 4.3.1 makes it wait). Call
    /// it in place of writing the greeting; the session is closed.
    pub fn talked_early(&mut self, out: &mut Vec<u8>) {
        out.clear();
        self.guard.tally.early_talkers += 1;
        self.close_with(&reply::EARLY_TALKER, out);
        let said = std::mem::take(out);
        self.note_refusal(super::refused::CONNECT, &said);
        *out = said;
    }

    /// When time is up for what is awaited, and what for.
    pub(super) fn due(&self) -> (u64, Due) {
        let content = matches!(
            self.state,
            State::AwaitContent | State::AwaitEnd | State::AwaitChunk | State::AwaitChunkEnd
        );
        let (guard, context) = (&self.guard, &self.context);
        let (own, busy) = match content {
            true => (context.content_millis, context.busy_content_millis),
            false => (context.command_millis, context.busy_command_millis),
        };
        let idle = |millis: u64| (self.since.saturating_add(millis), Due::Idle);
        if !guard.holds {
            return idle(own);
        }
        let window = self.window_millis();
        let slow = match (content, guard.window, guard.line) {
            (true, Some(since), _) if guard.octets < self.octets_due() => since.saturating_add(window),
            (false, _, Some(since)) if context.guard.bytes_per_second_min > 0 => since.saturating_add(window),
            _ => u64::MAX,
        };
        let overlong = match (context.session_millis, content) {
            (0, _) => u64::MAX,
            (millis, true) => guard.began.saturating_add(millis.saturating_mul(2)),
            (millis, false) => guard.began.saturating_add(millis),
        };
        let idle = idle(if self.is_hurried() { own.min(busy) } else { own });
        let times = [idle, (slow, Due::Slow), (overlong, Due::Overlong)];
        times.into_iter().min_by_key(|(time, _)| *time).unwrap_or(idle)
    }

    /// The relay is busy, and this client is to feel it.
    fn is_hurried(&self) -> bool {
        self.guard.holds && self.context.strangers && self.guard.level > Level::Normal
    }

    fn window_millis(&self) -> u64 {
        let context = &self.context;
        if self.is_hurried() {
            context.slow_millis.min(context.busy_content_millis)
        } else {
            context.slow_millis
        }
    }

    /// How many octets a window must bring.
    fn octets_due(&self) -> u64 {
        self.context.guard.bytes_per_second_min.saturating_mul(self.window_millis()) / 1000
    }

    /// The answer when the time of [`Session::deadline`] has come.
    pub(super) fn lateness(&mut self) -> &'static Answer {
        match self.due().1 {
            Due::Idle => &reply::TIMED_OUT,
            Due::Slow => {
                self.guard.tally.slow += 1;
                &reply::TOO_SLOW
            }
            Due::Overlong => {
                self.guard.tally.overlong += 1;
                &reply::SESSION_TOO_LONG
            }
        }
    }

    /// So many octets of content have come.
    pub(super) fn content_came(&mut self, octets: usize) {
        let (now, due, window) = (self.now, self.octets_due(), self.window_millis());
        let guard = &mut self.guard;
        match guard.window {
            Some(since) if now < since.saturating_add(window) || guard.octets < due => {
                guard.octets = guard.octets.saturating_add(octets as u64);
            }
            _ => (guard.window, guard.octets) = (Some(now), octets as u64),
        }
    }

    /// Content begins or has ended.
    pub(super) fn forget_content(&mut self) {
        (self.guard.window, self.guard.octets) = (None, 0);
    }

    /// A command line has come so far, or to its end.
    pub(super) fn line_came(&mut self, complete: bool) {
        let line = &mut self.guard.line;
        *line = if complete { None } else { line.or(Some(self.now)) };
    }

    /// A recipient was refused: for good, and once too often?
    pub(super) fn guard_recipient(&mut self, refused: Refused) -> Refused {
        const FOR_GOOD: u16 = 550;
        let max = self.context.guard.invalid_recipients_max;
        if refused.code() < FOR_GOOD {
            return refused;
        }
        self.guard.tally.invalid_recipients += 1;
        self.guard.invalid_recipients += 1;
        if !self.guard.holds || max == 0 || self.guard.invalid_recipients as usize <= max {
            return refused;
        }
        self.guard.tally.abusive += 1;
        Refused::from(&reply::TOO_MANY_INVALID_RECIPIENTS).with(Argument::HostName).uncounted().last()
    }

    /// A command without progress, already answered: an error, when there were too many.
    pub(super) fn count_junk(&mut self, out: &mut Vec<u8>) -> Option<Step> {
        let max = self.context.guard.junk_commands_max;
        self.guard.tally.junk_commands += 1;
        self.guard.junk += 1;
        if !self.guard.holds || max == 0 || self.guard.junk as usize <= max {
            return None;
        }
        self.count_error(out).or_else(|| self.tarpit())
    }

    /// A message was accepted: the client means well.
    pub(super) fn forgive(&mut self) {
        self.errors = 0;
        self.guard.junk = 0;
    }

    /// How long the reply to the error that was counted last is held back.
    pub(super) fn tarpit(&mut self) -> Option<Step> {
        let limits = &self.context.guard;
        let over = self.errors.saturating_sub(limits.soft_errors_max);
        let delay = u64::try_from(limits.error_delay.as_millis()).unwrap_or(u64::MAX);
        if !self.guard.holds || over == 0 || delay == 0 || self.state == State::Closed {
            return None;
        }
        self.guard.tally.pauses += 1;
        Some(Step::Pause(delay.saturating_mul(over as u64).min(PAUSE_MAX)))
    }

    pub(super) fn count_abuse(&mut self) {
        self.guard.tally.abusive += 1;
    }

    /// Another client from now on.
    pub(super) fn guard_anew(&mut self, client: IpAddr) {
        self.guard.holds = !self.context.guard.exempts(client);
        self.guard.allowance = Allowance::default();
    }
}

/// Milliseconds; below the time that clients wait for a reply (RFC 5321 section 4.5.3.2). Prevents a
/// large `limits.errors_max` from making pauses of hours.
const PAUSE_MAX: u64 = 60_000;

fn draw(left: &mut u32, used: &mut u32, limited: &mut u32, answer: &'static Answer) -> Result<(), Refused> {
    match left {
        0 => {
            *limited += 1;
            Err(answer.into())
        }
        _ => {
            *left -= u32::from(*left < u32::MAX);
            *used += 1;
            Ok(())
        }
    }
}
