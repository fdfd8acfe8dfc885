//! Evaluation: from saved predictions to numbers, without tensors.

pub mod comparison;
pub mod metrics;
pub mod paired;
pub mod predictions;
pub mod report;
mod scoring;
pub mod statistics;

pub use metrics::{ClassScore, Confusion, Headline, MetricsError};
pub use report::{Report, ReportError, ReportOptions};
