//! What the client session tells the one who drives it.
//!
//! Plain data.

use crate::delivery::failure::Failure;
use crate::delivery::verdict::Fate;
use crate::smtp::content::Framing;

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Write `out`, then read more.
    Read,
    /// The peer is ready for the TLS handshake: make it, then call `tls_started`, or close the connection.
    StartTls,
    /// Greeted: `begin` or `quit` may be called.
    Ready,
    /// Write `out`, then stream the content and call `content_sent`: dot-stuffed and with end-of-data, or as
    /// it is, exactly as many octets as `begin` was told.
    Send(Framing),
    /// The oldest transaction is over, with one fate per recipient in the order given. The session goes on
    /// unless [`Client::is_closed`](super::Client::is_closed) says otherwise; then close the connection.
    Finished(Vec<Fate>),
    /// The session is over: close the connection.
    Failed(SessionFailure),
    /// QUIT was answered, or the session had ended before: close the connection.
    Closed,
}

/// A session that ended otherwise than by QUIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFailure {
    pub failure: Failure,
    /// One fate per recipient of the open transaction; empty when none was open. Recipients that had
    /// been refused before keep that fate.
    pub fates: Vec<Fate>,
    /// The connection had carried a transaction before, and failed before it answered anything of
    /// this one: most likely the peer had closed it while it was unused. To be tried again on a new
    /// connection to the same host, without counting against the host or the message.
    pub was_stale: bool,
}
