//! An AUTH exchange with a client that says anything: it ends, nobody is let in of whom the keeper of passwords was
//! not asked, and no secret is shown.
//!
//! The first octet says the mechanism, whether there is a channel binding, and what the keeper answers; messages
//! of the client are parted by 0xff, which no UTF-8 has.

use crate::smtp::sasl::scram::Parameters;
use crate::smtp::sasl::{After, Answer, Ask, Bindings, Credentials, Exchange, Mechanism, Next, Refusal};

/// Messages of one exchange; the longest mechanism has three.
const MESSAGES_MAX: usize = 4;

pub fn check(input: &[u8]) {
    let Some((&setup, said)) = input.split_first() else { return };
    let mechanism = Mechanism::ALL[usize::from(setup & 7) % Mechanism::ALL.len()];
    let bindings = Bindings { exporter: (setup & 8 != 0).then_some([7; 32]), end_point: None };
    let mut exchange: Exchange<()> = Exchange::new(mechanism, setup & 16 != 0, bindings);
    let mut asked = false;
    for (count, message) in said.split(|&octet| octet == 0xff).enumerate() {
        if exchange.awaits_acknowledgement() {
            let ended = exchange.acknowledge(message);
            assert!(ended.is_err() || asked && message.is_empty());
            return;
        }
        let next = exchange.respond(message);
        assert!(count < MESSAGES_MAX || matches!(next, Next::Refused(_)), "{mechanism:?} has no end");
        match next {
            Next::Challenge(challenge) => assert!(challenge.len() < 1_024),
            Next::Refused(_) => return,
            Next::Ask(ask) => {
                let accepts = setup & 32 != 0;
                let answer = answer(&ask, accepts);
                asked |= accepts && matches!(ask, Ask::Verify(_));
                match exchange.answered(answer) {
                    After::Challenge(challenge) => assert!(challenge.len() < 16 * 1_024),
                    After::Done(()) => return assert!(asked, "nobody was asked"),
                    After::Refused(_) => return,
                }
            }
        }
    }
}

fn answer(ask: &Ask, accepts: bool) -> Answer<()> {
    match ask {
        Ask::Parameters { login } => {
            assert!(!login.is_empty() && !login.chars().any(char::is_control), "{login:?}");
            let nonce = "fyko+d2lbbFgONRv9qkxdawL".into();
            Answer::Parameters(Parameters { salt: b"salt".to_vec(), iterations: 4_096, nonce })
        }
        Ask::Verify(credentials) => {
            assert!(!credentials.login().chars().any(char::is_control), "{credentials:?}");
            let is_scram = matches!(credentials, Credentials::Scram { .. });
            match accepts {
                true => Answer::Accepted { identity: (), signature: is_scram.then_some([9; 32]) },
                false => Answer::Refused(Refusal::Credentials),
            }
        }
    }
}
