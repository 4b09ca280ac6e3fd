//! The decision over all listeners, kinds of client and kinds of recipient.

#[allow(unused_imports)]
use super::*;
use crate::config::*;
use std::time::Duration;

/// The reference configuration of the project: outside, inside and submission.
pub(crate) fn config() -> Config {
    let retry = Retry {
        first: Duration::from_secs(300),
        longest: Duration::from_secs(3600),
        expire: Duration::from_secs(432_000),
        notice: Duration::from_secs(14_400),
    };
    let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
    let everybody = vec![network("0.0.0.0", 0), network("::", 0)];
    let listener = |name: &str, clients: &[Network], relay| Listener {
        name: name.into(),
        bind: Vec::new(),
        clients: clients.to_vec(),
        relay,
        tls: TlsMode::Off,
    };
    let seconds = Duration::from_secs;
    Config {
        hostname: "relay.winery.example".into(),
        postmaster: "postmaster@winery.example".into(),
        spool: Spool { path: "spool".into(), segment_bytes: 0, free_bytes_min: 0, handover_bytes_max: 0 },
        shards: Shards { ingest_cpus: vec![0], delivery_cpus: vec![0] },
        domains: Domains { accepted: vec!["winery.example".into(), ".cellar.example".into()] },
        retry: retry.clone(),
        limits: Limits {
            message_bytes_max: 64 << 20,
            recipients_max: 1000,
            line_bytes_max: 998,
            received_max: 50,
            errors_max: 20,
            sessions_max: 20_000,
            transactions_max: 100_000,
        },
        timeouts: Timeouts {
            command: seconds(300),
            content: seconds(180),
            connect: seconds(30),
            greeting: seconds(300),
            reply: seconds(300),
            data: seconds(120),
            block: seconds(180),
            end_of_data: seconds(600),
        },
        delivery: Delivery {
            connections_max: 20,
            messages_per_connection_max: 1000,
            idle: seconds(5),
            recipients_max: 100,
            drain: seconds(20),
        },
        tls: None,
        admin: Admin { bind: None },
        log: Log { file: None },
        listeners: vec![
            listener("outside", &everybody, Relay::Accepted),
            listener("inside", &[network("10.1.0.0", 16), network("2001:db8:1::", 48)], Relay::Any),
            listener("submission", &everybody, Relay::Authenticated),
        ],
        routes: vec![
            Route {
                domains: vec!["winery.example".into(), ".cellar.example".into()],
                target: Target::SmartHosts(vec![SmartHost { host: "10.1.0.10".into(), port: 25 }]),
                resolver: None,
                retry: retry.clone(),
            },
            Route { domains: vec!["*".into()], target: Target::Mx { port: 25 }, resolver: None, retry },
        ],
        resolvers: Vec::new(),
    }
}
