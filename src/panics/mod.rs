//! Panics as one line each. A backend panics where others return errors, so what a panic means is read from its words:
//! the table [`PHRASES`] is the only place that does so.
//!
//! A lack of memory is told with the batch that was being computed: [`note`] keeps it ready.

pub mod note;

use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Mutex;

/// What the words of a panic mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The device or the system has no memory left.
    OutOfMemory,
    /// The system starts no more threads.
    OutOfThreads,
    /// Another thread panicked; this one says nothing of the cause.
    Consequence,
    /// A kernel cannot be compiled.
    Kernel,
}

/// Before the number of bytes that were asked for.
const BUFFER: &str = "can't allocate buffer of size: ";

/// Words in a panic, in small letters; what they mean; the crate that panics with them and its version, as in Cargo.lock,
/// `None` if they are the system's. Look at them again when that crate gets another version.
const PHRASES: [(&str, Meaning, Option<(&str, &str)>); 9] = [
    // `IoError::BufferTooBig`
    (BUFFER, Meaning::OutOfMemory, Some(("cubecl-runtime", "0.10.0"))),
    // `DriverError`: the name and the words of `CUDA_ERROR_OUT_OF_MEMORY`.
    ("out_of_memory", Meaning::OutOfMemory, Some(("cudarc", "0.19.10"))),
    ("out of memory", Meaning::OutOfMemory, Some(("cudarc", "0.19.10"))),
    // A thread that cannot start: `io::ErrorKind::OutOfMemory`, and the words of ENOMEM.
    ("outofmemory", Meaning::OutOfMemory, None),
    ("cannot allocate memory", Meaning::OutOfMemory, None),
    // The pool of all threads, and a thread, where the system has no memory or no number for them (EAGAIN).
    ("thread pool has not been initialized", Meaning::OutOfThreads, Some(("rayon-core", "1.13.0"))),
    ("failed to spawn thread", Meaning::OutOfThreads, None),
    // What the caller of a backend's thread panics with where that thread did.
    ("callerror", Meaning::Consequence, Some(("cubecl-common", "0.10.0"))),
    ("compile", Meaning::Kernel, Some(("cubecl-cuda", "0.10.0"))),
];

/// Whether some words have a phrase of this meaning.
fn means(words: &str, meaning: Meaning) -> bool {
    let words = words.to_lowercase();
    PHRASES.iter().any(|&(phrase, means, _)| means == meaning && words.contains(phrase))
}

/// Whether a panic comes from a kernel that cannot be compiled: the backend takes for a length what it has chosen for
/// others, and may not be able to build it.
pub fn is_of_a_kernel(words: &str) -> bool {
    means(words, Meaning::Kernel)
}

/// What to say where a thread cannot start.
pub fn lack_of_threads(cause: &str) -> String {
    format!(
        "cannot start a thread ({cause}); leave the program more threads or memory: end others, raise the limit \
         (ulimit -u, ulimit -v, the control group's), or use fewer by setting RAYON_NUM_THREADS and run.workers"
    )
}

/// What a panic that tells of a lack of memory or threads comes to, with the batch; none for any other panic.
fn lack_of_memory(words: &str) -> Option<String> {
    if !means(words, Meaning::OutOfMemory) {
        let is_of_threads = means(words, Meaning::OutOfThreads);
        return is_of_threads.then(|| lack_of_threads("Resource temporarily unavailable"));
    }
    let cause = match words.split_once(BUFFER) {
        Some((_, rest)) => {
            let bytes: String = rest.chars().take_while(char::is_ascii_digit).collect();
            format!("the device cannot allocate {bytes} bytes")
        }
        None => "the device or the system has no more".to_owned(),
    };
    let mut sentence = format!("out of memory: {cause}");
    note::with(|note| sentence.push_str(&String::from_utf8_lossy(note)));
    Some(sentence)
}

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);
/// Of the first panic that told of a lack of memory: those that follow from it, in other threads, say something else.
static OUT_OF_MEMORY: Mutex<Option<String>> = Mutex::new(None);

/// Keeps panics silent and remembers the last one, in whichever thread, so that [`catch`] can tell of it in one line.
pub fn install_hook() {
    panic::set_hook(Box::new(|info| {
        let words = describe(info);
        if let (Some(sentence), Ok(mut first)) = (lack_of_memory(&words), OUT_OF_MEMORY.lock()) {
            first.get_or_insert(sentence);
        }
        if let Ok(mut last) = LAST_PANIC.lock()
            && !(last.is_some() && means(&words, Meaning::Consequence))
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
pub fn take_panic() -> Option<String> {
    LAST_PANIC.lock().ok().and_then(|mut last| last.take())
}

/// Takes what the first panic that told of a lack of memory came to, with the batch that was being computed.
pub fn take_out_of_memory() -> Option<String> {
    OUT_OF_MEMORY.lock().ok().and_then(|mut first| first.take())
}

/// What the first panic that told of a lack of memory came to, with the batch that was being computed.
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
    use super::*;

    /// An upgrade may change the words, and then nothing would tell.
    #[test]
    fn the_phrases_are_those_of_the_versions_in_use() {
        let lock = include_str!("../../Cargo.lock");
        for (words, _, source) in PHRASES {
            let Some((package, version)) = source else { continue };
            let entry = format!("name = \"{package}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&entry), "look where {package} says {words:?} now");
        }
    }

    /// The words that cubecl 0.10 panics with (`cubecl-cuda/src/compute/server.rs`, `initialize_memory`), with its
    /// backtrace; cudarc's `Debug` of a driver error; what the standard library says of a thread that cannot start.
    #[test]
    fn panics_of_a_lack_of_memory_are_told_from_others() {
        let buffer = "called `Result::unwrap()` on an `Err` value: can't allocate buffer of size: 4096    0: main";
        let said = lack_of_memory(buffer).unwrap();
        assert!(said.starts_with("out of memory: the device cannot allocate 4096 bytes"), "{said}");
        for words in [
            r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#,
            r#"failed to spawn thread: Os { code: 12, kind: OutOfMemory, message: "Cannot allocate memory" }"#,
        ] {
            assert!(lack_of_memory(words).is_some(), "{words}");
        }
        for words in [
            "The global thread pool has not been initialized.: ThreadPoolBuildError { kind: IOError(Os { code: 11, kind: \
             WouldBlock, message: \"Resource temporarily unavailable\" }) }",
            r#"failed to spawn thread: Os { code: 11, kind: WouldBlock, message: "Resource temporarily unavailable" }"#,
        ] {
            assert!(lack_of_memory(words).unwrap().starts_with("cannot start a thread"), "{words}");
        }
        assert_eq!(lack_of_memory("index out of bounds: the len is 3 but the index is 7"), None);
    }

    /// In one test: there is one hook in a process.
    #[test]
    fn a_panic_becomes_one_line() {
        install_hook();
        let caught: Result<(), String> = catch(|| panic!("two\nlines"));
        let line = caught.unwrap_err();
        assert!(line.starts_with("two lines (") && line.contains("mod.rs:"), "{line}");
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
