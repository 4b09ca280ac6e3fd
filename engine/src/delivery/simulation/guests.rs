//! Cut-through keeps the pace of the site like any delivery: its connections, its rates, its state of health, the
//! warm-up of the source address, and what the host says.

use super::book::Ended as EndedInBook;
use super::server::Server;
use super::*;
use crate::cut_through::{Ask, Claim, Ended, Offer, Taken};
use crate::shard::links::{Budget, Disposition};
use sluice_queue::{ContentFlags, Envelope, Recipient};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::sync::oneshot;

const CONTENT: &[u8] = b"Subject: cut-through\r\n\r\nhello\r\n";
/// How long the clients of these tests wait, in real time.
const WAIT: Duration = Duration::from_secs(5);

fn one_site(_: &str) -> String {
    "mx.test".into()
}

impl World {
    /// A client's message is offered for one recipient.
    async fn offer(&self, domain: &str) -> oneshot::Receiver<Ended> {
        let n = self.next_id.replace(self.next_id.get() + 1);
        let envelope = Envelope {
            sender: "client@away.test".into(),
            recipients: vec![Recipient::new(format!("client{n}@{domain}"))],
            arrived_micros: wall_micros(),
            ..Envelope::default()
        };
        let content = Budget::new(1 << 20).hold(Arc::new(CONTENT.to_vec())).unwrap();
        let (reply, ended) = oneshot::channel();
        let offer = Offer {
            id: QueueId::new(n, SpoolNumber::new(0).unwrap()),
            next_hop: next_hop(domain),
            recipients: vec![0],
            envelope: Arc::new(envelope),
            content,
            flags: ContentFlags::default(),
            wait: WAIT,
            claim: Arc::new(Claim::default()),
            reply,
        };
        self.inbox.send(ToDelivery::Ask(Ask::Message(Box::new(offer)))).await;
        ended
    }

    async fn offered(&self, domain: &str) -> Ended {
        self.offer(domain).await.await.expect("an end")
    }

    async fn asked(&self, domain: &str, name: &str) -> Taken {
        let (reply, taken) = oneshot::channel();
        let address = format!("{name}@{domain}").into();
        let ask = Ask::Recipient { next_hop: next_hop(domain), address, wait: WAIT, reply };
        self.inbox.send(ToDelivery::Ask(ask)).await;
        taken.await.expect("an answer")
    }

    fn opened(&self) -> u64 {
        self.shard.counters.connections_out_total.get()
    }
}

/// Where no clock jumps and connections may stay unused.
fn at_real_speed<F: Future<Output = ()>>(server: &Server, settings: &str, test: impl FnOnce(Rc<World>) -> F) {
    let mut config = config(server.port(), settings);
    config.delivery.idle = PATIENCE;
    LocalExecutor::default().run(async move { test(World::new(Arc::new(config), one_site)).await });
}

fn disposition(ended: &Ended) -> Option<Disposition> {
    match ended {
        Ended::Untried(_) => None,
        Ended::Tried(tried) => Some(tried.fates[0].disposition),
    }
}

fn is_taken(ended: &Ended) -> bool {
    disposition(ended) == Some(Disposition::Delivered)
}

fn why(ended: &Ended) -> &str {
    match ended {
        Ended::Untried(why) => why,
        Ended::Tried(tried) => panic!("it was tried: {}", tried.fates[0].text),
    }
}

#[test]
fn clients_and_queue_share_the_connections_of_a_site_and_neither_waits_behind_all_of_the_other() {
    let server = Server::up(|verb, _, _| {
        (verb == ".").then(|| {
            std::thread::sleep(Duration::from_millis(1));
            "250 2.0.0 taken".into()
        })
    });
    simulate(&server, "[delivery]\nconnections_max = 3\n", one_site, |world| async move {
        for n in 0..400 {
            world.arrive(&format!("d{}.test", n % 3), &["queue"]).await;
        }
        let mut offers = Vec::new();
        for n in 0..60 {
            offers.push(world.offer(&format!("d{}.test", n % 3)).await);
        }
        for offer in offers {
            assert!(is_taken(&offer.await.unwrap()));
        }
        let early = world.book.count(EndedInBook::Delivered);
        assert!((20..400).contains(&early), "{early} of the queue when all clients have their answer");
        world.until_over().await;
    });
    let seen = server.seen();
    assert_eq!(seen.delivered.len(), 460);
    assert!(seen.open_max <= 9, "{} at a time, with those that are about to close", seen.open_max);
}

#[test]
fn a_connection_that_clients_leave_serves_the_queue_and_the_other_way_round() {
    let server = Server::up(|_, _, _| None);
    at_real_speed(&server, "", |world| async move {
        for round in 0..10 {
            assert!(is_taken(&world.offered("a.test").await));
            assert_eq!(world.asked("a.test", &format!("who{round}")).await, Taken::Yes);
            world.arrive("a.test", &["queue"]).await;
            while !world.book.is_over() {
                glommio::timer::sleep(Duration::from_micros(50)).await;
            }
        }
        assert_eq!(world.opened(), 1);
    });
    assert_eq!(server.seen().delivered.len(), 20);
}

#[test]
fn what_clients_send_counts_among_the_messages_of_a_minute_and_past_them_goes_by_the_queue() {
    let server = Server::up(|_, _, _| None);
    simulate(&server, "[delivery]\nmessages_per_minute = 60\n", one_site, |world| async move {
        let mut taken = 0;
        for _ in 0..20 {
            match world.offered("a.test").await {
                ended if is_taken(&ended) => taken += 1,
                ended => assert!(why(&ended).contains("its site has no turn before "), "{}", why(&ended)),
            }
        }
        // As many as the real time that this took has turns.
        assert!((1..=2 + world.now() / SECOND).contains(&taken), "{taken} in {} us", world.now());
        let before = server_delivered(&world);
        world.arrive("b.test", &["queue"]).await;
        world.until_over().await;
        assert!(world.now() >= (before + 1) * SECOND - 2 * SECOND, "the queue waits for its turn, too");
    });
}

fn server_delivered(world: &World) -> u64 {
    world.shard.counters.recipients_delivered_total.get()
}

/// It is no message, and the connection is there.
#[test]
fn a_question_needs_no_turn_for_a_message() {
    let server = Server::up(|_, _, _| None);
    at_real_speed(&server, "[delivery]\nmessages_per_minute = 1\n", |world| async move {
        assert!(is_taken(&world.offered("a.test").await));
        assert_eq!(world.asked("a.test", "who").await, Taken::Yes);
        assert!(why(&world.offered("a.test").await).contains("its site has no turn before "));
        assert_eq!(world.asked("a.test", "else").await, Taken::Yes);
        assert_eq!(world.opened(), 1);
    });
}

#[test]
fn what_clients_send_counts_among_the_connections_of_a_minute() {
    // The host takes one message a connection.
    let server = Server::up(|verb, _, _| (verb == "RSET").then(|| "421 4.3.0 one is enough".into()));
    let settings = "[delivery]\nconnections_per_minute = 6\nmessages_per_connection_max = 1\n";
    simulate(&server, settings, one_site, |world| async move {
        assert!(is_taken(&world.offered("a.test").await));
        let ended = world.offered("a.test").await;
        assert!(why(&ended).contains("its site has no turn before "), "{}", why(&ended));
        assert_eq!(world.asked("a.test", "who").await, Taken::Unknown);
        assert_eq!(world.opened(), 1);
        world.until(11 * SECOND).await;
        assert!(is_taken(&world.offered("a.test").await));
    });
}

#[test]
fn the_number_of_a_new_address_is_that_of_clients_and_queue_together() {
    let server = Server::up(|_, _, _| None);
    let today = wall_micros() / DAY;
    let date = jiff::Timestamp::from_microsecond((today * DAY) as i64).unwrap().strftime("%Y-%m-%d");
    let settings =
        format!("[[warm_up]]\nsource = \"127.0.0.1\"\nbegan = \"{date}\"\nschedule = \"1, 10, 100\"\n");
    simulate(&server, &settings, one_site, |world| async move {
        // To the next midnight, so that the days of the test are whole.
        world.until(DAY - wall_micros() % DAY).await;
        let midnight = world.now();
        for _ in 0..4 {
            assert!(is_taken(&world.offered("a.test").await));
        }
        for n in 0..20 {
            world.arrive(&format!("d{}.test", n % 7), &["queue"]).await;
        }
        world.until(midnight + HOUR).await;
        assert_eq!(world.book.count(EndedInBook::Delivered), 6, "what clients have left of the day's number");
        let opened = world.opened();
        let ended = world.offered("a.test").await;
        assert!(why(&ended).contains("warmed up"), "{}", why(&ended));
        assert_eq!(world.asked("a.test", "who").await, Taken::Unknown);
        assert_eq!(world.opened(), opened, "nothing is opened from it");
        world.until_over().await;
        assert!((24 * HOUR..25 * HOUR).contains(&(world.now() - midnight)), "{}", world.now() / HOUR);
    });
}

#[test]
fn a_site_that_complains_to_a_client_is_left_alone_by_all() {
    for by_question in [false, true] {
        let server = Server::up(|verb, _, number| {
            (verb == "MAIL" && number == 1)
                .then(|| "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred".into())
        });
        simulate(&server, "", one_site, |world| async move {
            match by_question {
                true => assert_eq!(world.asked("a.test", "who").await, Taken::Unknown),
                false => {
                    let ended = world.offered("a.test").await;
                    assert!(matches!(disposition(&ended), Some(Disposition::Deferred { .. })));
                }
            }
            world.arrive("b.test", &["queue"]).await;
            world.until(29 * MINUTE).await;
            let ended = world.offered("a.test").await;
            assert!(why(&ended).starts_with("suspended until "), "{}", why(&ended));
            assert_eq!(world.asked("c.test", "other").await, Taken::Unknown);
            assert_eq!((world.opened(), world.book.count(EndedInBook::Delivered)), (1, 0));
            world.until_over().await;
            assert!((30 * MINUTE..32 * MINUTE).contains(&world.now()), "{}", world.now() / MINUTE);
            assert!(is_taken(&world.offered("a.test").await));
        });
    }
}

#[test]
fn a_site_that_wants_less_of_a_client_is_slowed_down_for_all() {
    let server = Server::up(|verb, _, number| {
        (verb == "MAIL" && number == 1).then(|| "421 4.7.28 an unusual rate of mail".into())
    });
    simulate(&server, "", one_site, |world| async move {
        assert!(!is_taken(&world.offered("a.test").await));
        for _ in 0..600 {
            world.arrive("b.test", &["queue"]).await;
        }
        world.until(10 * MINUTE).await;
        let delivered = world.book.count(EndedInBook::Delivered);
        assert!((180..=230).contains(&delivered), "20 a minute for 10 minutes: {delivered}");
    });
}

#[test]
fn a_host_that_refuses_connections_is_found_down_once_for_clients_and_queue() {
    let mut server = Server::down(|_, _, _| None);
    let up = Rc::new(Cell::new(false));
    let (told, port) = (up.clone(), server.port());
    let config = Arc::new(config(port, ""));
    LocalExecutor::default().run(async move {
        let world = World::new(config, one_site);
        let ended = world.offered("a.test").await;
        assert!(why(&ended).contains("Connection refused"), "{}", why(&ended));
        // As the ingest shard does with what was not handed over.
        world.arrive("a.test", &["queue"]).await;
        for name in ["one", "two", "three"] {
            assert_eq!(world.asked("b.test", name).await, Taken::Unknown);
            assert!(why(&world.offered("a.test").await).contains("Connection refused"));
        }
        assert_eq!(world.opened(), 1, "nobody else tries");
        assert_eq!(world.book.all()[0].attempts, 0, "and its mail waits without burning an attempt");
        server.listen();
        told.set(true);
        world.until_over().await;
        assert!(world.now() < MINUTE, "{}", world.now());
        assert!(is_taken(&world.offered("a.test").await));
    });
    assert!(up.get());
}

#[test]
fn a_client_waits_no_longer_than_it_wants_for_a_host_that_is_busy_and_is_not_sent_twice() {
    let gate = Arc::new(AtomicUsize::new(0));
    let held = gate.clone();
    let server = Server::up(move |verb, _, _| {
        if verb == "." {
            while held.load(SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        None
    });
    simulate(&server, "[delivery]\nconnections_max = 1\n", one_site, |world| async move {
        let (first, second) = (world.offer("a.test").await, world.offer("a.test").await);
        let ended = second.await.unwrap();
        assert!(why(&ended).contains("no connection could be had in time"), "{}", why(&ended));
        gate.store(1, SeqCst);
        assert!(is_taken(&first.await.unwrap()), "one that has begun is waited for");
        assert!(is_taken(&world.offered("a.test").await));
    });
    assert_eq!(server.seen().delivered.len(), 2);
}

#[test]
fn what_a_host_asks_a_client_s_message_to_wait_is_passed_on() {
    let server = Server::up(|verb, _, number| {
        (verb == "RCPT" && number == 1).then(|| "450 4.7.1 Greylisted, try again in 90 seconds".into())
    });
    simulate(&server, "", one_site, |world| async move {
        let Ended::Tried(tried) = world.offered("a.test").await else { panic!("it is tried") };
        assert!(matches!(tried.fates[0].disposition, Disposition::Deferred { .. }));
        assert_eq!(tried.wait, Some(Duration::from_secs(90)));
    });
}

/// A host that takes so many messages over one connection, and a connection that it closed meanwhile.
#[test]
fn a_connection_that_is_used_up_or_was_closed_costs_a_client_nothing() {
    let last = Arc::new(AtomicUsize::new(0));
    let server = Server::up(move |verb, _, number| {
        // The second message of each connection is put off.
        (verb == "MAIL" && last.swap(number, SeqCst) == number).then(|| "451 4.7.1 enough for now".into())
    });
    simulate(&server, "", one_site, |world| async move {
        for _ in 0..5 {
            assert!(is_taken(&world.offered("a.test").await));
        }
        assert_eq!(world.opened(), 5);
        assert_eq!(world.asked("a.test", "who").await, Taken::Yes);
        assert_eq!(world.opened(), 6);
    });
}
