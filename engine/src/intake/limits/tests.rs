//! Bounds by client, in a time of their own.

use super::*;
use crate::config::ClientLimits;

const SECOND: u64 = 1_000_000;

/// Two connections of an address and three of a network at a time; all else has no bound.
fn limits() -> ClientLimits {
    ClientLimits { connections_per_address: 2, connections_per_network: 3, ..ClientLimits::default().none() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn admit(
    limiter: &Arc<Limiter>,
    limits: &ClientLimits,
    client: &str,
    now: u64,
) -> Result<Admitted, TurnedAway> {
    limiter.admit((0, limits), ip(client), Level::Normal, now)
}

#[test]
fn connections_are_bounded_by_address_and_by_network_and_given_back() {
    let (limiter, limits) = (Limiter::new(100), limits());
    let first = admit(&limiter, &limits, "192.0.2.1", 0).expect("the first");
    let second = admit(&limiter, &limits, "::ffff:192.0.2.1", 0).expect("the same client, mapped");
    assert_eq!(admit(&limiter, &limits, "192.0.2.1", 0).err(), Some(TurnedAway::AddressConnections));
    let _third = admit(&limiter, &limits, "192.0.2.2", 0).expect("a neighbour");
    assert_eq!(admit(&limiter, &limits, "192.0.2.3", 0).err(), Some(TurnedAway::NetworkConnections));
    admit(&limiter, &limits, "192.0.3.1", 0).expect("another network");
    assert!(limiter.admit((1, &limits), ip("192.0.2.1"), Level::Normal, 0).is_ok(), "another listener");
    drop(first);
    let _again = admit(&limiter, &limits, "192.0.2.1", 0).expect("it was given back");
    assert_eq!(admit(&limiter, &limits, "192.0.2.3", 0).err(), Some(TurnedAway::NetworkConnections));
    drop(second);
    assert!(admit(&limiter, &limits, "192.0.2.3", 0).is_ok());
}

#[test]
fn an_ipv6_client_is_its_64_and_its_network_its_48() {
    let (limiter, limits) = (Limiter::new(100), limits());
    let _one = admit(&limiter, &limits, "2001:db8:1:2::1", 0).expect("one");
    let _two = admit(&limiter, &limits, "2001:db8:1:2:ffff::9", 0).expect("two");
    assert_eq!(
        admit(&limiter, &limits, "2001:db8:1:2::77", 0).err(),
        Some(TurnedAway::AddressConnections),
        "sprayed within its /64"
    );
    let _three = admit(&limiter, &limits, "2001:db8:1:3::1", 0).expect("three");
    assert_eq!(
        admit(&limiter, &limits, "2001:db8:1:4::1", 0).err(),
        Some(TurnedAway::NetworkConnections),
        "sprayed within its /48"
    );
    assert!(admit(&limiter, &limits, "2001:db8:2:3::1", 0).is_ok());
    let wide = ClientLimits { network_prefix_v6: 32, ..limits };
    let _held: Vec<_> = (0..3)
        .map(|n| admit(&limiter, &wide, &format!("2001:db9:{n}::1"), 0).expect("within the network"))
        .collect();
    assert_eq!(admit(&limiter, &wide, "2001:db9:9::1", 0).err(), Some(TurnedAway::NetworkConnections));
}

#[test]
fn how_often_a_client_connects_is_bounded_over_a_window() {
    let limiter = Limiter::new(100);
    let limits = ClientLimits {
        connection_rate_per_address: 4,
        connection_rate_per_network: 6,
        rate_window: std::time::Duration::from_secs(60),
        ..ClientLimits::default().none()
    };
    let connect = |client: &str, now: u64| admit(&limiter, &limits, client, now * SECOND).err();
    for _ in 0..4 {
        assert_eq!(connect("192.0.2.1", 0), None);
    }
    assert_eq!(connect("192.0.2.1", 0), Some(TurnedAway::AddressRate));
    assert_eq!(connect("192.0.2.1", 14), Some(TurnedAway::AddressRate));
    assert_eq!(connect("192.0.2.1", 15), None, "one every 15 seconds");
    assert_eq!(connect("192.0.2.1", 16), Some(TurnedAway::AddressRate));
    // Five of the network's six have gone, one of which has come back after 10 seconds.
    assert_eq!((connect("192.0.2.2", 16), connect("192.0.2.3", 16)), (None, None));
    assert_eq!(connect("192.0.2.4", 16), Some(TurnedAway::NetworkRate));
    assert_eq!(connect("192.0.2.1", 200), None, "a window later all is forgotten");
}

#[test]
fn messages_and_recipients_are_charged_to_address_and_network() {
    let limiter = Limiter::new(100);
    let limits = ClientLimits {
        message_rate_per_address: 10,
        message_rate_per_network: 12,
        recipient_rate_per_address: 100,
        ..ClientLimits::default().none()
    };
    let of = (0, &limits);
    let left = |client: &str| limiter.allowance(of, ip(client), Level::Normal, 0);
    assert_eq!(left("192.0.2.1"), Allowance { messages: 10, recipients: 100 });
    limiter.charge(of, ip("192.0.2.1"), Allowance { messages: 8, recipients: 30 }, 0);
    assert_eq!(left("192.0.2.1"), Allowance { messages: 2, recipients: 70 });
    assert_eq!(left("192.0.2.2"), Allowance { messages: 4, recipients: 100 }, "what the network has left");
    limiter.charge(of, ip("192.0.2.1"), Allowance { messages: 1_000, recipients: 0 }, 0);
    assert_eq!(left("192.0.2.1").messages, 0);
    assert_eq!(left("198.51.100.1"), Allowance { messages: 10, recipients: 100 });
    let none = ClientLimits::default().none();
    assert_eq!(limiter.allowance((0, &none), ip("192.0.2.1"), Level::Normal, 0), Allowance::default());
}

#[test]
fn bounds_are_halved_while_the_relay_is_busy_but_never_to_nothing() {
    let (limiter, limits) = (Limiter::new(100), limits());
    let busy = |client: &str| limiter.admit((0, &limits), ip(client), Level::Busy, 0);
    let _one = busy("192.0.2.1").expect("half of two");
    assert_eq!(busy("192.0.2.1").err(), Some(TurnedAway::AddressConnections));
    let _second = admit(&limiter, &limits, "192.0.2.1", 0).expect("when it is not busy");
    for (bound, half) in [(0, 0), (1, 1), (2, 1), (3, 2), (50, 25)] {
        assert_eq!(bound_at(bound, Level::Busy), half);
    }
}

/// IPv6 by the million: the same memory, and others come in.
#[test]
fn spraying_takes_no_memory_and_keeps_nobody_out() {
    let limiter = Limiter::new(1_000);
    let limits = ClientLimits::default();
    for number in 0..200_000_u128 {
        let client = std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | number << 64 | number);
        let _ = limiter.admit((0, &limits), client.into(), Level::Normal, 0);
    }
    let admitted = (0..250).filter(|last| admit(&limiter, &limits, &format!("192.0.2.{last}"), 0).is_ok());
    assert_eq!(admitted.count(), 250);
}
