//! nodemailer, the mail library of Node.js.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use sluice_tests::interop::{FROM, Flow, TO, WAYS, Way, binary, samples, sha256};
use sluice_tests::process::run;
use sluice_tests::wait::SOON;
use sluice_tests::{skipped, tools};

const SCRIPT: &str = include_str!("../../../nodemailer/send.js");

/// Where the test command has put the library; `None`, said loudly, when it is not there.
fn installed() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("the test's own path");
    let directory = own.ancestors().nth(3).expect("target/PROFILE/deps/TEST").join("interop/nodemailer");
    if tools::find("node").is_none() {
        skipped("node is not installed");
        return None;
    }
    if !directory.join("node_modules/nodemailer").is_dir() {
        skipped(&format!(
            "nodemailer is not in {}; tests/run puts it there where npm is",
            directory.display()
        ));
        return None;
    }
    Some(directory)
}

fn send(flow: &Flow, way: Way, library: &PathBuf, messages: Value) -> Value {
    let ask = json!({
        "port": flow.address(way).port(), "implicit": way == Way::Implicit, "trusted": flow.trusted(),
        "from": FROM, "to": TO, "messages": messages,
    });
    let mut command = Command::new("node");
    command.args(["-e", SCRIPT, "--", &ask.to_string()]).current_dir(library);
    let output = run(&mut command, SOON * 2);
    assert!(output.status.success(), "nodemailer: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn nodemailer_sends_every_sample_and_what_it_composes() {
    let Some(library) = installed() else { return };
    for way in WAYS {
        let flow = Flow::start();
        let raw: Vec<Value> = samples()
            .iter()
            .map(|sample| json!({"raw": flow.file(&format!("{}.eml", sample.name), &sample.content)}))
            .collect();
        let answer = send(&flow, way, &library, Value::Array(raw));
        flow.expect(&samples(), 1, 0);
        assert!(answer.as_array().is_some_and(|replies| replies.len() == samples().len()), "{answer}");

        let attachment = flow.file("picture.bin", binary(1 << 20));
        let text = "Zw\u{f6}lf Boxk\u{e4}mpfer\n.\n..dots\n";
        let composed = json!([{"subject": "gr\u{fc}n", "text": text, "attachment": attachment}]);
        send(&flow, way, &library, composed);
        let parts = flow.next_parts(samples().len() + 1);
        assert_eq!(parts["subject"], "gr\u{fc}n", "{parts}");
        assert_eq!(parts["parts"][0]["text"], text, "{parts}");
        assert_eq!(parts["parts"][1]["name"], "picture.bin", "{parts}");
        assert_eq!(parts["parts"][1]["sha256"], sha256(&attachment), "{parts}");
    }
}
