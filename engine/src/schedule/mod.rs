//! When a message is tried, and tried again.
//!
//! Pure in here: [`retry`] (the times), [`timetable`] (what is due when).

pub mod retry;
pub mod timetable;
