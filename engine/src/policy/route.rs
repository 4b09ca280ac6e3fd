//! Which route a domain takes: the first that lists it (`*`, itself, or `.suffix`).
//!
//! Pure; the configuration is its only input.

use super::matches_domain;
use crate::config::Config;

/// The index in `Config::routes` of the first route whose `domains` match. `domain` is as an envelope
/// holds it: a name in any case, or an address literal in brackets, which only `*` matches.
pub fn route_of(config: &Config, domain: &str) -> Option<usize> {
    config.routes.iter().position(|route| route.domains.iter().any(|entry| matches_domain(entry, domain)))
}
