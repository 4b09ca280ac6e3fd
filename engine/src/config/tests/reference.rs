//! `engine/relay.toml` against the code: it loads, its defaults are the code's, no key is missing in either.

use std::collections::BTreeSet;

use super::super::*;

const REFERENCE: &str = include_str!("../../../relay.toml");

fn read(text: &str) -> (Config, BTreeSet<String>) {
    let notes = Notes::new(text, "relay.toml", Purpose::Run);
    let config = read_all(text, &notes, &[0, 1]);
    let asked = notes.asked();
    if let Some(error) = notes.into_error() {
        panic!("{error}");
    }
    (config.expect("no fault"), asked)
}

/// The keys that are asked for in a text, sound or not.
fn asked_of(text: &str) -> BTreeSet<String> {
    let notes = Notes::new(text, "", Purpose::Run);
    read_all(text, &notes, &[0]);
    notes.asked()
}

/// `#key = value` without a space is a default.
fn with_defaults_written_out() -> String {
    let written = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest,
        _ => line,
    };
    REFERENCE.lines().map(written).collect::<Vec<_>>().join("\n")
}

/// Every `section.key` and section that the file shows, commented out or not.
fn keys_shown() -> BTreeSet<String> {
    let mut section = String::new();
    let mut shown = BTreeSet::new();
    for line in REFERENCE.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = name.0.trim_start_matches('[').to_owned();
            shown.insert(section.clone());
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim();
            if !key.is_empty()
                && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            {
                let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
                shown.insert(path);
            }
        }
    }
    shown
}

#[test]
fn every_commented_default_of_the_reference_file_is_the_code_s_default() {
    let (short, _) = read(REFERENCE);
    let written_out = with_defaults_written_out();
    assert!(written_out.matches("\nfirst ").count() == 2, "the defaults are not written out:\n{written_out}");
    let (long, _) = read(&written_out);
    assert_eq!(format!("{short:#?}"), format!("{long:#?}"));
}

#[test]
fn every_default_of_the_reference_file_is_compared_one_by_one() {
    let (short, _) = read(REFERENCE);
    let mut compared = 0;
    for (index, line) in REFERENCE.lines().enumerate() {
        let default = line.starts_with('#') && line[1..].starts_with(|c: char| c.is_ascii_lowercase());
        // A lone key of [route.retry] would fall into the section above it.
        if !default || REFERENCE.lines().take(index).any(|line| line == "#[route.retry]") {
            continue;
        }
        let one = |(at, line): (usize, &'static str)| if at == index { &line[1..] } else { line };
        let (long, _) = read(&REFERENCE.lines().enumerate().map(one).collect::<Vec<_>>().join("\n"));
        assert_eq!(format!("{short:#?}"), format!("{long:#?}"), "line {}: {line}", index + 1);
        compared += 1;
    }
    assert!(compared > 30, "only {compared} defaults found");
}

#[test]
fn the_reference_file_shows_every_key_and_no_other() {
    let (_, mut asked) = read(&with_defaults_written_out());
    // A listener's own TLS has the keys of the general one.
    let own = asked.iter().filter_map(|key| key.strip_prefix("listener.own_tls."));
    assert!(own.clone().count() > 0 && own.clone().all(|key| asked.contains(&format!("tls.{key}"))));
    asked.retain(|key| !key.starts_with("listener.own_tls."));
    // And its own limits those of the general ones.
    let own = asked.iter().filter_map(|key| key.strip_prefix("listener.limits."));
    assert!(own.clone().count() > 20 && own.clone().all(|key| asked.contains(&format!("limits.{key}"))));
    asked.retain(|key| !key.starts_with("listener.limits."));
    // So has a route's.
    let own = asked.iter().filter_map(|key| key.strip_prefix("route.tls."));
    assert!(own.clone().count() > 0 && own.clone().all(|key| asked.contains(&format!("delivery.tls.{key}"))));
    asked.retain(|key| !key.starts_with("route.tls."));
    asked.extend(asked_of("[[tls.name]]"));
    asked.extend(
        asked_of("[[route]]\n[[route.hosts]]").into_iter().filter(|key| key.starts_with("route.hosts.")),
    );
    asked.extend(asked_of("[[site]]\nname = \"x\"\n[[backoff]]\n[[warm_up]]"));
    assert!(asked.contains("limits.received_max") && asked.contains("route.retry.first"), "{asked:?}");
    let mut shown = keys_shown();
    shown.retain(|key| !key.starts_with("route.tls."));
    assert_eq!(shown, asked);
}

#[test]
fn the_systemd_unit_waits_longer_than_the_drain_and_lets_io_uring_through() {
    const UNIT: &str = include_str!("../../../../tuning/systemd/sluice.service");
    let setting =
        |name: &str| UNIT.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>().join(" ");
    let range = std::time::Duration::ZERO..=std::time::Duration::MAX;
    let stop = value::duration(&setting("TimeoutStopSec="), &range).expect("a duration");
    assert!(stop > Delivery::default().drain, "{stop:?}");
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(setting("SystemCallFilter=").contains(call), "{call}");
    }
    assert_eq!(setting("RestartPreventExitStatus="), "78");
    let files: usize = setting("LimitNOFILE=").parse().expect("a number");
    assert!(files >= Limits::default().files_wanted(&Delivery::default(), 50), "for a large host: {files}");
    let Spool { path, .. } = Spool::default();
    assert_eq!(setting("ReadWritePaths="), path.display().to_string());
}
