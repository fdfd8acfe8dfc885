//! `clasp log`: the epochs of a run so far, also while it is at work.

use serde_json::json;

use super::write_output;
use clasp::{
    cli::LogArguments,
    error,
    run::{RunFolder, State, log},
    terminal::run_log::render,
};

/// Runs `clasp log`.
///
/// # Errors
/// A folder that holds no run; a log that cannot be read.
pub fn run(arguments: &LogArguments) -> anyhow::Result<u8> {
    let folder = RunFolder::new(&arguments.run);
    let manifest = folder.load_manifest()?;
    // A run that has just begun has none yet.
    let entries = if folder.log().is_file() { log::read(&folder.log())? } else { Vec::new() };
    if arguments.json {
        write_output(&format!("{:#}\n", json!({ "finished": manifest.finished, "entries": entries })))?;
        return Ok(error::SUCCESS);
    }
    let state = match folder.state()? {
        State::Finished(result) => format!("finished: {result}"),
        _ if folder.is_busy() => "at work".to_owned(),
        State::Unfinished { can_resume: true } => "stopped: go on with --resume".to_owned(),
        _ => "stopped before its first checkpoint".to_owned(),
    };
    write_output(&format!("{}{}\n", render(&entries), state))?;
    Ok(error::SUCCESS)
}
