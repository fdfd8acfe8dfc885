//! Sees to the audio of a corpus: that the files are there, or, with `--convert`, that each becomes a WAV of 16 kHz,
//! one channel and 16 bits, once.
//!
//! A converted file's name is the hash of what it was made from (the file's bytes, start and end), so that a second
//! call finds it, whatever the source is called by then; it gets that name only when it is whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::json;

use crate::data::dataset::check_duration;
use crate::data::manifest::Row;
use crate::data::{DataError, FileProblem, SAMPLE_RATE, audio};
use crate::hash;
use crate::splits::Skipped;
use crate::splits::overlap::SOURCE;

use super::folder::{files_in, folders_in};

/// Part of the name of every converted file; another value where the conversion gives other samples.
const CONVERSION: &str = "16000 Hz, mono, 16 bits, 2";

/// What to do about audio.
#[derive(Clone, Debug, Default)]
pub struct AudioOptions {
    /// The folder for converted files; without one files are used as they are.
    pub convert: Option<PathBuf>,
    /// Whether utterances whose audio cannot be used are left out; otherwise they are an error.
    pub skip_bad: bool,
}

/// Checks or converts the audio of every row that names one, in parallel; `progress` receives how many files are done, and
/// of how many. Converted rows get the new file and its `duration`, and lose `start` and `end`.
///
/// # Errors
///
/// Every utterance whose audio cannot be used, unless these are left out; nothing is left; a file cannot be written.
pub fn settle(
    rows: Vec<Row>,
    options: &AudioOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<(Vec<Row>, Vec<Skipped>), DataError> {
    let found = match &options.convert {
        None => rows.into_par_iter().map(|row| check(&row).map(|()| row).map_err(Bad)).collect(),
        Some(folder) => convert(rows, folder, progress)?,
    };
    let total = found.len();
    let mut good = Vec::with_capacity(total);
    let mut problems = Vec::new();
    for result in found {
        match result {
            Ok(row) => good.push(row),
            Err(Bad(problem)) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        return Ok((good, Vec::new()));
    }
    if !options.skip_bad || good.is_empty() {
        return Err(DataError::BadAudio { total, problems });
    }
    let skipped = |problem: DataError| match problem {
        DataError::Utterance { id, problem, .. } => Skipped { id, problem: problem.to_string() },
        other => Skipped { id: String::new(), problem: other.to_string() },
    };
    Ok((good, problems.into_iter().map(skipped).collect()))
}

/// What is wrong with one utterance; not what is wrong with the disk.
struct Bad(DataError);

fn of_row(row: &Row, problem: DataError) -> DataError {
    DataError::Utterance { id: row.id.clone(), line: row.line, problem: Box::new(problem) }
}

fn check(row: &Row) -> Result<(), DataError> {
    let Some(path) = &row.audio else { return Ok(()) };
    match fs::metadata(path) {
        Ok(facts) if facts.is_file() => Ok(()),
        Ok(facts) => {
            let problem = if facts.is_dir() { FileProblem::Folder } else { FileProblem::Special };
            Err(of_row(row, DataError::File { path: path.clone(), problem }))
        }
        Err(error) => Err(of_row(row, DataError::file(path, &error))),
    }
}

fn convert(
    rows: Vec<Row>,
    folder: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Result<Row, Bad>>, DataError> {
    // Only files: opening a pipe would wait for its writer.
    let paths: BTreeSet<&Path> =
        rows.iter().filter_map(|row| row.audio.as_deref()).filter(|path| path.is_file()).collect();
    remove_partial(folder);
    let hashes: HashMap<PathBuf, Result<String, String>> = paths
        .into_par_iter()
        .map(|path| {
            let hash = hash::of_file(path).map(|(_, hash)| hash);
            (path.to_path_buf(), hash.map_err(|error| DataError::file(path, &error).to_string()))
        })
        .collect();
    // The same content twice is converted once.
    let mut pieces: BTreeMap<PathBuf, &Row> = BTreeMap::new();
    for row in &rows {
        if let Some(target) = target(row, &hashes, folder) {
            pieces.entry(target).or_insert(row);
        }
    }
    let (done, of) = (AtomicUsize::new(0), pieces.len());
    let converted: HashMap<PathBuf, Result<f64, DataError>> = pieces
        .into_par_iter()
        .map(|(target, row)| {
            let result = piece(row, &target);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, of);
            match result {
                Err(DataError::Write { path, problem }) => Err(DataError::Write { path, problem }),
                result => Ok((target, result)),
            }
        })
        .collect::<Result<_, DataError>>()?;
    let settled = |mut row: Row| {
        let Some(path) = row.audio.clone() else { return Ok(row) };
        if let Err(error) = check(&row) {
            return Err(Bad(error));
        }
        let target = target(&row, &hashes, folder);
        let Some((target, result)) = target.and_then(|target| converted.get_key_value(&target)) else {
            let reason = hashes.get(&path).and_then(|hash| hash.as_ref().err()).cloned().unwrap_or_default();
            return Err(Bad(of_row(&row, DataError::Unusable { problem: reason })));
        };
        match result {
            Ok(duration) => {
                if row.start.is_some() || row.end.is_some() {
                    // Two pieces of one recording can overlap, which nothing in the new files shows.
                    let content = hashes.get(&path).and_then(|hash| hash.as_ref().ok());
                    row.extra
                        .insert(SOURCE.to_owned(), json!({ "sha256": content, "start": row.start, "end": row.end }));
                }
                row.audio = Some(target.clone());
                row.duration = Some(*duration);
                (row.start, row.end, row.channel) = (None, None, None);
                Ok(row)
            }
            Err(problem) => Err(Bad(of_row(&row, DataError::Unusable { problem: problem.to_string() }))),
        }
    };
    Ok(rows.into_iter().map(settled).collect())
}

/// Removes what processes that are no longer there have left half written.
fn remove_partial(folder: &Path) {
    for path in folders_in(folder).unwrap_or_default().iter().flat_map(|folder| files_in(folder).unwrap_or_default()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let process = name.strip_suffix(".partial").and_then(|name| name.rsplit('.').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Where the converted audio of a row lies; `None` if its file cannot be read.
fn target(row: &Row, hashes: &HashMap<PathBuf, Result<String, String>>, folder: &Path) -> Option<PathBuf> {
    let content = hashes.get(row.audio.as_ref()?)?.as_ref().ok()?;
    let mut words = format!("{CONVERSION}\n{content}\n{:?} {:?}\n", row.start, row.end);
    if let Some(channel) = row.channel {
        let _ = writeln!(words, "{channel:?}");
    }
    let name = hash::of_bytes(words.as_bytes());
    // Not all in one folder: some systems are slow with a hundred thousand files.
    Some(folder.join(&name[..2]).join(format!("{name}.wav")))
}

/// Converts one piece unless it is there; gives its length in seconds.
fn piece(row: &Row, target: &Path) -> Result<f64, DataError> {
    let source = row.audio.as_deref().unwrap_or(Path::new(""));
    check_duration(row)?;
    if target.is_file()
        && let Ok(seconds) = audio::probe(target)
    {
        return Ok(seconds);
    }
    let samples = audio::load_piece(source, row.piece())?.samples;
    let failed = |error: std::io::Error| DataError::write(target, &error);
    fs::create_dir_all(target.parent().unwrap_or(Path::new(""))).map_err(failed)?;
    let partial = target.with_extension(format!("wav.{}.partial", std::process::id()));
    audio::write_wav(&partial, &samples, SAMPLE_RATE)?;
    fs::File::open(&partial).and_then(|file| file.sync_all()).map_err(failed)?;
    fs::rename(&partial, target).map_err(failed)?;
    audio::probe(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f32, samples: usize) -> Vec<f32> {
        #[expect(clippy::cast_precision_loss, reason = "small made-up numbers")]
        let sample = |n: usize| 0.5 * (std::f32::consts::TAU * hertz * n as f32 / 8000.0).sin();
        (0..samples).map(sample).collect()
    }

    fn row(id: &str, audio: &Path) -> Row {
        Row { id: id.to_owned(), audio: Some(audio.to_path_buf()), line: 1, ..Row::default() }
    }

    fn silent(_: usize, _: usize) {}

    #[test]
    fn every_content_is_converted_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        audio::write_wav(&at("a.wav"), &tone(440.0, 4000), 8000).unwrap();
        fs::copy(at("a.wav"), at("same.wav")).unwrap();
        audio::write_wav(&at("b.wav"), &tone(880.0, 8000), 8000).unwrap();
        let options = AudioOptions { convert: Some(at("audio")), skip_bad: false };
        let piece = Row { start: Some(0.25), end: Some(0.75), ..row("piece", &at("b.wav")) };
        let rows = vec![row("a", &at("a.wav")), row("same", &at("same.wav")), row("b", &at("b.wav")), piece];
        let told = AtomicUsize::new(0);
        let progress = |done: usize, of: usize| {
            assert!(done <= of && of == 3);
            told.fetch_add(1, Ordering::Relaxed);
        };
        let (settled, skipped) = settle(rows.clone(), &options, &progress).unwrap();
        assert_eq!((told.into_inner(), skipped.len()), (3, 0));
        assert_eq!(settled[0].audio, settled[1].audio);
        assert_ne!(settled[2].audio, settled[3].audio);
        let durations: Vec<f64> = settled.iter().map(|row| row.duration.unwrap()).collect();
        assert_eq!(durations, [0.5, 0.5, 1.0, 0.5]);
        assert_eq!((settled[3].start, settled[3].end), (None, None));
        for row in &settled {
            let path = row.audio.as_ref().unwrap();
            let specification = hound::WavReader::open(path).unwrap().spec();
            assert_eq!(
                (specification.sample_rate, specification.channels, specification.bits_per_sample),
                (16_000, 1, 16)
            );
            // What it converts to is what the reader would have given, but for the rounding to 16 bits.
            let source = rows.iter().find(|other| other.id == row.id).unwrap();
            let expected = audio::load(source.audio.as_ref().unwrap(), source.start, source.end).unwrap().samples;
            let found = audio::load(path, None, None).unwrap().samples;
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(|(left, right)| (left - right).abs() < 1.6e-5));
        }
        // Again: nothing is written anew, also not where a conversion stopped in the middle of another file.
        let path = settled[0].audio.clone().unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        fs::remove_file(settled[2].audio.as_ref().unwrap()).unwrap();
        // No process has this number.
        let half = settled[2].audio.as_ref().unwrap().with_extension("wav.99999999.partial");
        fs::write(&half, "half").unwrap();
        let (again, _) = settle(rows, &options, &silent).unwrap();
        assert_eq!(again, settled);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        assert!(!half.exists());
    }

    #[test]
    fn bad_files_are_listed_or_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        audio::write_wav(&at("good.wav"), &tone(440.0, 4000), 8000).unwrap();
        fs::write(at("text.wav"), "not audio").unwrap();
        let rows = vec![
            row("good", &at("good.wav")),
            row("text", &at("text.wav")),
            row("gone", &at("gone.wav")),
            Row { id: "silent".into(), ..Row::default() },
        ];
        for convert in [None, Some(at("audio"))] {
            let bad: &[&str] = if convert.is_some() { &["text", "gone"] } else { &["gone"] };
            let options = AudioOptions { convert, skip_bad: false };
            let error = settle(rows.clone(), &options, &silent).unwrap_err().to_string();
            assert!(error.contains(&format!("{} of 4 utterances", bad.len())), "{error}");
            assert!(error.contains("--skip-bad") && error.contains("gone.wav: no such file"), "{error}");
            let (good, skipped) = settle(rows.clone(), &AudioOptions { skip_bad: true, ..options }, &silent).unwrap();
            assert_eq!(good.len(), 4 - bad.len());
            assert_eq!(skipped.iter().map(|skipped| skipped.id.as_str()).collect::<Vec<_>>(), bad);
            assert!(skipped.iter().all(|skipped| !skipped.problem.is_empty()));
        }
        let options = AudioOptions { convert: None, skip_bad: true };
        assert!(settle(vec![row("gone", &at("gone.wav"))], &options, &silent).is_err());
    }
}
