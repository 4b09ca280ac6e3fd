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
