//! Where a domain wants its reports: the TXT record of `_smtp._tls.DOMAIN` (RFC 8460 section 3).
//!
//! Pure.

/// Places of one domain that are served.
const PLACES_MAX: usize = 8;

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address.
    Mail(String),
    /// The whole URI.
    Https(String),
}

/// The places of a domain, from the TXT records of the name, each given as its strings joined. Two records that
/// claim to be one are none; a place that cannot be served is passed over.
pub fn places<'a>(records: impl IntoIterator<Item = &'a str>) -> Vec<Place> {
    let mut claims = records.into_iter().filter(|record| is_claim(record));
    let (Some(record), None) = (claims.next(), claims.next()) else { return Vec::new() };
    let fields = record.split(';').skip(1).filter_map(|field| field.split_once('='));
    let rua = fields.filter(|(key, _)| key.trim() == "rua").map(|(_, value)| value).next();
    rua.into_iter()
        .flat_map(|rua| rua.split(','))
        .filter_map(|uri| place(uri.trim()))
        .take(PLACES_MAX)
        .collect()
}

fn is_claim(record: &str) -> bool {
    record.split(';').next().is_some_and(|first| first.replace(' ', "") == "v=TLSRPTv1")
}

fn place(uri: &str) -> Option<Place> {
    let (scheme, rest) = uri.split_once(':')?;
    if scheme.eq_ignore_ascii_case("mailto") {
        // Without header fields (RFC 6068) that a stranger would have the relay write.
        let address = decoded(rest.split('?').next().unwrap_or_default())?;
        let (local, domain) = address.rsplit_once('@')?;
        let sound = !local.is_empty() && !domain.is_empty() && address.len() <= 254 && address.is_ascii();
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b',' | b'"' | b'(' | b')');
        return (sound && address.bytes().all(plain)).then_some(Place::Mail(address));
    }
    let is_https = scheme.eq_ignore_ascii_case("https") && rest.starts_with("//") && uri.len() <= 1_000;
    let is_sound = is_https && uri.bytes().all(|b| b.is_ascii_graphic()) && has_sound_port(uri);
    is_sound.then(|| Place::Https(uri.to_owned()))
}

/// A stranger must not have the relay knock at the ports of other services.
fn has_sound_port(uri: &str) -> bool {
    let Ok(uri) = uri.parse::<hyper::Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    !authority.host().is_empty() && authority.port_u16().is_none_or(|port| port == 443 || port >= 1_024)
}

/// Without percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(address: &str) -> Place {
        Place::Mail(address.into())
    }

    fn https(uri: &str) -> Place {
        Place::Https(uri.into())
    }

    /// RFC 8460 section 3.1.
    #[test]
    fn a_record_names_places() {
        for (records, expected) in [
            (&["v=TLSRPTv1;rua=mailto:reports@example.com"][..], vec![mail("reports@example.com")]),
            (
                &["v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"],
                vec![https("https://reporting.example.com/v1/tlsrpt")],
            ),
            (
                &["x", "v=TLSRPTv1; rua=mailto:a@b.test, https://c.test/d;"],
                vec![mail("a@b.test"), https("https://c.test/d")],
            ),
            (&["v=TLSRPTv1; rua=mailto:a%2Bb@c.test?subject=x"], vec![mail("a+b@c.test")]),
            (
                &["v=TLSRPTv1; rua=https://c.test:443/d,https://c.test:8443/d"],
                vec![https("https://c.test:443/d"), https("https://c.test:8443/d")],
            ),
            (&["v=TLSRPTv1; rua=https://c.test:25/d,https://c.test:0/d,https:///d"], vec![]),
            (&["v=TLSRPTv1; rua=http://c.test/d,ftp:x,mailto:nobody,mailto:a@b\u{fc}.test"], vec![]),
            (&["v=TLSRPTv1; rua=mailto:a%0d%0aRCPT@b.test,mailto:%@b.test"], vec![]),
            (&["v=TLSRPTv1; rua=mailto:a@b.test>,mailto:<a@b.test"], vec![]),
            (&["v=TLSRPTv1;"], vec![]),
            (&["v=TLSRPTv2; rua=mailto:a@b.test"], vec![]),
            (&["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:c@d.test"], vec![]),
            (&[], vec![]),
        ] {
            assert_eq!(places(records.iter().copied()), expected, "{records:?}");
        }
        let good = "v=TLSRPTv1; rua=mailto:a%2Bb@c.test,https://c.test/d";
        for at in 0..good.len() {
            for octet in ['\0', '\r', '\n', '%', ';', '<', '>', ' ', '\u{fc}'] {
                let bent = format!("{}{octet}{}", &good[..at], &good[at..]);
                for place in places([bent.as_str(), &good[..at]]).into_iter().chain(places([&good[..at]])) {
                    let (Place::Mail(text) | Place::Https(text)) = place;
                    assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text:?} of {bent:?}");
                }
            }
        }
        let many = format!("v=TLSRPTv1; rua={}", vec!["mailto:a@b.test"; 100].join(","));
        assert_eq!(places([many.as_str()]).len(), PLACES_MAX);
    }
}
