//! What is being computed, kept ready for the message of a lack of memory: when memory is gone there is none to make
//! words from.

use std::sync::Mutex;

/// Bytes of a note.
pub const LENGTH: usize = 1200;

/// What is said where no batch is being computed.
const IDLE: &str = "; leave the program more memory: end others, or raise the limit (ulimit -v, the control group's)";

/// Words in a place that is there from the start.
struct Note {
    bytes: [u8; LENGTH],
    length: usize,
}

static NOTE: Mutex<Note> = Mutex::new(Note { bytes: [0; LENGTH], length: 0 });

/// Notes what is being computed; with several devices the note is that of the last one to begin. Empty where nothing is.
pub fn set(words: &str) {
    // Made before the lock is taken: nobody may ask for memory while holding what a lack of memory is told from.
    let words = cut(words, LENGTH).as_bytes();
    if let Ok(mut note) = NOTE.lock() {
        note.bytes[..words.len()].copy_from_slice(words);
        note.length = words.len();
    }
}

/// Hands the note to a function; asks for no memory and never waits. While another thread is writing the note, it is
/// empty.
pub fn with(read: impl FnOnce(&[u8])) {
    match NOTE.try_lock() {
        Ok(note) if note.length > 0 => read(&note.bytes[..note.length]),
        Ok(_) => read(IDLE.as_bytes()),
        Err(_) => read(&[]),
    }
}

/// The first bytes of some words, as many as make whole characters.
pub fn cut(words: &str, most: usize) -> &str {
    &words[..words.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_without_end_are_cut_between_characters() {
        assert_eq!((cut("ab\u{e9}", 3), cut("ab", 3)), ("ab", "ab"));
        set(&"\u{1F600}".repeat(3000));
        with(|note| assert!(std::str::from_utf8(note).is_ok() && note.len() <= LENGTH));
    }
}
