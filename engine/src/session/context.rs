//! What all sessions of one listener share: built once from the configuration, then immutable.

use super::known_now::KnownNow;
use crate::config::{
    ClientLimits, Config, CutThroughMode, Extensions, Limits, LineEndings, Network, Relay, Route, TlsMode,
};
use crate::policy::Rules;
use crate::smtp::reply;
use crate::smtp::sasl::Mechanism;
use std::time::Duration;

/// The listener's side of every session.
#[derive(Debug)]
pub struct Context {
    pub hostname: String,
    pub listener_name: String,
    pub limits: Limits,
    /// The mailbox behind `<Postmaster>` (RFC 5321 section 4.5.1).
    pub postmaster: String,
    pub tls: TlsMode,
    pub extensions: Extensions,
    /// Some route can keep what REQUIRETLS asks; a message for another is returned with 5.7.30.
    pub(super) can_require_tls: bool,
    /// `relay = "any"`: what its clients say of priorities and submitters counts.
    pub(super) trusted: bool,
    /// Bounds for clients that are not exempt.
    pub guard: ClientLimits,
    /// Anybody may connect, not only networks of the organisation.
    pub strangers: bool,
    pub(super) xclient: Vec<Network>,
    /// Of AUTH; empty where the listener does not offer it.
    pub mechanisms: Vec<Mechanism>,
    pub line_endings: LineEndings,
    pub binarymime: bool,
    /// The next hop is asked about recipients, where the route allows it.
    pub(super) checks_recipients: bool,
    pub(super) listener: usize,
    pub(super) rules: Rules,
    pub(super) known_now: KnownNow,
    pub(super) command_millis: u64,
    pub(super) content_millis: u64,
    pub(super) busy_command_millis: u64,
    pub(super) busy_content_millis: u64,
    /// 0: no end.
    pub(super) session_millis: u64,
    pub(super) slow_millis: u64,
}

impl Context {
    /// `listener` is its index in `Config::listeners`.
    ///
    /// # Panics
    /// When there is no such listener.
    pub fn new(config: &Config, listener: usize) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            hostname: config.hostname.clone(),
            listener_name: config.listeners[listener].name.clone(),
            limits: config.limits.clone(),
            postmaster: config.postmaster.clone(),
            tls: config.listeners[listener].tls,
            extensions: config.listeners[listener].extensions,
            can_require_tls: config.routes.iter().any(Route::can_verify_for_certain),
            trusted: config.listeners[listener].relay == Relay::Any,
            guard: config.listeners[listener].limits.clone(),
            strangers: config.listeners[listener].relay != Relay::Any,
            xclient: config.listeners[listener].xclient.clone(),
            mechanisms: config
                .auth
                .iter()
                .filter(|_| config.listeners[listener].auth)
                .flat_map(mechanisms)
                .collect(),
            line_endings: config.listeners[listener].line_endings,
            binarymime: config.listeners[listener].binarymime,
            checks_recipients: config.listeners[listener].cut_through > CutThroughMode::Off,
            listener,
            rules: Rules::new(config),
            known_now: KnownNow::new(config),
            command_millis: millis(config.timeouts.command),
            content_millis: millis(config.timeouts.content),
            busy_command_millis: millis(config.load.command),
            busy_content_millis: millis(config.load.content),
            session_millis: millis(config.listeners[listener].limits.session_time_max),
            slow_millis: millis(config.listeners[listener].limits.slow_window),
        }
    }
}

fn mechanisms(auth: &crate::config::Auth) -> Vec<Mechanism> {
    auth.mechanisms.clone()
}

/// The answer in place of a greeting when `limits.sessions_max` is reached. Close afterwards.
pub fn too_many_sessions(context: &Context, out: &mut Vec<u8>) {
    reply::TOO_MANY_SESSIONS.put_with(out, &context.hostname);
}

/// The answer in place of a greeting while the relay stops. Close afterwards.
pub fn shutting_down(context: &Context, out: &mut Vec<u8>) {
    reply::SHUTTING_DOWN.put_with(out, &context.hostname);
}

/// The answer for a session that failed by a fault of the program. Close afterwards.
pub fn fault(context: &Context, out: &mut Vec<u8>) {
    reply::INTERNAL_FAULT.put_with(out, &context.hostname);
}
