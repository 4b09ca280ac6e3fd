//! What measures the relay: a load generator, a sink, and comparisons with other servers.
//!
//! The way of a message: [`source`] composes it ([`message`]), sends it to a server under test, and the server
//! delivers it to the [`sink`], which checks it octet by octet. [`compare`] starts servers, generator and sink as
//! processes of their own and sets the figures side by side. [`servers`] knows how each server under test is installed,
//! configured and started.
//!
//! [`spool`] measures the queue crate alone against the disk that it lies on.
//!
//! [`abuse`] measures what a normal client notices of attacks on the relay, [`tls`] what TLS costs relay and
//! Postfix.
//!
//! [`sending`] measures the sending side alone: a full queue that empties, and one connection over a long way.
//!
//! Nothing else here uses the relay's code: what checks the relay must not repeat its mistakes. The criterion benches,
//! which measure the relay's own parts, are the other exception and live in `benches/`.

pub mod abuse;
pub mod args;
pub mod bare;
pub mod compare;
pub mod destinations;
pub mod figures;
mod listen;
pub mod message;
pub mod place;
pub mod process;
pub mod sending;
pub mod servers;
pub mod sink;
pub mod source;
pub mod spool;
pub mod stop;
pub mod tls;
pub mod wire;
