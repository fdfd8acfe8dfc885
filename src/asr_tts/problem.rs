//! What goes wrong with the commands that supply a missing modality: the facts, and one line that says what to do.

use std::fmt;
use std::io;
use std::process::ExitStatus;

use crate::data::{AudioProblem, DataError};
use crate::files::FileError;

/// The most bytes that a line of recognised text may have.
pub(super) const MAX_TEXT_BYTES: u64 = 1 << 20;

/// The most characters of a command, or of what it said, in a message.
const SHOWN_CHARACTERS: usize = 200;

/// Which modality a command makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text out of speech.
    Asr,
    /// Speech out of text.
    Tts,
}

impl Kind {
    /// The name of its flag and of its folder in the cache.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Asr => "asr",
            Self::Tts => "tts",
        }
    }
}

/// A command of the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCommand {
    pub kind: Kind,
    /// The line of `sh`, without space around it.
    pub line: String,
}

impl fmt::Display for UserCommand {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "the --{} command `{}`", self.kind.name(), shown(&self.line))
    }
}

/// Why a missing modality cannot be supplied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AsrTtsError {
    /// A flag whose value is no command.
    #[error("--{} {reason}", kind.name())]
    Flag {
        kind: Kind,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The cache cannot be made.
    #[error("{problem}; name another folder for the cache in CLASP_CACHE")]
    Cache { problem: FileError },
    /// One utterance; others may do.
    #[error("utterance `{id}` (line {line})")]
    Utterance {
        /// The row's id.
        id: String,
        /// Its line in the manifest.
        line: usize,
        #[source]
        problem: Box<CommandProblem>,
    },
}

/// Why one utterance gets no text or no speech.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandProblem {
    /// The utterance's own audio cannot be read.
    #[error("its audio cannot be used")]
    Audio(#[source] DataError),
    /// A file of the cache or a temporary one.
    #[error("{0}; check the disk, or name other folders in CLASP_CACHE and TMPDIR")]
    File(FileError),
    /// No shell, or an argument that the system refuses.
    #[error("{command} cannot be started ({cause}); it needs `sh`, and a text that is not too long for an argument")]
    NotStarted { command: UserCommand, cause: io::Error },
    /// A text that no argument can hold.
    #[error("the text has a NUL character, which cannot be given to {command}; remove it")]
    Nul { command: UserCommand },
    /// The command says that it failed.
    #[error("{command} failed with {} ({}); {}", ending(*status), said(last_words), remedy(*status, command.kind))]
    Failed {
        command: UserCommand,
        status: ExitStatus,
        /// The last line of its standard error; may be empty.
        last_words: String,
    },
    /// More text than a line.
    #[error("{command} printed {lines} lines; it must print one, the text, and all else to standard error")]
    ManyLines { command: UserCommand, lines: usize },
    /// More text than anyone says.
    #[error("{command} printed more than {MAX_TEXT_BYTES} bytes; it must print one line, the text")]
    LongText { command: UserCommand },
    /// Text that is none.
    #[error("{command} printed text that is not valid UTF-8 (byte {byte}); let it print UTF-8")]
    NotUtf8 {
        command: UserCommand,
        /// The first bad byte, from 1.
        byte: usize,
    },
    /// Nothing where a WAV must be.
    #[error("{command} printed nothing; it must print a WAV to standard output")]
    Silent { command: UserCommand },
    /// Something where a WAV must be.
    #[error("{command} printed no WAV that can be used: {problem}")]
    NoAudio { command: UserCommand, problem: AudioProblem },
}

/// How a process ended. A shell reports a signal that ended what it ran as 128 and the signal's number.
fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(code @ 129..=159) => format!("exit code {code} (signal {})", code - 128),
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

fn said(last_words: &str) -> String {
    if last_words.is_empty() {
        "it said nothing on standard error".to_owned()
    } else {
        format!("it said: {}", shown(last_words))
    }
}

fn remedy(status: ExitStatus, kind: Kind) -> &'static str {
    match (status.code(), kind) {
        (Some(127), _) => "install the program, or give its whole path",
        (Some(126), _) => "make the program executable (chmod +x)",
        (_, Kind::Asr) => "try it by hand on a WAV and correct it",
        (_, Kind::Tts) => "try it by hand on this text and correct it",
    }
}

/// On one line, and not too long.
fn shown(text: &str) -> String {
    let mut characters = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    let mut shown: String = characters.by_ref().take(SHOWN_CHARACTERS).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}
