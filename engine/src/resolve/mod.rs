//! From a domain or a host name to addresses (RFC 5321 section 5, RFC 7505).
//!
//! [`mx`], [`choose`], [`error`] and [`relevant`] are pure. [`service`] answers questions, [`servers`] asks the DNS
//! and [`authentic`] listens to what the servers say of DNSSEC; these live on the service thread, the only part
//! of the relay that knows hickory-resolver.

mod authentic;
pub mod choose;
pub mod error;
mod lookup;
pub mod mx;
mod relevant;
pub mod servers;
pub mod service;
#[cfg(test)]
mod tests;
