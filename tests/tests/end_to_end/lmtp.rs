//! LMTP (RFC 2033): Dovecot as the mail store behind the relay, and a store that dies between its replies.

use sluice_tests::message::message;
use sluice_tests::process::{Running, launch};
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Client, Dsn, Inbox, Port, Relay, is_root, lacks, skipped};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Dovecot with the mailboxes ann, bob and full (no quota at all) at inside.test, over a socket and a port.
struct Store {
    home: tempfile::TempDir,
    port: Port,
    _running: Running,
}

impl Store {
    fn start() -> Option<Self> {
        if lacks("dovecot") || !is_root() {
            return None;
        }
        if !Path::new("/usr/lib/dovecot/lmtp").exists() {
            skipped("dovecot-lmtpd is not installed");
            return None;
        }
        let home = tempfile::Builder::new().prefix("sluice-lmtp-").tempdir().expect("a directory");
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(home.path(), permissions).expect("permissions");
        let at = |file: &str| home.path().join(file).display().to_string();
        for directory in ["run", "mail"] {
            std::fs::create_dir(home.path().join(directory)).expect("a directory");
        }
        std::os::unix::fs::chown(home.path().join("mail"), Some(65_534), Some(65_534)).expect("chown");
        let user = |name: &str, more: &str| {
            format!("{name}@inside.test:{{PLAIN}}x:65534:65534::{}/%n::{more}\n", at("mail"))
        };
        let users = user("ann", "") + &user("bob", "") + &user("full", "userdb_quota_rule=*:bytes=1");
        std::fs::write(home.path().join("users"), users).expect("a file");
        let port = Port::reserve();
        let configuration = format!(
            "protocols = lmtp\nlog_path = {log}\nbase_dir = {run}\nssl = no\nhostname = relay.test\n\
             mail_location = maildir:{mail}/%n/Maildir\nmail_plugins = quota\nquota_full_tempfail = no\n\
             plugin {{\n  quota = count:User\n  quota_vsizes = yes\n}}\n\
             first_valid_uid = 1\nlmtp_save_to_detail_mailbox = no\nlmtp_add_received_header = no\n\
             passdb {{\n  driver = passwd-file\n  args = {users}\n}}\n\
             userdb {{\n  driver = passwd-file\n  args = {users}\n}}\n\
             service lmtp {{\n  chroot =\n  unix_listener lmtp {{\n    mode = 0666\n  }}\n\
             \x20 inet_listener lmtp {{\n    address = 127.0.0.1\n    port = {port}\n  }}\n}}\n\
             service anvil {{\n  chroot =\n}}\nservice stats {{\n  chroot =\n}}\n",
            log = at("log"),
            run = at("run"),
            mail = at("mail"),
            users = at("users"),
            port = port.number(),
        );
        std::fs::write(home.path().join("dovecot.conf"), configuration).expect("a file");
        let dovecot = sluice_tests::tools::find("dovecot").expect("dovecot");
        let running = launch(Command::new(dovecot).args(["-F", "-c", &at("dovecot.conf")]));
        let store = Self { home, port, _running: running };
        until_true(SOON, "dovecot listens", || UnixStream::connect(store.socket()).is_ok());
        Some(store)
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("run/lmtp")
    }

    fn mailbox(&self, name: &str) -> usize {
        let new = self.home.path().join(format!("mail/{name}/Maildir/new"));
        std::fs::read_dir(new).map_or(0, Iterator::count)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

fn route(host: &str) -> String {
    format!("[[route]]\ndomains = [\"inside.test\"]\nprotocol = \"lmtp\"\nhosts = [\"{host}\"]\n")
}

#[test]
fn dovecot_files_what_comes_by_lmtp_over_a_socket_and_over_tcp() {
    let Some(store) = Store::start() else { return };
    let outside = Inbox::start();
    let ways = [format!("unix:{}", store.socket().display()), store.port.address().to_string()];
    for (round, way) in ways.iter().enumerate() {
        // The store has the relay's own name, which is no loop.
        let mut relay = Relay::builder().section(&route(way)).outward(outside.address()).start();
        let mut client = Client::hello(relay.outside());
        let to = ["ann@inside.test", "bob+detail@inside.test", "full@inside.test", "nobody@inside.test"];
        let large = "a line of mail\r\n".repeat(20_000);
        for body in ["x\r\n.dots\r\n..\r\n", large.as_str()] {
            client.send_message("bob@away.test", &to, &message("stored", body)).expect(250, "2.0.0");
        }
        client.quit();
        // Of each message two recipients fail, each for its own reason, of which one DSN tells, and two have it.
        let dsns = outside.wait_for(2 * (round + 1), SOON);
        relay.wait_empty();
        let log = relay.stop();
        assert_eq!(
            (store.mailbox("ann"), store.mailbox("bob")),
            (2 * (round + 1), 2 * (round + 1)),
            "{}\n{}",
            log.text(),
            store.log()
        );
        let place = if round == 0 {
            format!("relay=localhost[{}]", store.socket().display())
        } else {
            format!("]:{}", store.port.number())
        };
        assert_eq!(log.matching(&["status=sent", &place]).len(), 4, "{}", log.text());
        assert_eq!(
            log.matching(&["<full@inside.test>", "status=bounced", "dsn=5.2.2", &place]).len(),
            2,
            "{}",
            log.text()
        );
        assert_eq!(log.matching(&["<nobody@inside.test>", "status=bounced", "dsn=5.1.1", &place]).len(), 2);
        for got in &dsns[2 * round..] {
            let dsn = Dsn::parse_valid(&got.content);
            let mut statuses = [0, 1].map(|index| dsn.recipient(index, "status").to_owned());
            statuses.sort();
            assert_eq!(statuses, ["5.1.1", "5.2.2"], "{}", dsn.text());
        }
    }
}

#[test]
fn mail_waits_for_a_socket_that_is_not_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("lmtp");
    let relay = Relay::builder().section(&route(&format!("unix:{}", socket.display()))).start();
    let mut client = Client::hello(relay.outside());
    client
        .send_message("bob@away.test", &["ann@inside.test"], &message("waits", "x\r\n"))
        .expect(250, "2.0.0");
    client.quit();
    let shown = format!("localhost[{}]: No such file or directory", socket.display());
    relay.log().wait_for(SOON, &["status=deferred", "dsn=4.4.1", &shown]);
    assert_eq!(relay.queue().len(), 1);
}

/// What a store did with one session: it answers the first `replies` recipients after the content, and hangs up.
fn dying_store(replies: usize) -> (SocketAddr, Arc<Mutex<Vec<Vec<String>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let taken: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let kept = taken.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(50).flatten() {
            let session = kept.lock().expect("a lock").len();
            kept.lock().expect("a lock").push(Vec::new());
            // The first session dies early; later ones live.
            let replies = if session == 0 { replies } else { usize::MAX };
            let _ = serve(&stream, replies, &mut |to| kept.lock().expect("a lock")[session].push(to));
        }
    });
    (address, taken)
}

fn serve(stream: &TcpStream, replies: usize, took: &mut dyn FnMut(String)) -> std::io::Result<()> {
    let mut output = stream;
    let mut say = |text: &str| output.write_all(format!("{text}\r\n").as_bytes());
    let (mut to, mut in_content) = (Vec::new(), false);
    say("220 store.test LMTP")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if in_content {
            if line == "." {
                in_content = false;
                for (place, recipient) in to.drain(..).enumerate() {
                    if place == replies {
                        return Ok(());
                    }
                    took(recipient);
                    say("250 2.1.5 stored")?;
                }
            }
            continue;
        }
        match line.split(' ').next().unwrap_or_default() {
            "LHLO" => say("250-store.test\r\n250 PIPELINING")?,
            "RCPT" => {
                to.push(line[9..line.len() - 1].to_owned());
                say("250 x")?;
            }
            "DATA" => {
                in_content = true;
                say("354 x")?;
            }
            "QUIT" => return say("221 x"),
            _ => say("250 x")?,
        }
    }
    Ok(())
}

#[test]
fn a_store_that_dies_between_its_replies_gets_the_others_again() {
    let (address, taken) = dying_store(2);
    let relay = Relay::builder().section(&route(&address.to_string())).start();
    let to: Vec<String> = (0..5).map(|n| format!("u{n}@inside.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut client = Client::hello(relay.outside());
    client.send_message("bob@away.test", &to, &message("dies", "x\r\n")).expect(250, "2.0.0");
    client.quit();
    relay.wait_empty();
    let taken = taken.lock().expect("a lock").clone();
    assert_eq!(taken[0], to[..2], "the first two had their reply");
    let later: Vec<String> = taken[1..].concat();
    assert_eq!(later, to[2..], "the others once more, and only they");
}
