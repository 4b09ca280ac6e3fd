//! The decision over all listeners, kinds of client and kinds of recipient.

use super::*;
use crate::config::*;
use std::time::Duration;

/// AUTH with every mechanism.
fn auth() -> Auth {
    Auth {
        backend: Backend::File("users".into()),
        token: None,
        mechanisms: crate::smtp::sasl::Mechanism::ALL.to_vec(),
        domain: "winery.example".into(),
        bind_senders: true,
        senders: None,
        patience: Duration::from_secs(10),
        resolver: None,
        guessing: Guessing::default(),
        limits: LoginLimits::default(),
        password: PasswordPolicy::default(),
    }
}

/// The reference configuration of the project: outside, inside and submission.
pub(crate) fn config() -> Config {
    let retry = Retry {
        first: Duration::from_secs(300),
        longest: Duration::from_secs(3600),
        expire: Duration::from_secs(432_000),
        notice: Duration::from_secs(14_400),
        expire_down: Duration::from_secs(432_000),
    };
    let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
    let everybody = vec![network("0.0.0.0", 0), network("::", 0)];
    let listener = |name: &str, clients: &[Network], relay| Listener {
        name: name.into(),
        bind: Vec::new(),
        clients: clients.to_vec(),
        relay,
        tls: TlsMode::Off,
        extensions: Extensions::of(relay),
        auth: relay == Relay::Authenticated,
        line_endings: Default::default(),
        binarymime: false,
        certificates: None,
        limits: if relay == Relay::Any { ClientLimits::default().none() } else { ClientLimits::default() },
        proxy: Vec::new(),
        xclient: Vec::new(),
        cut_through: CutThroughMode::Off,
    };
    let seconds = Duration::from_secs;
    Config {
        hostname: "relay.winery.example".into(),
        postmaster: "postmaster@winery.example".into(),
        spool: Spool { path: "spool".into(), ..Spool::default() },
        shards: Shards {
            ingest_cpus: vec![0],
            delivery_cpus: vec![0],
            service_cpus: vec![],
            spin: Duration::ZERO,
        },
        domains: Domains { accepted: vec!["winery.example".into(), ".cellar.example".into()] },
        retry: retry.clone(),
        limits: Limits {
            message_bytes_max: 64 << 20,
            recipients_max: 1000,
            line_bytes_max: 998,
            header_bytes_max: 256 << 10,
            received_max: 50,
            errors_max: 20,
            sessions_max: 20_000,
            transactions_max: 100_000,
        },
        load: LoadMarks::default(),
        mta_sts: MtaSts::default(),
        tls_report: None,
        timeouts: Timeouts {
            handshake: Duration::from_secs(30),
            proxy_header: Duration::from_secs(10),
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
            own_addresses: vec![],
            chunking: true,
            connections_max: 20,
            connections_total_max: 2_000,
            messages_per_connection_max: 1000,
            connection_age_max: seconds(300),
            idle: seconds(5),
            recipients_max: 100,
            drain: seconds(20),
            rates: Rates::default(),
        },
        cut_through: CutThrough::default(),
        sites: Vec::new(),
        backoff: Vec::new(),
        warm_ups: Vec::new(),
        tls: None,
        auth: Some(auth()),
        srs: None,
        dsn: Default::default(),
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
                target: Target::SmartHosts(vec![BalancedHost {
                    host: SmartHost { host: "10.1.0.10".into(), port: 25 },
                    priority: 0,
                    weight: 1,
                }]),
                resolver: None,
                source: vec![],
                private_addresses: false,
                retry: retry.clone(),
                // As the configuration has it where no resolver knows DNSSEC.
                tls: OutwardTls { dane: false, ..OutwardTls::default() },
                login: None,
                cut_through: RouteCutThrough::default(),
                protocol: Protocol::Smtp,
                recipients: None,
                limits: RouteLimits::of(&Delivery::default()),
                timeouts: Timeouts::default(),
                rates: Rates::default(),
                rewrite: None,
            },
            Route {
                domains: vec!["*".into()],
                target: Target::Mx { port: 25 },
                resolver: None,
                source: vec![],
                private_addresses: false,
                retry,
                // As the configuration has it where no resolver knows DNSSEC.
                tls: OutwardTls { dane: false, ..OutwardTls::default() },
                login: None,
                cut_through: RouteCutThrough::default(),
                protocol: Protocol::Smtp,
                recipients: None,
                limits: RouteLimits::of(&Delivery::default()),
                timeouts: Timeouts::default(),
                rates: Rates::default(),
                rewrite: None,
            },
        ],
        next_hops: NextHops::default(),
        resolvers: Vec::new(),
    }
}

fn verdict(rules: &Rules, listener: usize, client: &str, authenticated: bool, recipient: &str) -> Verdict {
    let path = format!("<{recipient}>");
    let (recipient, rest) = crate::smtp::path::forward_path(&path).unwrap();
    assert_eq!(rest, "");
    let client = client.parse().unwrap();
    decide(rules, &Question { listener, client, authenticated, recipient: &recipient, now_micros: 0 })
}

const OUTSIDE: usize = 0;
const INSIDE: usize = 1;
const SUBMISSION: usize = 2;

#[test]
fn outside_only_own_domains_are_accepted() {
    use Rule::*;
    let rules = Rules::new(&config());
    for (recipient, rule) in [
        ("joe@winery.example", AcceptedDomain(0)),
        ("joe@WINERY.Example", AcceptedDomain(0)),
        ("\"joe\"@winery.example", AcceptedDomain(0)),
        ("\"joe smith\"@winery.example", AcceptedDomain(0)),
        ("joe@south.cellar.example", AcceptedDomain(1)),
        ("joe@a.b.Cellar.example", AcceptedDomain(1)),
        ("Postmaster", Postmaster),
        ("postMASTER", Postmaster),
        ("@relay.example:joe@winery.example", AcceptedDomain(0)),
        // A suffix does not hold its own name, a name not what is below or beside it.
        ("joe@cellar.example", OtherDomain),
        ("joe@xcellar.example", OtherDomain),
        ("joe@sub.winery.example", OtherDomain),
        ("joe@xwinery.example", OtherDomain),
        ("joe@winery.example.evil.example", OtherDomain),
        ("joe@example", OtherDomain),
        ("joe@elsewhere.example", OtherDomain),
        ("joe@[127.0.0.1]", OtherDomain),
        ("joe@[IPv6:::1]", OtherDomain),
        ("postmaster@[192.0.2.1]", OtherDomain),
        ("@winery.example:joe@elsewhere.example", OtherDomain),
        ("joe%winery.example@elsewhere.example", OtherDomain),
        ("joe%elsewhere.example@winery.example", RoutedLocalPart),
        ("elsewhere.example!joe@winery.example", RoutedLocalPart),
        ("\"joe@elsewhere.example\"@winery.example", RoutedLocalPart),
        ("\"joe\\@elsewhere.example\"@winery.example", RoutedLocalPart),
        ("\"joe\\%elsewhere.example\"@south.cellar.example", RoutedLocalPart),
        ("\"elsewhere.example\\!joe\"@winery.example", RoutedLocalPart),
    ] {
        for authenticated in [false, true] {
            let verdict = verdict(&rules, OUTSIDE, "203.0.113.7", authenticated, recipient);
            assert_eq!(verdict.rule(), rule, "{recipient}");
            assert_eq!(verdict.is_accept(), matches!(rule, AcceptedDomain(_) | Postmaster), "{recipient}");
        }
    }
}

#[test]
fn inside_everything_is_accepted_from_listed_clients_and_nothing_from_others() {
    let rules = Rules::new(&config());
    for recipient in
        ["joe@winery.example", "joe@elsewhere.example", "a%b@c.example", "joe@[192.0.2.1]", "Postmaster"]
    {
        for client in ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "2001:db8:1::1"] {
            assert!(verdict(&rules, INSIDE, client, false, recipient).is_accept(), "{client} {recipient}");
        }
        for client in ["10.0.255.255", "10.2.0.0", "192.0.2.9", "::1", "2001:db8:2::1", "::10.1.2.3"] {
            let expected = Verdict::Refuse(&reply::CLIENT_DENIED, Rule::ClientNotListed);
            assert_eq!(verdict(&rules, INSIDE, client, true, recipient), expected, "{client} {recipient}");
        }
    }
}

#[test]
fn submission_takes_nothing_before_authentication_and_everything_after_it() {
    let rules = Rules::new(&config());
    for recipient in ["joe@winery.example", "joe@elsewhere.example", "Postmaster"] {
        let refused = Verdict::Refuse(&reply::AUTHENTICATION_REQUIRED, Rule::NotAuthenticated);
        assert_eq!(verdict(&rules, SUBMISSION, "203.0.113.7", false, recipient), refused);
        let accepted = Verdict::Accept(Rule::Authenticated);
        assert_eq!(verdict(&rules, SUBMISSION, "203.0.113.7", true, recipient), accepted);
    }
}

#[test]
fn a_star_among_accepted_domains_accepts_nothing() {
    let mut config = config();
    config.domains.accepted = vec!["*".into(), ".".into(), "".into()];
    let verdict = verdict(&Rules::new(&config), OUTSIDE, "203.0.113.7", false, "joe@elsewhere.example");
    assert_eq!(verdict.rule(), Rule::OtherDomain);
}

#[test]
fn a_listener_that_does_not_exist_admits_nobody() {
    let rules = Rules::new(&config());
    assert!(!rules.admits(3, "10.1.2.3".parse().unwrap()));
    assert!(!verdict(&rules, 3, "10.1.2.3", true, "joe@winery.example").is_accept());
}

#[test]
fn every_refusal_is_lasting() {
    let rules = Rules::new(&config());
    for row in &matrix(&config()).rows {
        let listener = config().listeners.iter().position(|listener| listener.name == row.listener).unwrap();
        let again = verdict(&rules, listener, &row.client.to_string(), row.authenticated, &row.recipient);
        assert_eq!(again, row.verdict);
        if let Verdict::Refuse(answer, _) = row.verdict {
            assert_eq!(answer.code / 100, 5);
        }
    }
}

#[test]
fn networks_hold_what_their_prefix_says() {
    for (network, prefix, inside, outside) in [
        ("0.0.0.0", 0, "255.255.255.255", "::1"),
        ("::", 0, "ffff::1", "192.0.2.1"),
        ("192.0.2.1", 32, "192.0.2.1", "192.0.2.2"),
        ("192.0.2.128", 25, "192.0.2.255", "192.0.2.127"),
        ("192.0.2.77", 24, "192.0.2.1", "192.0.3.1"),
        ("2001:db8::1", 128, "2001:db8::1", "2001:db8::2"),
        ("2001:db8::", 33, "2001:db8:7fff::1", "2001:db8:8000::1"),
        ("127.0.0.0", 8, "::ffff:127.0.0.1", "::127.0.0.1"),
    ] {
        let network = Network { address: network.parse().unwrap(), prefix };
        assert!(network.contains(inside.parse().unwrap()), "{network:?}");
        assert!(!network.contains(outside.parse().unwrap()), "{network:?}");
    }
}

#[test]
fn the_first_route_that_matches_wins() {
    let mut config = config();
    for (domain, route) in [
        ("winery.example", Some(0)),
        ("WINERY.EXAMPLE", Some(0)),
        ("south.cellar.example", Some(0)),
        ("cellar.example", Some(1)),
        ("elsewhere.example", Some(1)),
        ("[192.0.2.1]", Some(1)),
    ] {
        assert_eq!(config.route_for(domain), route, "{domain}");
    }
    config.routes.pop();
    assert_eq!(config.route_for("elsewhere.example"), None);
}

#[test]
fn the_matrix_is_what_an_administrator_expects() {
    let expected = [
        ["listener", "client", "recipient", "verdict", "goes to", "by"],
        [
            "outside",
            "0.0.0.0/0, ::/0",
            "user@winery.example",
            "accept",
            "route 1: 10.1.0.10:25",
            "domains.accepted[0]",
        ],
        [
            "outside",
            "0.0.0.0/0, ::/0",
            "user@below.cellar.example",
            "accept",
            "route 1: 10.1.0.10:25",
            "domains.accepted[1]",
        ],
        [
            "outside",
            "0.0.0.0/0, ::/0",
            "user@any-other-domain.example",
            "refuse 550 5.7.1",
            "-",
            "not in domains.accepted",
        ],
        [
            "outside",
            "0.0.0.0/0, ::/0",
            "user%any-other-domain.example@winery.example",
            "refuse 550 5.7.1",
            "-",
            "%, ! or @ in the local part",
        ],
        [
            "outside",
            "0.0.0.0/0, ::/0",
            "Postmaster",
            "accept",
            "route 1: 10.1.0.10:25",
            "Postmaster goes to `postmaster`",
        ],
        [
            "inside",
            "10.1.0.0/16, 2001:db8:1::/48",
            "user@winery.example",
            "accept",
            "route 1: 10.1.0.10:25",
            "relay = \"any\"",
        ],
        [
            "inside",
            "10.1.0.0/16, 2001:db8:1::/48",
            "user@below.cellar.example",
            "accept",
            "route 1: 10.1.0.10:25",
            "relay = \"any\"",
        ],
        [
            "inside",
            "10.1.0.0/16, 2001:db8:1::/48",
            "user@any-other-domain.example",
            "accept",
            "route 2: MX",
            "relay = \"any\"",
        ],
        [
            "inside",
            "10.1.0.0/16, 2001:db8:1::/48",
            "user%any-other-domain.example@winery.example",
            "accept",
            "route 1: 10.1.0.10:25",
            "relay = \"any\"",
        ],
        [
            "inside",
            "10.1.0.0/16, 2001:db8:1::/48",
            "Postmaster",
            "accept",
            "route 1: 10.1.0.10:25",
            "Postmaster goes to `postmaster`",
        ],
        [
            "inside",
            "anybody else",
            "user@winery.example",
            "refuse 550 5.7.1",
            "-",
            "client not in listener.clients",
        ],
    ];
    let table = matrix(&config()).to_string();
    for (line, cells) in table.lines().zip(expected) {
        let mut rest = line;
        for cell in cells {
            rest = rest
                .strip_prefix(cell)
                .unwrap_or_else(|| panic!("{cell:?} is not next in {line}"))
                .trim_start();
        }
        assert_eq!(rest, "", "{line}");
    }
    assert_eq!(table.lines().count(), 1 + 5 * 5, "{table}");
}

/// Return addresses lead outside, so only those that were made here and not too long ago are taken, wherever they
/// come in; nothing else of their domain is.
#[test]
fn a_return_address_is_no_open_relay() {
    use crate::rewrite::srs::Srs;
    let month = 31 * 86_400 * 1_000_000;
    let srs =
        Srs::new("srs.example".into(), &["0123456789abcdef".to_owned()], Duration::from_secs(21 * 86_400), 8);
    let good = srs.forward("eve@away.example", month).unwrap();
    let old = srs.forward("eve@away.example", 0).unwrap();
    let forged = good.replace("eve", "bob");
    let mut config = config();
    config.srs = Some(std::sync::Arc::new(srs));
    let rules = Rules::new(&config);
    for (listener, authenticated, recipient, rule) in [
        (0, false, &good, Rule::ReturnAddress),
        (1, false, &good, Rule::ReturnAddress),
        (2, false, &good, Rule::NotAuthenticated),
        (2, true, &good, Rule::ReturnAddress),
        (0, false, &forged, Rule::ForgedReturnAddress),
        (1, false, &forged, Rule::ForgedReturnAddress),
        (0, false, &old, Rule::ExpiredReturnAddress),
        (0, false, &good.replace("srs.example", "else.example"), Rule::OtherDomain),
        (0, false, &"bob@srs.example".to_owned(), Rule::OtherDomain),
        (0, false, &"eve@away.example".to_owned(), Rule::OtherDomain),
    ] {
        let path = format!("<{recipient}>");
        let (recipient, _) = crate::smtp::path::forward_path(&path).unwrap();
        let client = "10.1.0.7".parse().unwrap();
        let question = Question { listener, client, authenticated, recipient: &recipient, now_micros: month };
        assert_eq!(super::decide(&rules, &question).rule(), rule, "{listener} {path}");
    }
}
