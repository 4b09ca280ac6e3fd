//! The defaults, in one place. `engine/relay.toml` repeats each with its reason, and a test compares them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Rates;
use super::types::{
    Admin, Delivery, Extensions, Limits, MtaSts, OutwardTls, PeerName, Relay, Retry, Spool, Timeouts,
    TlsRule, TlsVersion,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const fn hours(count: u64) -> Duration {
    minutes(count * 60)
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/spool/sluice"),
            segment_bytes: 64 * MIB,
            bytes_max: 0,
            slow_bytes_min: 1024 * MIB,
            slow_delay_max: seconds(1),
            free_bytes_min: 256 * MIB,
            free_inodes_min: 100,
            write_wait: seconds(60),
            handover_bytes_max: 64 * MIB,
            compaction_share: 10,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        let expire = hours(5 * 24);
        Self { first: minutes(5), longest: hours(1), expire, notice: hours(4), expire_down: expire }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * MIB,
            recipients_max: 1_000,
            line_bytes_max: 998,
            header_bytes_max: 256 * KIB,
            received_max: 50,
            errors_max: 20,
            sessions_max: 20_000,
            transactions_max: 100_000,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: minutes(5),
            content: minutes(3),
            handshake: seconds(30),
            proxy_header: seconds(10),
            connect: seconds(30),
            greeting: minutes(5),
            reply: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end_of_data: minutes(10),
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            own_addresses: Vec::new(),
            connections_max: 20,
            connections_total_max: 2_000,
            messages_per_connection_max: 1_000,
            connection_age_max: minutes(5),
            idle: seconds(5),
            recipients_max: 100,
            chunking: true,
            drain: seconds(20),
            rates: Rates::default(),
        }
    }
}

impl Extensions {
    /// The defaults of a listener: what lets a client jump the queue or ask for notices at its own times is
    /// for those who may send anywhere.
    pub fn of(relay: Relay) -> Self {
        let trusted = relay != Relay::Accepted;
        Self {
            dsn: true,
            smtputf8: true,
            mt_priority: trusted,
            deliver_by: trusted,
            deliver_by_min: minutes(1),
            hold_max: Duration::ZERO,
        }
    }
}

/// Where Debian keeps the authorities that its users trust.
pub(super) const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

impl Default for OutwardTls {
    fn default() -> Self {
        let system = PathBuf::from(SYSTEM_AUTHORITIES);
        Self {
            rule: TlsRule::May,
            names: vec![PeerName::Host],
            fingerprints: Vec::new(),
            authorities: system.exists().then_some(system),
            minimum: TlsVersion::Tls12,
            implicit: false,
            certificate: None,
            dane: true,
            mta_sts: false,
        }
    }
}

impl Default for MtaSts {
    fn default() -> Self {
        let system = PathBuf::from(SYSTEM_AUTHORITIES);
        Self { port: 443, authorities: system.exists().then_some(system), timeout: seconds(60) }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { bind: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8025)) }
    }
}
