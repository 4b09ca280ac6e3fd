use super::*;
use sluice_queue::{QueueId, RecipientState, Schedule};

const NOW: u64 = 10_000 * MINUTE_MICROS;

fn subject(minutes: u64, sender: &'static str) -> Subject<'static> {
    Subject {
        id: QueueId::from_bits(1),
        arrived_micros: NOW - minutes * MINUTE_MICROS,
        content_bytes: 100,
        sender,
        damaged: false,
        schedule: Schedule::default(),
    }
}

fn part(address: &'static str, attempts: u16, held: bool) -> Part<'static> {
    Part { address, state: RecipientState { attempts, held, ..RecipientState::NEW }, via: None, reason: None }
}

fn tally(options: SummaryOptions) -> Tally {
    let mut tally = Tally::default();
    let mut add = |subject: Subject<'static>, parts: Vec<Part<'static>>| {
        tally.add(&subject, parts.into_iter(), &HopNames::by_domain(), options, NOW);
    };
    add(subject(4, "a@x.test"), vec![part("u@b.test", 0, false), part("v@B.TEST", 0, true)]);
    add(subject(5, "a@X.test"), vec![part("u@b.test", 1, false), part("u@c.test", 2, true)]);
    add(subject(2_000, ""), vec![part("u@b.test", 1, false)]);
    let damaged = Subject { damaged: true, ..subject(1_280, "a@x.test") };
    add(damaged, vec![part("u@d.test", 0, false)]);
    tally
}

const RECIPIENTS: SummaryOptions = SummaryOptions { senders: false, limit: 10 };

#[test]
fn totals_hops_and_ages_are_counted() {
    let trouble =
        HopTrouble { next_hop: "b.test".into(), since_micros: 5, reason: "refused".into(), is_slow: false };
    let summary = tally(RECIPIENTS).finish(RECIPIENTS, vec![trouble.clone()]);
    let totals = summary.totals;
    assert_eq!((totals.messages, totals.octets, totals.recipients), (4, 400, 6));
    assert_eq!((totals.queued, totals.deferred, totals.held, totals.damaged), (1, 2, 2, 1));
    assert_eq!((totals.messages_held, totals.messages_damaged), (2, 1));
    assert_eq!(totals.oldest_micros, NOW - 2_000 * MINUTE_MICROS);
    let hop = &summary.next_hops[0];
    assert_eq!((hop.next_hop.as_str(), hop.recipients, hop.deferred, hop.held), ("b.test", 4, 2, 1));
    assert_eq!((hop.oldest_micros, hop.down.as_ref()), (totals.oldest_micros, Some(&trouble)));
    assert_eq!(summary.next_hops[1].down, None);
    let rows: Vec<_> = summary.domains.iter().map(|row| (row.domain.as_str(), row.total, row.ages)).collect();
    assert_eq!(
        rows,
        [
            ("b.test", 4, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]),
            ("c.test", 1, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("d.test", 1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ]
    );
    assert_eq!((summary.all.total, summary.all.ages), (6, [2, 2, 0, 0, 0, 0, 0, 0, 0, 2]));
}

#[test]
fn the_table_by_sender_counts_messages() {
    let options = SummaryOptions { senders: true, limit: 1 };
    let summary = tally(options).finish(options, Vec::new());
    assert_eq!((summary.domains.len(), summary.domains_total), (1, 2));
    assert_eq!((summary.domains[0].domain.as_str(), summary.domains[0].total), ("x.test", 3));
    assert_eq!((summary.all.total, summary.next_hops_total, summary.next_hops.len()), (4, 3, 1));
}

#[test]
fn tallies_of_several_shards_add_up() {
    let mut twice = tally(RECIPIENTS);
    twice.merge(tally(RECIPIENTS));
    twice.merge(Tally::default());
    let (twice, once) =
        (twice.finish(RECIPIENTS, Vec::new()), tally(RECIPIENTS).finish(RECIPIENTS, Vec::new()));
    assert_eq!(twice.totals.recipients, 2 * once.totals.recipients);
    assert_eq!(twice.totals.oldest_micros, once.totals.oldest_micros);
    for (twice, once) in twice.domains.iter().zip(&once.domains) {
        assert_eq!((&twice.domain, twice.total), (&once.domain, 2 * once.total));
    }
    assert_eq!(twice.next_hops[0].recipients, 2 * once.next_hops[0].recipients);
}

#[test]
fn ages_fall_into_the_columns_of_qshape() {
    let table = [
        (0, 0),
        (4, 0),
        (5, 1),
        (9, 1),
        (10, 2),
        (79, 4),
        (1_279, 8),
        (1_280, 9),
        (u64::MAX / MINUTE_MICROS, 9),
    ];
    for (minutes, expected) in table {
        assert_eq!(column(minutes * MINUTE_MICROS), expected, "{minutes}");
    }
}
