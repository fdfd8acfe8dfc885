//! The program: parses the command line, runs the command, prints what went wrong on one line, sets the exit code.

use std::process::ExitCode;

use clap::Parser as _;

use clasp::cli::Cli;
use clasp::{error, exit, memory::allocator::ReportingAllocator, panics, terminal::escape};

mod commands;

#[global_allocator]
static ALLOCATOR: ReportingAllocator = ReportingAllocator;

/// What the program works on, whatever `ulimit -s` leaves the first thread.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    ReportingAllocator::keep_freed_memory();
    panics::install_hook();
    // A file that may grow no more is then an error of the write, as a full disk is, and no sudden end.
    // SAFETY: before any other thread is there.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    end_at_signals();
    bound_threads();
    match std::thread::Builder::new().name("main".to_owned()).stack_size(STACK).spawn(run) {
        Ok(thread) => thread.join().unwrap_or(ExitCode::from(error::FAILED)),
        Err(cause) => {
            report(&panics::lack_of_threads(&cause.to_string()));
            ExitCode::from(error::FAILED)
        }
    }
}

fn run() -> ExitCode {
    let result = panics::catch(|| commands::run(parse()));
    // Also where all seems well: a device that had no memory for something goes on without it.
    if let Some(sentence) = panics::take_out_of_memory() {
        report(&sentence);
        return ExitCode::from(error::FAILED);
    }
    match result {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(failure)) => {
            let code = exit::exit_code(&failure);
            if code != error::SUCCESS {
                let panic =
                    panics::take_panic().map_or_else(String::new, |words| format!(" (a thread failed: {words})"));
                report(&format!("{failure:#}{panic}"));
            }
            ExitCode::from(code)
        }
        Err(words) => {
            // The backend takes for a length what it has chosen for others, and may not be able to build it.
            let kernel = if panics::is_of_a_kernel(&words) {
                let choices = clasp::files::user_cache().join("autotune");
                format!("; if a kernel was chosen that does not fit, delete {}", choices.display())
            } else {
                String::new()
            };
            report(&format!("a fault of the program: {words}{kernel}; please report it with the command that you ran"));
            ExitCode::from(error::FAILED)
        }
    }
}

/// Until a command says something else, Ctrl-C and SIGTERM end the program at once, with the exit code of what was
/// interrupted.
fn end_at_signals() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: allowed in a handler of a signal.
        unsafe { libc::_exit(i32::from(error::INTERRUPTED)) }
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: before any other thread is there; what is ignored stays ignored.
        unsafe {
            if libc::signal(signal, end as *const () as libc::sighandler_t) == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
    }
}

/// As many threads as the process may use processors, however many `RAYON_NUM_THREADS` asks for.
fn bound_threads() {
    const NAME: &str = "RAYON_NUM_THREADS";
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = std::env::var(NAME).ok().and_then(|number| number.parse::<usize>().ok());
    if let Some(asked) = asked.filter(|asked| *asked > most) {
        say(&format!(
            "note: {NAME} asks for {asked} threads: there are {most}, one for each processor that may be used"
        ));
        // SAFETY: before any other thread is there.
        unsafe { std::env::set_var(NAME, most.to_string()) };
    }
}

/// The command line; the program ends with exit code 2 where it is wrong.
fn parse() -> Cli {
    let problem = match Cli::try_parse() {
        Ok(parsed) => return parsed,
        Err(problem) => problem,
    };
    // clap repeats what it was given.
    let words = problem.to_string();
    let escaped = escape::text(&words);
    if !problem.use_stderr() || escaped == words {
        problem.exit();
    }
    report(escaped.trim_start_matches("error: ").trim_end());
    std::process::exit(problem.exit_code());
}

fn report(words: &str) {
    say(&format!("error: {}", escape::text(words)));
}

/// Standard error may be closed too, so that a failure to write is no failure.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
