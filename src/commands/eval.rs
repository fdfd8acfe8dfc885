//! `clasp eval`: the scores of a checkpoint on a manifest, or on a split of its run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{BATCHES_AT_ONCE, count, end_at_signals, output::Output, write_output};
use clasp::{
    asr_tts::AsrTts,
    cli::{EvalArguments, Split, UnknownLabelPolicy},
    config,
    data::{DataError, batch::BatchOptions, labels::Labels, manifest},
    device::{self, ResolvedDevice, Task},
    error,
    eval::{
        Report, ReportOptions,
        comparison::{Answers, Pairs},
        predictions::{self, Origin, Row as Scored},
        report::{InputCounts, UnknownLabels},
        statistics::RESAMPLES,
    },
    files::{OutputIsInput, remove_unfinished_beside, user_cache},
    inference::predictor::{Input, Predictor},
    method::Reads,
    ops::Ops,
    run::{RunError, RunFolder, provenance::HashedFile},
    splits::{PARTS, record::SplitRecord},
    terminal::{Event, Progress, comparison, table},
    train::setup,
};

/// Runs `clasp eval`.
///
/// # Errors
/// A checkpoint or a manifest that cannot be used; a row that cannot be scored.
pub fn run(arguments: &EvalArguments) -> anyhow::Result<u8> {
    if let (Some(other), Some(split)) = (&arguments.against, arguments.split) {
        return against(arguments, other, name(split));
    }
    end_at_signals()?;
    let chosen = device::choose(arguments.device)?;
    let (run, is_of_best) = run_of(&arguments.checkpoint);
    let (path, split, is_of_the_run) = match (&arguments.manifest, arguments.split) {
        (Some(path), _) => match known_split(&run, path)? {
            Some(split) => (path.clone(), split, true),
            None => (path.clone(), file_stem(path), false),
        },
        (None, Some(split)) => (split_of_run(&run, split)?, name(split).to_owned(), true),
        (None, None) => bail!("give --manifest or --split"),
    };
    // Also where dev is the same data.
    let is_test = (is_of_the_run && split == "test") || is_copy_of_test(&run, &path)?;
    let output = match &arguments.output {
        Some(folder) => {
            check_output(&RunFolder::new(folder), &arguments.checkpoint, &path, &split)?;
            let is_own = is_of_the_run && is_of_best && same_folder(folder, run.path());
            if RunFolder::new(folder).is_run() && !is_own {
                let what = "a run's folder, which keeps the scores of its own splits".to_owned();
                return Err(OutputIsInput { flag: "--output", path: folder.clone(), what }.into());
            }
            std::fs::create_dir_all(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
            Some(RunFolder::new(folder))
        }
        // Another manifest's scores are not the run's, whatever the file is called; nor are those of other weights.
        None => (is_of_the_run && is_of_best).then(|| run.clone()),
    };
    let supply = AsrTts::new(arguments.missing.asr.as_deref(), arguments.missing.tts.as_deref(), &user_cache())?;
    let test_uses = if is_test {
        // Counted before it is looked at, so that a look that fails counts too.
        Some(run.count_test_use()?)
    } else {
        None
    };
    let scoring = Scoring {
        checkpoint: &arguments.checkpoint,
        manifest: &path,
        split: &split,
        output: output.as_ref(),
        keys: &arguments.by,
        cluster: arguments.cluster.as_deref(),
        test_uses,
        batch_size: count(arguments.batch_size),
        batch_seconds: None,
        unknown_labels: arguments.unknown_labels,
        supply: supply.as_ref(),
        data_split: run.is_run().then(|| data_split(&run, &path, &split, is_of_the_run)).transpose()?.flatten(),
        is_quiet: false,
    };
    let report = score(&scoring, chosen);
    if is_test {
        run.end_test_use()?;
    }
    let report = report?;
    if arguments.json {
        write_output(&format!("{:#}\n", json!(report)))?;
    } else {
        write_output(&table::render(&report))?;
    }
    Ok(error::SUCCESS)
}

/// The paired tests of two runs from their saved predictions.
fn against(arguments: &EvalArguments, other: &Path, split: &str) -> anyhow::Result<u8> {
    let cluster = arguments.cluster.as_deref();
    let answers = |path: &Path| -> anyhow::Result<Answers> {
        let (run, is_of_best) = run_of(path);
        run.load_manifest()?;
        if !is_of_best {
            return Err(RunError::NotScored { path: path.to_owned(), split: split.to_owned() }.into());
        }
        let file = run.predictions(split);
        if !file.is_file() {
            return Err(RunError::NotScored { path: path.to_owned(), split: split.to_owned() }.into());
        }
        Ok(Answers::new(&path.display().to_string(), &predictions::read(&file)?, cluster)?)
    };
    let (first, second) = (answers(other)?, answers(&arguments.checkpoint)?);
    let mut pairs = Pairs::default();
    pairs.add(0, &first, &second)?;
    let found = pairs.compare(cluster, RESAMPLES, 1)?;
    let (first, second) = (first.name, second.name);
    let text = if arguments.json {
        format!("{:#}\n", json!({ "split": split, "first": first, "second": second, "comparison": found }))
    } else {
        comparison::render(split, &first, &second, &found)
    };
    write_output(&text)?;
    Ok(error::SUCCESS)
}

fn name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Dev => "dev",
        Split::Test => "test",
    }
}

/// Neither the predictions nor the report may replace what is read.
fn check_output(folder: &RunFolder, checkpoint: &Path, manifest: &Path, split: &str) -> Result<(), OutputIsInput> {
    for path in [folder.predictions(split), folder.report(split)] {
        let output = Output::new("--output", &path);
        output.is_not_manifest(manifest)?;
        output.is_not_of_checkpoint(checkpoint)?;
    }
    Ok(())
}

fn same_folder(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

fn file_stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "manifest".into(), |stem| stem.to_string_lossy().into_owned())
}

/// The split of the run; for a manifest that is not in it, what this shares with what the model was trained on.
fn data_split(run: &RunFolder, path: &Path, name: &str, is_of_the_run: bool) -> anyhow::Result<Option<SplitRecord>> {
    let manifest = run.load_manifest()?;
    if is_of_the_run {
        let files: Vec<(&str, &Path, &str)> =
            manifest.files.iter().map(|file| (file.role.as_str(), file.path.as_path(), file.sha256.as_str())).collect();
        return Ok(manifest.split.map(|split| split.with_allowances(&files)));
    }
    let train = manifest.files.iter().find(|file| file.role == "train");
    let read = |path: &Path| manifest::read(path).ok();
    let (Some(train), Some(rows)) = (train.and_then(|file| Some((&file.path, read(&file.path)?))), read(path)) else {
        return Ok(None);
    };
    // A manifest that is called train too is another one.
    let name = if name == "train" { "scored" } else { name };
    Ok(Some(SplitRecord::of(&[("train", train.0, &train.1), (name, path, &rows)])))
}

/// The run that a checkpoint is of, and whether it is its best: the run folder, or the `best` or `last` in it. Another
/// checkpoint stands for itself, and is no run.
fn run_of(checkpoint: &Path) -> (RunFolder, bool) {
    let given = RunFolder::new(checkpoint);
    let Ok(path) = checkpoint.canonicalize() else { return (given, true) };
    let Some(parent) = path.parent().map(RunFolder::new) else { return (given, true) };
    let is = |folder: &Path| folder.canonicalize().is_ok_and(|folder| folder == path);
    if given.is_run() || !parent.is_run() {
        (given, true)
    } else if is(&parent.best()) {
        (parent, true)
    } else if is(&parent.last()) {
        (parent, false)
    } else {
        (given, true)
    }
}

/// Whether a manifest holds what the test split of a run held, byte by byte.
fn is_copy_of_test(run: &RunFolder, path: &Path) -> anyhow::Result<bool> {
    // What is read once, as a pipe, is left to the scoring.
    if !run.is_run() || !path.is_file() {
        return Ok(false);
    }
    let files = run.load_manifest()?.files;
    let Some(test) = files.iter().find(|file| file.role == "test") else { return Ok(false) };
    Ok(HashedFile::of("test", path).is_ok_and(|copy| copy.sha256 == test.sha256))
}

/// The split of a run that a file is, if it is one.
fn known_split(run: &RunFolder, path: &Path) -> anyhow::Result<Option<String>> {
    let (true, Ok(path)) = (run.is_run(), path.canonicalize()) else { return Ok(None) };
    let files = run.load_manifest()?.files;
    let is_it = |file: &&HashedFile| {
        PARTS.contains(&file.role.as_str()) && file.path.canonicalize().is_ok_and(|found| found == path)
    };
    Ok(files.iter().find(is_it).map(|file| file.role.clone()))
}

/// The manifest of a split of a run.
fn split_of_run(run: &RunFolder, split: Split) -> anyhow::Result<PathBuf> {
    run.load_manifest()?;
    let path = run.config();
    let text = std::fs::read_to_string(&path).map_err(|cause| config::ConfigError::Unreadable { path, cause })?;
    let config = config::parse_stored(run, &text)?;
    let splits = setup::splits(&config)?;
    let found = splits.named().find(|(found, _)| *found == name(split)).map(|(_, path)| path.to_owned());
    found.ok_or_else(|| {
        let problem = config::Problem::conflict(&format!("data.{}", name(split)), "is not set in this run".into());
        config::ConfigError::invalid(&run.config().display().to_string(), vec![problem]).into()
    })
}

/// What is scored, and where the results go.
pub struct Scoring<'a> {
    /// A checkpoint folder or a run folder.
    pub checkpoint: &'a Path,
    pub manifest: &'a Path,
    /// Its name in the files and the report.
    pub split: &'a str,
    /// Where predictions and report are written.
    pub output: Option<&'a RunFolder>,
    /// Keys of the manifest to score by.
    pub keys: &'a [String],
    /// A key whose values are drawn as whole clusters for the intervals.
    pub cluster: Option<&'a str>,
    /// How often the run's test split was scored, this time included; none for other data.
    pub test_uses: Option<usize>,
    /// Utterances a batch.
    pub batch_size: usize,
    /// Padded seconds of audio a batch, at most.
    pub batch_seconds: Option<f64>,
    /// What to do about labels that the model does not know.
    pub unknown_labels: UnknownLabelPolicy,
    /// What supplies a missing modality.
    pub supply: Option<&'a AsrTts>,
    /// The run's split, where it is of a run.
    pub data_split: Option<SplitRecord>,
    pub is_quiet: bool,
}

/// Scores a manifest.
///
/// # Errors
/// See [`run`].
pub fn score(scoring: &Scoring<'_>, chosen: ResolvedDevice) -> anyhow::Result<Report> {
    device::dispatch(chosen, EvalTask(scoring))
}

struct EvalTask<'a>(&'a Scoring<'a>);

impl Task for EvalTask<'_> {
    type Output = anyhow::Result<Report>;

    fn run<B: Ops>(self, device: &B::Device) -> Self::Output {
        let scoring = self.0;
        let mut rows = manifest::read(scoring.manifest)?;
        let named = || scoring.manifest.display().to_string();
        manifest::require(&rows, false, false, true).with_context(named)?;
        let predictor = Predictor::<B>::load(scoring.checkpoint, device)?;
        let unknown = unknown_labels(predictor.labels(), &mut rows, scoring.unknown_labels).with_context(named)?;
        let mut progress = Progress::stderr(scoring.is_quiet);
        let what = format!("scoring {}", scoring.split);
        let mut counts = InputCounts::default();
        let mut results: Vec<Scored> = Vec::with_capacity(rows.len());
        let of = Some(rows.len());
        let options = BatchOptions { batch_size: scoring.batch_size, batch_seconds: scoring.batch_seconds };
        for chunk in rows.chunks(scoring.batch_size * BATCHES_AT_ONCE) {
            let inputs = chunk.iter().map(|row| supplied(row, scoring.supply)).collect::<Result<Vec<_>, _>>()?;
            results.extend(predictor.predict(&inputs, options, &mut counts));
            progress.handle(&Event::Count { what: &what, done: results.len(), of });
        }
        progress.handle(&Event::Finished);
        let is_partial = |row: &&Scored| match row {
            Scored::Prediction(prediction) => {
                [prediction.provenance.text, prediction.provenance.speech].contains(&Origin::Absent)
            }
            Scored::Failure(_) => false,
        };
        let partial = if predictor.reads() == Reads::Both { results.iter().filter(is_partial).count() } else { 0 };
        if partial > 0 {
            progress.handle(&Event::Message(&format!(
                "note: {partial} of {} utterances lack a modality: there the other's classifier answers, also in the \
                 column of the fusion; --asr or --tts can supply what is missing",
                results.len()
            )));
        }
        let failures: Vec<String> = results
            .iter()
            .filter_map(|row| match row {
                Scored::Failure(failure) => Some(failure.error.clone()),
                Scored::Prediction(_) => None,
            })
            .collect();
        if !failures.is_empty() {
            return Err(DataError::Unscored {
                path: scoring.manifest.into(),
                failures: clasp::error::Problems(failures),
            }
            .into());
        }
        let mut options = ReportOptions::new(scoring.split, predictor.labels().names());
        if let Some(unknown) = unknown.as_ref().filter(|unknown| !unknown.are_dropped) {
            options.labels.extend(unknown.counts.keys().cloned());
        }
        options.unknown_labels = unknown;
        options.keys = scoring.keys.to_vec();
        options.cluster = scoring.cluster.map(str::to_owned);
        options.test_uses = scoring.test_uses;
        options.inputs = counts;
        options.data_split.clone_from(&scoring.data_split);
        options.data_sha256 = Some(HashedFile::of(scoring.split, scoring.manifest)?.sha256);
        let report = Report::from_predictions(&results, &options)?;
        if let Some(output) = scoring.output {
            remove_unfinished_beside(&output.report(scoring.split));
            predictions::write(&output.predictions(scoring.split), &results)?;
            report.save(&output.report(scoring.split))?;
        }
        Ok(report)
    }
}

/// The labels of rows that the model does not know, if that may be; rows that have one are left out where asked for.
fn unknown_labels(
    labels: &Labels,
    rows: &mut Vec<manifest::Row>,
    policy: UnknownLabelPolicy,
) -> Result<Option<UnknownLabels>, DataError> {
    let unknown = labels.unknown_in(rows);
    if policy == UnknownLabelPolicy::Refuse || unknown.is_empty() {
        labels.check(rows)?;
        return Ok(None);
    }
    let are_dropped = policy == UnknownLabelPolicy::Drop;
    if are_dropped {
        rows.retain(|row| row.label.as_ref().is_none_or(|label| labels.index(label).is_some()));
    }
    let counts = unknown.into_iter().map(|unknown| (unknown.label, unknown.count)).collect();
    Ok(Some(UnknownLabels { are_dropped, counts }))
}

fn supplied(row: &manifest::Row, supply: Option<&AsrTts>) -> anyhow::Result<Input> {
    match supply {
        Some(supply) => Ok(supply.fill(row.clone())?),
        None => Ok(Input::given(row.clone())),
    }
}
