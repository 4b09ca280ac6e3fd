//! `sluice tune`, and where the threads of the relay run.

use sluice_tests::process::{run, run_ok};
use sluice_tests::tools::built;
use sluice_tests::wait::SOON;
use sluice_tests::{Relay, is_root, skipped};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use tempfile::TempDir;

/// Nothing is sent.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn prepared() -> Relay {
    Relay::builder().inward(NOBODY).prepare()
}

#[test]
fn the_script_is_one_that_a_shell_takes_and_names_what_the_check_names() {
    let relay = prepared();
    let check = relay.sluice(&["tune", "check"]);
    let table = String::from_utf8_lossy(&check.stdout);
    let changes: Vec<&str> = table.lines().filter(|line| line.starts_with("CHANGE")).collect();
    println!("{table}");
    let to_do = table.lines().any(|line| ["CHANGE", "MUST"].iter().any(|word| line.starts_with(word)));
    assert_eq!(check.status.code(), Some(i32::from(to_do)), "{table}");
    let used = format!("configuration {}; profile ", relay.config().display());
    assert!(table.lines().any(|line| line.starts_with(&used)), "{table}");
    assert!(table.lines().any(|line| line.contains("somaxconn")), "{table}");

    let script = relay.sluice_ok(&["tune"]);
    let file = relay.directory().join("tune.sh");
    fs::write(&file, &script).expect("written");
    run_ok(Command::new("sh").arg("-n").arg(&file), SOON);
    assert_eq!(run(Command::new("sh").arg(&file), SOON).status.code(), Some(64), "neither apply nor undo");
    for change in changes {
        let sentence = change.splitn(3, char::is_whitespace).last().expect("a sentence").trim();
        let sentence = sentence.split_once(' ').expect("a name and a sentence").1.trim();
        assert!(script.contains(sentence), "{sentence}: {script}");
    }
}

#[test]
fn an_unknown_knob_is_refused_with_the_names_of_all() {
    let output = prepared().sluice(&["tune", "check", "--only", "warp"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("warp") && told.contains("local-ports"), "{told}");
}

/// In a network namespace of its own, whose settings are nobody else's.
#[test]
fn what_is_applied_holds_until_it_is_undone() {
    if !is_root() {
        return skipped("a network namespace wants root");
    }
    let directory = TempDir::new().expect("a directory");
    let (program, record) = (built("sluice"), directory.path().join("record"));
    let relay = prepared();
    let script = "set -eu\n\
        only='--only somaxconn --only slow-start'\n\
        tune() { \"$SLUICE\" tune \"$1\" --profile large --config \"$CONFIG\" --record \"$RECORD\" $only; }\n\
        show() { cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/tcp_slow_start_after_idle; }\n\
        show; tune check || echo \"code $?\"; tune apply; show; tune check; tune apply\n\
        only='--only swappiness'; tune undo; only='--only somaxconn'; tune undo; show; only=; tune undo; show; tune undo";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script]);
    command.env("SLUICE", program).env("RECORD", &record).env("CONFIG", relay.config());
    let told = run_ok(&mut command, SOON);
    println!("{told}");
    let settings: Vec<&str> = told.lines().filter(|line| line.parse::<u64>().is_ok()).collect();
    assert_eq!(settings, ["4096", "1", "32768", "0", "4096", "0", "4096", "1"], "{told}");
    assert!(told.contains("code 1"), "{told}");
    assert_eq!(told.matches("changed ").count(), 4, "{told}");
    assert_eq!(told.matches("nothing to change").count(), 3, "{told}");
    assert!(!record.exists(), "what is undone needs no record");
}

/// The ports of services are reserved by what is read in the same namespace, and a list that was empty is so again.
#[test]
fn a_port_on_which_something_listens_is_kept_out_of_a_wider_range() {
    if !is_root() {
        return skipped("a network namespace wants root");
    }
    const LISTEN: &str = "import socket, subprocess, sys\n\
        socket = socket.create_server(('0.0.0.0', 20000))\n\
        sys.exit(subprocess.call(['sh', '-c', sys.argv[1]]))";
    let directory = TempDir::new().expect("a directory");
    let relay = prepared();
    let script = "set -eu\n\
        tune() { \"$SLUICE\" tune \"$1\" --config \"$CONFIG\" --record \"$RECORD\" --only local-ports; }\n\
        show() { echo \"reserved $(cat /proc/sys/net/ipv4/ip_local_reserved_ports)\"; }\n\
        show; tune apply; show; tune undo; show";
    let mut command = Command::new("unshare");
    command.args(["--net", "python3", "-c", LISTEN, script]).env("SLUICE", built("sluice"));
    command.env("RECORD", directory.path().join("record")).env("CONFIG", relay.config());
    let told = run_ok(&mut command, SOON);
    println!("{told}");
    let shown: Vec<&str> = told.lines().filter(|line| line.starts_with("reserved")).map(str::trim).collect();
    assert_eq!(shown, ["reserved", "reserved 20000", "reserved"], "{told}");
}

/// A mount is remounted with the one option that is put back; those that it has besides stay, by program and script.
#[test]
fn a_remount_is_undone_and_changes_nothing_else() {
    if !is_root() {
        return skipped("a mount namespace wants root");
    }
    let directory = TempDir::new().expect("a directory");
    let point = directory.path().join("mounted");
    fs::create_dir(&point).expect("a directory");
    let script = "set -eu\n\
        mount -t tmpfs -o nosuid,nodev,noatime tmpfs \"$POINT\"\n\
        show() { echo \"options $(findmnt -nro VFS-OPTIONS -M \"$POINT\")\"; }\n\
        for found in relatime strictatime; do\n\
        printf 'remount\\tmount-options\\t%s\\t%s\\tnoatime\\n' \"$POINT\" $found > \"$RECORD\"\n\
        \"$SLUICE\" tune undo --record \"$RECORD\"; show\n\
        mount --options-source mtab -o remount,bind,noatime \"$POINT\"; done\n\
        printf 'remount\\tmount-options\\t%s\\tnoatime\\trelatime\\n' \"$POINT\" > \"$RECORD\"\n\
        \"$SLUICE\" tune undo --record \"$RECORD\"; show";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).env("SLUICE", built("sluice"));
    command.env("POINT", &point).env("RECORD", directory.path().join("record"));
    let told = run_ok(&mut command, SOON);
    println!("{told}");
    let shown: Vec<&str> = told.lines().filter(|line| line.starts_with("options")).collect();
    let others = "options rw,nosuid,nodev";
    assert_eq!(shown, [&format!("{others},relatime"), others, &format!("{others},noatime")], "{told}");
    assert!(told.contains("is not mounted with relatime: somebody else"), "{told}");
}

/// On a file system of its own, in a file.
#[test]
fn a_spools_mount_options_are_changed_and_put_back_by_program_and_script() {
    if !is_root() || sluice_tests::lacks("mkfs.ext4") {
        return skipped("a mount namespace wants root, a file system e2fsprogs");
    }
    let directory = TempDir::new().expect("a directory");
    let point = directory.path().join("mounted");
    fs::create_dir(&point).expect("a directory");
    let relay = prepared();
    relay.edit_config(&relay.spool().display().to_string(), &point.join("spool").display().to_string());
    let script = "set -eu\n\
        cd \"$HERE\"; truncate -s 20M image; mkfs.ext4 -q image\n\
        mount -o loop,nosuid,nodev,relatime,discard,commit=30 image mounted || { echo unmountable; exit 0; }\n\
        mount -t tmpfs tmpfs /run\n\
        show() { echo \"options $(findmnt -nro VFS-OPTIONS,FS-OPTIONS -M \"$POINT\")\"; }\n\
        tune() { \"$SLUICE\" tune \"$@\" --config \"$CONFIG\" --only mount-options; }\n\
        tune script > script; show\n\
        tune apply; show; tune undo; show; sh script apply; show; sh script undo; show\n\
        test ! -e /run/sluice-tune/record; umount mounted";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).env("SLUICE", built("sluice"));
    command.env("HERE", directory.path()).env("POINT", &point).env("CONFIG", relay.config());
    let told = run_ok(&mut command, SOON);
    println!("{told}");
    if told.contains("unmountable") {
        return skipped("no file can be mounted here");
    }
    let shown: Vec<&str> = told.lines().filter(|line| line.starts_with("options")).collect();
    let found = "options rw,nosuid,nodev,relatime rw,discard,commit=30";
    let wanted = "options rw,nosuid,nodev,noatime rw,commit=30";
    assert_eq!(shown, [found, wanted, found, wanted, found], "{told}");
}

/// The relay asks for the longest queue that there is, so that the kernel's own bound is the only one.
#[test]
fn connections_wait_to_be_accepted_as_far_as_the_kernel_lets_them() {
    if !is_root() {
        return skipped("a network namespace wants root");
    }
    let relay = prepared();
    let script = "set -eu\n\
        ip link set lo up; echo 54321 > /proc/sys/net/core/somaxconn\n\
        \"$SLUICE\" run --config \"$CONFIG\" & relay=$!\n\
        listeners() { ss --listening --tcp --numeric --no-header \"sport = :$PORT\"; }\n\
        for _ in $(seq 100); do [ -n \"$(listeners)\" ] && break; sleep 0.1; done\n\
        listeners; kill $relay; wait $relay";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", script]).env("SLUICE", built("sluice"));
    command.env("CONFIG", relay.config()).env("PORT", relay.outside().port().to_string());
    let told = run_ok(&mut command, SOON);
    let queue = told.lines().find_map(|line| line.strip_prefix("LISTEN")?.split_whitespace().nth(1));
    assert_eq!(queue, Some("54321"), "{told}");
}

#[test]
fn a_configuration_that_was_named_and_cannot_be_read_is_no_reason_to_tune_for_another() {
    let relay = prepared();
    let absent = relay.directory().join("absent.toml");
    let output = run(Command::new(built("sluice")).args(["tune", "check", "--config"]).arg(&absent), SOON);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("absent.toml"), "{told}");
}

#[test]
fn threads_run_where_they_are_told_to() {
    let allowed = sluice_tuning::cpus_allowed();
    let (first, last) = (allowed[0], allowed[allowed.len() - 1]);
    let mut relay = Relay::builder().inward(NOBODY).cpus(&first.to_string(), &last.to_string()).prepare();
    relay.start_with(&["--service-cpus", &last.to_string()]);
    let tasks = format!("/proc/{}/task", relay.pid());
    let mut seen = Vec::new();
    for task in fs::read_dir(&tasks).expect("its threads").flatten() {
        let status = fs::read_to_string(task.path().join("status")).expect("a thread");
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().to_owned()
        };
        seen.push((field("Name:"), field("Cpus_allowed_list:")));
    }
    for (name, cpu) in [("ingest shard 0", first), ("delivery shard", last), ("service", last), ("log", last)]
    {
        assert!(seen.contains(&(name.to_owned(), cpu.to_string())), "{name} on {cpu}: {seen:?}");
    }
}
