//! A real Postfix: an instance of its own, with its own directories and port, as the organisation's
//! internal server or as somebody's MX. Mail for its domains goes to Maildirs by its `virtual` agent;
//! an unknown mailbox is refused at RCPT with 550 5.1.1.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{run, run_ok};
use crate::wait::SOON;
use crate::{Maildir, Port, is_root, skipped, tools};

const MASTER: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
";

/// The user that owns the Maildirs; any unprivileged one does.
const MAIL_UID: u32 = 65_534;

/// One running instance. Dropping it stops it.
pub struct Postfix {
    directory: TempDir,
    address: SocketAddr,
    _port: Option<Port>,
}

impl Postfix {
    /// Whether Postfix can be used here; says so loudly if not.
    pub fn is_missing() -> bool {
        if !is_root() {
            skipped("Postfix can be started by root only");
            return true;
        }
        crate::lacks("postfix")
    }

    /// Starts an instance with these mailboxes on 127.0.0.1; mail for elsewhere goes to `relay_host`.
    pub fn start(name: &str, mailboxes: &[&str], relay_host: Option<SocketAddr>) -> Self {
        let port = Port::reserve();
        let mut postfix = Self::start_at(port.address(), name, mailboxes, relay_host);
        postfix._port = Some(port);
        postfix
    }

    /// Starts an instance that has no mailboxes and hands all on to `relay_host`, with further lines of main.cf.
    pub fn relaying(name: &str, relay_host: SocketAddr, settings: &str) -> Self {
        let port = Port::reserve();
        let mut postfix = Self::start_with(port.address(), name, &[], Some(relay_host), settings);
        postfix._port = Some(port);
        postfix
    }

    /// Starts an instance on an address that the test has reserved.
    ///
    /// # Panics
    /// When it does not start; shows its log.
    pub fn start_at(
        address: SocketAddr,
        name: &str,
        mailboxes: &[&str],
        relay_host: Option<SocketAddr>,
    ) -> Self {
        Self::start_with(address, name, mailboxes, relay_host, "")
    }

    fn start_with(
        address: SocketAddr,
        name: &str,
        mailboxes: &[&str],
        relay_host: Option<SocketAddr>,
        settings: &str,
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("sluice-postfix-").tempdir().expect("a directory");
        let root = directory.path();
        fs::set_permissions(root, Permissions::from_mode(0o755)).expect("permissions");
        for part in ["etc", "queue", "data", "mail", "log"] {
            fs::create_dir(root.join(part)).expect("a directory");
        }
        chown(root.join("mail"), Some(MAIL_UID), Some(MAIL_UID)).expect("chown");
        run_ok(Command::new("chown").arg("postfix").arg(root.join("data")), SOON);
        fs::write(root.join("etc/main.cf"), main_cf(root, name, mailboxes, relay_host) + settings)
            .expect("main.cf");
        fs::write(root.join("etc/master.cf"), format!("{address} inet n - n - - smtpd\n{MASTER}"))
            .expect("master.cf");
        let postfix = Self { directory, address, _port: None };
        let output = postfix.command("start");
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), postfix.log());
        postfix
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds lines to its main.cf; holds for connections from now on, as long as there were none before.
    pub fn configure(&self, lines: &str) {
        let path = self.directory.path().join("etc/main.cf");
        let text = fs::read_to_string(&path).expect("main.cf");
        fs::write(&path, format!("{text}{lines}\n")).expect("main.cf");
        assert!(self.command("reload").status.success());
    }

    /// The Maildir of one of its mailboxes.
    pub fn maildir(&self, mailbox: &str) -> Maildir {
        Maildir::at(self.directory.path().join("mail").join(mailbox))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log/mail.log")).unwrap_or_default()
    }

    /// Waits until a line of its log contains all of `parts`.
    #[track_caller]
    pub fn wait_log(&self, limit: Duration, parts: &[&str]) -> String {
        crate::wait::until(limit, &format!("{parts:?} in Postfix's log"), || {
            let log = self.log();
            log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        })
    }

    fn command(&self, verb: &str) -> std::process::Output {
        let program = tools::find("postfix").expect("postfix");
        run(Command::new(program).arg("-c").arg(self.directory.path().join("etc")).arg(verb), SOON * 2)
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of Postfix:\n{}", self.log());
        }
        let output = self.command("stop");
        if !output.status.success() {
            eprintln!("postfix stop: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn main_cf(root: &Path, name: &str, mailboxes: &[&str], relay_host: Option<SocketAddr>) -> String {
    let root = root.display();
    let mut domains: Vec<&str> =
        mailboxes.iter().filter_map(|mailbox| Some(mailbox.split_once('@')?.1)).collect();
    domains.sort_unstable();
    domains.dedup();
    let maps: String = mailboxes.iter().fold(String::new(), |mut maps, mailbox| {
        let _ = write!(maps, " {{{mailbox}={mailbox}/}}");
        maps
    });
    let relay_host = relay_host.map_or(String::new(), |host| format!("[{}]:{}", host.ip(), host.port()));
    format!(
        "\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
maillog_file = {root}/log/mail.log
maillog_file_prefixes = {root}
myhostname = {name}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = {relay_host}
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_recipient_limit = 2000
smtpd_client_connection_count_limit = 0
message_size_limit = 104857600
mailbox_size_limit = 0
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = inline:{{{maps} }}
virtual_mailbox_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:{MAIL_UID}
virtual_gid_maps = static:{MAIL_UID}
",
        domains = domains.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;
    use crate::message::message;

    #[test]
    fn an_instance_files_what_it_gets_and_refuses_strangers() {
        if Postfix::is_missing() {
            return;
        }
        let postfix = Postfix::start("mail.inside.test", &["bob@inside.test"], None);
        let mut client = Client::hello(postfix.address());
        client
            .send_message("a@a.test", &["bob@inside.test"], &message("filed", "hello\r\n"))
            .expect(250, "2.0.0");
        client.command("MAIL FROM:<a@a.test>").expect(250, "2.1.0");
        client.command("RCPT TO:<nobody@inside.test>").expect(550, "5.1.1");
        let mail = postfix.maildir("bob@inside.test").wait_for(1, SOON);
        assert!(String::from_utf8_lossy(&mail[0]).contains("Subject: filed\n"));
        postfix.wait_log(SOON, &["to=<bob@inside.test>", "status=sent"]);
    }

    #[test]
    fn an_instance_hands_on_what_is_for_elsewhere() {
        if Postfix::is_missing() {
            return;
        }
        let inbox = crate::Inbox::start();
        let postfix = Postfix::start("mail.inside.test", &["bob@inside.test"], Some(inbox.address()));
        let mut client = Client::hello(postfix.address());
        client
            .send_message("bob@inside.test", &["x@away.test"], &message("on", "x\r\n"))
            .expect(250, "2.0.0");
        assert_eq!(inbox.wait_for(1, SOON)[0].to, ["x@away.test"]);
    }
}
