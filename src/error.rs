//! From an error to the exit code of the program, and from a panic to one line.
//!
//! Codes: 0 success; 1 the run failed (disk, memory, network); 2 a flag, config or checkpoint; 3 a manifest, text or
//! audio, or a failed check; 4 training diverged; 130 interrupted, after a checkpoint.

use std::io;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Mutex;

use crate::asr_tts::AsrTtsError;
use crate::checkpoint::CheckpointError;
use crate::compare::CompareError;
use crate::config::ConfigError;
use crate::data::DataError;
use crate::demo::DemoError;
use crate::device::DeviceError;
use crate::encoder::EncoderError;
use crate::eval::{ReportError, comparison::ComparisonError, predictions::PredictionsError};
use crate::hub::HubError;
use crate::memory;
use crate::run::RunError;
use crate::train::{Diverged, Interrupted};

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

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(#[from] pub io::Error);

/// The exit code of an error: that of the first cause that has one.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(FAILED)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if cause.is::<ConfigError>() || cause.is::<DeviceError>() || cause.is::<EncoderError>() {
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
    if let Some(DataError::Write { .. }) = cause.downcast_ref() {
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

/// The error with its causes, for one line; a cause that its error already quotes is left out.
#[must_use]
pub fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |sentence, cause| {
        if sentence.is_empty() {
            cause
        } else if sentence.contains(&cause) {
            sentence
        } else {
            format!("{sentence}: {cause}")
        }
    })
}

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);
/// Of the first panic that told of a lack of memory: those that follow from it, in other threads, say something else.
static OUT_OF_MEMORY: Mutex<Option<String>> = Mutex::new(None);

/// What the caller of a backend's thread panics with where that thread did: it says nothing of the cause.
const FOLLOWS: &str = "CallError";

/// Keeps panics silent and remembers the last one, in whichever thread, so that [`catch`] can tell of it in one line.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let words = describe(info);
        if let (Some(sentence), Ok(mut first)) = (memory::of_panic(&words), OUT_OF_MEMORY.lock()) {
            first.get_or_insert(sentence);
        }
        if let Ok(mut last) = LAST_PANIC.lock()
            && !(last.is_some() && words.contains(FOLLOWS))
        {
            *last = Some(words);
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let words =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let words = words.unwrap_or("no reason given").replace('\n', " ");
    info.location().map_or_else(|| words.clone(), |place| format!("{words} ({}:{})", place.file(), place.line()))
}

/// Takes the description of the last panic, if there was one since the last call.
#[must_use]
pub fn take_panic() -> Option<String> {
    LAST_PANIC.lock().ok().and_then(|mut last| last.take())
}

/// Takes what the first panic that told of a lack of memory came to, with the batch that was being computed.
#[must_use]
pub fn take_out_of_memory() -> Option<String> {
    OUT_OF_MEMORY.lock().ok().and_then(|mut first| first.take())
}

/// What the first panic that told of a lack of memory came to, with the batch that was being computed.
#[must_use]
pub fn out_of_memory() -> Option<String> {
    OUT_OF_MEMORY.lock().ok().and_then(|first| first.clone())
}

/// Goes no further where any thread had no memory. A backend that computes in threads of its own goes on without what it
/// could not make, and what is read from it then means nothing: every reading is to be followed by this.
///
/// # Panics
/// There was a lack of memory; [`catch`] and [`take_out_of_memory`] tell of it.
pub fn stop_if_out_of_memory() {
    if let Some(sentence) = out_of_memory() {
        panic::resume_unwind(Box::new(sentence));
    }
}

/// Runs a function; a panic in it becomes its description.
///
/// # Errors
/// The panic's words and place, on one line.
pub fn catch<T>(function: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(function)).map_err(|_| take_panic().unwrap_or_else(|| "panic".to_owned()))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_first_cause_with_a_code_decides() {
        let config = || ConfigError::NotFound { name: "\"x\"".into(), built_in: "demo.toml".into() };
        let error = anyhow::Error::new(config()).context("while loading");
        assert_eq!(exit_code(&error), USAGE);
        assert!(sentence(&error).starts_with("while loading: no config file \"x\""));
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
    fn a_cause_is_not_told_twice() {
        let missing: io::Result<()> = Err(io::Error::other("no such disk"));
        let error = missing.context("cannot save: no such disk").unwrap_err();
        assert_eq!(sentence(&error), "cannot save: no such disk");
    }

    /// In one test: there is one hook in a process.
    #[test]
    fn a_panic_becomes_one_line() {
        install_panic_hook();
        let caught: Result<(), String> = catch(|| panic!("two\nlines"));
        let line = caught.unwrap_err();
        assert!(line.starts_with("two lines (") && line.contains("error.rs:"), "{line}");
        // That of a thread, and not what follows from it in the one that waits for it.
        let caught: Result<(), String> = catch(|| {
            let _ = std::thread::spawn(|| panic!("no compiler")).join();
            panic!("called `Result::unwrap()` on an `Err` value: CallError");
        });
        let line = caught.unwrap_err();
        assert!(line.starts_with("no compiler ("), "{line}");
        // A lack of memory in another thread stops whoever reads what that thread should have made.
        assert!(catch(stop_if_out_of_memory).is_ok());
        let _ = std::thread::spawn(|| panic!("can't allocate buffer of size: 4096")).join();
        assert!(catch(stop_if_out_of_memory).is_err());
        let sentence = take_out_of_memory().unwrap();
        assert!(sentence.starts_with("out of memory: the device cannot allocate 4096 bytes"), "{sentence}");
        assert!(catch(stop_if_out_of_memory).is_ok());
        let _ = panic::take_hook();
    }
}
