//! The real binary in a folder, what it said, and the small things that it is given: a tiny config, one tiny trained
//! run, WAVs and manifests.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::test_data::skip;

/// What a run of the program came to.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Of any finished run of the program: no panic and no backtrace may be seen.
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
        for word in ["panicked", "RUST_BACKTRACE", "stack backtrace", "a fault of the program"] {
            assert!(!said.stderr.contains(word), "{}", said.stderr);
        }
        said
    }

    /// Success.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// A failure with this code whose message has all of these parts.
    #[track_caller]
    pub fn bad(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let message = self.message();
        for part in parts {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        self
    }

    /// As [`Said::bad`], in one line.
    #[track_caller]
    pub fn bad_line(self, code: i32, parts: &[&str]) -> Self {
        let said = self.bad(code, parts);
        assert_eq!(said.message().lines().count(), 1, "{}", said.message());
        said
    }

    /// What is said from `error:` on.
    pub fn message(&self) -> &str {
        self.stderr.find("error: ").map_or("", |start| &self.stderr[start..])
    }

    /// The lines of standard output, each a JSON value.
    #[track_caller]
    pub fn rows(&self) -> Vec<Value> {
        lines(&self.stdout)
    }
}

/// JSON Lines.
#[track_caller]
pub fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// JSON Lines of a file.
#[track_caller]
pub fn lines_of(path: &Path) -> Vec<Value> {
    lines(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The keys of a JSON object, in its order.
#[track_caller]
pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

/// The program, not yet started, in a folder.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clasp"));
    command.current_dir(folder).env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    command
}

/// A command under the rules for other users than root, also where root runs the tests: `setpriv` with `options` starts
/// it then. `None`, with the test listed as skipped, where the system refuses that.
pub fn as_user(options: &[&str], program: &str) -> Option<Command> {
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        return Some(Command::new(program));
    }
    let wrapped = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(options).arg("--").arg(program);
        command
    };
    if !wrapped("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        skip("root cannot give up its rights here (setpriv)");
        return None;
    }
    Some(wrapped(program))
}

/// For [`as_user`]: permissions of files hold, and what is root's stays within reach.
pub const PERMISSIONS_HOLD: &[&str] = &["--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"];

/// For [`as_user`]: limits of processes hold, which root does not have, and every folder stays within reach.
pub const LIMITS_HOLD: &[&str] =
    &["--reuid=65534", "--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"];

/// Whether a process handles SIGTERM by now: bit 14 of the signals that it catches (proc(5)).
pub fn catches_term(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(str::trim);
    caught.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & 1 << 14 != 0)
}

/// Runs the program in a folder.
#[track_caller]
pub fn clasp(folder: &Path, words: &[&str]) -> Said {
    Said::of(&program(folder).args(words).output().unwrap())
}

/// Runs the program with something on standard input.
#[track_caller]
pub fn clasp_with_input(folder: &Path, words: &[&str], input: &[u8]) -> Said {
    let path = folder.join("standard-input");
    fs::write(&path, input).unwrap();
    Said::of(&program(folder).args(words).stdin(fs::File::open(path).unwrap()).output().unwrap())
}

/// Encoders as small as they can be, one epoch of six steps: less than a second.
pub const ENCODERS: &str = r"
[text.config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
max_position_embeddings = 66
type_vocab_size = 1
[speech.config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
conv_dim = [8, 8, 8, 8, 8, 8, 8]
conv_kernel = [10, 3, 3, 3, 3, 2, 2]
conv_stride = [5, 2, 2, 2, 2, 2, 2]
num_conv_pos_embeddings = 4
num_conv_pos_embedding_groups = 2
";

/// The rest of the tiny config. Dropout and `SpecAugment` are on.
pub const REST: &str = r#"
[text]
tokenizer = "train"
vocab_size = 300
[speech]
freeze_feature_encoder = false
[model.fusion]
split_heads = 2
hidden_size = 16
layers = 1
attention_heads = 2
feed_forward = 16
[train]
epochs = 1
batch_size = 4
learning_rate = 1e-3
[run]
dir = "run"
device = "cpu"
"#;

/// The tiny config on data of the program's own making: 24 utterances to train on, 8 of dev, 16 of test.
pub fn demo_config() -> String {
    format!("[data.demo]\nutterances = 48\n{ENCODERS}{REST}")
}

/// The tiny config on the corpus of [`tiny_run`].
pub fn own_config() -> String {
    let corpus = tiny_run().join("corpus");
    let corpus = corpus.display();
    format!("[data]\ntrain = \"{corpus}/train.jsonl\"\ndev = \"{corpus}/dev.jsonl\"\n{ENCODERS}{REST}")
}

/// A fresh folder that holds the tiny config on the corpus of [`tiny_run`] as `tiny.toml`.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tiny.toml"), own_config()).unwrap();
    folder
}

/// A finished run with a test report that all tests share; only its report of `dev` and uses of `test` may change.
pub fn tiny_run() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        // Beside the binary: what a test process leaves there the next one replaces.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tiny");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("tiny.toml"), demo_config()).unwrap();
        clasp(&folder, &["train", "--config", "tiny.toml", "--set", "run.test_at_end=true"]).good();
        folder.join("run")
    })
}

/// The shared run, as an argument.
pub fn checkpoint() -> &'static str {
    tiny_run().to_str().unwrap()
}

/// An audio file of the shared corpus, as `test-0001`.
pub fn audio(name: &str) -> String {
    tiny_run().join(format!("corpus/audio/{name}.wav")).display().to_string()
}

/// A copy of a folder of plain files.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A mono WAV at 16 kHz: a header of 44 bytes, then the samples. `claimed` is what the header says of their bytes.
pub fn wav(format: u16, bits: u16, data: &[u8], claimed: u32) -> Vec<u8> {
    let block = bits / 8;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((claimed + 36).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0");
    bytes.extend(format.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(16_000_u32.to_le_bytes());
    bytes.extend((16_000 * u32::from(block)).to_le_bytes());
    bytes.extend(block.to_le_bytes());
    bytes.extend(bits.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(claimed.to_le_bytes());
    bytes.extend(data);
    bytes
}

/// As many 16-bit samples of a tone.
pub fn tone(samples: usize) -> Vec<u8> {
    let values = (0_u16..).take(samples).map(|n| (f32::from(n) * 0.1).sin() * 8000.0);
    #[expect(clippy::cast_possible_truncation, reason = "at most 8000")]
    values.flat_map(|value| (value as i16).to_le_bytes()).collect()
}
