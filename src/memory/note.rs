//! What is being computed, kept ready for the message of a lack of memory: when memory is gone there is none to make
//! words from.

use std::{fmt::Write as _, path::Path, sync::Mutex};

use crate::data::{SAMPLE_RATE, batch::Batch};

/// Ids that a message names; of more it says how many.
const IDS: usize = 3;
/// Bytes of a name that a message shows.
const NAME: usize = 60;
/// Bytes of a note.
const LENGTH: usize = 1200;

/// What is said where no batch is being computed.
const IDLE: &str = "; leave the program more memory: end others, or raise the limit (ulimit -v, the control group's)";

/// What is done with a batch.
#[derive(Clone, Copy, Debug)]
pub enum Doing<'a> {
    /// A step of training.
    Training {
        /// The run's last checkpoint, where there is one yet.
        last: &'a Path,
    },
    /// A forward pass alone: scoring, predicting, encoding.
    Scoring,
}

/// Words in a place that is there from the start.
struct Note {
    bytes: [u8; LENGTH],
    length: usize,
}

static NOTE: Mutex<Note> = Mutex::new(Note { bytes: [0; LENGTH], length: 0 });

/// Notes what begins now; with several devices the note is that of the last one to begin.
pub fn now(doing: Doing<'_>, batch: &Batch) {
    set(&words(doing, batch));
}

/// Notes that no batch is being computed.
pub fn idle() {
    set("");
}

fn set(words: &str) {
    // Made before the lock is taken: nobody may ask for memory while holding what a lack of memory is told from.
    let words = cut(words, LENGTH).as_bytes();
    if let Ok(mut note) = NOTE.lock() {
        note.bytes[..words.len()].copy_from_slice(words);
        note.length = words.len();
    }
}

/// Hands the note to a function; asks for no memory and never waits. While another thread is writing the note, it is
/// empty.
pub(super) fn with(read: impl FnOnce(&[u8])) {
    match NOTE.try_lock() {
        Ok(note) if note.length > 0 => read(&note.bytes[..note.length]),
        Ok(_) => read(IDLE.as_bytes()),
        Err(_) => read(&[]),
    }
}

fn words(doing: Doing<'_>, batch: &Batch) -> String {
    let mut words = String::with_capacity(LENGTH);
    let verb = if matches!(doing, Doing::Training { .. }) { "training" } else { "scoring" };
    let _ = write!(words, " while {verb} on {} utterance{}", batch.len(), if batch.len() == 1 { "" } else { "s" });
    if batch.longest_samples() > 0 {
        let tenths = (10 * batch.longest_samples()).div_ceil(SAMPLE_RATE as usize);
        let _ = write!(words, " of up to {}.{} s", tenths / 10, tenths % 10);
    }
    if batch.longest_tokens() > 0 {
        let _ = write!(words, " and {} tokens", batch.longest_tokens());
    }
    let ids: Vec<&str> = batch.ids.iter().take(IDS).map(|id| cut(id, NAME)).collect();
    let _ = write!(words, " ({}", ids.join(", "));
    if batch.len() > IDS {
        let _ = write!(words, " and {} more", batch.len() - IDS);
    }
    words.push(')');
    match doing {
        Doing::Training { last } => {
            words.push_str(
                "; lower train.batch_size and raise train.accumulation_steps by as much, or lower train.batch_seconds \
                 or data.max_seconds, or freeze an encoder (text.freeze, speech.freeze); `clasp doctor --config` says \
                 what fits; ",
            );
            if last.is_dir() {
                let _ = write!(words, "the last checkpoint is kept: {}", last.display());
            } else {
                words.push_str("no checkpoint is written yet");
            }
        }
        Doing::Scoring => words.push_str("; lower the batch: --batch-size, or train.batch_size of a run that scores"),
    }
    words
}

/// The first bytes of some words, as many as make whole characters.
fn cut(words: &str, most: usize) -> &str {
    &words[..words.floor_char_boundary(most)]
}

/// What a panic that tells of a lack of memory comes to, with the batch; none for any other panic.
///
/// The words are those of `cubecl`'s `IoError::BufferTooBig`, of CUDA's `CUDA_ERROR_OUT_OF_MEMORY` and of the system's
/// `ENOMEM`.
#[must_use]
pub fn of_panic(words: &str) -> Option<String> {
    const BUFFER: &str = "can't allocate buffer of size: ";
    let bytes =
        words.split(BUFFER).nth(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    let lower = words.to_ascii_lowercase();
    let tells = ["out of memory", "out_of_memory", "outofmemory", "cannot allocate memory"];
    let cause = match bytes {
        Some(bytes) => format!("the device cannot allocate {bytes} bytes"),
        None if tells.iter().any(|tell| lower.contains(tell)) => "the device or the system has no more".to_owned(),
        None => return None,
    };
    let mut sentence = format!("out of memory: {cause}");
    with(|note| sentence.push_str(&String::from_utf8_lossy(note)));
    Some(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(ids: &[&str]) -> Batch {
        Batch {
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
            sample_lengths: vec![16_000, 480_000],
            token_lengths: vec![3, 43],
            ..Batch::default()
        }
    }

    #[test]
    fn a_batch_is_named_with_its_sizes_and_what_to_change() {
        let folder = tempfile::tempdir().unwrap();
        let doing = Doing::Training { last: folder.path() };
        let said = words(doing, &batch(&["a", "b", "c", "d", "e"]));
        assert!(
            said.starts_with(" while training on 5 utterances of up to 30.0 s and 43 tokens (a, b, c and 2 more); "),
            "{said}"
        );
        assert!(said.contains("train.batch_size") && said.ends_with(&folder.path().display().to_string()), "{said}");
        let missing = folder.path().join("last");
        let said = words(Doing::Training { last: &missing }, &batch(&["a", "b"]));
        assert!(said.contains(" (a, b); ") && said.ends_with("no checkpoint is written yet"), "{said}");
        assert!(words(Doing::Scoring, &batch(&["a", "b"])).contains("--batch-size"));
    }

    #[test]
    fn names_without_end_are_cut_between_characters() {
        assert_eq!((cut("ab\u{e9}", 3), cut("ab", 3)), ("ab", "ab"));
        let endless = "\u{1F600}".repeat(3000);
        assert!(words(Doing::Scoring, &batch(&[&endless])).len() < LENGTH);
        set(&endless);
        with(|note| assert!(std::str::from_utf8(note).is_ok() && note.len() <= LENGTH));
    }

    /// The words that cubecl 0.10 panics with (`cubecl-cuda/src/compute/server.rs`, `initialize_memory`), with its
    /// backtrace; cudarc's `Debug` of a driver error; what the standard library says of a thread that cannot start.
    #[test]
    fn panics_of_a_lack_of_memory_are_told_from_others() {
        let buffer = "called `Result::unwrap()` on an `Err` value: can't allocate buffer of size: 4096    0: main";
        let said = of_panic(buffer).unwrap();
        assert!(said.starts_with("out of memory: the device cannot allocate 4096 bytes"), "{said}");
        for words in [
            r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#,
            r#"failed to spawn thread: Os { code: 12, kind: OutOfMemory, message: "Cannot allocate memory" }"#,
        ] {
            assert!(of_panic(words).is_some(), "{words}");
        }
        assert_eq!(of_panic("index out of bounds: the len is 3 but the index is 7"), None);
    }
}
