//! The delivery shard in virtual time: the real shard, its real timetable, hops, sites, connections and client
//! sessions, against a real server on loopback; only the clock is not real.
//!
//! Whenever nothing is under way, both clocks jump to the next thing that is due (an entry of the timetable, a
//! message that arrives), so that a week takes seconds. The ingest shard is played by a book that keeps what is
//! reported. Nothing here decides anything; it counts.

mod book;
mod guests;
mod pace;
mod server;
mod week;

use super::hop::Hop;
use super::shard::{Common, DeliveryShard, keep_time, serve_inbox};
use crate::channel::{Receiver, Sender, mailbox};
use crate::clock::{jump_micros, monotonic_millis, wall_micros};
use crate::config::Config;
use crate::resolve::mx::{Addresses, MailHosts, MxHost};
use crate::resolve::service::Answer;
use crate::shard::links::{Group, Handover, Links, Luggage, NextHop, Question, ToDelivery};
use crate::tls::outward;
use book::Book;
use glommio::LocalExecutor;
use server::Server;
use sluice_queue::{QueueId, SpoolNumber};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Real time that one quiet moment may be waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything around one delivery shard.
struct World {
    shard: Rc<DeliveryShard>,
    inbox: Sender<ToDelivery>,
    book: Rc<Book>,
    began_micros: u64,
    next_id: Cell<u64>,
}

/// Runs a test on an executor of its own. `settings`: TOML in front of the routes; smart hosts for `inside.test`
/// are at the server, and so is every MX, under the names that `mx` gives a domain.
fn simulate<F: Future<Output = ()>>(
    server: &Server,
    settings: &str,
    mx: fn(&str) -> String,
    test: impl FnOnce(Rc<World>) -> F,
) {
    let config = Arc::new(config(server.port(), settings));
    LocalExecutor::default().run(async move {
        let world = World::new(config, mx);
        test(world).await;
    });
}

fn config(port: u16, settings: &str) -> Config {
    let text = format!(
        r#"
hostname = "relay.test"
{settings}
[domains]
accepted = ["inside.test"]
[[listener]]
name = "outside"
bind = ["127.0.0.1:2525"]
clients = ["127.0.0.0/8"]
[[route]]
domains = ["inside.test"]
hosts = ["127.0.0.1:{port}"]
[[route]]
domains = ["*"]
mx = true
port = {port}
private_addresses = true
resolver = "none"
source = ["127.0.0.1"]
[[resolver]]
name = "none"
servers = ["127.0.0.1:1"]
"#
    );
    let mut config = Config::parse(&text, "simulation").unwrap_or_else(|error| panic!("{error}"));
    // Real time: an idle connection keeps virtual time from going on.
    config.delivery.idle = Duration::from_millis(20);
    config
}

impl World {
    fn new(config: Arc<Config>, mx: fn(&str) -> String) -> Rc<Self> {
        let (ingest, reports) = mailbox(16 * 1024);
        let (inbox, taken) = mailbox(16 * 1024);
        let (service, questions) = mailbox(4 * 1024);
        let links = Arc::new(Links { ingest: vec![ingest], delivery: vec![inbox.clone()], service });
        let tls = outward::routes(&config).unwrap();
        let shard =
            Rc::new(DeliveryShard::new(config.clone(), links, Arc::default(), &tls, Common::new(&config)));
        let book = Rc::new(Book::default());
        glommio::spawn_local(keep_time(shard.clone())).detach();
        glommio::spawn_local(serve_inbox(shard.clone(), taken)).detach();
        glommio::spawn_local(book.clone().keep(reports)).detach();
        glommio::spawn_local(answer(questions, mx)).detach();
        let (began_micros, next_id) = (wall_micros(), Cell::new(1));
        Rc::new(Self { shard, inbox, book, began_micros, next_id })
    }

    /// Since the test began.
    fn now(&self) -> u64 {
        wall_micros() - self.began_micros
    }

    /// A message arrives for some recipients at one domain.
    async fn arrive(&self, domain: &str, recipients: &[&str]) -> QueueId {
        let n = self.next_id.replace(self.next_id.get() + 1);
        let id = QueueId::new(n, SpoolNumber::new(0).unwrap());
        let addresses: Vec<String> = recipients.iter().map(|name| format!("{name}@{domain}")).collect();
        let arrived_micros = wall_micros();
        self.book.enter(id, &addresses, arrived_micros);
        let handover = Handover {
            id,
            next_hop: next_hop(domain),
            group: Group::new((0..recipients.len() as u32).collect()),
            attempts: 0,
            notified: false,
            arrived_micros,
            release_micros: None,
            priority: 0,
            tried_micros: None,
            luggage: Luggage::default(),
        };
        self.inbox.send(ToDelivery::Handover(handover)).await;
        id
    }

    /// Waits, in real time, until nothing is under way: no connection, no look at those that wait.
    async fn quiet(&self) {
        let began = Instant::now();
        let mut calm = 0;
        while calm < 3 {
            assert!(began.elapsed() < PATIENCE, "something goes on for ever at {} s", self.now() / SECOND);
            glommio::timer::sleep(Duration::from_micros(50)).await;
            let settling = self.hops().iter().any(|hop| hop.is_settling() || hop.has_unannounced());
            let due = self.shard.timetable.borrow().next_due().is_some_and(|due| due <= monotonic_millis());
            calm = if self.shard.connections.get() > 0 || settling || due { 0 } else { calm + 1 };
        }
    }

    fn hops(&self) -> Vec<Rc<Hop>> {
        self.shard.hops.borrow().values().cloned().collect()
    }

    /// Virtual time goes on to this moment, through everything that is due before.
    async fn until(&self, moment: u64) {
        loop {
            self.quiet().await;
            let now = self.now();
            if now >= moment {
                return;
            }
            let due = self.shard.timetable.borrow().next_due();
            let due = due.map_or(u64::MAX, |due| due.saturating_sub(monotonic_millis()).max(1) * 1_000);
            jump_micros(due.min(moment - now));
            self.shard.time_has_jumped();
        }
    }

    /// Virtual time goes on until nothing is left to be done.
    async fn until_over(&self) {
        while !self.book.is_over() {
            self.quiet().await;
            let due = self.shard.timetable.borrow().next_due();
            match due {
                Some(due) => {
                    self.until(self.now() + due.saturating_sub(monotonic_millis()).max(1) * 1_000).await
                }
                None => assert!(self.book.is_over(), "messages are left and nothing is planned for them"),
            }
        }
    }
}

fn next_hop(domain: &str) -> NextHop {
    match domain {
        "inside.test" => NextHop::of_route(0),
        _ => NextHop { domain: Some(domain.into()), ..NextHop::of_route(1) },
    }
}

thread_local! {
    static FAULTY: RefCell<Vec<QueueId>> = const { RefCell::new(Vec::new()) };
}

/// From now on the code that delivers this message panics.
fn fail_at(id: QueueId) {
    FAULTY.with_borrow_mut(|faulty| faulty.push(id));
}

/// Where the code that delivers a message fails when a test wants it to.
pub fn fault_point(id: QueueId) {
    assert!(!FAULTY.with_borrow(|faulty| faulty.contains(&id)), "a test wanted this fault");
}

/// The resolver: the names that a test gives a domain's hosts, all of them at 127.0.0.1.
async fn answer(mut questions: Receiver<Question>, mx: fn(&str) -> String) {
    loop {
        if let Question::Mx { domain, reply, .. } = questions.receive().await {
            let host = |name: &str| MxHost {
                name: name.to_owned(),
                preference: 10,
                found: Ok(Addresses {
                    list: vec!["127.0.0.1".parse().unwrap()],
                    secure: false,
                    canonical: None,
                }),
            };
            let hosts = mx(&domain).split(' ').map(host).collect();
            let found = MailHosts { hosts, secure: false, canonical: None };
            drop(reply.send(Answer { result: Ok(found), valid_for: Duration::from_secs(86_400) }));
        }
    }
}
