//! From a domain or a host name to addresses (RFC 5321 section 5, RFC 7505).
//!
//! [`mx`] and [`error`] are pure. [`service`] answers questions and [`servers`] asks the DNS;
//! both live on the service thread, the only part of the relay that knows hickory-resolver.

pub mod error;
mod lookup;
pub mod mx;
pub mod servers;
pub mod service;
#[cfg(test)]
mod tests;
