//! What all client sessions of the relay share: its name and the time-outs.
//!
//! Plain data, `Send`, behind an `Arc`.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, Login, Protocol, Timeouts};

/// Milliseconds on the clock of the caller; only differences matter.
pub type Millis = u64;

/// What all client sessions share.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// For EHLO, HELO and LHLO; a peer that calls itself by this name is this relay.
    pub hostname: String,
    pub timeouts: ClientTimeouts,
    /// Content goes by BDAT to peers that offer CHUNKING (RFC 3030).
    pub chunking: bool,
    pub protocol: Protocol,
}

/// Whether the session goes over to TLS (RFC 3207).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    Never,
    /// Where the peer offers it.
    May,
    /// Nothing goes over a session without it.
    Must,
}

/// What one session is to do before it carries mail.
#[derive(Clone, Debug)]
pub struct Opening {
    pub starttls: StartTls,
    /// The connection is TLS already (RFC 8314), so there is no STARTTLS.
    pub in_tls: bool,
    /// Who the relay is to this peer; without it the session does not authenticate.
    pub login: Option<Arc<Login>>,
}

/// RFC 5321 section 4.5.3.2, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimeouts {
    pub greeting: Millis,
    /// EHLO, HELO, MAIL, RCPT, RSET, QUIT; for each reply of a group anew.
    pub reply: Millis,
    pub data: Millis,
    pub block: Millis,
    pub end_of_data: Millis,
}

impl ClientSettings {
    /// By route; behind them those of no route by SMTP and by LMTP.
    pub fn of_routes(config: &Config) -> Vec<Arc<Self>> {
        let routes = config.routes.iter().map(|route| (&route.timeouts, route.protocol));
        let others = [Protocol::Smtp, Protocol::Lmtp].map(|protocol| (&config.timeouts, protocol));
        routes
            .chain(others)
            .map(|(timeouts, protocol)| Arc::new(Self::of(config, timeouts, protocol)))
            .collect()
    }

    fn of(config: &Config, timeouts: &Timeouts, protocol: Protocol) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            protocol,
            hostname: config.hostname.clone(),
            chunking: config.delivery.chunking,
            timeouts: ClientTimeouts {
                greeting: millis(timeouts.greeting),
                reply: millis(timeouts.reply),
                data: millis(timeouts.data),
                block: millis(timeouts.block),
                end_of_data: millis(timeouts.end_of_data),
            },
        }
    }
}
