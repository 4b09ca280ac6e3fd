//! The slow and obvious twin of the decoder: it looks at the whole stream, any number of times.
//!
//! Only for tests and fuzz targets; shares no line with what it checks.

use super::Findings;

/// What a stream holds up to its end-of-data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub content: Vec<u8>,
    /// Octets of the stream up to and including end-of-data.
    pub end: usize,
    pub findings: Findings,
}

/// `None` for a stream without an end.
pub(crate) fn decode(stream: &[u8], line_octets_max: usize) -> Option<Decoded> {
    // The CRLF that ended the DATA command counts as the start of the first line.
    let whole = [b"\r\n", stream].concat();
    let end = whole.windows(5).position(|w| w == b"\r\n.\r\n")?;
    let stuffed = &whole[..end + 2];
    let mut content = Vec::new();
    let mut dot_lines = false;
    for (at, &octet) in stuffed.iter().enumerate().skip(2) {
        if octet == b'.' && stuffed[..at].ends_with(b"\r\n") {
            dot_lines |= stuffed.get(at + 1) == Some(&b'.');
        } else {
            content.push(octet);
        }
    }
    let findings = Findings { dot_lines, ..findings(&content, line_octets_max) };
    Some(Decoded { content, end: end + 5 - 2, findings })
}

/// The same with repair: what is found is said of the repaired content, but for what was repaired.
pub(crate) fn decode_repairing(stream: &[u8], line_octets_max: usize) -> Option<Decoded> {
    let Decoded { content, end, findings } = decode(stream, line_octets_max)?;
    let content = repaired(&content);
    let findings = repaired_findings(&content, findings, line_octets_max);
    Some(Decoded { content, end, findings })
}

/// Content that was counted off, to which its last line ending is added.
pub(crate) fn counted(octets: &[u8], repairs: bool, line_octets_max: usize) -> (Vec<u8>, Findings) {
    let mut content = octets.to_vec();
    let strict = findings(octets, line_octets_max);
    if repairs {
        content = repaired(octets);
    }
    if !content.is_empty() && !content.ends_with(b"\r\n") {
        content.extend_from_slice(if content.ends_with(b"\r") { b"\n" } else { b"\r\n" });
    }
    let found = repaired_findings(&content, strict, line_octets_max);
    (content, found)
}

fn repaired_findings(content: &[u8], before: Findings, line_octets_max: usize) -> Findings {
    let (bare_cr, bare_lf, nul) = (before.bare_cr, before.bare_lf, before.nul);
    let dot_lines = lines(content).iter().any(|line| line.starts_with(b"."));
    Findings { bare_cr, bare_lf, nul, dot_lines, ..findings(content, line_octets_max) }
}

/// A bare CR and a bare LF are line endings, NUL is left out.
pub(crate) fn repaired(content: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), content);
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        match octet {
            b'\r' => {
                out.extend_from_slice(b"\r\n");
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            0 => {}
            octet => out.push(octet),
        }
    }
    out
}

/// What is to be found in content; whether lines begin with a dot is left out.
pub(crate) fn findings(content: &[u8], line_octets_max: usize) -> Findings {
    let bare_cr = (0..content.len()).any(|at| content[at] == b'\r' && content.get(at + 1) != Some(&b'\n'));
    let bare_lf = (0..content.len()).any(|at| content[at] == b'\n' && (at == 0 || content[at - 1] != b'\r'));
    let lines = lines(content);
    let header = || lines.iter().take_while(|line| !line.is_empty());
    let is_received = |line: &&&[u8]| line.len() >= 9 && line[..9].eq_ignore_ascii_case(b"received:");
    let has_blank = lines.iter().any(|line| line.is_empty());
    Findings {
        octets: content.len() as u64,
        bare_cr,
        bare_lf,
        nul: content.contains(&0),
        eight_bit: content.iter().any(|&b| b > 127),
        dot_lines: false,
        long_line: lines.iter().any(|line| line.len() > line_octets_max),
        received: header().filter(is_received).count() as u32,
        header_octets: has_blank.then(|| header().map(|line| line.len() as u64 + 2).sum::<u64>() + 2),
    }
}

/// The lines without their CRLF; what stands behind the last CRLF is a line when it is not empty.
fn lines(content: &[u8]) -> Vec<&[u8]> {
    let (mut lines, mut start) = (Vec::new(), 0);
    for end in 2..=content.len() {
        if start <= end - 2 && content[end - 2..end] == *b"\r\n" {
            lines.push(&content[start..end - 2]);
            start = end;
        }
    }
    if start < content.len() {
        lines.push(&content[start..]);
    }
    lines
}
