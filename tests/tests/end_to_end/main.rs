//! A real `sluice` between real and pretended neighbours. One module is one scenario; each test has its
//! own relay, spool, ports and neighbours.

mod after_a_crash;
mod backlog;
mod backups;
mod bad_start;
mod chunking;
mod clients;
mod compaction;
mod content;
mod failures;
mod idle_sessions;
mod log_lines;
mod loops;
mod mail_exchangers;
mod many_messages;
mod other_shards;
mod outward_tls;
mod policy;
mod postfix;
mod power_cuts;
mod program;
mod refused_content;
mod restore;
mod retries;
mod shutdown;
mod small_file_system;
mod smuggling;
mod steering;
mod tls;
mod transactions;
mod vanishing_clients;
mod verify;
mod waiting_messages;
