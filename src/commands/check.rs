//! `clasp check`: whether manifests can be trusted.

use super::{counting, write_output};
use clasp::{
    check::{self, CheckOptions, Severity},
    cli::CheckArguments,
    config::{ConfigError, Problem},
    data::DataError,
    error,
    terminal::check::{render, sentence},
};

/// Runs `clasp check`.
///
/// # Errors
/// A manifest that is missing or malformed.
pub fn run(arguments: &CheckArguments) -> anyhow::Result<u8> {
    if !(arguments.max_seconds.is_finite() && arguments.max_seconds > 0.0) {
        let reason = format!("must be more than 0 seconds; found {}", arguments.max_seconds);
        let problem = Problem::conflict("--max-seconds", reason);
        return Err(ConfigError::invalid("command line", vec![problem]).into());
    }
    let options = CheckOptions {
        decode: arguments.decode,
        allowed: arguments.allow_leak.iter().map(|kind| kind.kind()).collect(),
        max_seconds: arguments.max_seconds,
    };
    let outcome = counting("reading audio", |progress| check::check(&arguments.manifests, &options, progress))?;
    if arguments.json {
        write_output(&format!("{:#}\n", serde_json::to_value(&outcome)?))?;
    } else {
        write_output(&render(&outcome))?;
    }
    let mut failed = outcome.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let errors = failed.clone().count();
    match failed.next() {
        None => Ok(error::SUCCESS),
        Some(first) => {
            let first = sentence(first);
            let first = first.trim_end().trim_start_matches("error: ").replace('\n', " ");
            Err(DataError::Untrusted { errors, first }.into())
        }
    }
}
