//! Comparisons of systems: a plan of runs (`plan`), where each stands and how long it takes (`status`), doing what is
//! left as child processes (`run`), and the table of what came of it (`result`, `table`).
//!
//! A run of a comparison is an ordinary run folder, `<plan's folder>/<corpus>/<system>/fold<k>/seed<s>`.

mod csv;
pub mod estimate;
mod parse;
pub mod plan;
mod reader;
pub mod result;
pub mod run;
pub mod status;
pub mod table;
pub mod watch;

use std::path::PathBuf;

use crate::error::Problems;

pub use plan::{Plan, PlannedRun};

/// Why a comparison did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// Manifests that the plan names are not there.
    #[error("the plan cannot run: data are missing: {0}")]
    NoData(Problems),
    /// Keys to cluster by that no test data have.
    #[error("no intervals can be made as the plan asks: {0}")]
    NoCluster(Problems),
    /// Folders that hold runs of another config or of other data.
    #[error(
        "the plan's folder has runs that were made with another config: {0}; choose another `dir`, or remove these folders"
    )]
    OtherRuns(Problems),
    /// Another process works on the plan.
    #[error("another process is at work on the plan's folder {path}; wait for it, or choose another `dir`", path = path.display())]
    Busy { path: PathBuf },
    /// Some runs failed; the others went on.
    #[error("{failed} of {all} runs failed: {problems}; the same command tries them again")]
    Failed {
        failed: usize,
        /// How many the plan has.
        all: usize,
        /// Each with the first line of the error at the end of its `compare.log`.
        problems: Problems,
    },
    #[error("interrupted: {done} of {all} runs are done; the same command goes on")]
    Interrupted {
        done: usize,
        /// How many the plan has.
        all: usize,
    },
}
