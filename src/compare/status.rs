//! Where each run of a plan stands, and how long what is left may take.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::plan::{Plan, PlannedRun};
use crate::config::{Config, DataSource};
use crate::eval::{
    Report,
    predictions::{self, Row},
};
use crate::run::log::{self, Entry};
use crate::run::provenance::HashedFile;
use crate::run::{Comparison, Decision, Existing, RunError, RunFolder};

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// Trained, and scored on test.
    Done,
    /// There is something to go on from.
    Started,
    /// Nothing is there yet.
    Missing,
    /// The folder holds something else, which is left alone: what it is.
    Other(String),
}

/// Where a run stands. `compare` says how another config stands to the stored one of a run; a synthetic corpus
/// is generated again if it is missing.
///
/// # Errors
/// When the run's folder cannot be read.
pub fn status(
    run: &PlannedRun,
    compare: &dyn Fn(&str, &Config) -> Comparison,
    hashes: &mut Hashes,
    is_synthetic: bool,
) -> Result<RunStatus, RunError> {
    let folder = folder(run);
    let resume = Existing { resume: true, overwrite: false };
    Ok(match folder.decide(resume, |stored| compare(stored, &run.config)) {
        Ok(Decision::Start) => RunStatus::Missing,
        Ok(Decision::Show(_)) => match hashes.changed(run, &folder, is_synthetic)? {
            changed if changed.is_empty() && is_scored(&folder) => RunStatus::Done,
            changed if changed.is_empty() => RunStatus::Started,
            changed => RunStatus::Other(format!("{}: {}", run.name, changed.join("; "))),
        },
        Ok(_) => RunStatus::Started,
        Err(RunError::OtherConfig { differences, .. }) => RunStatus::Other(format!("{}: {differences}", run.name)),
        Err(error @ RunError::Foreign { .. }) => RunStatus::Other(error.to_string()),
        Err(error) => return Err(error),
    })
}

/// The hashes of the data that a plan names; every file is read once.
#[derive(Debug, Default)]
pub struct Hashes(BTreeMap<PathBuf, Option<String>>);

impl Hashes {
    /// What has changed of a run's manifests since it was made from them. A finished run stands on what they held then.
    fn changed(&mut self, run: &PlannedRun, folder: &RunFolder, is_synthetic: bool) -> Result<Vec<String>, RunError> {
        let DataSource::Manifests { train, dev, test } = &run.config.data.source else { return Ok(Vec::new()) };
        let stored = folder.load_manifest()?.files;
        let mut changed = Vec::new();
        for (role, path) in [("train", Some(train)), ("dev", dev.as_ref()), ("test", test.as_ref())] {
            let (Some(path), Some(file)) = (path, stored.iter().find(|file| file.role == role)) else { continue };
            let now = self.0.entry(path.clone()).or_insert_with(|| Some(HashedFile::of(role, path).ok()?.sha256));
            match now {
                Some(now) if *now == file.sha256 => {}
                Some(_) => changed.push(format!("{role}: {} has changed since", path.display())),
                None if is_synthetic => {}
                None => changed.push(format!("{role}: {} cannot be read", path.display())),
            }
        }
        Ok(changed)
    }
}

/// The run folder of a planned run.
pub fn folder(run: &PlannedRun) -> RunFolder {
    RunFolder::new(&run.config.run.dir)
}

/// Whether a run has what the tables are made from: what is damaged is scored again.
pub fn is_scored(folder: &RunFolder) -> bool {
    scores(folder).is_some()
}

/// What the tables are made from, where it is whole and of one piece.
pub(super) fn scores(folder: &RunFolder) -> Option<(Report, Vec<Row>)> {
    let report = Report::load(&folder.report("test")).ok()?;
    let rows = predictions::read(&folder.predictions("test")).ok()?;
    let predictions = || rows.iter().filter_map(|row| if let Row::Prediction(row) = row { Some(row) } else { None });
    let ids: BTreeSet<&str> = predictions().map(|row| row.id.as_str()).collect();
    let right = predictions().filter(|row| row.truth.as_ref() == Some(&row.fusion.label)).count();
    let accuracy = count(right) / count(report.examples);
    let is_whole = !rows.is_empty()
        && rows.len() == report.examples + report.failed + report.unlabelled
        && ids.len() == predictions().count()
        && (report.fusion.headline.accuracy.value - accuracy).abs() < 1e-9;
    is_whole.then_some((report, rows))
}

/// How long runs take, from those that ended and the epochs of those that did not.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    /// Seconds of whole runs, by corpus and system.
    ended: BTreeMap<(usize, usize), Vec<f64>>,
    /// Seconds of whole runs as their epochs so far promise.
    promised: BTreeMap<(usize, usize), Vec<f64>>,
    /// Seconds of whole runs by their arithmetic alone.
    estimated: BTreeMap<(usize, usize), f64>,
}

impl Estimates {
    /// What the folders of a plan tell.
    pub fn of(plan: &Plan) -> Self {
        let mut estimates = Self::default();
        for run in &plan.runs {
            let folder = folder(run);
            let Ok(manifest) = folder.load_manifest() else { continue };
            let key = (run.corpus, run.system);
            match manifest.seconds() {
                Some(seconds) if manifest.finished => estimates.ended.entry(key).or_default().push(seconds),
                _ => {
                    let whole = epoch_seconds(&folder.log()).map(|seconds| seconds * count(run.config.train.epochs));
                    estimates.promised.entry(key).or_default().extend(whole);
                }
            }
        }
        estimates
    }

    pub fn add(&mut self, run: &PlannedRun, seconds: f64) {
        self.ended.entry((run.corpus, run.system)).or_default().push(seconds);
    }

    /// Takes in how long a run of which none like it was timed may take.
    pub fn estimate(&mut self, run: &PlannedRun, seconds: f64) {
        self.estimated.insert((run.corpus, run.system), seconds);
    }

    /// What [`Estimates::estimate`] took in for a run like this one.
    pub fn estimated(&self, run: &PlannedRun) -> Option<f64> {
        self.estimated.get(&(run.corpus, run.system)).copied()
    }

    /// The seconds of a whole run, from runs of its system on its corpus; `None` if there is none yet.
    pub fn measured(&self, run: &PlannedRun) -> Option<f64> {
        let key = (run.corpus, run.system);
        mean(self.ended.get(&key).into_iter().flatten()).or_else(|| mean(self.promised.get(&key).into_iter().flatten()))
    }

    /// The same; where its system has none yet, from all systems on its corpus, else from all.
    pub fn about(&self, run: &PlannedRun) -> Option<f64> {
        let all = || self.ended.iter().chain(&self.promised);
        self.measured(run)
            .or_else(|| mean(all().filter(|((corpus, _), _)| *corpus == run.corpus).flat_map(|(_, seconds)| seconds)))
            .or_else(|| mean(all().flat_map(|(_, seconds)| seconds)))
    }
}

/// Seconds of runs so many at a time, as long as the devices give each of them what one alone has.
pub fn side_by_side(runs: &[f64], jobs: usize) -> f64 {
    let longest = runs.iter().copied().fold(0.0, f64::max);
    let all = runs.iter().fold(0.0, |sum, seconds| sum + seconds);
    longest.max(all / count(jobs.clamp(1, runs.len().max(1))))
}

/// The mean time of an epoch so far.
fn epoch_seconds(path: &Path) -> Option<f64> {
    let entries = log::read(path).ok()?;
    let seconds: Vec<f64> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Epoch(epoch) => Some(epoch.seconds),
            Entry::Step(_) => None,
        })
        .collect();
    mean(seconds.iter())
}

fn mean<'a>(values: impl Iterator<Item = &'a f64>) -> Option<f64> {
    let (sum, number) = values.fold((0.0, 0), |(sum, number), value| (sum + value, number + 1));
    (number > 0).then(|| sum / count(number))
}

#[expect(clippy::cast_precision_loss, reason = "numbers of runs and epochs are small")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_side_by_side_take_as_long_as_the_longest() {
        for (runs, jobs, expected) in [
            (&[3.0, 3.0, 3.0, 3.0][..], 2, 6.0),
            (&[3.0, 3.0], 7, 3.0),
            (&[10.0, 1.0, 1.0], 3, 10.0),
            (&[2.0], 0, 2.0),
            (&[], 4, 0.0),
        ] {
            assert!((side_by_side(runs, jobs) - expected).abs() < 1e-12, "{runs:?}");
        }
        assert!(side_by_side(&[], 1).is_sign_positive());
    }
}
