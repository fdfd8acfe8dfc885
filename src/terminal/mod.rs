//! What people read: tables and progress. Data goes to stdout, talk to stderr; nothing else in the library prints.

pub mod check;
pub mod comparison;
pub mod escape;
pub mod progress;
pub mod run_log;
pub mod table;

pub use progress::{Event, Progress};
