//! What the runs of a plan came to: the numbers of the tables, each with the runs that it comes from.
//!
//! Of a system on a corpus: the mean of its runs' scores and their standard deviation (n − 1), which tells of seeds and
//! folds; and the pooled score, with a 95% interval by bootstrap over the utterances, which tells of the size of the test
//! data: of each seed the score of its predictions of all folds together, then the mean over the seeds. Against the
//! reference, runs of the same fold and seed are paired; see [`crate::eval::comparison`]. Holm's correction is over all comparisons of the plan, for each kind
//! of test by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{Corpus, Plan, PlannedRun, System};
use super::status::{folder, scores};
use crate::config::DataSource;
use crate::eval::comparison::{Answers, Comparison, Pairs};
use crate::eval::metrics::Headline;
use crate::eval::paired::holm;
use crate::eval::report::Estimate;
use crate::eval::statistics::{LEVEL, RESAMPLES};
use crate::files;
use crate::run::log::{self, Entry};
use crate::splits::Kind;
use crate::splits::overlap::Overlap;
use crate::splits::record::SplitRecord;

/// Seed of all resamples.
const SEED: u64 = 1;

/// A head of a safetensors file is smaller than this.
const LARGEST_HEAD: u64 = 100_000_000;

/// Everything that a plan came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub plan: String,
    /// Runs that the plan has.
    pub runs_planned: usize,
    /// Runs that are in the numbers.
    pub runs_done: usize,
    /// The system that the others are compared with.
    pub reference: Option<String>,
    /// Coverage of all intervals.
    pub level: f64,
    /// Resamples of all intervals.
    pub resamples: usize,
    /// Comparisons that Holm's correction is over.
    pub comparisons: usize,
    pub corpora: Vec<CorpusResult>,
}

/// What the systems reached on one corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorpusResult {
    pub name: String,
    pub folds: usize,
    /// Different utterances that were tested.
    pub utterances: usize,
    /// How its splits were made, where `split.json` says it.
    pub protocol: Option<String>,
    /// Whether dev, which picks the best epoch, shares recordings with test.
    pub selects_on_test: bool,
    /// Whether folds have the same ids for different utterances, which are then counted apart.
    pub repeats_ids: bool,
    /// Utterances that several folds test.
    #[serde(default)]
    pub shared_utterances: usize,
    /// Systems of which no run is done.
    pub absent: Vec<String>,
    /// Whether there is no dev, so that the last epoch is taken.
    pub takes_last_epoch: bool,
    /// What the parts share, a sentence each; what nobody declared begins with `warning`.
    pub shared: Vec<String>,
    /// The key whose values are drawn together for the intervals.
    pub cluster: Option<String>,
    /// How many of these there are; null where utterances are drawn.
    pub clusters: Option<usize>,
    /// Test utterances without that key, each drawn alone.
    pub lacking_cluster: usize,
    pub systems: Vec<Cell>,
}

/// What one system reached on one corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub system: String,
    pub method: String,
    /// What is left out of it.
    pub ablation: String,
    /// The mean of the runs' scores.
    pub mean: Headline,
    /// Their standard deviation (n − 1); null for one run.
    pub deviation: Option<Headline>,
    /// The score of the predictions of all folds together, the mean over seeds, with its interval.
    pub pooled: Headline<Estimate>,
    /// The mean of the runs of each fold.
    pub by_fold: Vec<FoldScore>,
    /// Against the reference; null for the reference itself.
    pub against: Option<Against>,
    /// Numbers of the trained model.
    pub parameters: Option<u64>,
    /// Mean seconds of training; null where no run has been timed whole.
    pub seconds: Option<f64>,
    /// The most memory of a run on the host, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// The most memory that was in use on a run's CUDA device at the end of an epoch, by whichever process, in bytes.
    pub device_memory_bytes: Option<u64>,
    /// The runs that all this comes from.
    pub runs: Vec<RunResult>,
    /// Planned runs that are not done.
    pub missing: Vec<String>,
}

/// The scores of one fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldScore {
    /// The fold, from 1.
    pub fold: usize,
    pub runs: usize,
    /// The mean of their scores.
    pub mean: Headline,
}

/// A system against the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// Pairs of runs with the same fold and seed.
    pub paired_runs: usize,
    /// The reference is `first`, the system `second`.
    pub comparison: Comparison,
    /// The p of the differences by Holm.
    pub p_holm: Headline,
    /// The p of `McNemar`'s test by Holm.
    pub mcnemar_p_holm: f64,
}

/// What one run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// `<corpus>/<system>/fold<k>/seed<s>`
    pub name: String,
    pub folder: PathBuf,
    /// The fold, from 1.
    pub fold: usize,
    pub seed: u64,
    pub score: Headline,
    /// The epoch that was scored.
    pub best_epoch: Option<u64>,
    /// Seconds of training; null where one of its processes was killed.
    pub seconds: Option<f64>,
    /// The most memory on the host, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// The most memory in use on its CUDA device at the end of an epoch, in bytes.
    pub device_memory_bytes: Option<u64>,
    /// How often its test split was scored.
    pub test_uses: usize,
}

/// A run that is done, with what is needed of it.
struct Done {
    result: RunResult,
    answers: Answers,
    split: Option<SplitRecord>,
    /// Whether dev and test are the same data.
    dev_is_test: bool,
}

/// Utterances of all folds without the key to cluster by; of each fold any run tells, since all are on the same data.
fn lacking_cluster<'a>(runs: impl Iterator<Item = &'a Done>) -> usize {
    let by_fold: BTreeMap<usize, usize> = runs.map(|run| (run.result.fold, run.answers.lacking_cluster())).collect();
    by_fold.values().sum()
}

/// How many utterances several folds test.
fn shared_utterances<'a>(runs: impl Iterator<Item = &'a Done>) -> usize {
    let mut folds: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for run in runs {
        for (id, _) in run.answers.truths() {
            folds.entry(id).or_default().insert(run.result.fold);
        }
    }
    folds.values().filter(|folds| folds.len() > 1).count()
}

/// Whether an id is of one label in one fold, and of another in another.
fn have_clashing_ids<'a>(runs: impl Iterator<Item = &'a Done>) -> bool {
    let mut known: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for run in runs {
        for (id, truth) in run.answers.truths() {
            let (fold, label) = *known.entry(id).or_insert((run.result.fold, truth));
            if fold != run.result.fold && label != truth {
                return true;
            }
        }
    }
    false
}

impl Results {
    /// Reads the runs of a plan that are done, and computes everything.
    ///
    /// # Errors
    /// A run's files that cannot be read, or runs of one fold that were scored on different data.
    pub fn of(plan: &Plan) -> anyhow::Result<Self> {
        let corpora = plan.corpora.iter().enumerate();
        let corpora = corpora.map(|(place, corpus)| CorpusResult::of(plan, place, corpus)).collect::<Result<_, _>>()?;
        let mut results = Self {
            plan: plan.name.clone(),
            runs_planned: plan.runs.len(),
            runs_done: 0,
            reference: plan.reference.clone(),
            level: LEVEL,
            resamples: RESAMPLES,
            comparisons: 0,
            corpora,
        };
        results.runs_done = results.cells().map(|cell| cell.runs.len()).sum();
        results.correct();
        Ok(results)
    }

    /// All cells.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.corpora.iter().flat_map(|corpus| &corpus.systems)
    }

    /// Fills in the p-values by Holm.
    fn correct(&mut self) {
        let mut against: Vec<&mut Against> = self
            .corpora
            .iter_mut()
            .flat_map(|corpus| &mut corpus.systems)
            .filter_map(|cell| cell.against.as_mut())
            .collect();
        self.comparisons = against.len();
        let corrected = |p_of: fn(&Against) -> f64, against: &[&mut Against]| {
            holm(&against.iter().map(|against| p_of(against)).collect::<Vec<f64>>())
        };
        let accuracy = corrected(|against| against.comparison.difference.accuracy.p_value, &against);
        let balanced = corrected(|against| against.comparison.difference.balanced_accuracy.p_value, &against);
        let weighted = corrected(|against| against.comparison.difference.weighted_f1.p_value, &against);
        let macro_f1 = corrected(|against| against.comparison.difference.macro_f1.p_value, &against);
        let mcnemar = corrected(|against| against.comparison.mcnemar.p_value, &against);
        let headlines = accuracy.into_iter().zip(balanced).zip(weighted).zip(macro_f1);
        for ((against, (((accuracy, balanced_accuracy), weighted_f1), macro_f1)), mcnemar) in
            against.iter_mut().zip(headlines).zip(mcnemar)
        {
            against.p_holm = Headline { accuracy, balanced_accuracy, weighted_f1, macro_f1 };
            against.mcnemar_p_holm = mcnemar;
        }
    }
}

impl CorpusResult {
    fn of(plan: &Plan, place: usize, corpus: &Corpus) -> anyhow::Result<Self> {
        let cluster = corpus.cluster.as_deref();
        let mut runs: BTreeMap<usize, Vec<Done>> = BTreeMap::new();
        let mut missing: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for run in plan.runs.iter().filter(|run| run.corpus == place) {
            match Done::read(run, cluster).with_context(|| run.name.clone())? {
                Some(done) => runs.entry(run.system).or_default().push(done),
                None => missing.entry(run.system).or_default().push(run.name.clone()),
            }
        }
        let repeats_ids = have_clashing_ids(runs.values().flatten());
        if repeats_ids {
            for run in runs.values_mut().flatten() {
                run.answers = std::mem::take(&mut run.answers).within(&format!("fold{}", run.result.fold));
            }
        }
        let reference = plan.systems.iter().position(|system| Some(&system.name) == plan.reference.as_ref());
        let of_reference = reference.and_then(|place| runs.get(&place));
        let mut systems = Vec::new();
        let mut tested = Pairs::default();
        for (&system, done) in &runs {
            let of_reference = of_reference.filter(|_| reference != Some(system));
            let mut cell = Cell::of(&plan.systems[system], done, corpus, of_reference.map(Vec::as_slice))?;
            cell.missing = missing.remove(&system).unwrap_or_default();
            systems.push(cell);
            for run in done {
                tested.add(run.result.seed, &run.answers, &run.answers)?;
            }
        }
        let splits = || runs.values().flatten().filter_map(|run| run.split.as_ref());
        Ok(Self {
            name: corpus.name.clone(),
            folds: corpus.folds,
            utterances: tested.utterances(),
            protocol: splits().find_map(|split| split.protocol.clone()),
            selects_on_test: splits().any(shares_recordings) || runs.values().flatten().any(|run| run.dev_is_test),
            repeats_ids,
            shared_utterances: shared_utterances(runs.values().flatten()),
            absent: missing.keys().map(|&system| plan.systems[system].name.clone()).collect(),
            takes_last_epoch: plan.runs.iter().any(|run| run.corpus == place && has_no_dev(run)),
            shared: splits().flat_map(SplitRecord::sentences).collect::<BTreeSet<String>>().into_iter().collect(),
            cluster: corpus.cluster.clone(),
            clusters: cluster.map(|_| tested.units()),
            lacking_cluster: if cluster.is_some() { lacking_cluster(runs.values().flatten()) } else { 0 },
            systems,
        })
    }
}

/// Whether a run has nothing to pick its epoch by.
fn has_no_dev(run: &PlannedRun) -> bool {
    matches!(run.config.data.source, DataSource::Manifests { dev: None, .. })
}

/// Whether the parts that pick the epoch and that are scored share recordings.
fn shares_recordings(split: &SplitRecord) -> bool {
    let are_both =
        |overlap: &Overlap| ["dev", "test"].iter().all(|name| overlap.splits.iter().any(|split| split == name));
    split.shared.iter().any(|overlap| overlap.kind == Kind::Audio && are_both(overlap))
}

impl Cell {
    fn of(system: &System, runs: &[Done], corpus: &Corpus, reference: Option<&[Done]>) -> anyhow::Result<Self> {
        let cluster = corpus.cluster.as_deref();
        let mut pooled = Pairs::default();
        for run in runs {
            pooled.add(run.result.seed, &run.answers, &run.answers)?;
        }
        let scores: Vec<Headline> = runs.iter().map(|run| run.result.score).collect();
        let mut by_fold = Vec::new();
        for fold in 1..=corpus.folds {
            let scores: Vec<Headline> =
                runs.iter().filter(|run| run.result.fold == fold).map(|run| run.result.score).collect();
            if !scores.is_empty() {
                by_fold.push(FoldScore { fold, runs: scores.len(), mean: mean(&scores) });
            }
        }
        let seconds: Vec<f64> = runs.iter().filter_map(|run| run.result.seconds).collect();
        Ok(Self {
            system: system.name.clone(),
            method: system.method.word().to_owned(),
            ablation: system.ablation.word().to_owned(),
            mean: mean(&scores),
            deviation: deviation(&scores),
            pooled: pooled.first(RESAMPLES, SEED)?,
            by_fold,
            against: reference.map(|reference| against(reference, runs, cluster)).transpose()?.flatten(),
            parameters: runs.first().and_then(|run| parameters(&run.result.folder)),
            seconds: (!seconds.is_empty()).then(|| seconds.iter().sum::<f64>() / number(seconds.len())),
            peak_memory_bytes: runs.iter().filter_map(|run| run.result.peak_memory_bytes).max(),
            device_memory_bytes: runs.iter().filter_map(|run| run.result.device_memory_bytes).max(),
            runs: runs.iter().map(|run| run.result.clone()).collect(),
            missing: Vec::new(),
        })
    }
}

/// A system's runs against those of the reference with the same fold and seed; nothing if there are none.
fn against(reference: &[Done], runs: &[Done], cluster: Option<&str>) -> anyhow::Result<Option<Against>> {
    let mut pairs = Pairs::default();
    let mut paired_runs = 0;
    for run in runs {
        let is_same = |other: &&Done| (other.result.fold, other.result.seed) == (run.result.fold, run.result.seed);
        if let Some(other) = reference.iter().find(is_same) {
            pairs.add(run.result.seed, &other.answers, &run.answers)?;
            paired_runs += 1;
        }
    }
    if pairs.is_empty() {
        return Ok(None);
    }
    let comparison = pairs.compare(cluster, RESAMPLES, SEED)?;
    Ok(Some(Against { paired_runs, comparison, p_holm: Headline::default(), mcnemar_p_holm: 1.0 }))
}

impl Done {
    /// A run that is done; nothing if it is not.
    fn read(run: &PlannedRun, cluster: Option<&str>) -> anyhow::Result<Option<Self>> {
        let folder = folder(run);
        if !folder.is_run() {
            return Ok(None);
        }
        let Some((report, rows)) = scores(&folder) else { return Ok(None) };
        let manifest = folder.load_manifest()?;
        if !manifest.finished {
            return Ok(None);
        }
        let best_epoch = manifest.result.as_ref().and_then(|result| result["best_epoch"].as_u64());
        Ok(Some(Self {
            answers: Answers::new(&run.name, &rows, cluster)?,
            result: RunResult {
                name: run.name.clone(),
                folder: folder.path().to_owned(),
                fold: run.fold,
                seed: run.seed,
                score: report.fusion.headline.map(|estimate| estimate.value),
                best_epoch,
                seconds: manifest.seconds(),
                peak_memory_bytes: manifest.peak_memory_bytes(),
                device_memory_bytes: device_memory(&folder.log()),
                test_uses: manifest.test_uses.len(),
            },
            dev_is_test: {
                let sha256 = |role: &str| manifest.files.iter().find(|file| file.role == role).map(|file| &file.sha256);
                sha256("dev").is_some_and(|dev| sha256("test") == Some(dev))
            },
            split: manifest.split,
        }))
    }
}

fn mean(scores: &[Headline]) -> Headline {
    each(scores, |values| values.iter().sum::<f64>() / number(values.len()))
}

/// Of a sample; nothing for one score.
fn deviation(scores: &[Headline]) -> Option<Headline> {
    (scores.len() > 1).then(|| {
        each(scores, |values| {
            let mean = values.iter().sum::<f64>() / number(values.len());
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            (squares / number(values.len() - 1)).sqrt()
        })
    })
}

/// One number of each of the four headline numbers' values.
fn each(scores: &[Headline], of: impl Fn(&[f64]) -> f64) -> Headline {
    let values = |pick: fn(&Headline) -> f64| of(&scores.iter().map(pick).collect::<Vec<f64>>());
    Headline {
        accuracy: values(|score| score.accuracy),
        balanced_accuracy: values(|score| score.balanced_accuracy),
        weighted_f1: values(|score| score.weighted_f1),
        macro_f1: values(|score| score.macro_f1),
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of runs are small")]
fn number(count: usize) -> f64 {
    count as f64
}

/// The most memory that a log tells of on its CUDA device.
fn device_memory(path: &Path) -> Option<u64> {
    let memory = |entry: &Entry| match entry {
        Entry::Epoch(epoch) => epoch.device_memory,
        Entry::Step(_) => None,
    };
    log::read(path).ok()?.iter().filter_map(memory).max()
}

/// How many numbers the best checkpoint of a run holds: the sizes in the head of its file.
fn parameters(run: &Path) -> Option<u64> {
    let mut file = File::open(crate::run::RunFolder::new(run).best().join(files::WEIGHTS)).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let mut head = Vec::new();
    file.take(u64::from_le_bytes(length).min(LARGEST_HEAD)).read_to_end(&mut head).ok()?;
    let head: Value = serde_json::from_slice(&head).ok()?;
    let size = |tensor: &Value| -> Option<u64> { tensor["shape"].as_array()?.iter().map(Value::as_u64).product() };
    Some(head.as_object()?.values().filter_map(size).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the mean of 1, 2, 4 is 7/3; the squares are 16/9, 1/9 and 25/9, their sum over two is 7/3.
    #[test]
    fn mean_and_deviation_are_those_of_a_sample() {
        let scores = [1.0, 2.0, 4.0].map(|accuracy| Headline { accuracy, ..Headline::default() });
        assert!((mean(&scores).accuracy - 7.0 / 3.0).abs() < 1e-12);
        assert!((deviation(&scores).unwrap().accuracy - (7.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(deviation(&scores[..1]), None);
        assert_eq!(deviation(&scores[..2]).unwrap().macro_f1.to_bits(), 0.0_f64.to_bits());
    }
}
