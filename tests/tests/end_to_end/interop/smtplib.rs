//! Python's smtplib.

use std::process::Command;

use sluice_tests::interop::{FROM, Flow, Sample, TO, WAYS, Way, samples};
use sluice_tests::process::run;
use sluice_tests::wait::SOON;

/// Sends all files over one connection; prints the features before and after STARTTLS.
const SCRIPT: &str = r"
import json, smtplib, ssl, sys
ask = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=ask['trusted'])
if ask['implicit']:
    smtp = smtplib.SMTP_SSL('localhost', ask['port'], local_hostname='smtplib.test', timeout=60, context=context)
else:
    smtp = smtplib.SMTP('localhost', ask['port'], local_hostname='smtplib.test', timeout=60)
with smtp:
    smtp.ehlo()
    before = smtp.esmtp_features
    if not ask['implicit']:
        smtp.starttls(context=context)
        smtp.ehlo()
    for path in ask['files']:
        content = open(path, 'rb').read()
        options = [] if content.isascii() else ['body=8bitmime']
        refused = smtp.sendmail(ask['from'], [ask['to']], content, mail_options=options)
        assert not refused, refused
    json.dump({'before': before, 'after': smtp.esmtp_features, 'version': smtp.sock.version()}, sys.stdout)
";

fn send(flow: &Flow, way: Way, samples: &[Sample]) -> serde_json::Value {
    let files: Vec<_> =
        samples.iter().map(|sample| flow.file(&format!("{}.eml", sample.name), &sample.content)).collect();
    let ask = serde_json::json!({
        "trusted": flow.trusted(), "port": flow.address(way).port(), "implicit": way == Way::Implicit,
        "files": files, "from": FROM, "to": TO,
    });
    let output = run(Command::new("python3").args(["-c", SCRIPT, &ask.to_string()]), SOON * 2);
    assert!(output.status.success(), "smtplib: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn smtplib_sends_every_sample_over_one_session() {
    for way in WAYS {
        let flow = Flow::start();
        let answer = send(&flow, way, &samples());
        flow.expect(&samples(), 1, 0);
        assert_eq!(answer["version"], "TLSv1.3", "{answer}");
        assert_eq!(answer["before"]["starttls"].is_string(), way == Way::StartTls, "{answer}");
        assert!(answer["after"]["starttls"].is_null(), "{answer}");
        for feature in ["size", "8bitmime", "pipelining"] {
            assert!(answer["after"][feature].is_string(), "{feature}: {answer}");
        }
    }
}
