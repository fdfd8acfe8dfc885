//! From an error to the exit code of the program.
//!
//! Codes: 0 success; 1 the run failed (disk, memory, network); 2 a flag, config or checkpoint; 3 a manifest, text or
//! audio, or a failed check; 4 training diverged; 130 interrupted, after a checkpoint.

use std::io;

use crate::asr_tts::AsrTtsError;
use crate::checkpoint::CheckpointError;
use crate::compare::CompareError;
use crate::config::ConfigError;
use crate::data::DataError;
use crate::demo::DemoError;
use crate::device::DeviceError;
use crate::encoder::EncoderError;
use crate::error::{DATA, DIVERGED, FAILED, INTERRUPTED, SUCCESS, USAGE};
use crate::eval::{ReportError, comparison::ComparisonError, predictions::PredictionsError};
use crate::files::OutputIsInput;
use crate::hub::HubError;
use crate::run::RunError;
use crate::train::{Diverged, Interrupted};

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct OutputError(#[from] pub io::Error);

/// The exit code of an error: that of the first cause that has one.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(FAILED)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<ConfigError>() || cause.is::<DeviceError>() || cause.is::<EncoderError>() {
        return Some(USAGE);
    }
    if cause.is::<OutputIsInput>() {
        return Some(USAGE);
    }
    if let Some(problem) = cause.downcast_ref::<CheckpointError>() {
        // What cannot be written is the disk's fault, not the command line's.
        return Some(if matches!(problem, CheckpointError::Write { .. }) { FAILED } else { USAGE });
    }
    if let Some(problem) = cause.downcast_ref::<RunError>() {
        return Some(if problem.is_usage() { USAGE } else { FAILED });
    }
    if let Some(problem) = cause.downcast_ref::<HubError>() {
        return Some(if problem.is_usage() { USAGE } else { FAILED });
    }
    if let Some(problem) = cause.downcast_ref::<DemoError>() {
        return Some(if matches!(problem, DemoError::TooFew { .. }) { USAGE } else { FAILED });
    }
    if let Some(DataError::Write { .. } | DataError::Thread { .. }) = cause.downcast_ref() {
        return Some(FAILED);
    }
    if cause.is::<DataError>() || cause.is::<ReportError>() || cause.is::<PredictionsError>() {
        return Some(DATA);
    }
    if cause.is::<ComparisonError>() {
        return Some(DATA);
    }
    if let Some(problem) = cause.downcast_ref::<AsrTtsError>() {
        return Some(match problem {
            AsrTtsError::Flag { .. } => USAGE,
            AsrTtsError::Cache { .. } => FAILED,
            AsrTtsError::Utterance { .. } => DATA,
        });
    }
    if let Some(problem) = cause.downcast_ref::<CompareError>() {
        return Some(match problem {
            CompareError::NoData(_) => DATA,
            CompareError::NoCluster(_) | CompareError::OtherRuns(_) | CompareError::Busy { .. } => USAGE,
            CompareError::Failed { .. } => FAILED,
            CompareError::Interrupted { .. } => INTERRUPTED,
        });
    }
    if cause.is::<Diverged>() {
        return Some(DIVERGED);
    }
    if cause.is::<Interrupted>() {
        return Some(INTERRUPTED);
    }
    // A reader that has seen enough closes the pipe: `clasp config show demo | head -3`.
    if cause.downcast_ref::<OutputError>().is_some_and(|OutputError(error)| error.kind() == io::ErrorKind::BrokenPipe) {
        return Some(SUCCESS);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::files::FileError;

    #[test]
    fn the_first_cause_with_a_code_decides() {
        let config = || ConfigError::NotFound { name: "\"x\"".into(), built_in: "demo.toml".into() };
        let error = anyhow::Error::new(config()).context("while loading");
        assert_eq!(exit_code(&error), USAGE);
        assert!(format!("{error:#}").starts_with("while loading: no config file \"x\""));
        assert_eq!(exit_code(&anyhow::anyhow!("disk full")), FAILED);
    }

    #[test]
    fn a_closed_pipe_is_success_and_other_output_errors_are_not() {
        let output = |kind: io::ErrorKind| anyhow::Error::new(OutputError(kind.into()));
        assert_eq!(exit_code(&output(io::ErrorKind::BrokenPipe)), SUCCESS);
        assert_eq!(exit_code(&output(io::ErrorKind::StorageFull)), FAILED);
        assert_eq!(exit_code(&anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe))), FAILED);
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || io::Error::other("no such disk");
        let file = || FileError::new("read", Path::new("x"), cause());
        let path = || Path::new("x").to_owned();
        let errors: [anyhow::Error; 9] = [
            file().into(),
            RunError::File(file()).into(),
            RunError::Unwritable { path: path(), cause: cause() }.into(),
            ConfigError::Unwritable { path: path(), cause: cause() }.into(),
            CheckpointError::Write { path: path(), cause: cause() }.into(),
            HubError::Disk { path: path(), cause: cause() }.into(),
            PredictionsError::Read { path: path(), cause: cause() }.into(),
            AsrTtsError::Cache { problem: file() }.into(),
            OutputError(cause()).into(),
        ];
        for error in errors {
            let said = format!("{error:#}");
            assert_eq!(said.matches("no such disk").count(), 1, "{said}");
        }
    }
}
