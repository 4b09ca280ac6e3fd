//! A real OpenSMTPD as the organisation's internal server; all mail goes to one Maildir.
//!
//! Its Debian package excludes Postfix's, so the test command unpacks it into the target directory and it
//! is never installed. Users and directories that were compiled into it exist only in a mount namespace of
//! its own, which ends with it.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process::{exit_within, signal};
use crate::wait::{self, SOON};
use crate::{Client, Maildir, Port, is_root, skipped, tools};

/// The user that owns the Maildir; any unprivileged one does.
const MAIL_UID: u32 = 65_534;

/// What the program finds where it looks. `$1`: the unpacked package, `$2`: the directory of the instance.
const START: &str = r#"
set -e
mount --bind "$2/passwd" /etc/passwd
mount --bind "$2/group" /etc/group
for directory in /var/spool /run /var/lib /usr/libexec; do
    mkdir -p $directory
    mount -t tmpfs tmpfs $directory
done
mkdir -m 711 /var/spool/smtpd
mkdir -p /var/lib/opensmtpd/empty
cp -r "$1/usr/libexec/opensmtpd" /usr/libexec/
exec "$1/usr/sbin/smtpd" -d -f "$2/smtpd.conf"
"#;

/// One running instance. Dropping it stops it.
pub struct OpenSmtpd {
    directory: TempDir,
    port: Port,
    child: Child,
}

impl OpenSmtpd {
    /// Whether it can be used here; says so loudly if not.
    pub fn is_missing() -> bool {
        if !is_root() {
            skipped("OpenSMTPD can be started by root only");
            return true;
        }
        if package().is_none() {
            skipped("OpenSMTPD is not unpacked; tests/run does that");
            return true;
        }
        false
    }

    /// Starts an instance on 127.0.0.1.
    ///
    /// # Panics
    /// When it does not start; shows its log.
    pub fn start(name: &str) -> Self {
        let package = package().expect("the package");
        let port = Port::reserve();
        let directory = tempfile::Builder::new().prefix("sluice-opensmtpd-").tempdir().expect("a directory");
        let root = directory.path();
        fs::set_permissions(root, Permissions::from_mode(0o755)).expect("permissions");
        fs::create_dir(root.join("mail")).expect("a directory");
        chown(root.join("mail"), Some(MAIL_UID), Some(MAIL_UID)).expect("chown");
        write_accounts(root);
        fs::write(root.join("smtpd.conf"), configuration(root, name, port.address())).expect("smtpd.conf");
        let log = fs::File::create(root.join("log")).expect("a log");
        // Should the test process die, the server must not stay behind.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private"])
            .args(["sh", "-c", START, "sh"])
            .args([&package, root])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("unshare starts");
        let mut server = Self { directory, port, child };
        wait::until(SOON, "the greeting of OpenSMTPD", || {
            let ended = server.child.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "OpenSMTPD has ended: {ended:?}\n{}", server.log());
            Client::try_connect(server.port.address()).ok()
        });
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn maildir(&self) -> Maildir {
        Maildir::at(self.directory.path().join("mail/box"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for OpenSmtpd {
    fn drop(&mut self) {
        signal(self.child.id(), "TERM");
        if exit_within(&mut self.child, SOON).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The unpacked package, beside the directory of the tests' profile.
fn package() -> Option<PathBuf> {
    let sluice = tools::built("sluice");
    let package = sluice.parent()?.parent()?.join("interop/opensmtpd");
    package.join("usr/sbin/smtpd").is_file().then_some(package)
}

/// The system's accounts and those that the program wants.
fn write_accounts(root: &Path) {
    let others = |file: &str| -> String {
        let text = fs::read_to_string(file).expect("accounts");
        text.lines().filter(|line| !line.starts_with("opensmtp")).map(|line| format!("{line}\n")).collect()
    };
    let passwd = format!(
        "{}opensmtpd:x:64998:64998::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n\
         opensmtpq:x:64997:64997::/nonexistent:/usr/sbin/nologin\n\
         opensmtpbox:x:{MAIL_UID}:{MAIL_UID}::{}:/usr/sbin/nologin\n",
        others("/etc/passwd"),
        root.join("mail").display()
    );
    let group = format!("{}opensmtpd:x:64998:\nopensmtpq:x:64997:\n", others("/etc/group"));
    fs::write(root.join("passwd"), passwd).expect("passwd");
    fs::write(root.join("group"), group).expect("group");
}

fn configuration(root: &Path, name: &str, address: SocketAddr) -> String {
    format!(
        "smtp max-message-size 64M\ntable boxes {{ \"@\" = \"opensmtpbox\" }}\n\
         listen on {} port {} hostname {name}\n\
         action \"in\" maildir \"{}/mail/box\" virtual <boxes>\n\
         match from any for any action \"in\"\n",
        address.ip(),
        address.port(),
        root.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::message;

    #[test]
    fn an_instance_files_what_it_gets() {
        if OpenSmtpd::is_missing() {
            return;
        }
        let server = OpenSmtpd::start("mail.inside.test");
        let mut client = Client::hello(server.address());
        // Its code for MAIL is not Sluice's.
        client.command("MAIL FROM:<a@a.test>").expect(250, "2.0.0");
        client.command("RCPT TO:<bob@inside.test>").expect(250, "2.1.5");
        client.command("DATA").expect(354, "");
        client.send(&message("filed", "hello\r\n"));
        client.command(".").expect(250, "2.0.0");
        let mail = server.maildir().wait_for(1, SOON);
        assert!(String::from_utf8_lossy(&mail[0]).contains("Subject: filed\n"), "{}", server.log());
    }
}
