//! What people read: tables and progress. Data goes to stdout, talk to stderr; nothing else in the library prints.

pub mod check;
pub mod comparison;
pub mod progress;
pub mod run_log;
pub mod table;

use std::io::{self, Write};

pub use progress::{Event, Progress};

/// Writes text to stdout. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// When stdout cannot be written for another reason.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
