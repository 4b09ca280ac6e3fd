//! The spool as a whole, on storages in memory, on a faulty one and on the real file system.

mod backup;
mod compaction;
mod cost;
mod crash;
mod damage;
mod flight;
mod glommio;
mod golden;
mod harness;
mod indexes;
mod lineage;
mod moving;
pub(crate) mod parameters;
mod read_ahead;
mod restore;
mod room;
mod round_trip;
mod scale;
mod simulation;
mod space;
mod verify;
