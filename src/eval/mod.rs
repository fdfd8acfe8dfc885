//! Evaluation: from saved predictions to numbers, without tensors.
//!
//! | file | what |
//! |---|---|
//! | `predictions` | the rows that `predict` and `eval` write |
//! | `metrics` | the confusion matrix, accuracy, F1 |
//! | `statistics` | bootstrap intervals |
//! | `scoring`, `report` | the report of one split |
//! | `paired` | two systems on the same examples: paired bootstrap, McNemar's test, Holm's correction |
//! | `comparison` | the same from two files of predictions |

pub mod comparison;
pub mod metrics;
pub mod paired;
pub mod predictions;
pub mod report;
mod scoring;
pub mod statistics;

pub use metrics::{ClassScore, Confusion, Headline, MetricsError};
pub use report::{Report, ReportError, ReportOptions};
