//! A session's questions about its client's login, put to the service thread.
//!
//! Lives on one ingest shard with the task of the session, which waits; the shard goes on.

use super::SessionTask;
use crate::auth::Keeper;
use crate::clock;
use crate::session::Refusal;
use crate::shard::links::Question;
use crate::smtp::sasl::{self, Answer};
use futures_lite::FutureExt as _;
use std::time::Duration;
use tokio::sync::oneshot;
use zeroize::Zeroize;

/// More than the service thread takes for itself.
const MARGIN: Duration = Duration::from_secs(5);

impl SessionTask<'_> {
    /// Asks what the session wants to know and tells it the answer; no answer is a refusal.
    pub(super) async fn authenticate(&mut self) {
        let ask = self.session.take_ask();
        let verifies = matches!(ask, sasl::Ask::Verify(_));
        let (reply, answer) = oneshot::channel();
        let asked =
            self.shard.links.service.try_send(Question::Login { client: self.session.client(), ask, reply });
        let patience = self.shard.config.auth.as_ref().map_or(MARGIN, |auth| Keeper::patience(auth) + MARGIN);
        let too_late = async {
            glommio::timer::sleep(patience).await;
            None
        };
        let answer = match asked {
            Ok(()) => async { answer.await.ok() }.or(too_late).await,
            Err(_) => None,
        };
        let answer = answer.unwrap_or(Answer::Refused(sasl::Refusal::Unavailable));
        let counters = &self.shard.counters;
        match &answer {
            Answer::Parameters(_) => {}
            Answer::Accepted { .. } if verifies => counters.auth_accepted_total.add(1),
            Answer::Accepted { .. } => {}
            Answer::Refused(sasl::Refusal::Credentials) => counters.auth_failed_total.add(1),
            Answer::Refused(sasl::Refusal::TooManyFailures) => counters.auth_locked_out_total.add(1),
            Answer::Refused(sasl::Refusal::Unavailable) => counters.auth_unavailable_total.add(1),
        }
        self.session.answered(clock::monotonic_millis(), answer, &mut self.out);
        self.log_refusals();
    }

    /// Whether the login may send this message. Counted once, when its content is asked for.
    pub(super) async fn spend(&self) -> Result<(), Refusal> {
        let Some(login) = self.session.identity() else { return Ok(()) };
        let recipients = self.session.recipients().len();
        let (reply, answer) = oneshot::channel();
        let asked = Question::Spend { login: login.clone(), recipients, reply };
        self.shard.links.service.try_send(asked).map_err(|_| Refusal::Busy)?;
        match answer.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::LoginLimit),
            Err(_) => Err(Refusal::Busy),
        }
    }

    /// Nothing of a password stays in memory that others use next.
    pub(super) fn wipe(&mut self, input: &mut [u8]) {
        if self.session.take_secret_seen() {
            input.zeroize();
            if self.carried.is_empty() {
                self.carried.zeroize();
            }
        }
    }
}
