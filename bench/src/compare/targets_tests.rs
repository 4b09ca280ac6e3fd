use super::*;
use crate::compare::report::Row;
use crate::compare::scenario;
use crate::figures::Summary;

fn row(subject: Subject, round: usize, rate: f64, cpu: f64, p50_ms: f64, p99_ms: f64) -> Row {
    let transaction = Some(Summary { count: 5_000, p50_ms, p99_ms, ..Summary::default() });
    let figures =
        Figures { messages_per_second: rate, server_cpu_ms: cpu, transaction, ..Figures::default() };
    Row { subject, round, figures }
}

fn result(mut work: Work, rows: Vec<Row>) -> Measured {
    work.servers = rows.iter().map(|row| row.subject).collect();
    Measured { work, rows }
}

fn target(results: &[Measured], work: &str, asked: &str) -> Target {
    let all = all(results);
    let fits = |target: &&Target| target.work.contains(work) && target.asked.contains(asked);
    all.iter().find(fits).unwrap_or_else(|| panic!("{work} {asked}: {all:?}")).clone()
}

const STOCK: Subject = Subject::Server(Kind::PostfixStock);
const TUNED: Subject = Subject::Server(Kind::PostfixTuned);

#[test]
fn each_target_is_met_or_missed_by_its_own_numbers() {
    let results = [
        result(
            kinds::saturated(Ends::Postfix, SMALL, 20),
            vec![
                row(Subject::Straight, 1, 9_000.0, 0.0, 1.0, 1.0),
                row(RELAY, 1, 5_000.0, 0.1, 1.0, 1.0),
                row(STOCK, 1, 400.0, 1.9, 1.0, 1.0),
                row(TUNED, 1, 501.0, 2.5, 1.0, 1.0),
            ],
        ),
        result(
            kinds::one_after_the_other(),
            vec![
                row(Subject::Straight, 1, 0.0, 0.0, 0.1, 1.0),
                row(Subject::Fdatasync, 1, 0.0, 0.0, 0.1, 1.0),
                row(RELAY, 1, 0.0, 0.1, 0.25, 1.0),
            ],
        ),
        result(kinds::half_load(), vec![row(RELAY, 1, 0.0, 0.1, 1.0, 3.1)]),
    ];
    for (work, asked, verdict, text) in [
        ("20 sessions, smtp", "10 times", Verdict::Missed, "9.98 times Postfix, tuned"),
        ("20 sessions, smtp", "1/20", Verdict::Missed, "1/19.0 of Postfix, stock"),
        ("20 sessions, smtp", "0.5 of", Verdict::Met, "0.556 of it"),
        ("20 sessions, own", "15 times", Verdict::NotMeasured, "not measured"),
        ("accept only", "1.3 times", Verdict::Met, "1.25 times"),
        ("50 % load", "3 times p50", Verdict::Missed, "3.10 times: 3.10 ms and 1.00 ms"),
        ("10,000 idle", "1 %", Verdict::NotMeasured, "not measured"),
    ] {
        let target = target(&results, work, asked);
        assert_eq!(target.verdict, verdict, "{target:?}");
        assert!(target.measured.starts_with(text), "{target:?}");
    }
}

#[test]
fn factors_are_of_the_same_round_and_rounds_that_disagree_decide_nothing() {
    let rows = vec![
        row(Subject::Straight, 1, 2_000.0, 0.0, 1.0, 1.0),
        row(RELAY, 1, 1_900.0, 0.1, 1.0, 1.0),
        row(Subject::Straight, 2, 500.0, 0.0, 1.0, 1.0),
        row(RELAY, 2, 300.0, 0.1, 1.0, 1.0),
        // Without a partner in its round.
        row(RELAY, 3, 1.0, 0.1, 1.0, 1.0),
    ];
    let results = [result(kinds::saturated(Ends::Own, LARGE, 20), rows)];
    let target = target(&results, "64 KiB, 20 sessions, sluice-bench", "0.7 of");
    assert_eq!(target.measured, "0.775 (0.600–0.950) of it");
    assert_eq!((target.verdict, target.rounds), (Verdict::Undecided, 2));
}

#[test]
fn every_other_relay_means_all_of_them() {
    let relay = row(RELAY, 1, 0.0, 0.1, 1.0, 2.0);
    let others = Kind::ALL.into_iter().skip(1).map(|kind| row(Subject::Server(kind), 1, 0.0, 0.1, 5.0, 9.0));
    let rows: Vec<_> = std::iter::once(relay).chain(others).collect();
    let asked = "every other relay's p50";
    let verdict = |rows: &[Row]| {
        let target = target(&[result(kinds::half_load(), rows.to_vec())], "50 % load", asked);
        (target.verdict, target.measured)
    };
    assert_eq!(verdict(&rows).0, Verdict::Met);
    let lacking = verdict(&rows[..rows.len() - 1]);
    assert_eq!(lacking.0, Verdict::NotMeasured);
    assert!(lacking.1.contains("not measured of Haraka"), "{lacking:?}");
    let mut near = rows.clone();
    near.push(row(STOCK, 2, 0.0, 0.1, 1.9, 9.0));
    assert_eq!(verdict(&near).0, Verdict::Undecided);
    near.retain(|row| row.subject != STOCK || row.round == 2);
    assert_eq!(verdict(&near).0, Verdict::Missed);
}

#[test]
fn percentiles_with_few_samples_above_them_are_none() {
    let mut few = row(RELAY, 1, 0.0, 0.1, 1.0, 2.0);
    few.figures.transaction.as_mut().unwrap().count = 999;
    let results = [result(kinds::half_load(), vec![few])];
    assert_eq!(target(&results, "50 % load", "3 times p50").verdict, Verdict::NotMeasured);
}

/// In whatever order the files are given, a target takes a result of its own kind.
#[test]
fn the_files_of_the_tree_have_one_result_for_each_target() {
    let read = |name: &str| {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        scenario::read(&directory.join(name)).unwrap()
    };
    let (core, full, sizes) = (read("core.toml"), read("full.toml"), read("sizes.toml"));
    let measured = |lists: &[&[Work]]| -> Vec<Measured> {
        lists.concat().into_iter().map(|work| Measured { work, rows: Vec::new() }).collect()
    };
    let postfix = Kind::POSTFIX.into_iter().map(Subject::Server);
    let postfix: Vec<_> = [RELAY].into_iter().chain(postfix).collect();
    let with = |more: &[Subject]| [postfix.as_slice(), more].concat();
    let everybody: Vec<_> = Kind::ALL.map(Subject::Server).to_vec();
    let mut wanted = vec![
        (kinds::one_after_the_other(), vec![RELAY, Subject::Straight, Subject::Fdatasync], 5),
        (kinds::half_load(), everybody, 5),
        (kinds::saturated(Ends::Own, SMALL, 20), vec![RELAY, BARE], 5),
        (kinds::tls(Handshakes::Full), with(&[]), 5),
        (kinds::tls(Handshakes::Resumed), with(&[]), 5),
        (kinds::idle(), vec![RELAY], 3),
    ];
    for ends in [Ends::Own, Ends::Postfix] {
        for (size, sessions) in [(SMALL, 20), (SMALL, 100), (LARGE, 20)] {
            wanted.push((kinds::saturated(ends, size, sessions), with(&[Subject::Straight]), 5));
        }
    }
    wanted.extend(kinds::shards().map(|work| (work, vec![RELAY], 3)));
    for (kind, rows, rounds) in wanted {
        let title = kind.title();
        let fit = |work: &&Work| work.is_kind(&kind) && rows.iter().all(|row| work.servers.contains(row));
        assert_eq!(core.iter().filter(fit).count(), 1, "{title} in core.toml");
        for lists in [[&core[..], &full, &sizes], [&full, &sizes, &core], [&sizes, &core, &full]] {
            let results = measured(&lists);
            let found = find(&results, &kind, &rows).unwrap_or_else(|| panic!("{title} is nowhere"));
            assert_eq!(found.work.title(), title);
        }
        let found = core.iter().find(fit).unwrap();
        assert!(found.rounds >= rounds, "{title}: {} rounds", found.rounds);
    }
}
