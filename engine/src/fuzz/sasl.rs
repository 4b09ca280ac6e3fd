//! SASL exchanges: no message makes one panic, each comes to an end, and nobody gets in but by the answer of the
//! keeper of passwords.
//!
//! The first octet names the mechanism and what the keeper answers; the messages follow, each ended by LF.

use crate::smtp::sasl::{
    After, Answer, Ask, Bindings, Credentials, Exchange, Mechanism, Next, Refusal, scram,
};

/// More than any mechanism has.
const MESSAGES_MAX: usize = 4;

pub fn check(input: &[u8]) {
    let Some((&setup, said)) = input.split_first() else { return };
    let mechanism = Mechanism::ALL[usize::from(setup & 15) % Mechanism::ALL.len()];
    let bindings = Bindings { exporter: (setup & 16 != 0).then_some([7; 32]), end_point: None };
    let mut exchange: Exchange<()> = Exchange::new(mechanism, setup & 32 != 0, bindings);
    let _ = exchange.begin();
    for (number, message) in said.split(|octet| *octet == b'\n').enumerate() {
        assert!(number < MESSAGES_MAX, "{mechanism:?} goes on");
        if exchange.awaits_acknowledgement() {
            let admitted = exchange.acknowledge(message).is_ok();
            return assert!(!admitted || setup & 64 != 0, "let in against the answer");
        }
        let ask = match exchange.respond(message) {
            Next::Challenge(_) => continue,
            Next::Refused(_) => return,
            Next::Ask(ask) => ask,
        };
        match exchange.answered(answer(&ask, setup)) {
            After::Challenge(_) => {}
            After::Done(()) => return assert!(setup & 64 != 0, "let in against the answer"),
            After::Refused(_) => return,
        }
    }
}

fn answer(ask: &Ask, setup: u8) -> Answer<()> {
    match ask {
        Ask::Parameters { .. } => {
            let nonce = "3rfcNHYJY1ZVvWVs7j".into();
            Answer::Parameters(scram::Parameters { salt: b"salt".to_vec(), iterations: 4096, nonce })
        }
        Ask::Verify(_) if setup & 64 == 0 => Answer::Refused(Refusal::Credentials),
        Ask::Verify(credentials) => {
            let is_scram = matches!(credentials, Credentials::Scram { .. });
            Answer::Accepted { identity: (), signature: is_scram.then_some([7; 32]) }
        }
    }
}
