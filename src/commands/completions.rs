//! `clasp completions SHELL`: the shell's script on standard output.

use clap::CommandFactory as _;

use super::write_output;
use clasp::cli::{Cli, CompletionsArguments};
use clasp::error;

/// Prints the script.
///
/// # Errors
/// Where standard output cannot be written.
pub fn run(arguments: &CompletionsArguments) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "clasp", &mut script);
    write_output(&String::from_utf8_lossy(&script))?;
    Ok(error::SUCCESS)
}
