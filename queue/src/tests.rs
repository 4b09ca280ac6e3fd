//! The spool as a whole, on storages in memory, on a faulty one and on the real file system.

mod compaction;
mod cost;
mod crash;
mod damage;
mod flight;
mod glommio;
mod harness;
mod lineage;
mod read_ahead;
mod round_trip;
mod space;
mod world;
