//! Ports for connections out.

use crate::cpus::show;
use crate::host::Host;
use crate::knob::{Finding, Knob, Step};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

pub const KNOB: Knob = Knob {
    name: "local-ports",
    purpose: "Ports for connections out: a pair of own and next hop's address can use each once a minute only.",
    check: |host, _| check(host),
};

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// Below are the ports of most services.
const FIRST_PORT: usize = 10_240;
const LAST_PORT: usize = 65_535;
/// As many as that are enough for one connection in a millisecond to one address.
const PORTS_MIN: usize = 50_000;
/// The kernel takes no more of a setting in one write.
const LIST_OCTETS_MAX: usize = 4_000;

/// First the ports that stay with those who listen on them, then the range: else a connection out could take the
/// port of a service that is being restarted.
fn check(host: &Host) -> Vec<Finding> {
    let Some(found) = host.read(RANGE) else { return vec![Finding::Absent(format!("{RANGE} is not there"))] };
    let shown = found.split_whitespace().collect::<Vec<_>>().join(" ");
    let range = bounds(&shown);
    let is_wide = range.as_ref().is_some_and(|range| range.end().saturating_sub(*range.start()) >= PORTS_MIN);
    let taken = range.filter(|_| is_wide).unwrap_or(FIRST_PORT..=LAST_PORT);
    let mut findings: Vec<Finding> = reserved(host, taken).into_iter().collect();
    findings.push(match is_wide {
        true => Finding::Fine(format!("net.ipv4.ip_local_port_range is {shown}")),
        false => Finding::wrong(RANGE, shown, &format!("{FIRST_PORT} {LAST_PORT}")),
    });
    findings
}

fn bounds(text: &str) -> Option<RangeInclusive<usize>> {
    let (first, last) = text.split_once(' ')?;
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// Listeners in the range whose ports are not reserved.
fn reserved(host: &Host, range: RangeInclusive<usize>) -> Option<Finding> {
    let listeners: BTreeSet<usize> =
        listeners(host).into_iter().filter(|port| range.contains(port)).collect();
    let found = host.read(RESERVED)?;
    let before: BTreeSet<usize> = ports(&found);
    let missing: Vec<usize> = listeners.difference(&before).copied().collect();
    if missing.is_empty() {
        return None;
    }
    let wanted = show(&before.union(&listeners).copied().collect::<Vec<_>>());
    if wanted.len() > LIST_OCTETS_MAX {
        return Some(Finding::Advice(format!(
            "{} ports on which something listens are in the range of connections out: add those that matter to {RESERVED}",
            missing.len()
        )));
    }
    Some(Finding::Wrong {
        sentence: format!(
            "something listens on port {}, in the range of connections out: net.ipv4.ip_local_reserved_ports should be {wanted}",
            show(&missing)
        ),
        steps: vec![Step::Write { path: RESERVED.into(), found, wanted }],
    })
}

/// `8080,9148-9150`.
fn ports(text: &str) -> BTreeSet<usize> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?.min(LAST_PORT))
    };
    text.split(',').filter_map(part).flatten().collect()
}

/// The ports of TCP sockets in LISTEN, of both families.
fn listeners(host: &Host) -> BTreeSet<usize> {
    const LISTEN: &str = "0A";
    let port = |line: String| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let port = usize::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == LISTEN).then_some(port)
    };
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|path| host.lines(path)).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;

    fn steps(findings: Vec<Finding>) -> Vec<Step> {
        let steps = findings.into_iter().filter_map(|finding| match finding {
            Finding::Wrong { steps, .. } => Some(steps),
            _ => None,
        });
        steps.flatten().collect()
    }

    #[test]
    fn a_wide_range_of_ports_is_left_alone_and_a_narrow_one_widened() {
        let table = [
            ("32768\t60999", true),
            ("10240\t65535", false),
            ("1024 65535", false),
            ("15000 65535", false),
            ("65535 1024", true),
            ("1024", true),
        ];
        for (found, changed) in table {
            let (_directory, host) = played::host(&[(RANGE, found)]);
            let (found, wanted) = (found.replace('\t', " "), "10240 65535".to_owned());
            let step = Step::Write { path: RANGE.into(), found: found.clone(), wanted };
            assert_eq!(steps(check(&host)), if changed { vec![step] } else { vec![] }, "{found}");
        }
    }

    #[test]
    fn the_ports_of_services_in_the_range_are_reserved_before_it_is_widened() {
        const TCP: &str = "  sl  local_address rem_address   st\n\
            0: 00000000:0019 00000000:0000 0A\n\
            1: 0100007F:80EA 00000000:0000 0A\n\
            2: 0100007F:2CEC 00000000:0000 0A\n\
            3: 0100007F:9999 0100007F:0019 01\n\
            broken";
        const TCP6: &str = "0: 00000000000000000000000000000000:2CED 0:0 0A";
        let files = |range, reserved| {
            [("/proc/net/tcp", TCP), ("/proc/net/tcp6", TCP6), (RANGE, range), (RESERVED, reserved)]
        };
        let table = [
            ("32768 60999", "", Some("11500-11501,33002"), 2),
            ("10240 65535", "8080,11500", Some("8080,11500-11501,33002"), 1),
            ("12000 65535", "", Some("33002"), 1),
            ("10240 65535", "11500-11501,33002", None, 0),
        ];
        for (range, reserved, wanted, count) in table {
            let (_directory, host) = played::host(&files(range, reserved));
            let steps = steps(check(&host));
            assert_eq!(steps.len(), count, "{range} {reserved}");
            let step = wanted.map(|wanted| {
                let (path, found) = (RESERVED.to_owned(), reserved.to_owned());
                Step::Write { path, found, wanted: wanted.into() }
            });
            assert_eq!(
                steps.first().cloned().filter(|step| step.parts().0 == RESERVED),
                step,
                "{range} {reserved}"
            );
        }
    }

    #[test]
    fn a_list_that_the_kernel_would_cut_off_is_left_to_a_person() {
        let lines: Vec<String> =
            (0..2_000).map(|n| format!("{n}: 00000000:{:04X} 00000000:0000 0A", 20_000 + 2 * n)).collect();
        let (_directory, host) =
            played::host(&[("/proc/net/tcp", &lines.join("\n")), (RANGE, "10240 65535"), (RESERVED, "")]);
        assert!(matches!(&check(&host)[0], Finding::Advice(text) if text.starts_with("2000 ports")));
    }
}
