//! The bound of the look-ups in flight with one resolver, against a server that answers when it is told to.

use super::super::lookup::{MissingReason, parse_name};
use super::super::servers::{Found, LOOKUPS_MAX, Servers};
use super::*;
use hickory_resolver::proto::rr::rdata::{A, TXT};
use std::net::Ipv4Addr;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// More look-ups than there may be at once.
const OVER: usize = 40;

/// A question that a server holds.
struct Held {
    question: Vec<u8>,
    client: SocketAddr,
}

impl Held {
    fn name(&self) -> String {
        let question = Message::from_vec(&self.question).unwrap();
        question.queries[0].name().to_ascii().trim_end_matches('.').to_owned()
    }
}

struct Holding {
    socket: Arc<UdpSocket>,
    held: mpsc::UnboundedReceiver<Held>,
}

impl Holding {
    async fn start() -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (tell, held) = mpsc::unbounded_channel();
        let receiving = socket.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((length, client)) = receiving.recv_from(&mut buffer).await {
                drop(tell.send(Held { question: buffer[..length].to_vec(), client }));
            }
        });
        Self { socket, held }
    }

    fn servers(&self, permits: &Arc<Semaphore>) -> Arc<Servers> {
        let resolver = resolver("holding", vec![self.socket.local_addr().unwrap()]);
        Arc::new(Servers::new(&resolver, permits.clone(), PATIENCE).unwrap())
    }

    async fn next(&mut self) -> Held {
        tokio::time::timeout(PATIENCE, self.held.recv()).await.expect("a question comes").unwrap()
    }

    async fn answer(&self, held: &Held) {
        let answer = respond(&held.question, numbered, &Counts::default());
        self.socket.send_to(&answer, held.client).await.unwrap();
    }
}

/// `n7.test` is at 10.0.0.7, and its text is its name.
fn numbered(question: &str, of_type: RecordType) -> Result<Vec<RData>, ResponseCode> {
    let number: usize = question.trim_start_matches('n').trim_end_matches(".test").parse().unwrap();
    Ok(match of_type {
        RecordType::A => vec![RData::A(A(address(number)))],
        _ => vec![RData::TXT(TXT::new(vec![question.to_owned()]))],
    })
}

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits((10 << 24) + number as u32)
}

/// One look-up, which ends when the task is ended.
fn ask(servers: &Arc<Servers>, number: usize) -> JoinHandle<Vec<RData>> {
    let servers = servers.clone();
    tokio::spawn(async move {
        let name = parse_name(&format!("n{number}.test")).unwrap();
        let found = servers.look_up(&name, RecordType::A).await;
        found.map(|Found { records, .. }| records).map_err(|missing| missing.text).unwrap()
    })
}

/// One question of one look-up.
fn ask_for_text(resolvers: &Arc<Resolvers>, number: usize) -> JoinHandle<Vec<String>> {
    let resolvers = resolvers.clone();
    tokio::spawn(async move { resolvers.txt(0, &format!("n{number}.test")).await.result.unwrap() })
}

#[test]
fn never_more_look_ups_than_the_bound_are_under_way_and_none_is_lost() {
    run(async {
        let mut server = Holding::start().await;
        let [resolvers, others] = [(); 2].map(|()| {
            let resolver = resolver("holding", vec![server.socket.local_addr().unwrap()]);
            Arc::new(Resolvers::with_patience(&[resolver], 7, PATIENCE).unwrap())
        });
        let all: Vec<_> = (0..LOOKUPS_MAX + OVER).map(|number| ask_for_text(&resolvers, number)).collect();
        let mut held = Vec::new();
        for _ in 0..LOOKUPS_MAX {
            held.push(server.next().await);
        }
        // What another resolver is asked comes next, although so many were to be asked before it.
        let outside = LOOKUPS_MAX + OVER;
        let beside = ask_for_text(&others, outside);
        let question = server.next().await;
        assert_eq!(question.name(), format!("n{outside}.test"));
        server.answer(&question).await;
        assert_eq!(beside.await.unwrap(), [format!("n{outside}.test")]);
        // Each answer lets one more go, and no more than one.
        for more in 0..OVER {
            let answered = held.remove(held.len() / 2);
            server.answer(&answered).await;
            held.push(server.next().await);
            let beside = ask_for_text(&others, outside + 1 + more);
            let question = server.next().await;
            assert_eq!(question.name(), format!("n{}.test", outside + 1 + more));
            server.answer(&question).await;
            beside.await.unwrap();
        }
        for question in &held {
            server.answer(question).await;
        }
        for (number, found) in all.into_iter().enumerate() {
            assert_eq!(found.await.unwrap(), [format!("n{number}.test")]);
        }
        assert_eq!(resolvers.lookups_under_way(), 0);
        assert!(server.held.try_recv().is_err(), "nothing was asked twice");
    });
}

#[test]
fn a_look_up_that_is_given_up_frees_its_place_or_its_place_in_the_line() {
    run(async {
        let mut server = Holding::start().await;
        let permits = Arc::new(Semaphore::new(2));
        let servers = server.servers(&permits);
        let mut all: Vec<_> = (0..5).map(|number| ask(&servers, number)).collect();
        let (first, second) = (server.next().await, server.next().await);
        assert_eq!((first.name().as_str(), second.name().as_str()), ("n0.test", "n1.test"));
        // The next in line goes away, and then one that was asked and not answered.
        for given_up in [2, 0] {
            all[given_up].abort();
            assert!((&mut all[given_up]).await.unwrap_err().is_cancelled());
        }
        let third = server.next().await;
        assert_eq!(third.name(), "n3.test");
        server.answer(&second).await;
        let fourth = server.next().await;
        assert_eq!(fourth.name(), "n4.test");
        for question in [&third, &fourth] {
            server.answer(question).await;
        }
        for (number, found) in all.into_iter().enumerate().filter(|(number, _)| ![0, 2].contains(number)) {
            assert_eq!(found.await.unwrap(), [RData::A(A(address(number)))]);
        }
        assert_eq!(permits.available_permits(), 2);
    });
}

#[test]
fn who_waits_too_long_for_a_turn_is_told_so_and_nothing_is_asked() {
    run(async {
        let mut server = Holding::start().await;
        let permits = Arc::new(Semaphore::new(1));
        let servers = server.servers(&permits);
        let under_way = ask(&servers, 1);
        let question = server.next().await;
        let name = parse_name("n2.test").unwrap();
        let missing =
            servers.turn(&name, RecordType::A, Duration::from_millis(1)).await.expect_err("no turn");
        assert_eq!(missing.reason, MissingReason::Failed);
        let expected = "looking up A of n2.test with resolver holding: no turn within";
        assert!(missing.text.starts_with(expected), "{}", missing.text);
        server.answer(&question).await;
        under_way.await.unwrap();
        assert!(servers.turn(&name, RecordType::A, PATIENCE).await.is_ok(), "who went away holds nothing");
        assert!(server.held.try_recv().is_err(), "and nothing was asked");
    });
}
