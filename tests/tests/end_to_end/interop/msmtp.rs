//! msmtp, the sendmail of machines that have no mail server.

use std::fs::File;
use std::process::{Command, Stdio};

use sluice_tests::interop::{FROM, Flow, TO, WAYS, Way, samples};
use sluice_tests::lacks;
use sluice_tests::process::exit_within;
use sluice_tests::wait::SOON;

#[test]
fn msmtp_sends_every_sample() {
    if lacks("msmtp") {
        return;
    }
    for way in WAYS {
        let flow = Flow::start();
        for sample in samples() {
            let file = flow.file(&sample.name, sample.unix());
            let errors = flow.file("errors", "");
            let mut child = Command::new("msmtp")
                .args(["--file=/dev/null", "--host=localhost", "--tls=on"])
                .arg(format!("--port={}", flow.address(way).port()))
                .arg(format!("--tls-starttls={}", if way == Way::StartTls { "on" } else { "off" }))
                .arg(format!("--tls-trust-file={}", flow.trusted()))
                .args(["--domain=msmtp.test", "--set-from-header=off", "--set-date-header=off"])
                .args([&format!("--from={FROM}"), "--", TO])
                .stdin(File::open(file).expect("a file"))
                .stdout(Stdio::null())
                .stderr(File::create(&errors).expect("a file"))
                .spawn()
                .expect("msmtp starts");
            let status = exit_within(&mut child, SOON);
            let said = std::fs::read_to_string(&errors).unwrap_or_default();
            assert!(status.is_some_and(|status| status.success()), "{way:?} {}: {said}", sample.name);
        }
        flow.expect(&samples(), 1, 0);
    }
}
