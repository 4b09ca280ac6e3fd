use super::*;
use crate::compare::machine::Shares;
use crate::figures::Summary;
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn row(subject: Subject, round: usize, rate: f64, cpu: f64) -> Row {
    let latency = Summary { count: 2_000, p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, ..Summary::default() };
    let figures = Figures {
        messages: 10,
        seconds: 4.0,
        messages_per_second: rate,
        server_cpu_ms: cpu,
        source_cpu_ms: 0.05,
        sink_cpu_ms: 0.05,
        memory_pss_mib: 20.0,
        machine: Some(Shares { busy_percent: 95.0, iowait_percent: 1.0, steal_percent: 0.0 }),
        others_percent: Some(3.0),
        device_busy_percent: Some(40.0),
        busy_before_percent: Some(2.0),
        disk_before: Some(Summary { p50_ms: 0.1, ..Summary::default() }),
        flushes: Some(1.0),
        end_of_data: Some(latency.clone()),
        transaction: Some(latency),
        repeats: Some(0),
        cpu_method: "test",
        ..Figures::default()
    };
    Row { subject, round, figures }
}

const RELAY: Subject = Subject::Server(Kind::Relay);
const STOCK: Subject = Subject::Server(Kind::PostfixStock);

fn result() -> Result {
    let rows = vec![
        row(Subject::Straight, 1, 6_200.0, 0.0),
        row(RELAY, 1, 5_000.0, 0.1),
        row(RELAY, 2, 6_000.0, 0.02),
        row(RELAY, 3, 1.0, 0.3),
        row(STOCK, 1, 500.0, 2.0),
    ];
    Result { work: Work::plain(4096, 20), rows }
}

fn page(options: &Options, results: &[Result], missing: &[String], notes: Option<&str>) -> String {
    let about = About { options, origin: Origin::default(), servers: &[Kind::PostfixStock], missing, notes };
    Report::new(about, results).markdown(&[])
}

fn options() -> Options {
    Cli::parse_from(["compare", "--machine", "a b"]).options
}

#[test]
fn tables_show_medians_with_ranges_factors_limits_and_what_is_missing() {
    let missing = ["Exim: not there".to_owned()];
    let text = page(&options(), &[result()], &missing, Some("Why.\n"));
    for expected in [
        "| Sluice | 3 | 5000 (1–6000) | 0.100 (0.020–0.300) | 20.0 | 1.00 | – | 1.00 / 2.00 / – | \
         1.00 (1.00–1.00) / 2.00 (2.00–2.00) |",
        "| Postfix, stock | 1 | 500 | 2.00 | 20.0 | 1.00 | – |",
        "| Sluice | 4.0 (4.0–4.0) | 95 / 1 / 0 | 3 | 40 | 2 (2–2) | 0.100 (0.100–0.100) | 0.050, 25 % | 0.050, 25 % | \
         cores |",
        "Sluice: 10.0 times the messages and 1/20.0 of the CPU of Postfix, stock.",
        "may be the limit of Sluice here: it reaches 81 % of the row without a server. It may do more.",
        "| end to end, 4 KiB, 20 sessions, own generator and sink | at least 15 times the best Postfix | \
         10.0 times Postfix, stock | 1 | **no** |",
        "## Missing\n\n- Exim: not there\n",
        "\n## Notes\n\nWhy.\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("| Exim |") && !text.contains("limit of Postfix"), "{text}");
    assert!(!text.contains("not idle") && !text.contains("disk was not"), "{text}");
}

#[test]
fn an_end_that_has_no_time_left_is_said_in_open_loops_too() {
    let mut result = result();
    result.work.load = Some(50);
    for row in &mut result.rows {
        row.figures.sink_cpu_ms = 0.17;
        row.figures.lag = Some(Summary { p99_ms: 1.5, ..Summary::default() });
    }
    let text = page(&options(), &[result], &[], None);
    for expected in [
        "may be the limit of Sluice here: the sink uses 85 % of its threads' time.",
        "The generator was late with Sluice: the p99 of its lateness is 75 %",
        "Sluice, each server at its own rate: 1/20.0 of the CPU and 1/1.00 of the median latency of Postfix, stock.",
        " 1.50 | cores, sink may, the rate asked for |",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("times the messages"), "{text}");
}

#[test]
fn handshakes_of_another_kind_than_asked_for_are_said() {
    let mut result = result();
    result.work.tls = crate::compare::scenario::Tls::Both;
    for row in &mut result.rows {
        let full = if row.subject == STOCK { 0.9 } else { 0.02 };
        row.figures.handshakes_in_full = Some(full);
        row.figures.handshakes_in_resumed = Some(1.0 - full);
        row.figures.handshakes_full = Some(0.5);
        row.figures.handshakes_resumed = Some(0.25);
    }
    let text = page(&options(), &[result], &[], None);
    assert!(text.contains(" 0.900 / 0.100 | 0.500 / 0.250 | cores |"), "{text}");
    assert!(
        text.contains("with Postfix, stock only 10 % of the generator's handshakes were resumed"),
        "{text}"
    );
    assert!(!text.contains("with Sluice only"), "{text}");
}

#[test]
fn a_busy_machine_and_another_disk_are_said() {
    let mut result = result();
    result.rows[1].figures.busy_before_percent = Some(40.0);
    result.rows[2].figures.disk_before = Some(Summary { p50_ms: 0.25, ..Summary::default() });
    let text = page(&options(), &[result], &[], None);
    assert!(text.contains("not idle before 1 of 5 measurements: up to 40 %"), "{text}");
    assert!(text.contains("an fdatasync took from 0.100 to 0.250 ms"), "{text}");
}

#[test]
fn a_second_result_of_a_day_does_not_replace_the_first() {
    let (options, directory, results) = (options(), tempfile::tempdir().unwrap(), [result()]);
    for _ in 0..2 {
        let about =
            About { options: &options, origin: Origin::default(), servers: &[], missing: &[], notes: None };
        Report::new(about, &results).save(directory.path()).unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let stem = format!("{}-a-b-compare", place::today());
    let mut expected = Vec::new();
    for stem in [stem.clone(), format!("{stem}-2")] {
        let endings = ["-cpu.svg", "-latency.svg", "-rate.svg", ".json", ".md"];
        expected.extend(endings.map(|ending| format!("{stem}{ending}")));
        let text = std::fs::read_to_string(directory.path().join(format!("{stem}.md"))).unwrap();
        assert!(text.contains(&format!("({stem}-rate.svg)")), "{text}");
    }
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn only_pictures_that_were_written_are_linked() {
    let (options, directory) = (options(), tempfile::tempdir().unwrap());
    let mut only_idle = result();
    only_idle.work.task = crate::compare::scenario::Task::Idle;
    let about =
        About { options: &options, origin: Origin::default(), servers: &[], missing: &[], notes: None };
    Report::new(about, &[only_idle]).save(directory.path()).unwrap();
    let stem = format!("{}-a-b-compare", place::today());
    let text = std::fs::read_to_string(directory.path().join(format!("{stem}.md"))).unwrap();
    assert!(!text.contains(".svg"), "{text}");
}
