//! The SMTP stacks of two mail readers, neomutt and s-nail, which compose the message themselves.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use sluice_tests::interop::{FROM, Flow, TO, WAYS, Way, binary, sha256};
use sluice_tests::lacks;
use sluice_tests::process::exit_within;
use sluice_tests::wait::SOON;

const TEXT: &str = "Zw\u{f6}lf Boxk\u{e4}mpfer\n.\n..dots\nthe end\n";

/// Runs a reader in batch mode on a text and an attachment of 1 MiB, and looks at what arrives.
fn compose(flow: &Flow, reader: impl Fn(&Path, &Path) -> Command, messages: usize) {
    let (text, attachment) = (flow.file("text", TEXT), flow.file("picture.bin", binary(1 << 20)));
    let errors = flow.file("errors", "");
    let mut child = reader(&attachment, &errors)
        .env("HOME", flow.relay.directory())
        .env("LC_ALL", "C.UTF-8")
        .stdin(File::open(text).expect("a file"))
        .stdout(Stdio::null())
        .stderr(File::create(&errors).expect("a file"))
        .spawn()
        .expect("the reader starts");
    let status = exit_within(&mut child, SOON * 2);
    let said = std::fs::read_to_string(&errors).unwrap_or_default();
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {said}");
    let parts = flow.next_parts(messages);
    assert_eq!(parts["subject"], "gr\u{fc}n", "{parts}");
    assert_eq!(parts["parts"][0]["text"], TEXT, "{parts}");
    assert_eq!(parts["parts"][1]["name"], "picture.bin", "{parts}");
    assert_eq!(parts["parts"][1]["sha256"], sha256(&attachment), "{parts}");
}

#[test]
fn neomutt_sends_text_and_attachment() {
    if lacks("neomutt") {
        return;
    }
    for way in WAYS {
        let flow = Flow::start();
        let scheme = if way == Way::StartTls { "smtp" } else { "smtps" };
        let rc = flow.file(
            "neomuttrc",
            format!(
                "set smtp_url = \"{scheme}://localhost:{}/\"\nset ssl_starttls = yes\nset ssl_force_tls = yes\n\
                 set ssl_usesystemcerts = no\nset certificate_file = \"{}\"\nset from = \"{FROM}\"\n\
                 set envelope_from_address = \"{FROM}\"\nset use_envelope_from = yes\nset hostname = client.test\n\
                 set copy = no\nset record = \"\"\nset charset = utf-8\nset send_charset = utf-8\n",
                flow.address(way).port(),
                flow.trusted()
            ),
        );
        let reader = |attachment: &Path, _: &Path| {
            let mut command = Command::new("neomutt");
            command
                .args(["-n", "-F"])
                .arg(&rc)
                .args(["-s", "gr\u{fc}n", "-a"])
                .arg(attachment)
                .args(["--", TO]);
            command
        };
        compose(&flow, reader, 1);
    }
}

#[test]
fn s_nail_sends_text_and_attachment() {
    if lacks("s-nail") {
        return;
    }
    for way in WAYS {
        let flow = Flow::start();
        let scheme = if way == Way::StartTls { "smtp" } else { "smtps" };
        let reader = |attachment: &Path, _: &Path| {
            let mut command = Command::new("s-nail");
            command.args(["-:/", "-Sv15-compat", "-Ssmtp-use-starttls", "-Stls-verify=strict", "-Ssendwait"]);
            command.arg(format!("-Smta={scheme}://localhost:{}", flow.address(way).port()));
            command.arg(format!("-Stls-ca-file={}", flow.trusted())).args(["-Stls-ca-no-defaults"]);
            command.args([
                "-Ssmtp-auth=none",
                "-Sttycharset=utf-8",
                "-Ssendcharsets=utf-8",
                "-Shostname=client.test",
            ]);
            command.args(["-r", FROM, "-s", "gr\u{fc}n", "-a"]).arg(attachment).arg(TO);
            command
        };
        compose(&flow, reader, 1);
    }
}
