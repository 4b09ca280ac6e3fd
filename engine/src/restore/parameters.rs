//! What MAIL and RCPT asked for, in the JSON of a frame. Pure; a part of [`wire`](super::wire).

use serde::{Deserialize, Serialize};
use sluice_queue::{ByMode, DeliverBy, MailParameters, Notify, RcptParameters, Ret, Schedule};

/// [`MailParameters`].
#[derive(Serialize, Deserialize)]
pub(super) struct Mail {
    ret_full: Option<bool>,
    envid: String,
    smtputf8: bool,
    require_tls: bool,
    priority: i8,
    /// Deadline, return, trace.
    deliver_by: Option<(u64, bool, bool)>,
    release_micros: Option<u64>,
}

/// [`RcptParameters`].
#[derive(Serialize, Deserialize)]
pub(super) struct Rcpt {
    /// Success, failure, delay.
    notify: Option<(bool, bool, bool)>,
    orcpt: String,
}

impl Mail {
    pub fn of(of: &MailParameters) -> Self {
        let schedule = &of.schedule;
        Self {
            ret_full: of.ret.map(|ret| ret == Ret::Full),
            envid: of.envid.clone(),
            smtputf8: of.smtputf8,
            require_tls: of.require_tls,
            priority: schedule.priority,
            deliver_by: schedule
                .deliver_by
                .map(|by| (by.deadline_micros, by.mode == ByMode::Return, by.trace)),
            release_micros: schedule.release_micros,
        }
    }

    pub fn parameters(self) -> MailParameters {
        let mode = |returns| if returns { ByMode::Return } else { ByMode::Notify };
        MailParameters {
            ret: self.ret_full.map(|full| if full { Ret::Full } else { Ret::Headers }),
            envid: self.envid,
            smtputf8: self.smtputf8,
            require_tls: self.require_tls,
            schedule: Schedule {
                priority: self.priority,
                deliver_by: self.deliver_by.map(|(deadline_micros, returns, trace)| DeliverBy {
                    deadline_micros,
                    mode: mode(returns),
                    trace,
                }),
                release_micros: self.release_micros,
            },
        }
    }
}

impl Rcpt {
    pub fn of(of: &RcptParameters) -> Self {
        let notify = of.notify.map(|notify| (notify.success, notify.failure, notify.delay));
        Self { notify, orcpt: of.orcpt.clone() }
    }

    pub fn parameters(self) -> RcptParameters {
        let notify = self.notify.map(|(success, failure, delay)| Notify { success, failure, delay });
        RcptParameters { notify, orcpt: self.orcpt }
    }
}
