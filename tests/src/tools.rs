//! Programs that nobody here wrote, as parties of a test: swaks, Python's smtplib, Postfix's smtp-source
//! and smtp-sink; and Sluice's own generator and sink.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::log::Log;
use crate::process::run;
use crate::wait::SOON;
use crate::{Port, wait};

/// Where a program lies, on the PATH or where Debian keeps what is for root.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|directory| PathBuf::from(directory).join(program))
        .find(|candidate| candidate.is_file())
}

/// A program built with the tests: named by an environment variable (`SLUICE_BIN` for `sluice`), or in the
/// directory above the test's own executable.
///
/// # Panics
/// When it is not there.
pub fn built(program: &str) -> PathBuf {
    let variable = format!("{}_BIN", program.to_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(&variable) {
        return path.into();
    }
    let own = std::env::current_exe().expect("the test's own path");
    let directory = own.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let path = directory.join(program);
    assert!(path.is_file(), "{} is not built: cargo build --workspace, or set {variable}", path.display());
    path
}

/// Sends one message with swaks; gives whether swaks was content, and what it showed of the dialogue.
pub fn swaks(server: SocketAddr, from: &str, to: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("swaks");
    command.args(["--server", &server.to_string(), "--from", from, "--to", to]);
    command.args(["--helo", "swaks.test", "--timeout", "30"]).args(arguments);
    let output = run(&mut command, SOON * 2);
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

const SMTPLIB: &str = "\
import json, smtplib, sys
host, port, sender, recipients, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4].split(','), sys.argv[5]
content = open(path, 'rb').read()
with smtplib.SMTP(host, port, local_hostname='smtplib.test', timeout=60) as smtp:
    smtp.ehlo()
    result = {'features': smtp.esmtp_features}
    try:
        refused = smtp.sendmail(sender, recipients, content, mail_options=sys.argv[6:])
        result['refused'] = {r: [code, text.decode()] for r, (code, text) in refused.items()}
    except smtplib.SMTPRecipientsRefused as error:
        result['refused'] = {r: [code, text.decode()] for r, (code, text) in error.recipients.items()}
    except smtplib.SMTPResponseException as error:
        result['error'] = [error.smtp_code, error.smtp_error.decode()]
json.dump(result, sys.stdout)
";

/// Sends one message with Python's smtplib. The answer has `features` (of EHLO), and `refused` (recipient →
/// code and text) or `error` (code and text).
#[track_caller]
pub fn smtplib(server: SocketAddr, from: &str, to: &[&str], content: &[u8]) -> serde_json::Value {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), content).expect("a file");
    let mut command = Command::new("python3");
    command.args(["-c", SMTPLIB, &server.ip().to_string(), &server.port().to_string(), from, &to.join(",")]);
    command.arg(file.path());
    if content.iter().any(|byte| !byte.is_ascii()) {
        command.arg("body=8bitmime");
    }
    let output = run(&mut command, SOON * 2);
    assert!(output.status.success(), "smtplib: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Postfix's smtp-sink: takes everything and counts.
pub struct SmtpSink {
    port: Port,
    child: Child,
    log: Log,
}

impl SmtpSink {
    /// Starts it on a port of its own on 127.0.0.1.
    pub fn start() -> Self {
        let port = Port::reserve();
        let user = if crate::is_root() { &["-u", "nobody"][..] } else { &[] };
        let mut child = Command::new(find("smtp-sink").expect("smtp-sink"))
            .args(user)
            .args(["-c", &format!("inet:{}", port.address()), "1024"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("smtp-sink starts");
        let (log, _) = Log::follow(child.stdout.take().expect("piped"));
        wait::until_true(SOON, "smtp-sink listens", || std::net::TcpStream::connect(port.address()).is_ok());
        Self { port, child, log }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Messages taken so far, of which the sink keeps a running count.
    pub fn count(&self) -> usize {
        let lines = self.log.lines();
        let counted = lines.iter().rev().find_map(|line| {
            line.split_whitespace().find_map(|word| word.strip_prefix("mesg=")?.parse().ok())
        });
        counted.unwrap_or(0)
    }

    /// Waits until at least `count` messages are there; gives the number.
    #[track_caller]
    pub fn wait_for(&self, count: usize, limit: Duration) -> usize {
        wait::until(limit, &format!("{count} messages in smtp-sink"), || {
            Some(self.count()).filter(|&got| got >= count)
        })
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Postfix's smtp-source: sends the same message many times.
pub struct SmtpSource {
    pub sessions: usize,
    pub messages: usize,
    pub bytes: usize,
    pub from: String,
    pub to: String,
}

impl SmtpSource {
    /// Runs to its end; connections carry many messages each.
    #[track_caller]
    pub fn run(&self, server: SocketAddr, limit: Duration) {
        let mut command = Command::new(find("smtp-source").expect("smtp-source"));
        command.args(["-d", "-s", &self.sessions.to_string(), "-m", &self.messages.to_string()]);
        command.args(["-l", &self.bytes.to_string(), "-f", &self.from, "-t", &self.to]);
        command.args(["-M", "source.test", &format!("inet:{server}")]);
        crate::process::run_ok(&mut command, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{assert_same, message};
    use crate::{Inbox, lacks};

    #[test]
    fn smtp_source_and_smtp_sink_agree_on_a_count() {
        if lacks("smtp-source") {
            return;
        }
        let sink = SmtpSink::start();
        let (from, to) = ("a@a.test".to_owned(), "b@b.test".to_owned());
        SmtpSource { sessions: 3, messages: 50, bytes: 1000, from, to }.run(sink.address(), SOON);
        assert_eq!(sink.wait_for(50, SOON), 50);
    }

    #[test]
    fn swaks_and_smtplib_reach_an_inbox() {
        let inbox = Inbox::start();
        let content = message("by-smtplib", ".dot\r\nüml\r\n");
        let result = smtplib(inbox.address(), "a@a.test", &["b@b.test", "c@b.test"], &content);
        assert_eq!(result["refused"], serde_json::json!({}), "{result}");
        assert!(result["features"].as_object().unwrap().contains_key("pipelining"));
        let kept = inbox.wait_for(1, SOON);
        assert_same(&kept[0].content, &content);
        assert!(kept[0].parameters.contains("body=8bitmime"), "{}", kept[0].parameters);
        if lacks("swaks") {
            return;
        }
        let (sent, dialogue) = swaks(inbox.address(), "s@a.test", "b@b.test", &["--body", "hello"]);
        assert!(sent, "{dialogue}");
        assert_eq!(inbox.wait_for(2, SOON)[1].from, "s@a.test");
    }
}
