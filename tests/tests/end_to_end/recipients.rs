//! Per-recipient routing (S13): which internal server holds the mailbox, by a file and by a directory.

use sluice_tests::message::message;
use sluice_tests::process::{Running, launch, run_ok};
use sluice_tests::tools::find;
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Dsn, Inbox, Port, Relay, lacks};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A route whose table is the file `recipients` in this directory.
fn by_file(directory: &Path, default: SocketAddr, more: &str) -> String {
    let file = directory.join("recipients");
    format!(
        "[[route]]\ndomains = [\"inside.test\"]\nhosts = [\"{default}\"]\n[route.recipients]\nfile = {file:?}\n{more}\n"
    )
}

/// The new table as one step, as an administrator should.
fn write_table(directory: &Path, text: &str) {
    let part = directory.join("recipients.new");
    std::fs::write(&part, text).expect("a file");
    std::fs::rename(part, directory.join("recipients")).expect("renamed");
}

fn send(relay: &Relay, to: &[&str]) {
    let mut client = Client::hello(relay.outside());
    client.send_message("bob@away.test", to, &message("by-recipient", "x\r\n")).expect(250, "2.0.0");
    client.quit();
}

#[test]
fn each_mailbox_is_delivered_to_the_server_that_the_file_names() {
    let [default, first, second] = [Inbox::start(), Inbox::start(), Inbox::start()];
    let directory = tempfile::tempdir().expect("a directory");
    let (a, b) = (first.address(), second.address());
    write_table(
        directory.path(),
        &format!("# who is where\nann@inside.test {a}\nBob@Inside.TEST {b}\nkay@inside.test {a}\n"),
    );
    let relay = Relay::builder().section(&by_file(directory.path(), default.address(), "")).start();
    send(&relay, &["ann@inside.test", "bob+list@inside.test", "KAY@inside.test", "eve@inside.test"]);
    assert_eq!(first.wait_for(1, SOON)[0].to, ["ann@inside.test", "KAY@inside.test"], "one transaction");
    assert_eq!(second.wait_for(1, SOON)[0].to, ["bob+list@inside.test"]);
    assert_eq!(default.wait_for(1, SOON)[0].to, ["eve@inside.test"]);
    relay.wait_empty();
    // Whoever leads there, a server has one pool of connections.
    for _ in 0..20 {
        send(&relay, &["ann@inside.test"]);
        send(&relay, &["kay@inside.test"]);
    }
    first.wait_for(41, SOON);
    assert!(first.sessions() <= 5, "{} connections", first.sessions());
    let explain =
        |to| relay.sluice_ok(&["explain", "--listener", "outside", "--client", "127.0.0.1", "--to", to]);
    assert!(
        explain("ann+x@inside.test").contains(&format!("recipients: {a}\n")),
        "{}",
        explain("ann+x@inside.test")
    );
    assert!(explain("eve@inside.test").contains("not there, goes to the route's hosts"));
    assert!(relay.sluice_ok(&["check"]).contains("has 3 recipients on 2 servers."));
    // A mailbox moves.
    write_table(directory.path(), &format!("ann@inside.test {b}\n@inside.test {a}\n"));
    relay.log().wait_for(SOON, &["was read again: 2 recipients"]);
    send(&relay, &["ann@inside.test", "eve@inside.test"]);
    assert_eq!(second.wait_for(2, SOON)[1].to, ["ann@inside.test"]);
    assert_eq!(first.wait_for(42, SOON)[41].to, ["eve@inside.test"]);
    // A bad line changes nothing, and is named.
    write_table(directory.path(), &format!("ann@inside.test {a}\nbroken\n"));
    relay.log().wait_for(
        SOON,
        &["error: ", "recipients: line 2: \"broken\" is not an address", "what was read before holds"],
    );
    send(&relay, &["ann@inside.test"]);
    assert_eq!(second.wait_for(3, SOON)[2].to, ["ann@inside.test"]);
    let output = relay.sluice(&["check"]);
    assert!(output.status.code() == Some(78) && String::from_utf8_lossy(&output.stderr).contains("line 2: "));
}

#[test]
fn a_server_that_is_down_keeps_its_mail_over_a_kill_and_a_mailbox_that_moves_is_followed() {
    let (default, second, port) = (Inbox::start(), Inbox::start(), Port::reserve());
    let directory = tempfile::tempdir().expect("a directory");
    let down = port.address();
    write_table(directory.path(), &format!("ann@inside.test {down}\nbob@inside.test {down}\n"));
    let mut relay = Relay::builder().section(&by_file(directory.path(), default.address(), "")).start();
    send(&relay, &["ann@inside.test", "bob@inside.test", "eve@inside.test"]);
    assert_eq!(default.wait_for(1, SOON)[0].to, ["eve@inside.test"]);
    relay.log().wait_for(SOON, &["next hop", &down.to_string(), "is down"]);
    let listed = relay.sluice_ok(&["queue", "summary"]);
    assert!(listed.contains(&down.to_string()), "{listed}");
    relay.kill();
    relay.start();
    relay.log().wait_for(SOON, &["next hop", &down.to_string(), "is down"]);
    // Bob moves away from the server that is down.
    write_table(directory.path(), &format!("ann@inside.test {down}\nbob@inside.test {}\n", second.address()));
    assert_eq!(second.wait_for(1, SOON * 3)[0].to, ["bob@inside.test"]);
    let back = Inbox::bind(down, |_| Answer::Accept);
    assert_eq!(back.wait_for(1, SOON * 3)[0].to, ["ann@inside.test"]);
    relay.wait_empty();
    assert_eq!((default.len(), second.len(), back.len()), (1, 1, 1));
}

#[test]
fn who_is_not_in_the_file_is_refused_at_rcpt_where_that_is_wanted() {
    let first = Inbox::start();
    let directory = tempfile::tempdir().expect("a directory");
    write_table(directory.path(), &format!("ann@inside.test {}\n", first.address()));
    let file = directory.path().join("recipients");
    let route = format!(
        "[[route]]\ndomains = [\"inside.test\"]\n[route.recipients]\nfile = {file:?}\nunknown = \"refuse\"\n"
    );
    let relay = Relay::builder().section(&route).start();
    let mut client = Client::hello(relay.outside());
    client.command("MAIL FROM:<bob@away.test>").expect(250, "2.1.0");
    client.command("RCPT TO:<ann@inside.test>").expect(250, "2.1.5");
    client.command("RCPT TO:<eve@inside.test>").expect(550, "5.1.1");
    // The table of sessions that are open changes too.
    write_table(directory.path(), &format!("eve@inside.test {}\n", first.address()));
    relay.log().wait_for(SOON, &["was read again: 1 recipients"]);
    client.command("RCPT TO:<eve@inside.test>").expect(250, "2.1.5");
    client.command("DATA").expect(354, "");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    client.reply().expect(250, "2.0.0");
    client.quit();
    assert_eq!(first.wait_for(1, SOON)[0].to, ["eve@inside.test"]);
    // Ann was taken and is gone: her mail is returned, to a sender for whom there is no route here.
    relay.log().wait_for(SOON, &["<ann@inside.test>", "status=bounced", "dsn=5.1.1"]);
}

#[test]
fn a_plain_list_of_addresses_is_a_table_and_an_empty_one_changes_nothing() {
    let (hosts, other) = (Inbox::start(), Inbox::start());
    let directory = tempfile::tempdir().expect("a directory");
    write_table(directory.path(), &format!("ann@inside.test\nbob@inside.test {}\n", other.address()));
    let relay =
        Relay::builder().section(&by_file(directory.path(), hosts.address(), "unknown = \"refuse\"")).start();
    let mut client = Client::hello(relay.outside());
    client.command("MAIL FROM:<joe@away.test>").expect(250, "2.1.0");
    client.command("RCPT TO:<ann+x@inside.test>").expect(250, "2.1.5");
    client.command("RCPT TO:<bob@inside.test>").expect(250, "2.1.5");
    client.command("RCPT TO:<eve@inside.test>").expect(550, "5.1.1");
    client.command("DATA").expect(354, "");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    client.reply().expect(250, "2.0.0");
    client.quit();
    assert_eq!(hosts.wait_for(1, SOON)[0].to, ["ann+x@inside.test"]);
    assert_eq!(other.wait_for(1, SOON)[0].to, ["bob@inside.test"]);
    // An export that failed.
    write_table(directory.path(), "# 0 users\n");
    relay.log().wait_for(SOON, &["error: ", "has no entries any more", "what was read before holds"]);
    send(&relay, &["ann@inside.test"]);
    assert_eq!(hosts.wait_for(2, SOON)[1].to, ["ann@inside.test"]);
    // Nothing starts with it.
    let output = relay.sluice(&["check"]);
    assert!(
        output.status.code() == Some(78)
            && String::from_utf8_lossy(&output.stderr).contains("all mail of this route would be refused")
    );
    // What other relays' tables say.
    write_table(directory.path(), "ann@inside.test OK\n");
    relay.log().wait_for(SOON, &["error: ", "line 1: \"OK\" is no host", "what was read before holds"]);
}

#[test]
fn a_million_entries_are_read_fast_and_cost_little() {
    let first = Inbox::start();
    let directory = tempfile::tempdir().expect("a directory");
    let mut text = String::with_capacity(64 << 20);
    for number in 0..1_000_000 {
        let _ = writeln!(text, "user{number:07}@inside.test {}", first.address());
    }
    write_table(directory.path(), "ann@inside.test 127.0.0.1\n");
    let relay =
        Relay::builder().section(&by_file(directory.path(), first.address(), "unknown = \"refuse\"")).start();
    let before = relay.resident_bytes();
    write_table(directory.path(), &text);
    let start = Instant::now();
    relay.log().wait_for(SOON * 4, &["was read again: 1000000 recipients"]);
    println!(
        "a million recipients read in {:.1?}, {} MiB more",
        start.elapsed(),
        (relay.resident_bytes().saturating_sub(before)) >> 20
    );
    send(&relay, &["user0123456@inside.test"]);
    first.wait_for(1, SOON);
    let mut client = Client::hello(relay.outside());
    client.command("MAIL FROM:<bob@away.test>").expect(250, "2.1.0");
    client.command("RCPT TO:<user1000000@inside.test>").expect(550, "5.1.1");
    client.quit();
}

/// slapd with what `entries` says below dc=test.
struct Slapd {
    home: tempfile::TempDir,
    port: Port,
    running: Option<Running>,
}

impl Slapd {
    fn start(entries: &str) -> Self {
        let home = tempfile::Builder::new().prefix("sluice-slapd-").tempdir().expect("a directory");
        std::fs::create_dir(home.path().join("data")).expect("a directory");
        let schema = |name: &str| format!("include /etc/ldap/schema/{name}.schema\n");
        let configuration = format!(
            "{}{}{}{}modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {}\ndatabase mdb\nmaxsize 10485760\n\
             suffix dc=test\nrootdn cn=root,dc=test\nrootpw rootsecret\ndirectory {}\naccess to * by * read\n",
            schema("core"),
            schema("cosine"),
            schema("inetorgperson"),
            schema("misc"),
            home.path().join("pid").display(),
            home.path().join("data").display()
        );
        std::fs::write(home.path().join("slapd.conf"), configuration).expect("a file");
        let mut slapd = Self { home, port: Port::reserve(), running: None };
        slapd.launch();
        let base = "dn: dc=test\nobjectClass: dcObject\nobjectClass: organization\no: test\ndc: test\n\n";
        let file = slapd.home.path().join("entries.ldif");
        std::fs::write(&file, format!("{base}{entries}")).expect("a file");
        let line =
            ["-x", "-H", &slapd.url(), "-D", "cn=root,dc=test", "-w", "rootsecret", "-f"].map(str::to_owned);
        run_ok(Command::new("ldapadd").args(line).arg(file), SOON);
        slapd
    }

    fn launch(&mut self) {
        let configuration: PathBuf = self.home.path().join("slapd.conf");
        let program = find("slapd").expect("slapd");
        let running =
            launch(Command::new(program).arg("-f").arg(configuration).args(["-h", &self.url(), "-d", "0"]));
        self.running = Some(running);
        let address = self.port.address();
        until_true(SOON, "slapd listens", || std::net::TcpStream::connect(address).is_ok());
    }

    fn url(&self) -> String {
        format!("ldap://{}", self.port.address())
    }
}

fn person(uid: &str, mail: &str, host: &str) -> String {
    let host = if host.is_empty() { String::new() } else { format!("mailHost: {host}\n") };
    format!(
        "dn: uid={uid},dc=test\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\nuid: {uid}\ncn: {uid}\nsn: X\nmail: {mail}\n{host}\n"
    )
}

#[test]
fn a_directory_says_where_a_mailbox_is_and_mail_waits_while_it_is_down() {
    if lacks("slapd") || lacks("ldapadd") {
        return;
    }
    let [default, first, second] = [Inbox::start(), Inbox::start(), Inbox::start()];
    let entries = [
        person("ann", "ann@inside.test", &first.address().to_string()),
        person("bob", "bob@inside.test", &second.address().to_string()),
        person("kay", "kay@inside.test", ""),
        person("odd", "odd@inside.test", "no host at all"),
        person("twin1", "twin@inside.test", &first.address().to_string()),
        person("twin2", "twin@inside.test", &second.address().to_string()),
    ];
    let mut slapd = Slapd::start(&entries.concat());
    let route = format!(
        "[[route]]\ndomains = [\"inside.test\"]\nhosts = [\"{}\"]\n[route.recipients]\nunknown = \"refuse\"\n\
         [route.recipients.ldap]\nurl = \"{}\"\nbase = \"dc=test\"\nfilter = \"(mail={{recipient}})\"\n\
         patience = \"3s\"\nkeep = \"0s\"\nkeep_absent = \"0s\"\n",
        default.address(),
        slapd.url()
    );
    let sender = Inbox::start();
    let relay = Relay::builder().section(&route).outward(sender.address()).start();
    // Kay's entry names no server.
    let to =
        ["ann@inside.test", "Bob+x@inside.test", "twin@inside.test", "odd@inside.test", "kay@inside.test"];
    send(&relay, &to);
    assert_eq!(default.wait_for(1, SOON)[0].to, ["kay@inside.test"]);
    assert_eq!(first.wait_for(1, SOON)[0].to, ["ann@inside.test"]);
    assert_eq!(second.wait_for(1, SOON)[0].to, ["Bob+x@inside.test"]);
    relay
        .log()
        .wait_for(SOON, &["<twin@inside.test>", "status=deferred", "dsn=4.4.3", "more than one entry"]);
    relay.log().wait_for(SOON, &["<odd@inside.test>", "status=deferred", "dsn=4.4.3", "is not a host"]);
    relay.sluice_ok(&["queue", "delete", "--recipient", "*"]);
    // Who is not there is returned; a filter cannot be smuggled in, nor a wildcard.
    for (count, to) in [(1, "nobody@inside.test"), (2, "a*@inside.test"), (3, "\"x)(uid=ann\"@inside.test")] {
        send(&relay, &[to]);
        let got = sender.wait_for(count, SOON);
        assert_eq!(Dsn::parse_valid(&got[count - 1].content).recipient(0, "status"), "5.1.1", "{to}");
    }
    let explained = relay.sluice_ok(&[
        "explain",
        "--listener",
        "outside",
        "--client",
        "127.0.0.1",
        "--to",
        "ann@inside.test",
    ]);
    assert!(
        explained.contains(&format!("table LDAP 127.0.0.1:{}: {}", slapd.port.number(), first.address())),
        "{explained}"
    );

    // Without its directory the relay takes mail, tells why it waits, and returns nothing.
    drop(slapd.running.take());
    until_true(SOON, "slapd is gone", || std::net::TcpStream::connect(slapd.port.address()).is_err());
    for _ in 0..20 {
        send(&relay, &["ann@inside.test", "nobody@inside.test"]);
    }
    relay.log().wait_for(SOON, &["the table of route", "is down", "LDAP"]);
    relay.log().wait_for(SOON, &["<ann@inside.test>", "status=deferred", "dsn=4.4.3", "LDAP"]);
    assert_eq!((relay.queue().len(), first.len(), sender.len()), (20, 1, 3));
    slapd.launch();
    assert_eq!(first.wait_for(21, SOON * 3).len(), 21);
    sender.wait_for(23, SOON * 3);
    relay.wait_empty();
    assert_eq!((second.len(), default.len()), (1, 1));
}
