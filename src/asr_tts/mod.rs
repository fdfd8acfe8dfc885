//! What supplies a missing modality by a command of the user's: `--asr` turns a row's speech into text, `--tts` its
//! text into speech. What a command gave is kept in a cache by the content it was given, so it runs once for each.
//!
//! A command is a line of `sh`. Its input is an argument of the shell and never a part of the line, so that no text and
//! no path can become a command.

mod problem;

use std::array;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{self, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use problem::{AsrTtsError, CommandProblem, Kind, UserCommand};
use sha2::{Digest as _, Sha256};

use crate::data::manifest::Row;
use crate::data::{AudioProblem, DataError, SAMPLE_RATE, audio};
use crate::eval::predictions::Origin;
use crate::files::{AtomicFile, FileError, replace_file, tail};
use crate::hash::hexadecimal;
use crate::inference::predictor::Input;
use problem::MAX_TEXT_BYTES;

/// How many bytes from the end of a command's standard error are looked at for its last line.
const LAST_WORDS_BYTES: u64 = 4096;

/// What a line of `sh` must not end in: the input would be the next command instead of an argument of this one.
const OPEN_ENDS: [&str; 5] = [";", "&", "|", "(", "{"];

/// Content has a lock by the first byte of its hash: two rows of the same content wait for each other.
const LOCKS: usize = 256;

/// The commands that supply what is missing, and their cache.
#[derive(Debug)]
pub struct AsrTts {
    asr: Option<UserCommand>,
    tts: Option<UserCommand>,
    cache: PathBuf,
    locks: [Mutex<()>; LOCKS],
}

impl AsrTts {
    /// Of the commands of `--asr` and `--tts`, with a folder for what they gave. `None` if no command is given.
    ///
    /// # Errors
    /// [`AsrTtsError::Flag`], [`AsrTtsError::Cache`].
    pub fn new(asr: Option<&str>, tts: Option<&str>, cache: &Path) -> Result<Option<Self>, AsrTtsError> {
        let asr = asr.map(|line| user_command(Kind::Asr, line)).transpose()?;
        let tts = tts.map(|line| user_command(Kind::Tts, line)).transpose()?;
        if asr.is_none() && tts.is_none() {
            return Ok(None);
        }
        // Absolute, so that no path that a command gets can begin with a dash.
        let cache = path::absolute(cache).unwrap_or_else(|_| cache.to_owned());
        for command in [&asr, &tts].into_iter().flatten() {
            let folder = cache.join(command.kind.name());
            fs::create_dir_all(&folder)
                .map_err(|source| AsrTtsError::Cache { problem: FileError::new("create", &folder, source) })?;
        }
        Ok(Some(Self { asr, tts, cache, locks: array::from_fn(|_| Mutex::new(())) }))
    }

    /// The row with text where it had only speech, or with speech where it had only text, as far as there is a command
    /// for it; any other row as it is. Any number of threads may call this.
    ///
    /// # Errors
    /// [`AsrTtsError::Utterance`]: the row's audio cannot be read, or the command fails or prints something else. The
    /// next row may do.
    pub fn fill(&self, row: Row) -> Result<Input, AsrTtsError> {
        let mut input = Input::given(row);
        let row = &mut input.row;
        let failed =
            |problem| AsrTtsError::Utterance { id: row.id.clone(), line: row.line, problem: Box::new(problem) };
        match (&row.audio, &row.text, &self.asr, &self.tts) {
            (Some(audio), None, Some(command), _) => {
                row.text = Some(self.recognise(command, audio, row.piece()).map_err(failed)?);
                input.text = Origin::Asr;
            }
            (None, Some(text), _, Some(command)) => {
                row.audio = Some(self.speak(command, text).map_err(failed)?);
                // What was said of a recording that is not there.
                (row.start, row.end, row.duration, row.channel) = (None, None, None, None);
                input.speech = Origin::Tts;
            }
            _ => {}
        }
        Ok(input)
    }

    /// The words of the part of an audio file from `start` to `end` (seconds).
    fn recognise(&self, command: &UserCommand, audio: &Path, piece: audio::Piece) -> Result<String, CommandProblem> {
        let samples = audio::load_piece(audio, piece).map_err(CommandProblem::Audio)?.samples;
        let key = Key::new(command, |hasher| samples.iter().for_each(|sample| hasher.update(sample.to_le_bytes())));
        let _guard = self.lock(&key);
        let kept = self.path(&key, command.kind, "txt");
        // A file that was spoilt is made again.
        if let Ok(text) = fs::read_to_string(&kept) {
            return Ok(text);
        }
        let folder = std::env::temp_dir();
        let wav = tempfile::Builder::new()
            .prefix("clasp-")
            .suffix(".wav")
            .tempfile_in(path::absolute(&folder).unwrap_or_else(|_| folder.clone()))
            .map_err(file_problem("create a file in", &folder))?;
        audio::write_wav(wav.path(), &samples, SAMPLE_RATE).map_err(CommandProblem::Audio)?;
        let mut printed = temporary()?;
        run(command, wav.path().as_os_str(), &printed)?;
        let text = one_line(command, &mut printed)?;
        replace_file(&kept, text.as_bytes()).map_err(CommandProblem::File)?;
        Ok(text)
    }

    /// An audio file of the cache in which a text is said.
    fn speak(&self, command: &UserCommand, text: &str) -> Result<PathBuf, CommandProblem> {
        if text.contains('\0') {
            return Err(CommandProblem::Nul { command: command.clone() });
        }
        let key = Key::new(command, |hasher| hasher.update(text));
        let _guard = self.lock(&key);
        let kept = self.path(&key, command.kind, "wav");
        if kept.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0) {
            return Ok(kept);
        }
        let wav = AtomicFile::create(&kept).map_err(CommandProblem::File)?;
        // A text with a leading dash would be an option of the command; the space is not heard.
        let argument = if text.starts_with('-') { format!(" {text}") } else { text.to_owned() };
        run(command, OsStr::new(&argument), wav.file())?;
        check_wav(command, wav.path())?;
        wav.commit().map_err(CommandProblem::File)?;
        Ok(kept)
    }

    fn lock(&self, key: &Key) -> MutexGuard<'_, ()> {
        // Nothing is kept under a lock that a panic could leave half done.
        self.locks[usize::from(key.first)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: &Key, kind: Kind, extension: &str) -> PathBuf {
        self.cache.join(kind.name()).join(format!("{}.{extension}", key.name))
    }
}

/// What content is kept under.
struct Key {
    /// SHA-256 in hexadecimal.
    name: String,
    /// Its first byte.
    first: u8,
}

impl Key {
    fn new(command: &UserCommand, content: impl FnOnce(&mut Sha256)) -> Self {
        let mut hasher = Sha256::new();
        // Neither a kind nor a command can hold a NUL, so no two inputs run into each other.
        for part in ["clasp supply 1", command.kind.name(), &command.line] {
            hasher.update(part);
            hasher.update([0]);
        }
        content(&mut hasher);
        let digest: [u8; 32] = hasher.finalize().into();
        Self { name: hexadecimal(&digest), first: digest[0] }
    }
}

fn user_command(kind: Kind, line: &str) -> Result<UserCommand, AsrTtsError> {
    let refused = |reason| Err(AsrTtsError::Flag { kind, reason });
    // A line end behind the command would make its input the next command.
    let line = line.trim();
    if line.is_empty() {
        return refused("is empty; name a command".to_owned());
    }
    if line.contains('\0') {
        return refused("has a NUL character; remove it".to_owned());
    }
    match OPEN_ENDS.iter().find(|end| line.ends_with(**end)) {
        Some(end) => {
            refused(format!("ends in `{end}`, so that its input would be no argument of it; put it into a script"))
        }
        None => Ok(UserCommand { kind, line: line.to_owned() }),
    }
}

/// Runs a command with one more argument and nothing on its standard input; what it prints goes to `output`.
fn run(command: &UserCommand, argument: &OsStr, output: &File) -> Result<(), CommandProblem> {
    // Files and not pipes: a command cannot fill the memory, and one that leaves a server behind is not waited for.
    let errors = temporary()?;
    let not_started = |cause| CommandProblem::NotStarted { command: command.clone(), cause };
    let (output, standard_error) = (output.try_clone(), errors.try_clone());
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{} \"$@\"", command.line))
        // The name under which the shell itself complains.
        .arg("clasp")
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(output.map_err(not_started)?)
        .stderr(standard_error.map_err(not_started)?)
        .status()
        .map_err(not_started)?;
    if status.success() {
        return Ok(());
    }
    let last_words = last_line(&errors).unwrap_or_default();
    Err(CommandProblem::Failed { command: command.clone(), status, last_words })
}

/// A file without a name, which is gone once it is closed.
fn temporary() -> Result<File, CommandProblem> {
    tempfile::tempfile().map_err(file_problem("create a file in", &std::env::temp_dir()))
}

fn file_problem(action: &'static str, path: &Path) -> impl Fn(io::Error) -> CommandProblem {
    let path = path.to_owned();
    move |source| CommandProblem::File(FileError::new(action, &path, source))
}

/// The last line of a file that says something.
fn last_line(file: &File) -> io::Result<String> {
    let text = tail(file, LAST_WORDS_BYTES)?;
    Ok(text.split(['\n', '\r']).map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned())
}

/// The one line that a file holds, without space around it; empty for an empty file.
fn one_line(command: &UserCommand, file: &mut File) -> Result<String, CommandProblem> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes))
        .map_err(file_problem("read", Path::new("the output of a command")))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(CommandProblem::LongText { command: command.clone() });
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| CommandProblem::NotUtf8 { command: command.clone(), byte: error.valid_up_to() + 1 })?;
    let text = text.trim();
    match text.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).count() {
        0 | 1 => Ok(text.to_owned()),
        lines => Err(CommandProblem::ManyLines { command: command.clone(), lines }),
    }
}

/// Reads the whole file, because one that cannot be used later must not be kept.
fn check_wav(command: &UserCommand, path: &Path) -> Result<(), CommandProblem> {
    let command = || command.clone();
    match audio::load(path, None, None) {
        Ok(_) => Ok(()),
        Err(DataError::Audio { problem: AudioProblem::Empty, .. }) => {
            Err(CommandProblem::Silent { command: command() })
        }
        Err(DataError::Audio { problem, .. }) => Err(CommandProblem::NoAudio { command: command(), problem }),
        Err(other) => Err(CommandProblem::Audio(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    /// Texts that would do harm as a part of a command.
    const HOSTILE: [&str; 8] = [
        "it's \"quoted\" `touch HARM`",
        "$(touch HARM) ${HOME} $1 $@",
        "'; touch HARM; '",
        "\"; touch HARM; \"",
        "two\nlines\n touch HARM",
        "a \\ backslash \\",
        "* ? [a-z] ~ ! & | > HARM",
        "ünï — 話す",
    ];

    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn shown(&self, name: &str) -> String {
            self.path(name).display().to_string()
        }

        /// A made-up recording of one second.
        fn wav(&self, name: &str) -> PathBuf {
            let samples: Vec<f32> = (0..16_000_u16).map(|n| (f32::from(n) * 0.1).sin() / 2.0).collect();
            audio::write_wav(&self.path(name), &samples, SAMPLE_RATE).unwrap();
            self.path(name)
        }

        fn supply(&self, asr: Option<&str>, tts: Option<&str>) -> AsrTts {
            AsrTts::new(asr, tts, &self.path("cache")).unwrap().unwrap()
        }

        fn asr(&self, command: &str) -> AsrTts {
            self.supply(Some(command), None)
        }

        fn tts(&self, command: &str) -> AsrTts {
            self.supply(None, Some(command))
        }

        /// A command that calls `body`, its input being `$1`, and leaves a line in the file `calls`.
        fn counted(&self, body: &str) -> String {
            format!("called() {{ echo >> '{}'; {body}; }}; called", self.shown("calls"))
        }

        fn calls(&self) -> usize {
            fs::read(self.path("calls")).map_or(0, |bytes| bytes.len())
        }

        /// A command that keeps its input in the file `seen` and prints the recording `good.wav`.
        fn speaker(&self) -> String {
            self.wav("good.wav");
            self.counted(&format!("printf %s \"$1\" > '{}'; cat '{}'", self.shown("seen"), self.shown("good.wav")))
        }

        fn kept(&self, kind: &str) -> Vec<PathBuf> {
            let entries = fs::read_dir(self.path("cache").join(kind)).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        }
    }

    fn spoken(audio: &Path) -> Row {
        Row { id: "a".into(), audio: Some(audio.to_owned()), line: 3, ..Row::default() }
    }

    fn written(text: &str) -> Row {
        Row { id: "b".into(), text: Some(text.to_owned()), line: 4, ..Row::default() }
    }

    fn failure(supply: &AsrTts, row: Row) -> String {
        let message = format!("{:#}", anyhow::Error::new(supply.fill(row).unwrap_err()));
        assert_eq!(message.lines().count(), 1, "{message}");
        message
    }

    #[test]
    fn without_a_command_there_is_nothing() {
        assert!(AsrTts::new(None, None, Path::new("cache")).unwrap().is_none());
    }

    #[test]
    fn speech_gets_text_and_nothing_else_changes() {
        let place = Place::new();
        let row = Row { start: Some(0.25), label: Some("sad".into()), ..spoken(&place.wav("a.wav")) };
        let input = place.asr("printf ' so it goes\\r\\n' && :").fill(row.clone()).unwrap();
        assert_eq!((input.text, input.speech), (Origin::Asr, Origin::Given));
        assert_eq!(input.row, Row { text: Some("so it goes".into()), ..row });
    }

    #[test]
    fn the_command_gets_a_wav_of_the_part_between_start_and_end() {
        let place = Place::new();
        let heard = place.shown("heard.wav");
        let supply = place.asr(&format!("keep() {{ cp \"$1\" '{heard}'; }}; keep"));
        let row = Row { start: Some(0.25), end: Some(0.5), ..spoken(&place.wav("a.wav")) };
        assert_eq!(supply.fill(row).unwrap().row.text.as_deref(), Some(""));
        let reader = hound::WavReader::open(&heard).unwrap();
        let found = (reader.spec().channels, reader.spec().sample_rate, reader.duration());
        assert_eq!(found, (1, 16_000, 4_000));
        let expected = audio::load(&place.path("a.wav"), Some(0.25), Some(0.5)).unwrap().samples;
        let found = audio::load(Path::new(&heard), None, None).unwrap().samples;
        assert!(expected.iter().zip(&found).all(|(x, y)| (x - y).abs() < 1e-4));
    }

    #[test]
    fn the_wav_is_gone_afterwards() {
        let place = Place::new();
        let input = place.asr("echo").fill(spoken(&place.wav("a.wav"))).unwrap();
        let path = input.row.text.unwrap();
        let path = Path::new(&path);
        assert!(path.is_absolute() && path.extension() == Some(OsStr::new("wav")), "{}", path.display());
        assert!(!path.exists());
    }

    #[test]
    fn text_gets_speech_and_what_was_said_of_a_recording_goes() {
        let place = Place::new();
        let row = Row { start: Some(1.0), end: Some(2.0), duration: Some(9.0), ..written("so it goes") };
        let input = place.tts(&place.speaker()).fill(row).unwrap();
        assert_eq!((input.text, input.speech), (Origin::Given, Origin::Tts));
        let audio = input.row.audio.clone().unwrap();
        assert_eq!(input.row, Row { audio: Some(audio.clone()), ..written("so it goes") });
        assert_eq!(fs::read(&audio).unwrap(), fs::read(place.path("good.wav")).unwrap());
        assert_eq!(place.kept("tts"), [audio]);
    }

    #[test]
    fn rows_that_lack_nothing_or_all_stay_as_they_are() {
        let place = Place::new();
        let supply = place.supply(Some("exit 1;:"), Some("exit 1;:"));
        let both = Row { text: Some(String::new()), ..spoken(Path::new("missing.wav")) };
        for (row, text, speech) in [
            (both, Origin::Given, Origin::Given),
            (Row { id: "c".into(), ..Row::default() }, Origin::Absent, Origin::Absent),
        ] {
            let input = supply.fill(row.clone()).unwrap();
            assert_eq!((input.row, input.text, input.speech), (row, text, speech));
        }
        let input = place.tts("exit 1;:").fill(spoken(Path::new("missing.wav"))).unwrap();
        assert_eq!((input.text, input.speech), (Origin::Absent, Origin::Given));
        let input = place.asr("exit 1;:").fill(written("x")).unwrap();
        assert_eq!((input.text, input.speech), (Origin::Given, Origin::Absent));
    }

    #[test]
    fn the_same_content_runs_a_command_once() {
        let place = Place::new();
        let command = place.counted("echo so it goes");
        let (first, copy) = (place.wav("a.wav"), place.path("copy.wav"));
        fs::copy(&first, &copy).unwrap();
        let text = |row| place.asr(&command).fill(row).unwrap().row.text.unwrap();
        assert_eq!((text(spoken(&first)).as_str(), place.calls()), ("so it goes", 1));
        assert_eq!((text(spoken(&copy)).as_str(), place.calls()), ("so it goes", 1));
        // Other samples, another command, a kept text that was spoilt.
        text(Row { start: Some(0.5), ..spoken(&first) });
        assert_eq!(place.calls(), 2);
        place.asr(&format!("{command} more")).fill(spoken(&first)).unwrap();
        assert_eq!((place.calls(), place.kept("asr").len()), (3, 3));
        place.kept("asr").iter().for_each(|kept| fs::write(kept, [0xFF]).unwrap());
        assert_eq!((text(spoken(&first)).as_str(), place.calls()), ("so it goes", 4));
        let place = Place::new();
        let command = place.speaker();
        for text in ["yes", "yes", "no", "yes"] {
            place.tts(&command).fill(written(text)).unwrap();
        }
        assert_eq!((place.calls(), place.kept("tts").len()), (2, 2));
    }

    #[test]
    fn an_empty_text_is_kept_too() {
        let place = Place::new();
        let supply = place.asr(&place.counted(":"));
        let audio = place.wav("a.wav");
        for _ in 0..2 {
            assert_eq!(supply.fill(spoken(&audio)).unwrap().row.text.as_deref(), Some(""));
        }
        assert_eq!(place.calls(), 1);
    }

    #[test]
    fn threads_wait_for_the_same_content() {
        let place = Place::new();
        let supply = place.tts(&format!("sleep 0.2; {}", place.speaker()));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| supply.fill(written("yes")).unwrap());
            }
        });
        assert_eq!(place.calls(), 1);
    }

    #[test]
    fn no_text_becomes_a_command() {
        let place = Place::new();
        let supply = place.tts(&format!("cd '{}'; {}", place.shown(""), place.speaker()));
        for text in HOSTILE {
            supply.fill(written(text)).unwrap();
            assert_eq!(fs::read_to_string(place.path("seen")).unwrap(), text);
        }
        // Nor an option of one.
        supply.fill(written("-n --help")).unwrap();
        assert_eq!(fs::read_to_string(place.path("seen")).unwrap(), " -n --help");
        assert!(!place.path("HARM").exists());
        let message = failure(&supply, written("a\0b"));
        assert!(message.contains("a NUL character"), "{message}");
        let message = failure(&supply, written(&"so it goes ".repeat(20_000)));
        assert!(message.contains("cannot be started (Argument list too long"), "{message}");
    }

    #[test]
    fn no_path_becomes_a_command() {
        for name in HOSTILE.iter().chain(&["-rf"]).map(|name| name.replace('/', "")) {
            let place = Place::new();
            let audio = place.wav(&format!("{name}.wav"));
            let (asr, tts) = (format!("cd '{}' && wc -c <", place.shown("")), place.speaker());
            let supply = AsrTts::new(Some(&asr), Some(&tts), &place.path(&name)).unwrap().unwrap();
            assert_eq!(supply.fill(spoken(&audio)).unwrap().row.text.as_deref(), Some("32044"));
            let made = supply.fill(written("yes")).unwrap().row.audio.unwrap();
            assert!(made.starts_with(place.path(&name)) && made.is_file());
            assert!(!place.path("HARM").exists());
        }
    }

    #[test]
    fn nothing_is_on_standard_input() {
        let place = Place::new();
        let input = place.asr("wc -c < /dev/stdin; :").fill(spoken(&place.wav("a.wav"))).unwrap();
        assert_eq!(input.row.text.as_deref(), Some("0"));
    }

    #[test]
    fn a_command_that_fails_is_named_with_its_exit_code_and_last_words() {
        let place = Place::new();
        let audio = place.wav("a.wav");
        let asr = |command: &str| failure(&place.asr(command), spoken(&audio));
        assert_eq!(
            asr("fail() { echo first >&2; printf '10%%\\r no model \\n\\n' >&2; exit 3; }; fail"),
            "utterance `a` (line 3): the --asr command `fail() { echo first >&2; printf '10%%\\r no model \\n\\n' >&2; \
             exit 3; }; fail` failed with exit code 3 (it said: no model); try it by hand on a WAV and correct it"
        );
        let silent = asr("exit 4 #");
        assert!(silent.contains("exit code 4 (it said nothing on standard error)"), "{silent}");
        let missing = asr("no-such-program --fast");
        assert!(missing.contains("`no-such-program --fast` failed with exit code 127 (it said: "), "{missing}");
        assert!(missing.ends_with("not found); install the program, or give its whole path"), "{missing}");
        let folder = asr("/");
        assert!(
            folder.contains("exit code 126") && folder.ends_with("make the program executable (chmod +x)"),
            "{folder}"
        );
        let killed = asr("kill -9 $$ #");
        assert!(killed.contains("failed with signal: 9"), "{killed}");
        let inner = asr("sh -c 'kill -9 $$'; exit $? #");
        assert!(inner.contains("failed with exit code 137 (signal 9)"), "{inner}");
        let syntax = asr("say \"");
        assert!(syntax.contains("failed with exit code 2"), "{syntax}");
        let long = asr(&format!("echo {} >&2\nexit 1 #", "word ".repeat(200)));
        assert!(long.chars().count() < 700 && long.contains('…'), "{long}");
        let tts = failure(&place.tts("exit 5 #"), written("yes"));
        assert!(tts.starts_with("utterance `b` (line 4): the --tts command `exit 5 #` failed"), "{tts}");
        assert!(tts.ends_with("try it by hand on this text and correct it"), "{tts}");
        assert!(place.kept("asr").is_empty() && place.kept("tts").is_empty());
    }

    #[test]
    fn a_failure_is_not_kept_and_the_next_row_goes_on() {
        let place = Place::new();
        let supply = place.asr(&format!("[ -e '{}' ] && echo fine || exit 1; :", place.shown("ready")));
        let audio = place.wav("a.wav");
        assert!(failure(&supply, spoken(&audio)).contains("exit code 1"));
        fs::write(place.path("ready"), "").unwrap();
        assert_eq!(supply.fill(spoken(&audio)).unwrap().row.text.as_deref(), Some("fine"));
    }

    #[test]
    fn what_is_no_line_of_text_is_refused() {
        let place = Place::new();
        let audio = place.wav("a.wav");
        for (command, expected) in [
            ("printf 'one\\ntwo\\nthree\\n' #", "printed 3 lines; it must print one"),
            ("printf '10%%\\rdone\\n' #", "printed 2 lines"),
            ("printf 'caf\\351\\n' #", "not valid UTF-8 (byte 4)"),
            ("head -c 2000000 /dev/zero #", "printed more than 1048576 bytes"),
        ] {
            let message = failure(&place.asr(command), spoken(&audio));
            assert!(message.contains(expected), "{message}");
        }
        assert!(place.kept("asr").is_empty());
    }

    #[test]
    fn what_is_no_wav_is_refused() {
        let place = Place::new();
        audio::write_wav(&place.path("short.wav"), &[0.0; 10], SAMPLE_RATE).unwrap();
        let short = format!("cat '{}' #", place.shown("short.wav"));
        let cut = format!("head -c 10000 '{}' #", place.wav("a.wav").display());
        for (command, expected) in [
            (":", "the --tts command `:` printed nothing; it must print a WAV"),
            ("echo", "printed no WAV that can be used: "),
            (short.as_str(), "printed no WAV that can be used: the audio is too short: 10 samples"),
            (cut.as_str(), "printed no WAV that can be used: the audio is truncated"),
        ] {
            let message = failure(&place.tts(command), written("so it goes, so it goes, so it goes, so it goes"));
            assert!(message.contains(expected), "{message}");
        }
        assert!(place.kept("tts").is_empty());
    }

    #[test]
    fn audio_that_cannot_be_read_is_the_cause() {
        let place = Place::new();
        let error = anyhow::Error::new(place.asr("echo").fill(spoken(&place.path("none.wav"))).unwrap_err());
        assert!(format!("{error:#}").contains("none.wav: no such file"), "{error:#}");
        assert!(error.chain().any(<dyn std::error::Error>::is::<DataError>));
    }

    #[test]
    fn a_flag_that_would_run_its_input_is_refused() {
        let place = Place::new();
        for (command, expected) in [
            ("", "--asr is empty"),
            (" \n", "--asr is empty"),
            ("say;\n", "--asr ends in `;`"),
            ("say &", "--asr ends in `&`"),
            ("say &&", "--asr ends in `&`"),
            ("say | ", "--asr ends in `|`"),
            ("a\0b", "--asr has a NUL"),
        ] {
            let message = AsrTts::new(Some(command), None, &place.path("cache")).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_cache_that_cannot_be_made_is_said_at_once() {
        let place = Place::new();
        fs::write(place.path("file"), "").unwrap();
        let message = AsrTts::new(Some("echo"), None, &place.path("file")).unwrap_err().to_string();
        assert!(message.contains("cannot create") && message.ends_with("in CLASP_CACHE"), "{message}");
    }
}
