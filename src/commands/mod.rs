//! The commands, a file each; this file only sends the parsed command line to the right one.

pub mod bench;
pub mod check;
pub mod compare;
pub mod completions;
pub mod config;
pub mod doctor;
pub mod encode;
pub mod eval;
pub mod log;
pub mod models;
mod output;
pub mod predict;
pub mod prepare;
pub mod train;
pub mod verify;

use std::{io::Write as _, sync::Mutex};

use anyhow::Context as _;

use clasp::{
    cli::{Cli, Command},
    error,
    eval::report::InputCounts,
    exit::OutputError,
    files::remove_unfinished,
    terminal::{Event, Progress, escape},
};

/// Why the program cannot hear of Ctrl-C, and what to do.
const NO_SIGNALS: &str =
    "cannot listen for Ctrl-C: leave the program more threads, memory or open files (ulimit -u, -v, -n)";

/// Lets Ctrl-C and SIGTERM end the program at once, without the files that are not whole.
fn end_at_signals() -> anyhow::Result<()> {
    listen(|| {
        remove_unfinished();
        std::process::exit(i32::from(error::INTERRUPTED));
    })
}

/// Says what Ctrl-C, SIGTERM and the end of the terminal do. The latter does nothing where the program was started with
/// `nohup`.
fn listen(handler: impl FnMut() + 'static + Send) -> anyhow::Result<()> {
    // SAFETY: the structure is plain numbers, and the call only writes to it.
    let is_ignored = unsafe {
        let mut before = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut before) == 0 && before.sa_sigaction == libc::SIG_IGN
    };
    ctrlc::set_handler(handler).context(NO_SIGNALS)?;
    if is_ignored {
        // SAFETY: no handler of ours is called.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }
    Ok(())
}

/// Utterances that are read, decoded and answered together where a manifest is streamed: this many batches.
const BATCHES_AT_ONCE: usize = 8;

/// Runs a command.
///
/// # Errors
/// Whatever the command fails with; [`clasp::exit::exit_code`] turns it into the exit code.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    match cli.command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Encode(arguments) => encode::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Prepare(arguments) => prepare::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        Command::Log(arguments) => log::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::MeasureStep(arguments) => doctor::measure::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

/// Writes text or JSON to standard output, with nothing that a terminal obeys; a closed pipe ends the program with
/// success.
///
/// # Errors
/// [`OutputError`]
pub fn write_output(text: &str) -> Result<(), OutputError> {
    let mut output = std::io::stdout().lock();
    let text = if text.starts_with(['{', '[']) { escape::json(text) } else { escape::text(text) };
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

/// Runs work that many threads do, and shows how much of it is done.
fn counting<T>(what: &str, work: impl FnOnce(&(dyn Fn(usize, usize) + Sync)) -> T) -> T {
    let progress = Mutex::new(Progress::stderr(false));
    let notify = |event: &Event| {
        if let Ok(mut progress) = progress.lock() {
            progress.handle(event);
        }
    };
    let result = work(&|done, of| notify(&Event::Count { what, done, of: Some(of) }));
    notify(&Event::Finished);
    result
}

/// Tells of texts without words, and of what was cut.
fn tell_counts(progress: &mut Progress, counts: &InputCounts, of: usize) {
    for (count, what) in [
        (counts.empty_texts, "have no words"),
        (counts.cut_texts, "had their text cut at the checkpoint's max_tokens"),
        (counts.cut_audio, "had their audio cut at the checkpoint's max_seconds"),
    ] {
        if count > 0 {
            progress.handle(&Event::Message(&format!("note: {count} of {of} utterances {what}")));
        }
    }
}

/// A number of the command line as the library takes it.
fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
