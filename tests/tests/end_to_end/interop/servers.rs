//! Mail servers that relay to the relay, over TLS with a verified certificate: Postfix, Exim, OpenSMTPD.

use std::net::SocketAddr;

use sluice_tests::interop::{Exim, FROM, Flow, OpenSmtpd, Sample, TO, WAYS, Way, samples};
use sluice_tests::message::{dot_stuffed, message};
use sluice_tests::{Client, Postfix};

/// Messages of a burst beside the samples: enough for several to share a session.
const BURST: usize = 30;

/// The samples, and small messages that come all at once.
fn load() -> Vec<Sample> {
    let burst = (0..BURST).map(|number| {
        let name = format!("burst-{number}");
        let content = message(&name, "hello\r\n.\r\n");
        Sample { name, content }
    });
    samples().into_iter().chain(burst).collect()
}

/// Hands them to the server.
fn hand_over(server: SocketAddr, load: &[Sample]) {
    let mut client = Client::hello(server);
    for sample in load {
        for (command, code) in
            [(format!("MAIL FROM:<{FROM}>"), 250), (format!("RCPT TO:<{TO}>"), 250), ("DATA".to_owned(), 354)]
        {
            client.command(&command).expect(code, "");
        }
        client.send(&dot_stuffed(&sample.content));
        client.reply().expect(250, "");
    }
    client.quit();
}

#[test]
fn postfix_relays_by_tls_and_pipelining() {
    if Postfix::is_missing() {
        return;
    }
    for way in WAYS {
        let flow = Flow::start();
        let wrapper = if way == Way::Implicit { "smtp_tls_wrappermode = yes\n" } else { "" };
        let settings = format!(
            "smtp_tls_security_level = secure\nsmtp_tls_CAfile = {}\nsmtp_tls_secure_cert_match = relay.test\n\
             smtp_tls_loglevel = 1\nsmtp_tls_connection_reuse = no\nsmtp_connection_cache_on_demand = yes\n{wrapper}",
            flow.trusted()
        );
        let postfix = Postfix::relaying("postfix.test", flow.address(way), &settings);
        hand_over(postfix.address(), &load());
        flow.expect(&load(), 1, 1);
        let log = postfix.log();
        assert!(log.contains("Verified TLS connection established to 127.0.0.1"), "{log}");
        assert!(!log.contains("status=deferred") && !log.contains("status=bounced"), "{log}");
    }
}

#[test]
fn exim_relays_by_tls_and_chunking() {
    for way in WAYS {
        let flow = Flow::start();
        let Some(exim) = Exim::start(flow.address(way), way, &flow.trusted()) else { return };
        hand_over(exim.address(), &load());
        let lines = exim.wait_log(load().len(), "=> bob@inside.test");
        assert!(lines.iter().all(|line| line.contains("CV=yes")), "{lines:?}");
        // Exim notes by K that it sent by BDAT.
        assert!(lines.iter().all(|line| line.contains(" K ")), "{lines:?}");
        flow.expect(&load(), 1, 1);
    }
}

#[test]
fn opensmtpd_relays_by_tls() {
    for way in WAYS {
        let flow = Flow::start();
        let Some(server) = OpenSmtpd::start(flow.address(way), way, &flow.trusted()) else { return };
        hand_over(server.address(), &load());
        flow.expect(&load(), 1, 1);
        assert!(server.log().contains("result=\"Ok\""), "{}", server.log());
    }
}
