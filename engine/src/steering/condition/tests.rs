use super::*;
use crate::config::Config;
use sluice_queue::Schedule;
use sluice_queue::{RecipientState, RecipientStatus};
use std::sync::Arc;

const HOUR: u64 = 3_600;
const NOW: u64 = 1_795_000_000 * MICROS;

fn hops() -> HopNames {
    let toml = r#"
        hostname = "relay.winery.example"
        [spool]
        path = "/tmp"
        [domains]
        accepted = ["winery.example"]
        [[listener]]
        name = "inside"
        bind = ["127.0.0.1:25"]
        clients = ["127.0.0.0/8"]
        relay = "any"
        [[route]]
        domains = ["winery.example"]
        hosts = ["10.1.0.10:25", "10.1.0.11:2525"]
        [[route]]
        domains = [".example"]
        mx = true
        resolver = "external"
        [[resolver]]
        name = "external"
        servers = ["192.0.2.53:53"]
    "#;
    HopNames::new(&Arc::new(Config::parse(toml, "test").unwrap()))
}

fn id(n: u64) -> QueueId {
    QueueId::from_bits(n)
}

/// Two hours old, 10,000 octets.
fn subject() -> Subject<'static> {
    Subject {
        id: id(7),
        arrived_micros: NOW - 2 * HOUR * MICROS,
        content_bytes: 10_000,
        sender: "Bob@Winery.Example",
        damaged: false,
        schedule: Schedule::default(),
    }
}

fn part(address: &'static str) -> Part<'static> {
    Part { address, state: RecipientState::NEW, via: None, reason: None }
}

fn condition(json: &str) -> Condition {
    let mut condition: Condition =
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    condition.prepare().unwrap();
    condition
}

#[test]
fn messages_match_by_all_parts_of_the_condition() {
    let table = [
        ("{}", true),
        (r#"{"ids": ["0000000000007"]}"#, true),
        (r#"{"ids": ["0000000000009", "0000000000007"]}"#, true),
        (r#"{"ids": ["0000000000008"]}"#, false),
        (r#"{"sender": "*@winery.example"}"#, true),
        (r#"{"sender": "<>"}"#, false),
        (r#"{"older_than_seconds": 7199}"#, true),
        (r#"{"older_than_seconds": 7200}"#, false),
        (r#"{"younger_than_seconds": 7200}"#, false),
        (r#"{"younger_than_seconds": 7201}"#, true),
        (r#"{"older_than_seconds": 18446744073709551615}"#, false),
        (r#"{"larger_than_octets": 9999, "smaller_than_octets": 10001}"#, true),
        (r#"{"larger_than_octets": 10000}"#, false),
        (r#"{"smaller_than_octets": 10000}"#, false),
        (r#"{"sender": "bob@*", "larger_than_octets": 10000}"#, false),
        (r#"{"state": "damaged"}"#, false),
        (r#"{"state": "held"}"#, true),
    ];
    for (json, expected) in table {
        assert_eq!(condition(json).matches_message(&subject(), NOW), expected, "{json}");
    }
    let damaged = Subject { damaged: true, ..subject() };
    assert!(condition(r#"{"state": "damaged"}"#).matches_message(&damaged, NOW));
    assert!(!condition(r#"{"state": "queued"}"#).matches_message(&damaged, NOW));
    let dsn = Subject { sender: "", ..subject() };
    assert!(condition(r#"{"sender": "<>"}"#).matches_message(&dsn, NOW));
    let future = Subject { arrived_micros: NOW + HOUR * MICROS, ..subject() };
    assert!(condition(r#"{"younger_than_seconds": 1}"#).matches_message(&future, NOW));
}

#[test]
fn recipients_match_each_for_itself() {
    let hops = hops();
    let deferred = RecipientState { attempts: 2, ..RecipientState::NEW };
    let held = RecipientState { held: true, ..deferred };
    let waits = Part { reason: Some("451 4.7.1 Greylisted"), state: deferred, ..part("ann@Away.Example") };
    let rerouted = Part { via: Some("10.9.9.9:26"), ..part("ann@away.example") };
    let by_mx = Part { via: Some("mx:other.example"), ..part("ann@away.example") };
    let inside = part("ann@winery.example");
    let table = [
        ("{}", waits, true),
        (r#"{"recipient": "ANN@*"}"#, waits, true),
        (r#"{"domain": "away.example"}"#, waits, true),
        (r#"{"domain": "example"}"#, waits, false),
        (r#"{"domain": "*.example"}"#, waits, true),
        (r#"{"reason": "greylist"}"#, waits, true),
        (r#"{"reason": "greylist"}"#, inside, false),
        (r#"{"state": "deferred"}"#, waits, true),
        (r#"{"state": "queued"}"#, waits, false),
        (r#"{"state": "queued"}"#, inside, true),
        (r#"{"state": "deferred"}"#, Part { state: RecipientState::NEW, ..waits }, true),
        (r#"{"state": "held"}"#, Part { state: held, ..waits }, true),
        (r#"{"state": "deferred"}"#, Part { state: held, ..waits }, false),
        (r#"{"next_hop": "away.example"}"#, waits, true),
        (r#"{"next_hop": "10.1.0.10:25"}"#, inside, true),
        (r#"{"next_hop": "10.1.0.10"}"#, inside, true),
        (r#"{"next_hop": "10.1.0.11"}"#, inside, true),
        (r#"{"next_hop": "10.1.0.10:25, 10.1.0.11:2525"}"#, inside, true),
        (r#"{"next_hop": "winery.example"}"#, inside, false),
        (r#"{"next_hop": "away.example"}"#, rerouted, false),
        (r#"{"next_hop": "10.9.9.9"}"#, rerouted, true),
        (r#"{"next_hop": "other.example"}"#, by_mx, true),
        (r#"{"next_hop": "mx:other.example"}"#, by_mx, true),
        (r#"{"next_hop": "without a route"}"#, part("x@nowhere.test"), true),
    ];
    for (json, part, expected) in table {
        assert_eq!(condition(json).matches_recipient(&part, &hops), expected, "{json} on {part:?}");
    }
    let finished = RecipientState { status: RecipientStatus::Delivered, ..RecipientState::NEW };
    assert!(!condition("{}").matches_recipient(&Part { state: finished, ..inside }, &hops));
}

#[test]
fn without_a_configuration_next_hops_are_domains() {
    let hops = HopNames::by_domain();
    assert_eq!(hops.name(&part("ann@Winery.Example")), "winery.example");
    assert!(
        condition(r#"{"next_hop": "winery.example"}"#).matches_recipient(&part("a@winery.example"), &hops)
    );
}

#[test]
fn a_condition_survives_its_json_form() {
    let json = r#"{"ids":["0000000000007"],"sender":"<>","domain":"*.example","older_than_seconds":5,"reason":"x","state":"held"}"#;
    assert_eq!(serde_json::to_string(&condition(json)).unwrap(), json);
    assert!(condition("{}").is_all() && !condition(json).is_all());
}

#[test]
fn slips_are_refused() {
    for json in [
        r#"{"sendr": "a"}"#,
        r#"{"sender": ""}"#,
        r#"{"state": "sent"}"#,
        r#"{"ids": ["x"]}"#,
        r#"{"older_than_seconds": "5m"}"#,
        r#"{"larger_than_octets": -1}"#,
    ] {
        assert!(serde_json::from_str::<Condition>(json).is_err(), "{json}");
    }
    let mut many = Condition { ids: (0..=IDS_MAX as u64).map(id).collect(), ..Condition::default() };
    assert!(many.prepare().is_err());
}
