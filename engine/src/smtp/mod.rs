//! The grammar and the replies of SMTP: pure.
//!
//! Bytes in, values out, on any thread; nothing here knows a socket, a clock or a policy. What a
//! command line says is [`parse_command`]'s, what the content of a message is the
//! [`content::Decoder`]'s, what the server answers is one table, [`reply`].
//!
//! Left to others: which command may come when (`session`), who may send where (`policy`).

pub mod chunks;
pub mod command;
pub mod content;
pub mod idn;
pub mod parameters;
pub mod path;
pub mod proxy;
pub mod reply;
pub mod said;
pub mod sasl;
pub mod stuffing;
pub mod xclient;

pub use command::{Command, Fault, parse_command};
pub use path::{Domain, ForwardPath, Mailbox, PathFault};
