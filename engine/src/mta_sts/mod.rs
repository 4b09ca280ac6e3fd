//! MTA-STS (RFC 8461): what other domains demand of those who send to them.

pub mod policy;
