//! Evaluation: from saved predictions to numbers, without tensors.

pub mod comparison;
pub mod metrics;
pub mod paired;
pub mod predictions;
pub mod report;
mod scoring;
pub mod statistics;

use std::fmt;

pub use metrics::{ClassScore, Confusion, Headline, MetricsError};
pub use report::{Report, ReportError, ReportOptions};

/// How many problems a message lists before it only counts.
const LISTED: usize = 10;

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
