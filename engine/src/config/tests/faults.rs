//! Bad files with the exact lines that they print.

use super::super::*;
use super::GOOD;

/// The lines that a text prints, without the origin.
fn faults(text: &str) -> Vec<String> {
    let lines = Config::parse(text, "f").map(|_| String::new()).unwrap_or_else(|error| error.to_string());
    lines.lines().map(|line| line.strip_prefix("f:").expect(line).to_owned()).collect()
}

/// The good file with one line changed prints exactly this, and nothing besides.
fn changed(table: &[(&str, &str, &[&str])]) {
    for (from, to, expected) in table {
        assert_eq!(GOOD.matches(from).count(), 1, "{from} must be unique in the good file");
        assert_eq!(faults(&GOOD.replace(from, to)), *expected, "{from} -> {to}");
    }
}

/// A section put behind the good file's first line, so that the fault stands in line 3 or as given.
fn added(table: &[(&str, &[&str])]) {
    for (section, expected) in table {
        // Behind the top-level keys, before the first section.
        let text = GOOD.replacen("[domains]", &format!("{section}\n[domains]"), 1);
        assert_eq!(faults(&text), *expected, "{section}");
    }
}

#[test]
fn the_good_file_has_no_fault() {
    assert_eq!(faults(GOOD), [""; 0]);
}

#[test]
fn a_value_that_is_none_names_what_is_allowed() {
    changed(&[
        (
            "relay = \"any\"",
            "relay = \"acepted\"",
            &["13: listener.relay: \"acepted\" is not a value; allowed: accepted, any, authenticated"],
        ),
        (
            "\"Relay.Winery.Example.\"",
            "\"relay\"",
            &[
                "2: hostname: \"relay\" is not a full host name; allowed: a name with a domain, such as relay.winery.example",
            ],
        ),
        ("\"Relay.Winery.Example.\"", "7", &["2: hostname: found the number 7; allowed: a string in quotes"]),
        (
            "[\"10.1.0.0/16\", \"10.2.0.7\"]",
            "[\"10.1.2.0/16\", \"10.0.0.0/33\", \"ten\", \"::ffff:10.1.0.0/112\", 4, \"2001:db8::1/32\"]",
            &[
                "12: listener.clients: \"10.1.2.0/16\" has bits set behind its prefix; allowed: 10.1.0.0/16, or the one address 10.1.2.0",
                "12: listener.clients: \"10.0.0.0/33\": the prefix is longer than the address; allowed: /0 to /32",
                "12: listener.clients: \"ten\" is not a network; allowed: 10.1.0.0/16, 2001:db8::/32, 10.1.0.7",
                "12: listener.clients: \"::ffff:10.1.0.0/112\" is an IPv4 address in IPv6 form; allowed: the IPv4 form, such as 10.1.0.0/16",
                "12: listener.clients: found the number 4; allowed: a list of strings, [\"…\", \"…\"]",
                "12: listener.clients: \"2001:db8::1/32\" has bits set behind its prefix; allowed: 2001:db8::/32, or the one address 2001:db8::1",
            ],
        ),
        (
            "[\"10.1.0.5:25\"]",
            "[\"10.1.0.5\"]",
            &[
                "11: listener.bind: \"10.1.0.5\" is not an address with a port; allowed: 203.0.113.10:25, [2001:db8::1]:25, 0.0.0.0:25, [::]:25",
            ],
        ),
        (
            "[\"10.1.0.5:25\"]",
            "\"10.1.0.5:25\"",
            &[
                "11: listener.bind: found the string \"10.1.0.5:25\"; allowed: a list of strings, [\"…\", \"…\"]",
            ],
        ),
        ("[\"10.1.0.5:25\"]", "[]", &["11: listener.bind: is empty; allowed: at least one"]),
        (
            "longest = \"10m\"",
            "longest = 600",
            &["19: route.retry.longest: found the number 600; allowed: a string in quotes"],
        ),
        (
            "port = 2525",
            "port = 70_000",
            &["23: route.port: 70000 is out of range; allowed: a whole number from 1 to 65535"],
        ),
        ("mx = true", "mx = \"yes\"", &["22: route.mx: found the string \"yes\"; allowed: true, false"]),
    ]);
}

#[test]
fn a_key_that_is_unknown_is_refused_with_the_nearest_known_one() {
    changed(&[
        ("relay = \"any\"", "realy = \"any\"", &["13: listener.realy: is not a key; did you mean relay?"]),
        (
            "hostname =",
            "host_name = \"a.b\"\nhostname =",
            &["2: host_name: is not a key; did you mean hostname?"],
        ),
        ("[domains]", "[domains]\nxyzzy = 1", &["4: domains.xyzzy: is not a key; allowed: accepted"]),
    ]);
    added(&[
        ("[limts]\na = 1", &["3: limts: is not a key; did you mean limits?"]),
        (
            "[limits]\nmessage_bytes = 1",
            &["4: limits.message_bytes: is not a key; did you mean message_bytes_max?"],
        ),
        ("limits = 4", &["3: limits: found the number 4; allowed: a table, [limits]"]),
    ]);
}

#[test]
fn durations_and_sizes_need_a_unit_and_a_range() {
    added(&[
        (
            "[retry]\nfirst = \"5\"\nexpire = \"5 d\"",
            &[
                "4: retry.first: \"5\" is not a duration; allowed: a duration from 100ms to 1d, units ms, s, m, h, d",
                "5: retry.expire: \"5 d\" is not a duration; allowed: a duration from 1s to 60d, units ms, s, m, h, d",
            ],
        ),
        (
            "[timeouts]\ncommand = \"0s\"",
            &["4: timeouts.command: \"0s\" is out of range; allowed: a duration from 100ms to 1h"],
        ),
        (
            "[timeouts]\ncommand = \"99999999999999999999d\"",
            &[
                "4: timeouts.command: \"99999999999999999999d\" is not a duration; allowed: a duration from 100ms to 1h, units ms, s, m, h, d",
            ],
        ),
        (
            "[limits]\nmessage_bytes_max = \"64mb\"",
            &[
                "4: limits.message_bytes_max: \"64mb\" is not a size; allowed: a size from 64KiB to 4GiB, units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB",
            ],
        ),
        (
            "[limits]\nmessage_bytes_max = \"10KB\"\nrecipients_max = 99\nerrors_max = -1",
            &[
                "4: limits.message_bytes_max: \"10KB\" is out of range; allowed: a size from 64KiB to 4GiB",
                "5: limits.recipients_max: 99 is out of range; allowed: a whole number from 100 to 100000",
                "6: limits.errors_max: -1 is out of range; allowed: a whole number from 1 to 10000",
            ],
        ),
        (
            "[spool]\nsegment_bytes = \"10MB\"\nfree_bytes_min = 7\npath = \"\"",
            &[
                "4: spool.segment_bytes: 10000000 bytes are not whole blocks; allowed: a multiple of 4KiB",
                "5: spool.free_bytes_min: found the number 7; allowed: a string in quotes",
                "6: spool.path: is empty; allowed: a path",
            ],
        ),
    ]);
}

#[test]
fn a_schedule_must_grow() {
    added(&[
        (
            "[retry]\nfirst = \"2h\"",
            &[
                "4: retry.first: 2h is more than longest, 1h; allowed: first <= longest <= expire",
                "21: route.retry.longest: 10m is less than first, 2h; allowed: first <= longest <= expire",
            ],
        ),
        (
            "[retry]\nexpire = \"30m\"",
            &["4: retry.expire: 30m is less than longest, 1h; allowed: first <= longest <= expire"],
        ),
    ]);
    changed(&[(
        "longest = \"10m\"",
        "longest = \"1m\"",
        &["19: route.retry.longest: 1m is less than first, 5m; allowed: first <= longest <= expire"],
    )]);
}

#[test]
fn cpu_lists_are_bounded_and_without_repeats() {
    let list = |text: &str, wrong: &str| {
        let section = format!("[shards]\ningest_cpus = \"{text}\"");
        added(&[(&section, &[&format!("4: shards.ingest_cpus: \"{text}\"{wrong}")])]);
    };
    let none = " is not a CPU list; allowed: numbers and ranges such as \"0\", \"0-3\", \"0-3,8\"";
    for text in ["", "a", "0,", "0-", "-1", "0-3:2", "0--3", "+1"] {
        list(text, none);
    }
    list("0-4000000000", ": there is no CPU 4000000000; allowed: 0 to 4095");
    list("99999999999999999999", ": there is no CPU 99999999999999999999; allowed: 0 to 4095");
    list("4096", ": there is no CPU 4096; allowed: 0 to 4095");
    list("0-3,2", " names CPU 2 twice; allowed: each CPU once");
    list("3-0", ": 3-0 runs backwards; allowed: 0-3");
}

#[test]
fn names_and_addresses_are_taken_once() {
    changed(&[
        (
            "name = \"inside\"",
            "name = \"outside\"",
            &["10: listener.name: \"outside\" is taken by line 6; allowed: another name"],
        ),
        (
            "name = \"inside\"",
            "name = \"in side\"",
            &["10: listener.name: \"in side\" is not a name; allowed: 1 to 32 letters, digits, - and _"],
        ),
        (
            "[\"10.1.0.5:25\"]",
            "[\"203.0.113.10:25\"]",
            &["11: listener.bind: 203.0.113.10:25 is taken by line 7; allowed: each address and port once"],
        ),
        (
            "[\"10.1.0.5:25\"]",
            "[\"0.0.0.0:25\"]",
            &[
                "11: listener.bind: 0.0.0.0:25 and 203.0.113.10:25 of line 7 overlap: one covers the other; allowed: each address and port once",
            ],
        ),
        ("[\"10.1.0.5:25\"]", "[\"0.0.0.0:26\", \"[::]:26\"]", &[]),
    ]);
    added(&[
        (
            "[admin]\nbind = \"0.0.0.0:25\"",
            &[
                "4: admin.bind: 0.0.0.0:25 and 203.0.113.10:25 of line 9 overlap: one covers the other; allowed: each address and port once",
            ],
        ),
        ("[admin]\nbind = \"\"", &[]),
    ]);
}

#[test]
fn a_listener_that_would_make_an_open_relay_is_refused() {
    changed(&[
        (
            "[\"10.1.0.0/16\", \"10.2.0.7\"]",
            "[\"0.0.0.0/0\", \"2000::/3\", \"fc00::/7\", \"10.0.0.0/8\"]",
            &[
                "12: listener.clients: 0.0.0.0/0 with relay = \"any\" would make an open relay; allowed: networks of /8 or longer, or relay = \"accepted\"",
                "12: listener.clients: 2000::/3 with relay = \"any\" would make an open relay; allowed: networks of /7 or longer, or relay = \"accepted\"",
            ],
        ),
        ("relay = \"any\"", "", &[]),
    ]);
}

#[test]
fn what_needs_another_section_is_refused_in_plain_words() {
    changed(&[
        (
            "relay = \"any\"",
            "relay = \"authenticated\"",
            &[
                "13: listener.relay: \"authenticated\" needs somebody who verifies logins; allowed: with a section [auth]",
                "13: listener.relay: \"authenticated\" needs TLS, lest passwords go over the wire in clear text; allowed: tls = \"require\", \"implicit\" or \"offer\"",
            ],
        ),
        (
            "relay = \"any\"",
            "tls = \"offer\"",
            &["13: listener.tls: needs a certificate; allowed: off, or [tls] with certificate and key"],
        ),
        ("relay = \"any\"", "tls = \"off\"", &[]),
    ]);
}

#[test]
fn routes_and_resolvers_belong_together() {
    changed(&[
        (
            "resolver = \"external\"",
            "resolver = \"externl\"",
            &["24: route.resolver: \"externl\" is not a resolver; allowed: internal, external"],
        ),
        (
            "resolver = \"external\"",
            "",
            &["20: route.resolver: is missing: mx = true looks names up; allowed: internal, external"],
        ),
        (
            "resolver = \"internal\"",
            "",
            &[
                "16: route.resolver: is missing: the host name mail.inside.example must be looked up; allowed: internal, external",
            ],
        ),
        (
            "mx = true",
            "mx = true\nhosts = [\"10.1.0.9\"]",
            &[
                "22: route.mx: stands beside hosts; allowed: either hosts (smart hosts) or mx = true (look-up)",
            ],
        ),
        (
            "mx = true",
            "hosts = [\"10.1.0.9\"]",
            &["23: route.port: stands beside hosts; allowed: the port in each host, \"10.1.0.10:25\""],
        ),
        (
            "mx = true\nport = 2525",
            "hosts = [\"10.1.0.9\"]\nprivate_addresses = true",
            &[
                "23: route.private_addresses: stands beside hosts, which may be at any address; allowed: with mx = true",
            ],
        ),
        (
            "port = 2525",
            "port = 2525\nsource = [\"192.0.2.7\", \"0.0.0.0\", \"::ffff:192.0.2.1\", \"ff02::1\", \"192.0.2.7:25\"]",
            &[
                "24: route.source: \"0.0.0.0\" is not the address of a host; allowed: 192.0.2.7, 2001:db8::7",
                "24: route.source: \"::ffff:192.0.2.1\" is not the address of a host; allowed: 192.0.2.7, 2001:db8::7",
                "24: route.source: \"ff02::1\" is not the address of a host; allowed: 192.0.2.7, 2001:db8::7",
                "24: route.source: \"192.0.2.7:25\" is not the address of a host; allowed: 192.0.2.7, 2001:db8::7",
            ],
        ),
        (
            "name = \"external\"",
            "name = \"external\"\ndnssec = \"yes\"",
            &["30: resolver.dnssec: \"yes\" is not a value; allowed: off, trust-ad, validate"],
        ),
        (
            "name = \"external\"",
            "name = \"external\"\ntrust_anchors = \"/nowhere/anchors\"",
            &[
                "30: resolver.trust_anchors: means nothing unless the relay validates; allowed: with dnssec = \"validate\"",
            ],
        ),
        (
            "name = \"external\"",
            "name = \"external\"\ndnssec = \"validate\"\ntrust_anchors = \"/nowhere/anchors\"",
            &[
                "31: resolver.trust_anchors: cannot be used: No such file or directory (os error 2); allowed: a file of DNSKEY records, as in a zone file",
            ],
        ),
        (
            "mx = true",
            "mx = false",
            &["20: route.hosts: is missing; allowed: hosts = [\"10.1.0.10:25\"], or mx = true"],
        ),
        (
            "mx = true",
            "",
            &["20: route.hosts: is missing; allowed: hosts = [\"10.1.0.10:25\"], or mx = true"],
        ),
        (
            "\"[2001:db8::1]:2525\"",
            "\"[2001:db8::1:2525\", \"10.1.0.10:0\", \"a b:25\", \"mail:x\"",
            &[
                "16: route.hosts: \"[2001:db8::1:2525\" is not a host; allowed: 10.1.0.10:25, [2001:db8::1]:25, mail.inside.example:25",
                "16: route.hosts: \"10.1.0.10:0\" is not a host; allowed: 10.1.0.10:25, [2001:db8::1]:25, mail.inside.example:25",
                "16: route.hosts: \"a b:25\" is not a host; allowed: 10.1.0.10:25, [2001:db8::1]:25, mail.inside.example:25",
                "16: route.hosts: \"mail:x\" is not a host; allowed: 10.1.0.10:25, [2001:db8::1]:25, mail.inside.example:25",
            ],
        ),
        (
            "name = \"external\"\nservers = [\"192.0.2.53\", ",
            "name = \"external\"\nservers = [\"dns.example\", ",
            &[
                "30: resolver.servers: \"dns.example\" is not a DNS server; allowed: 192.0.2.53, 192.0.2.53:53, [2001:db8::53]:53",
            ],
        ),
        (
            "name = \"external\"",
            "name = \"internal\"",
            &[
                "24: route.resolver: \"external\" is not a resolver; allowed: internal, internal",
                "29: resolver.name: \"internal\" is taken by line 26; allowed: another name",
            ],
        ),
    ]);
}

#[test]
fn without_any_resolver_the_fault_tells_why_the_host_s_own_is_not_used() {
    let cut = GOOD.find("resolver = \"external\"").expect("the last route's resolver");
    let text = GOOD[..cut].replace("resolver = \"internal\"", "").replace(", \"mail.inside.example:26\"", "");
    assert_eq!(
        faults(&text),
        [
            "20: route.resolver: is missing: mx = true looks names up; allowed: the name of a [[resolver]] with its DNS servers; \
             the relay never uses /etc/resolv.conf, so that internal and external names stay apart"
        ]
    );
}

#[test]
fn an_accepted_domain_stays_inside() {
    changed(&[
        (
            "[\"winery.example\", \".winery.example\", \"cellar.example\"]",
            "[\"winery.example\"]",
            &[
                "4: domains.accepted: \"cellar.example\" would go by MX look-up through the route of line 20: own domains are never looked up outside; allowed: a [[route]] before it with domains = [\"cellar.example\"] and hosts",
            ],
        ),
        ("domains = [\"*\"]", "domains = [\"winery.test\"]", &[]),
        (
            "[\"winery.example\", \".winery.example\", \"cellar.example\"]\nhosts",
            "[\"winery.test\"]\nhosts",
            &[
                "4: domains.accepted: \"winery.example\" would go by MX look-up through the route of line 20: own domains are never looked up outside; allowed: a [[route]] before it with domains = [\"winery.example\"] and hosts",
                "4: domains.accepted: \"cellar.example\" would go by MX look-up through the route of line 20: own domains are never looked up outside; allowed: a [[route]] before it with domains = [\"cellar.example\"] and hosts",
            ],
        ),
        (
            "[\"winery.example\", \".winery.example\", \"cellar.example\"]\nhosts = [\"10.1.0.10\", \"[2001:db8::1]:2525\", \"mail.inside.example:26\"]",
            "[\"winery.example\", \"cellar.example\"]\nmx = true",
            &[],
        ),
        (
            "[\"Winery.Example\", \"cellar.example.\"]",
            "[\"*\", \".winery.example\", \"winery..example\", \"käse.example\", \"winery.example\", \"WINERY.example\"]",
            &[
                "4: domains.accepted: \"*\" is not a domain name; allowed: a name such as winery.example",
                "4: domains.accepted: \".winery.example\" is not a domain name; allowed: a name such as winery.example",
                "4: domains.accepted: \"winery..example\" is not a domain name; allowed: a name such as winery.example",
                "4: domains.accepted: \"käse.example\" is not ASCII; allowed: the name in its xn-- form",
                "4: domains.accepted: \"winery.example\" is listed twice; allowed: once",
            ],
        ),
        (
            "domains = [\"*\"]",
            "domains = [\"winery.example\", \"x.winery.example\", \"*\", \"other.example\", \"*.example\"]",
            &[
                "21: route.domains: \"*.example\" is not an address space; allowed: winery.example, .winery.example (everything below it), *",
                "21: route.domains: \"winery.example\" is never reached: \"winery.example\" in line 15 comes first; allowed: the narrower one first",
                "21: route.domains: \"x.winery.example\" is never reached: \".winery.example\" in line 15 comes first; allowed: the narrower one first",
                "21: route.domains: \"other.example\" is never reached: \"*\" in line 21 comes first; allowed: the narrower one first",
            ],
        ),
    ]);
    let text =
        GOOD.replace("domains = [\"*\"]", "domains = [\"x.test\"]").replace(", \"cellar.example\"]", "]");
    assert_eq!(
        faults(&text),
        [
            "4: domains.accepted: no route takes \"cellar.example\"; allowed: a [[route]] with domains = [\"cellar.example\"] and hosts"
        ]
    );
}

#[test]
fn what_is_missing_is_named_at_its_section() {
    assert_eq!(
        faults(""),
        [
            "1: hostname: is missing; allowed: the relay's full name, such as relay.winery.example",
            "1: listener: is missing; allowed: at least one [[listener]] with name, bind and clients",
        ]
    );
    let bare = "hostname = \"a.b\"\n[[listener]]\n[[route]]\n[[resolver]]\n";
    assert_eq!(
        faults(bare),
        [
            "2: listener.name: is missing; allowed: a name of your choice, unique among the listeners",
            "2: listener.bind: is missing; allowed: a list of addresses with ports, [\"203.0.113.10:25\"]",
            "2: listener.clients: is missing; allowed: a list of networks that may connect, [\"10.1.0.0/16\"]",
            "3: route.domains: is missing; allowed: a list of domains, [\"winery.example\", \".winery.example\", \"*\"]",
            "3: route.hosts: is missing; allowed: hosts = [\"10.1.0.10:25\"], or mx = true",
            "4: resolver.name: is missing; allowed: a name of your choice, unique among the resolvers",
            "4: resolver.servers: is missing; allowed: a list of DNS servers, [\"10.1.0.2:53\"]",
        ]
    );
    let single = "hostname = \"a.b\"\nlistener = 3\n[route]\nx = 1";
    assert_eq!(
        faults(single),
        [
            "2: listener: found the number 3; allowed: tables, each under its own [[listener]]",
            "3: route: found a table; allowed: tables, each under its own [[route]]",
        ]
    );
}

#[test]
fn text_that_is_not_toml_is_refused_with_every_line_at_fault() {
    let lines = faults("hostname = \nx = 3\nx = 4\n[y");
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, start) in
        lines.iter().zip(["1: is not TOML: ", "3: is not TOML: duplicate key", "4: is not TOML: "])
    {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn a_text_without_end_of_faults_prints_a_bounded_number() {
    let text: String = (0..10_000).map(|n| format!("key{n} = {n}\n")).collect();
    assert_eq!(faults(&text).len(), 100);
}

#[test]
fn no_cut_or_bent_text_makes_the_reader_panic() {
    for at in (0..GOOD.len()).filter(|at| GOOD.is_char_boundary(*at)) {
        let cut = &GOOD[..at];
        for bent in [
            cut.to_owned(),
            format!("{cut}\"{}", &GOOD[at..]),
            format!("{cut}\0{}", &GOOD[at..]),
            format!("{cut}ä"),
        ] {
            if let Err(error) = Config::parse(&bent, "f") {
                assert!(!error.faults.is_empty());
                assert!(error.faults.iter().all(|fault| fault.line <= bent.lines().count() + 1), "{error}");
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = [
        (directory.join("absent.toml"), "cannot be read: No such file or directory"),
        (directory.to_owned(), "cannot be read: Is a directory"),
        (Path::new("/dev/zero").to_owned(), "is too long; allowed: at most 1MiB"),
    ];
    for (path, sentence) in table {
        let error = Config::load(&path).expect_err("no configuration").to_string();
        assert!(error.starts_with(&format!("{}: {sentence}", path.display())), "{error}");
    }
}

#[test]
fn a_wrong_override_names_the_option() {
    let mut config = Config::parse(GOOD, "f").expect("good");
    config.override_cpus([Some("3,1"), None, Some("0")]).expect("lists");
    assert_eq!(
        (config.shards.ingest_cpus.as_slice(), config.shards.service_cpus.as_slice()),
        (&[3, 1][..], &[0][..])
    );
    let error = config.override_cpus([None, Some("x"), None]).expect_err("no list").to_string();
    assert!(
        error.starts_with("command line: --delivery-cpus: \"x\" is not a CPU list; allowed: "),
        "{error}"
    );
}

#[test]
fn certificate_and_key_are_matched() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/tls");
    let text = |certificate: &str, key: &str| {
        let tls = format!(
            "[tls]\ncertificate = \"{directory}/{certificate}\"\nkey = \"{directory}/{key}\"\n[domains]"
        );
        GOOD.replacen("[domains]", &tls, 1)
    };
    let table = [
        ("certificate.pem", "key.pem", None),
        (
            "certificate.pem",
            "other_key.pem",
            Some(
                "5: tls.key: D/other_key.pem does not belong to the first certificate in D/certificate.pem; allowed: the key that it was issued for",
            ),
        ),
        (
            "absent.pem",
            "key.pem",
            Some(
                "4: tls.certificate: D/absent.pem cannot be read (No such file or directory (os error 2)); allowed: a PEM file that the relay's user may read",
            ),
        ),
        (
            "certificate.pem",
            "absent.pem",
            Some(
                "5: tls.key: D/absent.pem cannot be read (No such file or directory (os error 2)); allowed: a PEM file that the relay's user may read",
            ),
        ),
        (
            "key.pem",
            "key.pem",
            Some(
                "4: tls.certificate: D/key.pem holds no certificate; allowed: a PEM file with a certificate, the server's certificate first",
            ),
        ),
        (
            "certificate.pem",
            "certificate.pem",
            Some(
                "5: tls.key: D/certificate.pem holds no private key; allowed: a PEM file with a private key",
            ),
        ),
    ];
    for (certificate, key, expected) in table {
        let found = faults(&text(certificate, key)).join("\n").replace(directory, "D");
        assert_eq!(found, expected.unwrap_or(""), "{certificate} {key}");
    }
    added(&[(
        "[tls]\nkey = \"/k\"",
        &["3: tls.certificate: is missing; allowed: the PEM file that belongs to tls.key"],
    )]);
}

/// AUTH lets nobody in by mistake, and sends no password in clear text.
#[test]
fn auth_says_what_it_needs() {
    added(&[
        ("[auth]", &["3: auth.backend: is missing; allowed: none, file, ldap, dovecot"]),
        (
            "[auth]\nbackend = \"none\"",
            &[
                "4: auth.backend: \"none\" lets nobody in; allowed: \"none\" with [auth.token], file, ldap, dovecot",
            ],
        ),
        (
            "[auth]\nbackend = \"ldap\"",
            &["4: auth.ldap: is missing: backend = \"ldap\" needs it; allowed: a section [auth.ldap]"],
        ),
        (
            "[auth]\nbackend = \"dovecot\"\nmechanisms = [\"SCRAM-SHA-256\", \"PLAIN\"]",
            &[
                "5: auth.mechanisms: SCRAM-SHA-256 needs backend = \"file\" and password.scram_iterations above 0",
            ],
        ),
        (
            "[auth]\nbackend = \"dovecot\"\n[auth.password]\nscram_iterations = 100",
            &["6: auth.password.scram_iterations: 100 is too few; allowed: 0 for no SCRAM, or 4096 and more"],
        ),
        (
            "[auth]\nbackend = \"ldap\"\n[auth.ldap]\nurl = \"ldap://10.1.0.3\"\ndn = \"uid={login}\"",
            &[
                "5: auth.ldap.url: would send passwords in clear text; allowed: ldaps://, starttls = true, or a loopback address",
            ],
        ),
        ("[auth]\nbackend = \"dovecot\"", &[]),
    ]);
}
