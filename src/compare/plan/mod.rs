//! A plan: systems x corpora x folds x seeds, as a TOML file, and the runs that it comes to.
//!
//! ```toml
//! dir = "runs/mine"                          # of the tables; relative to the current folder; default: runs/<plan's name>
//! runs = "runs/all"                          # of the run folders, for plans that share runs; default: dir
//! config = "iemocap4"                        # a config file (relative to the plan) or a built-in one
//! methods = ["text", "speech", "clasp"]      # systems by their method; default: clasp alone
//! ablations = ["no-semantic", "no-kl"]       # systems that are clasp without something
//! reference = "clasp"                        # what the others are compared with; default: clasp, where there is one
//! seeds = [1, 2, 3]                          # default: [1]
//! set = ["train.epochs=10"]                  # as --set of `train`, for all runs
//! cluster = "speaker"                        # rows with the same value are drawn together for the intervals
//! jobs = 1                                   # runs at a time; default: one a device
//! devices = ["cuda:0", "cuda:1"]             # the runs are spread over them; default: the config's
//!
//! [[system]]                                 # a system that the lists above cannot name
//! name = "tau-1"
//! method = "clasp"                           # default
//! ablation = "none"                          # default
//! seeds = [1]
//! set = ["loss.temperature=1"]
//!
//! [[corpus]]                                 # default: the one corpus that the config names
//! name = "iemocap4"
//! config = "iemocap4"
//! data = "data/iemocap4/fold{fold}"          # a folder with train.jsonl, dev.jsonl, test.jsonl, or a list of folders;
//! folds = 5                                  # relative to the plan. Default: the data that the config names
//! set = []
//! cluster = "dialogue"
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::parse::{self, Parsed};
use crate::checkpoint::folder::checkpoint_folder;
use crate::config::builtin::{Source, find_plan};
use crate::config::document::Document;
use crate::config::{self, Ablation, Config, ConfigError, DataSource, Device, Fault, KeyOrigin, Method, Problem};
use crate::demo::DemoOptions;
use crate::splits::PARTS;

/// Where the corpora are that the program makes up.
pub(super) const MADE_UP: &str = "corpora";

/// A comparison of systems.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The file's name without folder and ending.
    pub name: String,
    /// Where the tables go; absolute.
    pub dir: PathBuf,
    /// Where the run folders are; absolute.
    pub runs_dir: PathBuf,
    /// Runs at a time.
    pub jobs: usize,
    /// What the runs are spread over; none: each run's config decides.
    pub devices: Vec<Device>,
    /// The system that the others are compared with.
    pub reference: Option<String>,
    /// The systems, in the order of the tables.
    pub systems: Vec<System>,
    /// The corpora, in the order of the tables.
    pub corpora: Vec<Corpus>,
    /// All runs, in the order in which they are begun.
    pub runs: Vec<PlannedRun>,
}

/// What is trained: a method, an ablation, and keys of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Its name in paths and tables.
    pub name: String,
    pub method: Method,
    /// What is left out of it.
    pub ablation: Ablation,
    pub seeds: Vec<u64>,
    pub(super) set: Vec<String>,
    pub(super) place: Option<KeyOrigin>,
}

/// What is trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// Its name in paths and tables.
    pub name: String,
    /// How many folds it has.
    pub folds: usize,
    /// Rows with the same value of this key are drawn together for the intervals.
    pub cluster: Option<String>,
    /// The corpus to make up before the first run, and where.
    pub synthetic: Option<(PathBuf, DemoOptions)>,
    pub(super) config: String,
    /// A folder a fold; empty where the config names the data.
    pub(super) data: Vec<PathBuf>,
    pub(super) set: Vec<String>,
    pub(super) place: Option<KeyOrigin>,
}

/// One run of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRun {
    /// `<corpus>/<system>/fold<k>/seed<s>`
    pub name: String,
    /// The system's place in [`Plan::systems`].
    pub system: usize,
    /// The corpus's place in [`Plan::corpora`].
    pub corpus: usize,
    /// From 1.
    pub fold: usize,
    pub seed: u64,
    /// Its resolved config; `run.dir` is the run folder.
    pub config: Config,
}

impl Plan {
    /// Loads a plan: the file of this path, else the built-in plan of this name; `overrides` are further `--set` flags
    /// for all runs.
    ///
    /// # Errors
    /// [`ConfigError`]; all problems of the plan and of its configs at once.
    pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let source = find_plan(name_or_path)?;
        let current_folder = std::path::absolute(".").unwrap_or_else(|_| PathBuf::from("."));
        Self::parse(&source, overrides, &current_folder)
    }

    /// The plan of a text.
    ///
    /// # Errors
    /// As of [`Plan::load`].
    pub fn parse(source: &Source, overrides: &[String], current_folder: &Path) -> Result<Self, ConfigError> {
        // For the error of what is not TOML at all.
        Document::parse(&source.name, &source.text)?;
        let invalid = |problems| ConfigError::invalid(&source.name, problems);
        let text = source.text.trim_start_matches('\u{feff}');
        let table = DeTable::parse(text).map_err(|error| {
            let fault = Fault::Conflict { reason: error.message().to_owned() };
            invalid(vec![Problem { place: None, key: source.name.clone(), fault }])
        })?;
        let folder = source.folder.as_deref().unwrap_or(current_folder);
        let (mut plan, mut problems) = parse::plan(
            &Parsed { text, table: table.get_ref(), folder, current_folder, name: source.stem() },
            overrides,
        );
        if problems.is_empty() {
            problems = plan.expand(overrides);
        }
        if problems.is_empty() { Ok(plan) } else { Err(invalid(problems)) }
    }

    /// The corpus of a run.
    pub fn corpus_of(&self, run: &PlannedRun) -> &Corpus {
        &self.corpora[run.corpus]
    }

    /// Makes the runs; returns what is wrong with their configs.
    fn expand(&mut self, overrides: &[String]) -> Vec<Problem> {
        let mut problems: Vec<Problem> = Vec::new();
        let mut told = BTreeSet::new();
        for corpus in 0..self.corpora.len() {
            for system in 0..self.systems.len() {
                for fold in 1..=self.corpora[corpus].folds {
                    for seed in self.systems[system].seeds.clone() {
                        let (of_corpus, of_system) = (&self.corpora[corpus], &self.systems[system]);
                        let key = format!("{}/{}", of_corpus.name, of_system.name);
                        let name = format!("{key}/fold{fold}/seed{seed}");
                        let set = self.assignments(of_corpus, of_system, fold, seed, &name, overrides);
                        let place = of_system.place.clone().or_else(|| of_corpus.place.clone());
                        match self.config(corpus, &set) {
                            Ok(config) => self.runs.push(PlannedRun { name, system, corpus, fold, seed, config }),
                            // What is wrong with one run is mostly wrong with many.
                            Err(reasons) => {
                                for reason in reasons.into_iter().filter(|reason| told.insert(reason.clone())) {
                                    let reason = format!("has no valid config: {reason}");
                                    let (place, key) = (place.clone(), key.clone());
                                    problems.push(Problem { place, key, fault: Fault::Conflict { reason } });
                                }
                            }
                        }
                    }
                }
            }
        }
        problems
    }

    /// The config of a run, or all that is wrong with it.
    fn config(&mut self, corpus: usize, set: &[String]) -> Result<Config, Vec<String>> {
        let mut config = match config::load(&self.corpora[corpus].config, set) {
            Err(ConfigError::Invalid { name, problems }) => {
                let one = |problem| ConfigError::invalid(&name, vec![problem]).to_string();
                return Err(problems.into_iter().map(one).collect());
            }
            other => other.map_err(|error| vec![error.to_string()])?,
        };
        // As `train` does, and so the stored config has it.
        config.train.init = config.train.init.map(|path| checkpoint_folder(&path));
        self.settle_data(&mut config, corpus).map_err(|problem| vec![problem])?;
        Ok(config)
    }

    /// The assignments that make the corpus's config that of a run.
    fn assignments(
        &self,
        corpus: &Corpus,
        system: &System,
        fold: usize,
        seed: u64,
        name: &str,
        overrides: &[String],
    ) -> Vec<String> {
        let mut set: Vec<String> = [&corpus.set, &system.set, overrides].into_iter().flatten().cloned().collect();
        if !system.method.encodes_speech() {
            // Said for all systems, it is for those that have what it keeps.
            set.retain(|assignment| !assignment.starts_with("speech.feature_cache"));
        }
        let mut decide = |key: &str, value: toml::Value| set.push(format!("{key}={value}"));
        decide("model.method", system.method.word().into());
        decide("model.ablation", system.ablation.word().into());
        decide("train.seed", i64::try_from(seed).unwrap_or(i64::MAX).into());
        decide("run.dir", path(&self.runs_dir.join(name)));
        decide("run.test_at_end", false.into());
        if let Some(folder) = corpus.data.get(fold - 1) {
            for part in PARTS {
                decide(&format!("data.{part}"), path(&folder.join(format!("{part}.jsonl"))));
            }
        }
        set
    }

    /// A corpus that the program makes up is made once, for all runs; a run without test data cannot be compared.
    fn settle_data(&mut self, config: &mut Config, corpus: usize) -> Result<(), String> {
        let Some(corpus) = self.corpora.get_mut(corpus) else { return Ok(()) };
        if let DataSource::Demo { utterances, seed, .. } = config.data.source {
            // Another corpus is another folder: none is made over the one that runs were trained on.
            let folder = self.runs_dir.join(MADE_UP).join(format!("{}-{utterances}-{seed}", corpus.name));
            let part = |name: &str| folder.join(format!("{name}.jsonl"));
            config.data.source =
                DataSource::Manifests { train: part("train"), dev: Some(part("dev")), test: Some(part("test")) };
            corpus.synthetic = Some((folder, DemoOptions { utterances, seed }));
        }
        match config.data.source {
            DataSource::Manifests { test: None, .. } => {
                Err("there is no data.test to score the systems on: set it, or `data` of the [[corpus]]".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn path(path: &Path) -> toml::Value {
    toml::Value::String(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
