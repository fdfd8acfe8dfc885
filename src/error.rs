//! What errors have in common, whoever makes them: exit codes, and lists that end after ten.
//!
//! An error says the cause that it quotes only once: it either quotes it (a field `cause` or `problem`) or returns it
//! (`source`), so that `{:#}` of anyhow is the whole sentence.

use std::fmt;

/// The program did what it was asked to.
pub const SUCCESS: u8 = 0;
/// The run failed: disk, memory, network, or a fault of the program.
pub const FAILED: u8 = 1;
/// A missing or malformed flag, config or checkpoint.
pub const USAGE: u8 = 2;
/// A missing or malformed manifest, text or audio, or a failed check.
pub const DATA: u8 = 3;
/// Training diverged.
pub const DIVERGED: u8 = 4;
/// Interrupted; a checkpoint was written before.
pub const INTERRUPTED: u8 = 130;

/// How many problems a message lists before it only counts.
pub const LISTED: usize = 10;

/// All that is wrong with one thing; shown are the first ten and the count of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let shown: Vec<&str> = self.0.iter().take(LISTED).map(String::as_str).collect();
        formatter.write_str(&shown.join("; "))?;
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            others => write!(formatter, "; and {others} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_problems_are_shown_and_the_others_counted() {
        let problems = |n: usize| Problems((0..n).map(|x| x.to_string()).collect()).to_string();
        assert_eq!(problems(10), "0; 1; 2; 3; 4; 5; 6; 7; 8; 9");
        assert_eq!(problems(13), "0; 1; 2; 3; 4; 5; 6; 7; 8; 9; and 3 more");
    }
}
