//! What one client may take of a listener: `[limits]` for all listeners that face strangers,
//! `[listener.limits]` for one.
//!
//! A listener with `relay = "any"` serves networks that the organisation has listed, so `[limits]` holds
//! nothing here for it; only its own `[listener.limits]` does. A 0 (`"0s"`) switches a limit off.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::Section;
use super::types::Network;
use super::value;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Bounds for clients, each with its key's name; 0 is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// For these clients nothing of this holds.
    pub exempt: Vec<Network>,
    /// Connections at a time. An IPv6 client is its `address_prefix_v6`.
    pub connections_per_address: u32,
    pub connections_per_network: u32,
    /// Within `rate_window`, from here on.
    pub connection_rate_per_address: u32,
    pub connection_rate_per_network: u32,
    pub message_rate_per_address: u32,
    pub message_rate_per_network: u32,
    pub recipient_rate_per_address: u32,
    pub recipient_rate_per_network: u32,
    pub rate_window: Duration,
    pub network_prefix_v4: u8,
    pub network_prefix_v6: u8,
    pub address_prefix_v6: u8,
    /// Errors before replies to errors are held back, each `error_delay` longer than the one before.
    pub soft_errors_max: usize,
    pub error_delay: Duration,
    /// Commands without progress before each counts as an error.
    pub junk_commands_max: usize,
    /// Recipients refused for good in one session.
    pub invalid_recipients_max: usize,
    pub session_time_max: Duration,
    /// Octets a second of content, on an average over `slow_window`.
    pub bytes_per_second_min: u64,
    pub slow_window: Duration,
    pub refuse_early_talkers: bool,
    pub greet_delay: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1/128"];
        Self {
            exempt: loopback.iter().map(|text| value::network(text).expect("a network")).collect(),
            connections_per_address: 50,
            connections_per_network: 200,
            connection_rate_per_address: 300,
            connection_rate_per_network: 1_200,
            message_rate_per_address: 1_000,
            message_rate_per_network: 5_000,
            recipient_rate_per_address: 5_000,
            recipient_rate_per_network: 20_000,
            rate_window: Duration::from_secs(60),
            network_prefix_v4: 24,
            network_prefix_v6: 48,
            address_prefix_v6: 64,
            soft_errors_max: 10,
            error_delay: SECOND,
            junk_commands_max: 100,
            invalid_recipients_max: 100,
            session_time_max: HOUR,
            bytes_per_second_min: 100,
            slow_window: Duration::from_secs(180),
            refuse_early_talkers: true,
            greet_delay: Duration::ZERO,
        }
    }
}

impl ClientLimits {
    /// Those of a listener that serves only networks of the organisation: none.
    pub fn none(&self) -> Self {
        Self {
            exempt: self.exempt.clone(),
            connections_per_address: 0,
            connections_per_network: 0,
            connection_rate_per_address: 0,
            connection_rate_per_network: 0,
            message_rate_per_address: 0,
            message_rate_per_network: 0,
            recipient_rate_per_address: 0,
            recipient_rate_per_network: 0,
            soft_errors_max: 0,
            error_delay: Duration::ZERO,
            junk_commands_max: 0,
            invalid_recipients_max: 0,
            session_time_max: Duration::ZERO,
            bytes_per_second_min: 0,
            refuse_early_talkers: false,
            greet_delay: Duration::ZERO,
            ..*self
        }
    }

    /// Whether nothing of this holds for a client.
    pub fn exempts(&self, client: std::net::IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(client))
    }
}

/// Reads the keys of a section; what is absent is as in `absent`. Leaves the section open, which
/// `[limits]` shares with others.
pub(super) fn client_limits(section: &mut Section<'_>, absent: &ClientLimits) -> ClientLimits {
    const NUMBERS: RangeInclusive<u32> = 0..=10_000_000;
    let exempt = section.list("exempt", value::network);
    let mut count = |key, absent: u32| section.count(key, NUMBERS).map_or(absent, |at| at.value);
    let mut limits = ClientLimits {
        exempt: exempt
            .map_or_else(|| absent.exempt.clone(), |list| list.into_iter().map(|at| at.value).collect()),
        connections_per_address: count("connections_per_address", absent.connections_per_address),
        connections_per_network: count("connections_per_network", absent.connections_per_network),
        connection_rate_per_address: count("connection_rate_per_address", absent.connection_rate_per_address),
        connection_rate_per_network: count("connection_rate_per_network", absent.connection_rate_per_network),
        message_rate_per_address: count("message_rate_per_address", absent.message_rate_per_address),
        message_rate_per_network: count("message_rate_per_network", absent.message_rate_per_network),
        recipient_rate_per_address: count("recipient_rate_per_address", absent.recipient_rate_per_address),
        recipient_rate_per_network: count("recipient_rate_per_network", absent.recipient_rate_per_network),
        soft_errors_max: count("soft_errors_max", absent.soft_errors_max as u32) as usize,
        junk_commands_max: count("junk_commands_max", absent.junk_commands_max as u32) as usize,
        invalid_recipients_max: count("invalid_recipients_max", absent.invalid_recipients_max as u32)
            as usize,
        ..absent.clone()
    };
    let mut prefix = |key, range, absent: u8| section.count(key, range).map_or(absent, |at| at.value as u8);
    limits.network_prefix_v4 = prefix("network_prefix_v4", 8..=32, absent.network_prefix_v4);
    limits.network_prefix_v6 = prefix("network_prefix_v6", 16..=128, absent.network_prefix_v6);
    limits.address_prefix_v6 = prefix("address_prefix_v6", 16..=128, absent.address_prefix_v6);
    if let Some(at) = section.size("bytes_per_second_min", 0..=1 << 30) {
        limits.bytes_per_second_min = at.value;
    }
    let mut time = |key, range, absent| section.duration(key, range).map_or(absent, |at| at.value);
    limits.rate_window = time("rate_window", SECOND..=HOUR, absent.rate_window);
    limits.slow_window = time("slow_window", SECOND..=HOUR, absent.slow_window);
    limits.error_delay = time("error_delay", Duration::ZERO..=60 * SECOND, absent.error_delay);
    limits.session_time_max = time("session_time_max", Duration::ZERO..=7 * DAY, absent.session_time_max);
    limits.greet_delay = time("greet_delay", Duration::ZERO..=30 * SECOND, absent.greet_delay);
    if let Some(at) = section.flag("refuse_early_talkers") {
        limits.refuse_early_talkers = at.value;
    }
    limits
}
