use super::*;

fn place(sequence: u64) -> Place {
    Place { segment: Mark::new(sequence), position: 0, bytes: 0 }
}

fn enter(index: &mut Index, id: u64, recipients: &[&str]) {
    let recipients = recipients.iter().map(|address| (*address, RecipientState::NEW));
    let new = NewEntry {
        commit: place(1),
        arrived_micros: id,
        content_bytes: 10,
        flags: ContentFlags { eight_bit: true, dot_lines: false },
        sender: "sender@out.example",
        recipients,
        extents: std::iter::empty(),
    };
    index.enter(QueueId::from_bits(id), new, false);
}

fn outcome(recipient: u32, kind: OutcomeKind, text: &str) -> Outcome {
    Outcome { recipient, kind, attempts: 1, notified: false, at_micros: 9, text: text.into() }
}

#[test]
fn a_message_leaves_when_its_last_recipient_is_finished() {
    use OutcomeKind::*;
    let id = QueueId::from_bits(5);
    let mut index = Index::default();
    enter(&mut index, 5, &["a@x", "b@x", "c@x"]);
    let mut apply = |outcomes: &[Outcome]| index.apply(id, outcomes).is_some();
    assert!(!apply(&[outcome(0, Delivered, "")]));
    assert!(!apply(&[outcome(1, Deferred, "busy")]));
    assert!(!apply(&[outcome(1, Expired, "too old")]));
    assert!(!apply(&[outcome(0, Bounced, "no"), outcome(9, Bounced, "no")]));
    assert!(apply(&[outcome(2, Deleted, "")]));
    assert!(index.get(id).is_none() && index.apply(id, &[]).is_none());
    assert_eq!(index.counts(), Counts::default());
}

/// What facts say of a recipient: address, attempts, held, where to, why, whether that is only on disk.
type Said<'a> = (&'a str, u16, bool, Option<&'a str>, Option<&'a str>, bool);

fn said<'a>(facts: &Facts<'a>) -> Vec<Said<'a>> {
    let of = |it: RecipientFacts<'a>| {
        (it.address, it.state.attempts, it.state.held, it.via, it.reason, it.reason_on_disk)
    };
    facts.recipients().map(of).collect()
}

#[test]
fn facts_say_what_was_entered_and_what_happened_since() {
    use OutcomeKind::*;
    let (id, mut index) = (QueueId::from_bits(7), Index::default());
    enter(&mut index, 7, &["a@x", "", "ü@winery.example"]);
    let facts = index.get(id).unwrap();
    assert_eq!((facts.id(), facts.arrived_micros(), facts.content_bytes()), (id, 7, 10));
    assert_eq!((facts.sender(), facts.flags().eight_bit), ("sender@out.example", true));
    assert_eq!((facts.recipients_count(), facts.unfinished(), facts.damaged()), (3, 3, false));
    let new = |address| (address, 0, false, None, None, false);
    assert_eq!(said(&facts), [new("a@x"), new(""), new("ü@winery.example")]);

    index.apply(
        id,
        &[outcome(2, Deferred, "busy"), outcome(2, Rerouted, "mx:a.example"), outcome(1, Held, "")],
    );
    let facts = index.get(id).unwrap();
    let rerouted = ("ü@winery.example", 1, false, Some("mx:a.example"), Some("busy"), false);
    assert_eq!(said(&facts), [new("a@x"), ("", 0, true, None, None, false), rerouted]);
    let tried: Vec<_> = facts.recipients().map(|it| (it.kind, it.tried_micros)).collect();
    assert_eq!(tried, [(None, None), (None, None), (Some(Deferred), Some(9))]);
    let counts = Counts { messages: 1, content_bytes: 10, recipients: 3, deferred: 1, held: 1 };
    assert_eq!(index.counts(), counts);

    index.apply(id, &[outcome(2, Held, "suspicious"), outcome(2, Rerouted, ""), outcome(1, Released, "")]);
    let held = ("ü@winery.example", 1, true, None, Some("suspicious"), false);
    assert_eq!(said(&index.get(id).unwrap()), [new("a@x"), new(""), held]);
    index.apply(id, &[outcome(2, Released, ""), outcome(0, Delivered, "")]);
    let released = ("ü@winery.example", 1, false, None, None, false);
    assert_eq!(said(&index.get(id).unwrap())[1..], [new(""), released]);
    assert_eq!(index.counts(), Counts { recipients: 2, held: 0, ..counts });
}

#[test]
fn a_reason_without_room_is_known_by_its_place_until_another_has_room() {
    use OutcomeKind::Deferred;
    let (id, mut index) = (QueueId::from_bits(7), Index::default());
    enter(&mut index, 7, &["a@x", "b@x"]);
    index.limit_texts(0);
    let busy = [outcome(1, Deferred, "busy")];
    index.apply(id, &busy);
    assert_eq!(said(&index.get(id).unwrap())[1], ("b@x", 1, false, None, None, true));
    assert!(!index.get(id).unwrap().entry().reasons_lie_in(3), "not durable yet");
    index.place_reasons(id, &busy, &place(3));
    assert!(index.get(id).unwrap().entry().reasons_lie_in(3));
    let (here, places) = index.get(id).unwrap().reasons();
    assert_eq!(
        (here, places[0].is_none(), places[1].as_ref().unwrap().segment.sequence),
        (vec![None; 2], true, 3)
    );
    index.limit_texts(1000);
    index.apply(id, &[Outcome { at_micros: 10, ..outcome(1, Deferred, "still busy") }]);
    index.place_reasons(id, &busy, &place(4));
    assert!(!index.get(id).unwrap().entry().reasons_lie_in(3));
    assert_eq!(said(&index.get(id).unwrap())[1].4, Some("still busy"));
}

fn random(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 33) % below
}

/// Against a map that knows the same: ids that rise nearly, some far behind, some entered again.
#[test]
fn the_shelf_finds_what_a_map_finds() {
    use std::collections::BTreeMap;
    for seed in 0..12 {
        let (mut seed, mut next) = (seed, 1_000u64);
        let (mut index, mut map) = (Index::default(), BTreeMap::<u64, String>::new());
        for step in 0..4_000u64 {
            // Fills, then empties, again and again.
            let fills = (step / 500) % 2 == 0;
            match random(&mut seed, 10) {
                0..7 if fills => {
                    next += 1 + random(&mut seed, 3);
                    let id = if random(&mut seed, 5) == 0 { next - random(&mut seed, 900) } else { next };
                    let address = format!("person{step}@winery.example");
                    enter(&mut index, id, &[&address]);
                    map.insert(id, address);
                }
                _ => {
                    let from = random(&mut seed, next);
                    if let Some((&id, _)) = map.range(from..).next() {
                        map.remove(&id);
                        assert!(index.remove(QueueId::from_bits(id)).is_some());
                    }
                    let other = random(&mut seed, next);
                    assert_eq!(index.is_waiting(QueueId::from_bits(other)), map.contains_key(&other));
                }
            }
            if step % 97 == 0 {
                let after = QueueId::from_bits(random(&mut seed, next));
                let page = index.page(Some(after), 50);
                assert!(
                    page.iter()
                        .map(|id| id.bits())
                        .eq(map.range(after.bits() + 1..).map(|(id, _)| *id).take(50))
                );
            }
        }
        assert_eq!(index.counts().messages, map.len());
        for (id, address) in &map {
            assert_eq!(said(&index.get(QueueId::from_bits(*id)).unwrap())[0].0, address);
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            after = index.survey(after, 7, |facts| seen.push(facts.id().bits()));
            if after.is_none() {
                break;
            }
        }
        assert!(seen.iter().eq(map.keys()));
        map.keys().for_each(|id| drop(index.remove(QueueId::from_bits(*id))));
        assert_eq!(index.counts(), Counts::default());
    }
}

#[test]
fn a_survey_shows_damaged_messages_among_the_others() {
    let mut index = Index::default();
    enter(&mut index, 1, &["a@x"]);
    enter(&mut index, 3, &["a@x"]);
    let new = NewEntry {
        commit: place(1),
        arrived_micros: 0,
        content_bytes: 1,
        flags: ContentFlags::default(),
        sender: "",
        recipients: [("b@x", RecipientState::NEW)].into_iter(),
        extents: std::iter::empty(),
    };
    index.enter(QueueId::from_bits(2), new, true);
    let mut seen = Vec::new();
    assert_eq!(index.survey(None, 3, |facts| seen.push((facts.id().bits(), facts.damaged()))), None);
    assert_eq!(seen, [(1, false), (2, true), (3, false)]);
    assert_eq!(index.survey(None, 2, |_| ()), Some(QueueId::from_bits(2)));
    assert_eq!(index.page(None, 9), [1, 3].map(QueueId::from_bits));
    assert_eq!(index.counts().messages, 2);
}

/// Sender and recipient of 25 characters each, many people in few domains, deferred with a common reason.
fn backlog(messages: u64) -> Index {
    let mut index = Index::default();
    let segment = Mark::new(1);
    for id in 1..=messages {
        let sender = format!("{id:08x}@source{}.example.net", id % 7);
        let recipient = format!("person{id:07}@in{}.example", id % 9);
        assert_eq!((sender.len(), recipient.len().max(25)), (28, 25));
        let new = NewEntry {
            commit: Place { segment: segment.clone(), position: 0, bytes: 200 },
            arrived_micros: id,
            content_bytes: 4000,
            flags: ContentFlags::default(),
            sender: &sender[..25],
            recipients: [(&recipient[..], RecipientState::NEW)].into_iter(),
            extents: std::iter::empty(),
        };
        index.enter(QueueId::from_bits(id), new, false);
        let busy = "451 4.3.0 try again later";
        index.apply(QueueId::from_bits(id), &[outcome(0, OutcomeKind::Deferred, busy)]);
    }
    index
}

#[test]
fn a_waiting_message_takes_about_150_octets() {
    const MESSAGES: u64 = 50_000;
    let mut index = backlog(MESSAGES);
    let each = |index: &Index| index.waiting.bytes() as f64 / index.counts().messages as f64;
    println!("{:.1} octets a message, all waiting", each(&index));
    assert!(each(&index) < 145.0, "{} octets a message", each(&index));
    // Most are delivered; what is left is kept tight.
    for keeps in [2, 3, 10, 100] {
        let keep = |id: &u64| id.is_multiple_of(keeps);
        let gone = (1..=MESSAGES).filter(|id| !keep(id)).map(QueueId::from_bits);
        gone.for_each(|id| drop(index.remove(id)));
        println!("{:.1} octets a message, one in {keeps} left", each(&index));
        let bound = 180 * index.counts().messages + (64 << 10);
        assert!(index.waiting.bytes() < bound, "{} octets a message", each(&index));
    }
}

#[test]
#[ignore = "measures"]
fn cost_of_the_index() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    let backlog = backlog(1_000_000);
    println!("{} octets resident a message", (resident() - before) / 1_000_000);
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let (mut after, mut found) = (None, 0u64);
        loop {
            after = backlog.survey(after, 4096, |facts| {
                let of = |it: RecipientFacts<'_>| {
                    it.address.ends_with("@in3.example")
                        && it.reason.is_some_and(|text| text.contains("4.3.0"))
                };
                found += (facts.sender().len() == 25 && facts.recipients().any(of)) as u64;
            });
            if after.is_none() {
                break;
            }
        }
        println!("survey: {} ns a message, {found} found", start.elapsed().as_nanos() / 1_000_000);
    }
    for mut index in [Index::default(), backlog] {
        let waiting = index.counts().messages;
        let (mut best, mut next) = (f64::MAX, waiting as u64 + 1);
        let segment = Mark::new(1);
        let done = [outcome(0, OutcomeKind::Delivered, "")];
        for _ in 0..20 {
            let start = std::time::Instant::now();
            for _ in 0..1000 {
                for id in next..next + 64 {
                    let new = NewEntry {
                        commit: Place { segment: segment.clone(), position: 0, bytes: 100 },
                        arrived_micros: id,
                        content_bytes: 1,
                        flags: ContentFlags::default(),
                        sender: "sender@source.example.net",
                        recipients: [("person@winery.example.net", RecipientState::NEW)].into_iter(),
                        extents: std::iter::empty(),
                    };
                    index.enter(QueueId::from_bits(id), new, false);
                }
                for id in (next..next + 64).map(QueueId::from_bits) {
                    std::hint::black_box(index.get(id).map(|facts| facts.entry().commit.segment.sequence));
                    drop(index.apply(id, &done));
                }
                next += 64;
            }
            best = best.min(start.elapsed().as_nanos() as f64 / 64_000.0);
        }
        println!("{best:.0} ns in the index per message, {waiting} waiting besides");
    }
}
