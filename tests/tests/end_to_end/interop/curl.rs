//! curl's smtp:// and smtps://.

use std::process::Command;

use sluice_tests::interop::{FROM, Flow, TO, WAYS, Way, samples};
use sluice_tests::lacks;
use sluice_tests::process::run_ok;
use sluice_tests::wait::SOON;

#[test]
fn curl_sends_every_sample() {
    if lacks("curl") {
        return;
    }
    for way in WAYS {
        let flow = Flow::start();
        let port = flow.address(way).port();
        for sample in samples() {
            let file = flow.file(&sample.name, &sample.content);
            let scheme = if way == Way::StartTls { "smtp" } else { "smtps" };
            let mut command = Command::new("curl");
            command.args(["--silent", "--show-error", "--ssl-reqd", "--cacert", &flow.trusted()]);
            command.args(["--resolve", &format!("relay.test:{port}:127.0.0.1"), "--mail-from", FROM]);
            command.args(["--mail-rcpt", TO, "--max-time", "30", "--noproxy", "*", "--upload-file"]);
            run_ok(command.arg(file).arg(format!("{scheme}://relay.test:{port}/curl.test")), SOON * 2);
        }
        flow.expect(&samples(), 1, 0);
    }
}
