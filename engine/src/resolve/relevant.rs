//! What of a server's answer is to the point: records of the name that was asked for and of those that its aliases
//! lead to, and beside an absence what its own zone says.
//!
//! Pure; used between the resolver and its sockets. Validation (DNSSEC) looks at each record set for itself. So
//! whoever can change answers on the way could put an authentic record of a name of his own beside or in place of
//! the one that was asked for, or prove an absence with the word of some unsigned zone. RFC 5452 section 6.

use hickory_resolver::proto::dnssec::rdata::DNSSECRData;
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// Aliases that are followed from one name. Prevents a chain, or a circle, without an end.
pub(super) const ALIASES_MAX: usize = 16;

/// Records of an answer, and its octets, up to which it is kept by hickory-resolver, whose bound counts answers and
/// not what they hold; and signatures of an absence that are looked at. Prevents a stranger with large record sets
/// from taking all memory, or much time.
const KEPT_RECORDS_MAX: usize = 64;
const KEPT_BYTES_MAX: usize = 4_096;

/// A large answer is good for whoever has asked, and not kept. `bytes`: as it came.
pub(super) fn keep_briefly_if_large(bytes: usize, answer: &mut Message) {
    let mut sections = [&mut answer.answers, &mut answer.authorities];
    let records: usize = sections.iter().map(|section| section.len()).sum();
    if records > KEPT_RECORDS_MAX || bytes > KEPT_BYTES_MAX {
        sections.iter_mut().flat_map(|section| section.iter_mut()).for_each(|record| record.ttl = 0);
    }
}

/// Takes out of an answer what does not belong to the question about this name.
pub(super) fn keep_relevant(name: &Name, answer: &mut Message) {
    let names: Vec<Name> = {
        let links = aliases(name, &answer.answers);
        [name].into_iter().chain(links.map(|(_, target)| target)).cloned().collect()
    };
    let is_above = |owner: &Name| names.iter().any(|name| owner.zone_of(name));
    // An alias may be made of a DNAME record of a name above (RFC 6672).
    answer.answers.retain(|record| {
        names.contains(&record.name)
            || record.record_type() == RecordType::DNAME && is_above(&record.name)
            || signer(record).is_some_and(is_above) && is_above(&record.name)
    });
    let signed: Vec<(Name, RecordType)> = answer
        .authorities
        .iter()
        .filter(|record| signer(record).is_some_and(is_above))
        .filter_map(|record| Some((record.name.clone(), covered(record)?)))
        .take(KEPT_RECORDS_MAX)
        .collect();
    answer.authorities.retain(|record| match record.record_type() {
        RecordType::RRSIG => signer(record).is_some_and(is_above),
        // They stand between other names of the zone, which their signer is.
        kind @ (RecordType::NSEC | RecordType::NSEC3) => {
            signed.iter().any(|(owner, covered)| *owner == record.name && *covered == kind)
        }
        _ => is_above(&record.name),
    });
    answer.additionals.clear();
}

/// The aliases that lead on from a name, each with where it leads, in their order.
pub(super) fn aliases<'a>(
    name: &'a Name,
    records: &'a [Record],
) -> impl Iterator<Item = (&'a Record, &'a Name)> {
    let mut current = name;
    let next = move || {
        let alias = records.iter().filter(|record| record.name == *current).find_map(target)?;
        current = alias.1;
        Some(alias)
    };
    std::iter::from_fn(next).take(ALIASES_MAX)
}

/// The aliases that lead from a name to the owner of records.
///
/// # Errors
/// Where they end before, for want of a record.
pub(super) fn way<'a>(
    name: &'a Name,
    owner: &Name,
    records: &'a [Record],
) -> Result<Vec<&'a Record>, &'a Name> {
    let (mut way, mut end) = (Vec::new(), name);
    let mut links = aliases(name, records);
    while end != owner {
        let (alias, target) = links.next().ok_or(end)?;
        way.push(alias);
        end = target;
    }
    Ok(way)
}

fn target(record: &Record) -> Option<(&Record, &Name)> {
    match &record.data {
        RData::CNAME(target) => Some((record, &target.0)),
        _ => None,
    }
}

fn signer(record: &Record) -> Option<&Name> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(&signature.input().signer_name),
        _ => None,
    }
}

fn covered(record: &Record) -> Option<RecordType> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature.input().type_covered),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::dnssec::Algorithm;
    use hickory_resolver::proto::dnssec::rdata::sig::SigInput;
    use hickory_resolver::proto::dnssec::rdata::{NSEC, RRSIG};
    use hickory_resolver::proto::op::OpCode;
    use hickory_resolver::proto::rr::SerialNumber;
    use hickory_resolver::proto::rr::rdata::{A, CNAME, SOA};

    fn name(text: &str) -> Name {
        Name::from_ascii(format!("{}.", text.trim_end_matches('.'))).unwrap()
    }

    /// `owner A`, `owner CNAME target`, `owner SOA`, `owner NSEC`, `owner RRSIG type signer`.
    fn record(line: &str) -> Record {
        let words: Vec<&str> = line.split_whitespace().collect();
        let data = match words[1..] {
            ["A"] => RData::A(A::new(192, 0, 2, 1)),
            ["CNAME", target] => RData::CNAME(CNAME(name(target))),
            ["SOA"] => RData::SOA(SOA::new(name("ns"), name("ns"), 1, 1, 1, 1, 1)),
            ["NSEC"] => RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(name("next"), [RecordType::A]))),
            ["RRSIG", kind, signer] => {
                let input = SigInput {
                    type_covered: kind.parse().unwrap(),
                    algorithm: Algorithm::ED25519,
                    num_labels: 2,
                    original_ttl: 60,
                    sig_expiration: SerialNumber::new(2),
                    sig_inception: SerialNumber::new(1),
                    key_tag: 1,
                    signer_name: name(signer),
                };
                RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, vec![0; 64])))
            }
            _ => panic!("{line}"),
        };
        Record::from_rdata(name(words[0]), 60, data)
    }

    fn records(text: &str) -> Vec<Record> {
        text.split(';').map(str::trim).filter(|line| !line.is_empty()).map(record).collect()
    }

    #[test]
    fn what_is_not_about_the_name_or_its_zone_is_left_out() {
        // Of a question about `a.good.test`: the answer, its authorities, and what stays of each.
        let table = [
            ("a.good.test A; A.Good.Test A", "", "a.good.test A; A.Good.Test A", ""),
            ("a.good.test A; evil.test A", "", "a.good.test A", ""),
            ("evil.test A; b.a.good.test A; good.test A", "", "", ""),
            ("a.good.test CNAME b.test; b.test A", "", "a.good.test CNAME b.test; b.test A", ""),
            (
                "c.test A; b.test CNAME c.test; a.good.test CNAME b.test; d.test A",
                "",
                "c.test A; b.test CNAME c.test; a.good.test CNAME b.test",
                "",
            ),
            ("evil.test CNAME c.test; c.test A", "", "", ""),
            (
                "a.good.test A; a.good.test RRSIG A good.test",
                "",
                "a.good.test A; a.good.test RRSIG A good.test",
                "",
            ),
            ("evil.test A; evil.test RRSIG A evil.test", "", "", ""),
            // An absence.
            (
                "",
                "good.test SOA; good.test RRSIG SOA good.test",
                "",
                "good.test SOA; good.test RRSIG SOA good.test",
            ),
            ("", "test SOA", "", "test SOA"),
            ("", "evil.test SOA; evil.test A", "", ""),
            ("", "b.a.good.test SOA", "", ""),
            (
                "",
                "Z.good.test NSEC; z.good.test RRSIG NSEC good.test",
                "",
                "Z.good.test NSEC; z.good.test RRSIG NSEC good.test",
            ),
            // Without a signature of its own zone.
            ("", "z.good.test NSEC", "", ""),
            ("", "evil.test NSEC; evil.test RRSIG NSEC evil.test", "", ""),
            ("", "evil.test NSEC; good.test RRSIG NSEC good.test", "", "good.test RRSIG NSEC good.test"),
            ("", "evil.test NSEC; evil.test RRSIG SOA test", "", "evil.test RRSIG SOA test"),
            // At the end of an alias.
            (
                "a.good.test CNAME x.other.test",
                "other.test SOA; evil.test SOA",
                "a.good.test CNAME x.other.test",
                "other.test SOA",
            ),
        ];
        for (answers, authorities, expected, expected_authorities) in table {
            let mut message = Message::response(1, OpCode::Query);
            message.answers = records(answers);
            message.authorities = records(authorities);
            message.additionals = records("a.good.test A; ns.test A");
            keep_relevant(&name("a.good.test"), &mut message);
            assert_eq!(message.answers, records(expected), "{answers}");
            assert_eq!(message.authorities, records(expected_authorities), "{authorities}");
            assert!(message.additionals.is_empty());
        }
    }

    #[test]
    fn a_large_answer_is_not_kept() {
        for (count, bytes, expected) in
            [(1, 100, 60), (64, 4_096, 60), (65, 100, 0), (1, 4_097, 0), (4_000, 65_535, 0)]
        {
            let mut message = Message::response(1, OpCode::Query);
            message.answers = vec![record("a.good.test A"); count - 1];
            message.authorities = vec![record("good.test SOA")];
            keep_briefly_if_large(bytes, &mut message);
            let all = message.answers.iter().chain(&message.authorities);
            assert!(all.map(|record| record.ttl).all(|ttl| ttl == expected), "{count} {bytes}");
        }
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_circles_end() {
        let follow = |start: &str, text: &str| {
            let (start, records) = (name(start), records(text));
            let names: Vec<String> =
                aliases(&start, &records).map(|(_, target)| target.to_string()).collect();
            names.join(" ")
        };
        assert_eq!(follow("a", "a A"), "");
        assert_eq!(follow("a", "b CNAME c; a CNAME b; c A"), "b. c.");
        assert_eq!(follow("A", "a CNAME b"), "b.");
        assert_eq!(follow("a", "a CNAME b; b CNAME a").split(' ').count(), ALIASES_MAX);
        assert_eq!(follow("a", "a CNAME a").split(' ').count(), ALIASES_MAX);
    }

    #[test]
    fn a_way_ends_at_the_owner_or_where_a_link_is_missing() {
        for (owner, text, expected) in [
            ("a", "a A", Ok(0)),
            ("A", "a A; a CNAME b", Ok(0)),
            ("c", "c A; b CNAME c; a CNAME b", Ok(2)),
            ("b", "a CNAME b; b A; b CNAME c", Ok(1)),
            ("c", "c A", Err("a")),
            ("c", "c A; a CNAME b", Err("b")),
            ("c", "c A; b CNAME c", Err("a")),
            ("c", "c A; a CNAME b; b CNAME a", Err("a")),
        ] {
            let (start, records) = (name("a"), records(text));
            let found = way(&start, &name(owner), &records).map(|way| way.len());
            assert_eq!(found, expected.map_err(name).as_ref().copied(), "{owner}: {text}");
        }
    }
}
