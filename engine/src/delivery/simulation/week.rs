//! Schedules over days: a server that is down for a week, one that puts everything off, mail that expires.

use super::book::Ended;
use super::server::Server;
use super::*;

fn one_site(_: &str) -> String {
    "mx.test".into()
}

/// S40: mail for an internal server arrives during the whole of a week in which it is down.
#[test]
fn an_internal_server_that_is_down_for_a_week_loses_no_mail_and_is_not_stormed() {
    let mut server = Server::down(|_, _, _| None);
    let settings = "[retry]\nexpire_down = \"14d\"\n";
    let config = Arc::new(config(server.port(), settings));
    LocalExecutor::default().run(async move {
        let world = World::new(config, one_site);
        const EVERY: u64 = 20 * MINUTE;
        for n in 1..=7 * DAY / EVERY {
            world.arrive("inside.test", &["someone"]).await;
            world.until(n * EVERY).await;
        }
        let held = world.book.all();
        assert_eq!(held.len(), 504);
        for kept in &held {
            assert_eq!((kept.end, kept.attempts), (None, 0), "nothing is returned and no attempt burnt");
            assert!(kept.deferred.len() <= 2, "said once why it waits, and told once: {:?}", kept.deferred);
            let told: Vec<u64> =
                kept.deferred.iter().filter(|(_, told)| *told).map(|(age, _)| *age).collect();
            assert!(told.iter().all(|age| (4 * HOUR..4 * HOUR + 2 * MINUTE).contains(age)), "{told:?}");
        }
        let told = held.iter().filter(|kept| kept.deferred.iter().any(|(_, told)| *told)).count();
        assert!((490..=504).contains(&told), "all but those of the last hours: {told}");

        // 1, 2, 4 … seconds, then once a minute: a week has 10,080 of them.
        let attempts = world.shard.counters.connections_out_total.get();
        assert!((10_000..10_200).contains(&attempts), "{attempts} attempts to connect");

        server.listen();
        let up = world.now();
        world.until_over().await;
        assert_eq!(world.book.count(Ended::Delivered), 504);
        assert!(world.now() - up <= 2 * MINUTE, "it is found again within a minute");
        let seen = server.seen();
        assert_eq!(seen.delivered.len(), 504, "each once");
        assert_eq!(seen.open_at[..2], [1, 2], "one connection at first, then one more: {:?}", seen.open_at);
        assert!(seen.open_max <= 20, "{}", seen.open_max);
        assert!(seen.connections <= 60, "{} connections for 504 messages", seen.connections);
    });
}

/// Without a limit of its own mail for a server that is down is returned when it expires, and not before.
#[test]
fn mail_for_a_server_that_is_down_expires_at_its_time() {
    let server = Server::down(|_, _, _| None);
    simulate(&server, "", one_site, |world| async move {
        for n in 0..10 {
            world.arrive("inside.test", &["someone"]).await;
            world.until((n + 1) * HOUR).await;
        }
        world.until_over().await;
        for kept in world.book.all() {
            let (ended, age) = kept.end.unwrap();
            assert_eq!((ended, kept.attempts), (Ended::Expired, 0));
            assert!((5 * DAY..5 * DAY + 2 * MINUTE).contains(&age), "{age}");
            assert_eq!(kept.last.0, "4.4.1");
        }
        assert!(world.now() < 5 * DAY + 11 * HOUR);
    });
}

#[test]
fn a_message_that_is_put_off_is_tried_by_its_schedule_told_once_and_returned_at_its_time() {
    let server = Server::up(|verb, _, _| (verb == "RCPT").then(|| "450 4.2.1 mailbox busy".into()));
    simulate(&server, "", one_site, |world| async move {
        world.arrive("inside.test", &["busy"]).await;
        world.until_over().await;
        let kept = world.book.all().remove(0);
        let (ended, age) = kept.end.unwrap();
        assert_eq!(
            (ended, age / MINUTE),
            (Ended::Expired, 5 * DAY / MINUTE),
            "the last attempt is at the end"
        );
        let told: Vec<u64> =
            kept.deferred.iter().filter(|(_, told)| *told).map(|(age, _)| age / HOUR).collect();
        assert!(told.len() == 1 && (4..6).contains(&told[0]), "{told:?}");
        let mut ages = kept.deferred.iter().map(|(age, _)| *age).collect::<Vec<_>>();
        assert!((120..150).contains(&ages.len()), "{}", ages.len());
        ages.insert(0, 0);
        let mut waits: Vec<u64> = ages.windows(2).map(|pair| pair[1] - pair[0]).skip(1).collect();
        waits.pop();
        for (index, wait) in waits.into_iter().enumerate() {
            let middle = ((5 * MINUTE) << index.min(4)).min(60 * MINUTE * 10 / 11);
            let allowed = middle * 9 / 10..middle * 11 / 10 + 2 * SECOND;
            assert!(allowed.contains(&wait), "wait {index}: {wait} not in {allowed:?}");
        }
    });
}

/// A site that is down does not slow another one, nor does its mail burn attempts.
#[test]
fn a_domain_that_is_dead_is_probed_ever_more_rarely_and_gives_up_in_the_end() {
    let server = Server::down(|_, _, _| None);
    simulate(&server, "", one_site, |world| async move {
        for name in ["a", "b", "c"] {
            world.arrive(&format!("{name}.test"), &["someone"]).await;
        }
        world.until_over().await;
        assert_eq!(world.book.count(Ended::Expired), 3);
        // Three domains at one host: one of them looks, every five minutes at most.
        let attempts = world.shard.counters.connections_out_total.get();
        let rounds = 5 * 24 * 12;
        assert!((rounds - 10..rounds + 30).contains(&attempts), "{attempts} attempts to connect");
    });
}
