use super::*;
use std::path::Path;

#[test]
fn lists_stand_for_each_combination_and_defaults_are_taken_over() {
    let text = "[defaults]\nrounds = 5\nseconds = 2.5\n[[scenario]]\nname = \"a\"\nsize = [1024, \"1024:1,4096:1\"]\n\
                sessions = [1, 20]\nload = [50, 80]\n[[scenario]]\nname = \"b\"\nrounds = 1\ntask = \"idle\"\n";
    let all = parse(text).unwrap();
    assert_eq!(all.len(), 9);
    assert!(all[..8].iter().all(|work| work.rounds == 5 && work.seconds == 2.5 && work.name == "a"));
    assert_eq!((all[0].sessions, all[0].load, all[1].load), (1, Some(50), Some(80)));
    assert_eq!(all[4].size.mean(), 2560.0);
    assert_eq!((all[8].rounds, all[8].task, all[8].servers.len()), (1, Task::Idle, 1));
    let text = "[[scenario]]\nname = \"a\"\nrecipients = [1, 50]\nmessages_per_connection = [0, 1]\nrate = [50, 200]\n\
                spin = \"20us\"\n";
    let all = parse(text).unwrap();
    let keys = |work: &Work| (work.recipients, work.messages_per_connection, work.rate);
    assert_eq!(all.len(), 8);
    assert_eq!(keys(&all[0]), (1, 0, Some(50.0)));
    assert_eq!(keys(&all[7]), (50, 1, Some(200.0)));
    assert!(all[7].title().contains(", open loop at 200/s, spin 20us, "), "{}", all[7].title());
}

#[test]
fn a_round_begins_with_another_one_each_time_and_every_second_goes_backwards() {
    let server = |kind| Subject::Server(kind);
    let [a, b, c] = [Subject::Straight, server(Kind::Relay), server(Kind::Exim)];
    let servers = vec![a, b, c];
    let work = Work { servers, rounds: 5, rounds_of_others: 3, ..Work::plain(4096, 20) };
    let orders: Vec<_> = (1..=5).map(|round| work.order(round)).collect();
    assert_eq!(orders, [vec![a, b, c], vec![a, c, b], vec![c, a, b], vec![a, b], vec![a, b]]);
    assert_eq!(Work { rounds: 1, ..work }.rounds_of(c), 1, "never more than the others");
}

#[test]
fn work_of_another_kind_differs_in_one_key() {
    let plain = Work::plain(4096, 20);
    let same = Work { name: "b".into(), rounds: 9, seconds: 1.0, servers: Vec::new(), ..plain.clone() };
    assert!(same.is_kind(&plain));
    assert!(
        Work { handshakes: Handshakes::Full, ..plain.clone() }.is_kind(&plain),
        "there are no handshakes"
    );
    let others = [
        Work { sessions: 100, ..plain.clone() },
        Work { size: Size::Octets(1024), ..plain.clone() },
        Work { task: Task::Accept, ..plain.clone() },
        Work { ends: Ends::Postfix, ..plain.clone() },
        Work { tls: Tls::Out, ..plain.clone() },
        Work { recipients: 2, ..plain.clone() },
        Work { messages_per_connection: 1, ..plain.clone() },
        Work { load: Some(50), ..plain.clone() },
        Work { rate: Some(50.0), ..plain.clone() },
        Work { ingest_cpus: Some("0".into()), ..plain.clone() },
        Work { spin: Some("20us".into()), ..plain.clone() },
    ];
    for other in others {
        assert!(!other.is_kind(&plain), "{other:?}");
    }
    let full = Work { tls: Tls::Both, handshakes: Handshakes::Full, ..plain.clone() };
    assert!(!Work { handshakes: Handshakes::Resumed, ..full.clone() }.is_kind(&full));
}

/// What the file itself says of its length.
#[test]
fn the_work_of_the_targets_takes_three_quarters_of_an_hour_at_most() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/core.toml");
    let (rows, time) = length(&read(&file).unwrap());
    assert!(time.as_secs() <= 45 * 60, "{rows} measurements in {} s", time.as_secs());
}

#[test]
fn what_is_not_known_or_makes_no_sense_is_refused() {
    for (line, said) in [
        ("sise = 4096", "unknown field"),
        ("servers = [\"sendmail\"]", "sendmail"),
        ("task = \"relay\"", "unknown variant"),
        ("sessions = 0", "sessions must be"),
        ("sessions = [20, 30000]", "sessions must be"),
        ("size = \"1024\"", "no list of sizes"),
        ("load = 101", "load must be"),
        ("rate = 0", "rate must be"),
        ("rate = 50\nload = 50", "two ways"),
        ("rounds = 4", "odd number"),
        ("ends = \"postfix\"\nrate = 50", "ends of Postfix"),
        ("seconds = 0.0", "seconds must be"),
        ("ends = \"postfix\"\nload = 50", "ends of Postfix"),
        ("ends = \"postfix\"\ntls = \"in\"", "ends of Postfix"),
        ("task = \"deliver\"\nservers = [\"straight\"]", "no queue"),
        ("task = \"idle\"\nservers = [\"exim\"]", "relay only"),
        ("servers = [\"fdatasync\"]", "belongs to accept"),
        ("ingest_cpus = \"x\"", "CPU list"),
        ("servers = [\"bare\"]\ntls = \"in\"", "bare:"),
        ("name = \"b\"", "duplicate key"),
    ] {
        let error = parse(&format!("[[scenario]]\nname = \"a\"\n{line}\n")).expect_err(line);
        assert!(format!("{error:#}").contains(said), "{line}: {error:#}");
    }
    assert!(parse("").is_err());
    assert!(parse("[[scenario]]\nsize = 1\n").is_err(), "no name");
    let twice = "[[scenario]]\nname = \"a\"\n[[scenario]]\nname = \"a\"\n";
    assert!(parse(twice).is_err(), "the same name twice");
}

#[test]
fn every_file_of_the_tree_can_be_read() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let all = read(&path).unwrap_or_else(|error| panic!("{error:#}"));
        let mut titles: Vec<_> = all.iter().map(|work| (work.title(), work.servers.clone())).collect();
        titles.dedup();
        assert_eq!(titles.len(), all.len(), "{}: the same work twice", path.display());
        files += 1;
    }
    assert!(files >= 3);
}
