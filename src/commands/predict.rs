//! `clasp predict`: the label of one utterance, or of every row of a manifest. A bad row becomes a result with `error`,
//! the others go on, and the exit code is 3.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader, IsTerminal as _, Write, stdin},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rayon::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{BATCHES_AT_ONCE, count, end_at_signals, output::Output as Target, tell_counts, write_output};
use clasp::{
    asr_tts::AsrTts,
    cli::PredictArguments,
    data::{
        DataError, LineProblem,
        batch::BatchOptions,
        manifest::{self, Row},
    },
    device::{self, Task},
    error,
    eval::predictions::{Failure, Origins, Prediction, Row as Output},
    eval::report::InputCounts,
    files::{AtomicFile, remove_unfinished_beside, user_cache},
    inference::predictor::{Input, Predictor},
    ops::Ops,
    terminal::{Event, Progress},
};

/// Bytes of a manifest that are read at once.
const PIECE: usize = 1 << 16;

/// The id of an utterance that was given by flags.
const ONLY: &str = "utterance";

/// Runs `clasp predict`.
///
/// # Errors
/// A checkpoint that cannot be used; a manifest or an output that cannot be opened.
pub fn run(arguments: &PredictArguments) -> anyhow::Result<u8> {
    end_at_signals()?;
    let chosen = device::choose(arguments.device)?;
    device::dispatch(chosen, PredictTask(arguments))
}

struct PredictTask<'a>(&'a PredictArguments);

impl Task for PredictTask<'_> {
    type Output = anyhow::Result<u8>;

    fn run<B: Ops>(self, device: &B::Device) -> Self::Output {
        let arguments = self.0;
        let target = arguments.output.as_deref().map_or_else(Target::stdout, |path| Target::new("--output", path));
        target.is_not_of_checkpoint(&arguments.checkpoint)?;
        target.is_not_in_run(&arguments.checkpoint)?;
        if let Some(manifest) = &arguments.manifest {
            target.is_not_manifest(manifest)?;
        }
        if let Some(audio) = &arguments.audio {
            target.is_not("the file of --audio", audio)?;
        }
        // Both ends are opened before the weights are loaded.
        let lines = arguments.manifest.as_deref().map(Lines::open).transpose()?;
        let mut sink = Sink::open(arguments.output.as_deref())?;
        let supply = AsrTts::new(arguments.missing.asr.as_deref(), arguments.missing.tts.as_deref(), &user_cache())?;
        let predictor = Predictor::<B>::load(&arguments.checkpoint, device)?;
        let batch_size = count(arguments.batch_size);
        let mut session = Session { predictor, supply, batch_size, counts: InputCounts::default(), done: 0, failed: 0 };
        match lines {
            Some(lines) => session.stream(lines, &target, &mut sink)?,
            None => session.one(arguments, &mut sink)?,
        }
        sink.close()?;
        session.tell_counts();
        Ok(if session.failed > 0 { error::DATA } else { error::SUCCESS })
    }
}

struct Session<B: Ops> {
    predictor: Predictor<B>,
    supply: Option<AsrTts>,
    batch_size: usize,
    counts: InputCounts,
    done: usize,
    failed: usize,
}

impl<B: Ops> Session<B> {
    fn one(&mut self, arguments: &PredictArguments, sink: &mut Sink) -> anyhow::Result<()> {
        let row = Row {
            id: arguments
                .audio
                .as_deref()
                .and_then(Path::file_stem)
                .map_or_else(|| ONLY.to_owned(), |stem| stem.to_string_lossy().into_owned()),
            audio: arguments.audio.clone(),
            text: arguments.text.clone(),
            line: 1,
            ..Row::default()
        };
        let is_read_by_people = sink.is_stdout() && !arguments.json && std::io::stdout().is_terminal();
        // There is no manifest whose line could be named.
        let place = format!("utterance `{}` (line {}): ", row.id, row.line);
        for mut output in self.answer(vec![Ok(row)]) {
            if let Output::Failure(failure) = &mut output
                && let Some(problem) = failure.error.strip_prefix(&place)
            {
                failure.error = problem.to_owned();
            }
            match output {
                Output::Prediction(prediction) if is_read_by_people => write_output(&sentence(&prediction))?,
                Output::Failure(failure) if sink.is_stdout() && !arguments.json => {
                    return Err(DataError::Unusable { problem: failure.error }.into());
                }
                output => sink.write(&output)?,
            }
        }
        Ok(())
    }

    /// Reads, answers and writes a few batches at a time, in the order of the input.
    fn stream(&mut self, mut lines: Lines, target: &Target, sink: &mut Sink) -> anyhow::Result<()> {
        let mut progress = Progress::stderr(sink.is_stdout());
        loop {
            let rows = lines.next(self.batch_size * BATCHES_AT_ONCE)?;
            if rows.is_empty() {
                break;
            }
            rows.iter().flatten().try_for_each(|row| target.is_not_recording(row))?;
            for output in self.answer(rows) {
                sink.write(&output)?;
            }
            sink.flush()?;
            progress.handle(&Event::Count { what: "predicting", done: self.done, of: None });
        }
        progress.handle(&Event::Finished);
        if self.done == 0 {
            return Err(DataError::EmptyManifest { path: lines.name }.into());
        }
        Ok(())
    }

    fn answer(&mut self, rows: Vec<Result<Row, Failure>>) -> Vec<Output> {
        let supply = self.supply.as_ref();
        let inputs: Vec<Result<Input, Failure>> = rows.into_par_iter().map(|row| supplied(row?, supply)).collect();
        let good: Vec<Input> = inputs.iter().filter_map(|input| input.as_ref().ok().cloned()).collect();
        let options = BatchOptions { batch_size: self.batch_size, batch_seconds: None };
        let mut answers = self.predictor.predict(&good, options, &mut self.counts).into_iter();
        let outputs: Vec<Output> = inputs
            .into_iter()
            .filter_map(|input| match input {
                Ok(_) => answers.next(),
                Err(failure) => Some(Output::Failure(failure)),
            })
            .collect();
        self.done += outputs.len();
        self.failed += outputs.iter().filter(|output| matches!(output, Output::Failure(_))).count();
        outputs
    }

    fn tell_counts(&self) {
        let mut progress = Progress::stderr(false);
        if self.failed > 0 {
            let words = format!("{} of {} utterances could not be read: each has its `error`", self.failed, self.done);
            progress.handle(&Event::Message(&format!("note: {words}")));
        }
        tell_counts(&mut progress, &self.counts, self.done);
    }
}

fn supplied(row: Row, supply: Option<&AsrTts>) -> Result<Input, Failure> {
    let id = row.id.clone();
    match supply {
        Some(supply) => supply
            .fill(row)
            .map_err(|problem| Failure { id: Some(id), error: format!("{:#}", anyhow::Error::new(problem)) }),
        None => Ok(Input::given(row)),
    }
}

/// One prediction for people to read.
fn sentence(prediction: &Prediction) -> String {
    let classified = |name: &str, classification: &clasp::eval::predictions::Classification| {
        let probabilities: Vec<String> = classification
            .probabilities
            .0
            .iter()
            .map(|(label, probability)| format!("{label} {probability:.3}"))
            .collect();
        format!("{name:<12} {}  ({})\n", classification.label, probabilities.join(", "))
    };
    let mut text = classified("prediction", &prediction.fusion);
    for (name, classification) in [("text only", &prediction.text_only), ("speech only", &prediction.speech_only)] {
        if let Some(classification) = classification {
            text.push_str(&classified(name, classification));
        }
    }
    let Origins { text: from_text, speech: from_speech } = prediction.provenance;
    let _ = writeln!(text, "{:<12} text {from_text}, speech {from_speech}", "inputs");
    text
}

/// The lines of a manifest, also of standard input.
struct Lines {
    input: BufReader<File>,
    /// What was read and is no whole line yet.
    rest: Vec<u8>,
    base: PathBuf,
    name: PathBuf,
    line: usize,
    /// The line that each id was first on.
    seen_at: HashMap<String, usize>,
}

impl Lines {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let (input, base, name) = if path == Path::new("-") {
            let name = PathBuf::from("standard input");
            let input = stdin().as_fd().try_clone_to_owned().map_err(|error| DataError::file(&name, &error))?;
            (File::from(input), PathBuf::new(), name)
        } else {
            let file = File::open(path).map_err(|error| DataError::file(path, &error))?;
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                let error = std::io::Error::from(std::io::ErrorKind::IsADirectory);
                return Err(DataError::file(path, &error).into());
            }
            (file, path.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf), path.to_owned())
        };
        let input = BufReader::with_capacity(PIECE, input);
        Ok(Self { input, rest: Vec::new(), base, name, line: 0, seen_at: HashMap::new() })
    }

    /// Up to `most` further rows, and fewer where the sender waits: then those that are there are to be answered. None
    /// at the end. Empty lines are passed over.
    fn next(&mut self, most: usize) -> anyhow::Result<Vec<Result<Row, Failure>>> {
        let mut rows = Vec::new();
        while rows.len() < most {
            let Some(line) = self.next_line(!rows.is_empty())? else { break };
            self.line += 1;
            let mut bytes: &[u8] = &line;
            if self.line == 1 {
                bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
            }
            let bytes = bytes.trim_ascii();
            if !bytes.is_empty() {
                let row = manifest::parse_line(bytes, self.line, &self.base).and_then(|row| self.unique(row));
                rows.push(
                    row.map_err(|problem| Failure { id: manifest::id_of_line(bytes), error: problem.to_string() }),
                );
            }
        }
        Ok(rows)
    }

    /// The next line; none at the end, and with `is_hurried` where nothing is there to be read. A line without an end is
    /// one only at the end of the input.
    fn next_line(&mut self, is_hurried: bool) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            let read = self.input.buffer();
            let end = read.iter().position(|&byte| byte == b'\n').map(|place| place + 1);
            let taken = end.unwrap_or(read.len());
            self.rest.extend_from_slice(&read[..taken]);
            self.input.consume(taken);
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.rest)));
            }
            if is_hurried && !self.is_readable() {
                return Ok(None);
            }
            match self.input.fill_buf() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DataError::file(&self.name, &error).into()),
                Ok([]) => return Ok(Some(std::mem::take(&mut self.rest)).filter(|line| !line.is_empty())),
                Ok(_) => {}
            }
        }
    }

    /// Whether a read would not wait: there is something, or the end.
    fn is_readable(&self) -> bool {
        let mut descriptors = [PollFd::new(self.input.get_ref(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // What cannot be asked is read, as a file is.
        poll(&mut descriptors, Some(&now)).map_or(true, |ready| ready > 0)
    }

    /// Refuses a row whose id was there before: nobody could tell the two results apart.
    fn unique(&mut self, row: Row) -> Result<Row, DataError> {
        match self.seen_at.entry(row.id.clone()) {
            Entry::Vacant(place) => {
                place.insert(row.line);
                Ok(row)
            }
            Entry::Occupied(first) => {
                let problem = LineProblem::DuplicateId { id: row.id, first: *first.get() };
                Err(DataError::Line { path: None, line: row.line, problem })
            }
        }
    }
}

/// Where results go.
enum Sink {
    Stdout,
    File(Box<AtomicFile>, PathBuf),
}

impl Sink {
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        Ok(match path {
            Some(path) => {
                remove_unfinished_beside(path);
                Self::File(Box::new(AtomicFile::create(path).context("--output")?), path.to_owned())
            }
            None => Self::Stdout,
        })
    }

    fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    fn write(&mut self, output: &Output) -> anyhow::Result<()> {
        let mut line = Vec::new();
        output.write_line(&mut line)?;
        match self {
            Self::Stdout => write_output(&String::from_utf8_lossy(&line))?,
            Self::File(file, path) => file.write_all(&line).with_context(|| cannot_write(path))?,
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Stdout => {}
            Self::File(file, path) => file.flush().with_context(|| cannot_write(path))?,
        }
        Ok(())
    }

    fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File(file, _) => Ok((*file).commit()?),
        }
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
