//! swaks, the tool with which administrators try out a server.

use sluice_tests::interop::{FROM, Flow, TO, WAYS, Way, samples};
use sluice_tests::lacks;
use sluice_tests::message::dot_stuffed;
use sluice_tests::tools::swaks;

#[test]
fn swaks_sends_every_sample() {
    if lacks("swaks") {
        return;
    }
    for way in WAYS {
        let flow = Flow::start();
        for (number, sample) in samples().iter().enumerate() {
            // swaks ends the data with CRLF by itself, takes a dot alone at their end for the end of data, and
            // adds a line where there is no body; then it gets the data as they travel.
            let raw = sample.content.ends_with(b"\r\n.\r\n") || sample.name == "empty";
            let content = if raw { dot_stuffed(&sample.content) } else { sample.content.clone() };
            let content = content.strip_suffix(b"\r\n").expect("a last line");
            let file = flow.file(&format!("{}.eml", sample.name), content);
            let data = format!("@{}", file.display());
            let tls = if way == Way::StartTls { "--tls" } else { "--tls-on-connect" };
            let trusted = flow.trusted();
            let mut arguments = vec![tls, "--tls-verify", "--tls-ca-path", &trusted, "--data", &data];
            arguments.extend(["--hide-all", "--silent", "3"]);
            if number % 2 == 1 {
                arguments.push("--pipeline");
            }
            if raw {
                arguments.push("--no-data-fixup");
            }
            let (sent, dialogue) = swaks(flow.address(way), FROM, TO, &arguments);
            assert!(sent, "{way:?} {}: {dialogue}", sample.name);
        }
        flow.expect(&samples(), 1, 0);
    }
}
