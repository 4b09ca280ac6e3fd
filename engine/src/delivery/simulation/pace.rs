//! Sites, fair shares, rates, back-off, warm-up, and what must not shut a route.

use super::book::Ended;
use super::server::Server;
use super::*;

fn one_site(_: &str) -> String {
    "mx.test".into()
}

fn own_site(domain: &str) -> String {
    format!("mx.{domain}")
}

/// As Exchange Online: each domain has a host name of its own at one receiver.
fn name_each(domain: &str) -> String {
    format!("{}.mail.protection.outlook.com", domain.replace('.', "-"))
}

#[test]
fn a_thousand_domains_of_one_provider_share_its_connections() {
    let server = Server::up(|_, _, _| None);
    simulate(&server, "[delivery]\nconnections_max = 4\n", one_site, |world| async move {
        for n in 0..1_000 {
            world.arrive(&format!("d{n}.test"), &["someone"]).await;
        }
        world.until_over().await;
    });
    let seen = server.seen();
    assert_eq!(seen.delivered.len(), 1_000);
    assert!(seen.open_max <= 5, "{} at a time; one may be about to close", seen.open_max);
    assert!(seen.connections < 100, "{} connections serve 1,000 domains", seen.connections);
}

#[test]
fn a_receiver_that_names_each_customer_is_one_site_all_the_same() {
    let server = Server::up(|_, _, _| None);
    simulate(&server, "[delivery]\nconnections_max = 3\n", name_each, |world| async move {
        for n in 0..50 {
            world.arrive(&format!("d{n}.test"), &["one"]).await;
        }
        world.until_over().await;
    });
    let seen = server.seen();
    assert_eq!(seen.delivered.len(), 50);
    assert!(seen.open_max <= 4, "{}", seen.open_max);
}

#[test]
fn a_hot_queue_and_a_thousand_small_ones_get_fair_shares() {
    let server = Server::up(|_, _, _| None);
    simulate(&server, "[delivery]\nconnections_total_max = 8\n", own_site, |world| async move {
        for _ in 0..3_000 {
            world.arrive("hot.test", &["someone"]).await;
        }
        for n in 0..1_000 {
            world.arrive(&format!("small{n}.test"), &["someone"]).await;
        }
        world.until_over().await;
    });
    let seen = server.seen();
    assert_eq!(seen.delivered.len(), 4_000);
    let is_small = |address: &String| address.contains("@small");
    let last_small = seen.delivered.iter().rposition(is_small).unwrap();
    let hot_before = seen.delivered[..last_small].iter().filter(|address| !is_small(address)).count();
    assert!(hot_before < 3_000, "the small ones are not behind all of the hot one");
    let last_hot = seen.delivered.iter().rposition(|address| !is_small(address)).unwrap();
    assert!(last_hot > 1_000, "nor the hot one behind nothing");
    let (first, _) = seen.delivered.split_at(1_000);
    assert!(first.iter().any(is_small) && !first.iter().all(is_small), "both go on from the beginning");
}

/// A bad mailbox, or a thousand, says nothing about the host.
#[test]
fn a_run_of_5yz_shuts_no_route_and_slows_nobody() {
    let server = Server::up(|verb, line, _| {
        (verb == "RCPT" && line.contains("<bad")).then(|| "550 5.1.1 no such user".into())
    });
    simulate(&server, "", one_site, |world| async move {
        for n in 0..600 {
            let name = if n % 10 == 9 { "good" } else { "bad" };
            world.arrive("inside.test", &[name]).await;
        }
        world.until_over().await;
        assert_eq!((world.book.count(Ended::Bounced), world.book.count(Ended::Delivered)), (540, 60));
        assert!(world.hops().iter().all(|hop| !hop.is_down()));
        assert!(world.now() < 30 * SECOND, "nothing had to wait: {}", world.now());
    });
    assert!(server.seen().connections <= 25, "{}", server.seen().connections);
}

#[test]
fn one_full_mailbox_waits_alone() {
    let server = Server::up(|verb, line, _| {
        (verb == "RCPT" && line.contains("<full")).then(|| "452 4.2.2 over quota".into())
    });
    simulate(&server, "", one_site, |world| async move {
        for n in 0..200 {
            world.arrive("inside.test", &[if n % 2 == 0 { "full" } else { "good" }]).await;
        }
        world.until(MINUTE).await;
        assert_eq!(world.book.count(Ended::Delivered), 100);
        assert!(world.hops().iter().all(|hop| !hop.is_down()));
    });
}

#[test]
fn a_site_that_complains_is_left_alone_and_then_looked_at_by_one_connection() {
    let server = Server::up(|verb, _, number| {
        (verb == "MAIL" && number <= 2)
            .then(|| "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred".into())
    });
    simulate(&server, "", one_site, |world| async move {
        for n in 0..100 {
            world.arrive(&format!("d{n}.test"), &["someone"]).await;
        }
        world.until(29 * MINUTE).await;
        let early = world.shard.counters.connections_out_total.get();
        assert!((1..=2).contains(&early), "{early} connections before the time is over");
        assert_eq!(world.book.count(Ended::Delivered), 0);
        let troubles = world.shard.troubles();
        assert!(
            troubles.iter().all(|trouble| trouble.reason.starts_with("suspended until ")),
            "{troubles:?}"
        );
        assert!(troubles.len() >= 99, "{}", troubles.len());
        world.until_over().await;
        assert_eq!(world.book.count(Ended::Delivered), 100);
        // Twice as long the second time.
        assert!((90 * MINUTE..92 * MINUTE).contains(&world.now()), "{}", world.now() / MINUTE);
    });
    assert!(server.seen().connections < 20, "{}", server.seen().connections);
}

#[test]
fn a_site_that_wants_less_is_slowed_down_for_its_time_and_then_not() {
    let server = Server::up(|verb, _, number| {
        (verb == "MAIL" && number == 1).then(|| "421 4.7.28 an unusual rate of mail".into())
    });
    simulate(&server, "", one_site, |world| async move {
        for _ in 0..1_000 {
            world.arrive("inside.test", &["someone"]).await;
        }
        world.until(10 * MINUTE).await;
        let delivered = world.book.count(Ended::Delivered);
        assert!((180..=230).contains(&delivered), "20 a minute for 10 minutes: {delivered}");
        let troubles = world.shard.troubles();
        assert!(troubles.len() == 1 && troubles[0].is_slow, "{troubles:?}");
        world.until_over().await;
        assert!(world.now() < 37 * MINUTE, "after half an hour all of it goes: {}", world.now() / MINUTE);
        assert!(world.shard.troubles().is_empty());
    });
}

#[test]
fn greylisting_is_waited_out_as_the_host_says() {
    let server = Server::up(|verb, _, number| {
        (verb == "RCPT" && number == 1).then(|| "450 4.7.1 Greylisted, try again in 90 seconds".into())
    });
    simulate(&server, "", one_site, |world| async move {
        world.arrive("a.test", &["someone"]).await;
        world.until_over().await;
        let kept = world.book.all().remove(0);
        assert_eq!((kept.attempts, kept.deferred.len()), (1, 1));
        assert!((90 * SECOND..95 * SECOND).contains(&kept.end.unwrap().1), "{kept:?}");
    });
}

#[test]
fn no_more_messages_a_minute_than_the_route_allows() {
    let server = Server::up(|_, _, _| None);
    simulate(&server, "[delivery]\nmessages_per_minute = 60\n", one_site, |world| async move {
        for n in 0..200 {
            world.arrive(&format!("d{n}.test"), &["someone"]).await;
        }
        let mut before = 0;
        for minute in 1..=3 {
            world.until(minute * MINUTE).await;
            let now = world.book.count(Ended::Delivered);
            assert!((55..=62).contains(&(now - before)), "minute {minute}: {}", now - before);
            before = now;
        }
        world.until_over().await;
        assert_eq!(world.book.count(Ended::Delivered), 200);
    });
}

#[test]
fn no_more_connections_a_minute_than_the_route_allows() {
    // The host takes one message a connection.
    let server = Server::up(|verb, _, _| (verb == "RSET").then(|| "421 4.3.0 one is enough".into()));
    let settings = "[delivery]\nconnections_per_minute = 30\nmessages_per_connection_max = 1\n";
    simulate(&server, settings, one_site, |world| async move {
        for _ in 0..90 {
            world.arrive("a.test", &["someone"]).await;
        }
        world.until(MINUTE).await;
        let opened = world.shard.counters.connections_out_total.get();
        assert!((28..=31).contains(&opened), "{opened}");
        world.until_over().await;
        assert!(world.now() > 2 * MINUTE + 50 * SECOND, "{}", world.now() / SECOND);
    });
    assert_eq!(server.seen().delivered.len(), 90);
}

#[test]
fn a_new_address_sends_its_number_a_day() {
    let server = Server::up(|_, _, _| None);
    let today = wall_micros() / DAY;
    let date = jiff::Timestamp::from_microsecond((today * DAY) as i64).unwrap().strftime("%Y-%m-%d");
    let settings =
        format!("[[warm_up]]\nsource = \"127.0.0.1\"\nbegan = \"{date}\"\nschedule = \"10, 25\"\n");
    simulate(&server, &settings, one_site, |world| async move {
        // To the next midnight, so that the days of the test are whole.
        world.until(DAY - wall_micros() % DAY).await;
        let midnight = world.now();
        for n in 0..100 {
            world.arrive(&format!("d{}.test", n % 7), &["someone"]).await;
        }
        world.until(midnight + 12 * HOUR).await;
        assert_eq!(world.book.count(Ended::Delivered), 25, "its second day");
        let waiting = world.shard.troubles();
        assert!(waiting[0].reason.contains("warmed up"), "{waiting:?}");
        assert!(world.book.all().iter().all(|kept| kept.attempts == 0));
        world.until_over().await;
        assert_eq!(world.book.count(Ended::Delivered), 100, "after the last day there is no limit");
        assert!((24 * HOUR..25 * HOUR).contains(&(world.now() - midnight)), "{}", world.now() / HOUR);
    });
}

#[test]
fn a_message_at_which_the_program_fails_is_held_after_the_second_time_and_the_others_go_on() {
    let server = Server::up(|_, _, _| None);
    simulate(&server, "", one_site, |world| async move {
        for n in 0..50 {
            let id = world.arrive("inside.test", &["someone"]).await;
            if n == 25 {
                fail_at(id);
            }
        }
        world.until(MINUTE).await;
        assert_eq!(world.book.count(Ended::Delivered), 49);
        assert_eq!(world.book.count(Ended::Held), 0, "once is put off");
        assert_eq!(world.shard.counters.delivery_panics_total.get(), 1);
        world.until_over().await;
        assert_eq!(world.book.count(Ended::Held), 1);
        assert_eq!(world.shard.counters.delivery_panics_total.get(), 2);
        world.arrive("inside.test", &["someone"]).await;
        world.until_over().await;
        assert_eq!(world.book.count(Ended::Delivered), 50);
    });
}
