//! What the opening of a connection has shown of its host's TLS, for the reports that domains ask for (RFC 8460).
//!
//! Lives on one delivery shard.

use super::connection::{Connection, Unopened, Wish};
use super::demands::Unfit;
use super::shard::DeliveryShard;
use super::verdict::Peer;
use crate::shard::links::NextHop;
use std::net::IpAddr;

/// A host to which nothing may be sent.
pub fn passed_over(_shard: &DeliveryShard, _next_hop: &NextHop, _peer: &Peer, _unfit: &Unfit) {}

/// A host that was connected to.
pub fn opened(
    _shard: &DeliveryShard,
    _next_hop: &NextHop,
    _wish: &Wish<'_>,
    (_peer, _local): (&Peer, Option<IpAddr>),
    _opened: &Result<Connection, Unopened>,
) {
}
