//! `clasp bench --feature-cache`: the training job with the features of the frozen convolutions from the disk, as
//! `clasp train` does with `speech.feature_cache`. The warm-up fills the cache; every later epoch reads it back.

use std::sync::{Arc, mpsc::sync_channel};

use anyhow::Context as _;
use tempfile::TempDir;

use clasp::{
    cli::{BenchArguments, Job},
    config::{ConfigError, FeaturePrecision, Problem},
    data::{
        batch::Batch,
        features::{FeatureCache, FeatureStore},
    },
    ops::TrainOps,
    train::replica::Replica,
};

/// Batches that are read ahead.
const AHEAD: usize = 2;

/// What the flag needs of others.
pub fn check(arguments: &BenchArguments) -> Result<(), ConfigError> {
    let problem = match (arguments.only, arguments.warmup) {
        _ if !arguments.feature_cache => return Ok(()),
        (Some(Job::Predict), _) => "is of training: leave out --only predict",
        (_, 0) => "is filled by the warm-up: give it one with --warmup 1",
        _ => return Ok(()),
    };
    Err(ConfigError::invalid("command line", vec![Problem::conflict("--feature-cache", problem.to_owned())]))
}

/// Batches whose features are in a temporary folder.
pub struct Cached<'a> {
    batches: &'a [Batch],
    cache: FeatureCache,
    store: Arc<FeatureStore>,
    _folder: TempDir,
}

impl<'a> Cached<'a> {
    /// Whether all features were stored.
    ///
    /// # Errors
    /// Why they were not: then nothing was read back either.
    pub fn check(&self) -> anyhow::Result<()> {
        let notes = self.store.take_notes();
        anyhow::ensure!(notes.is_empty(), "--feature-cache: {}; TMPDIR names another folder", notes.join("; "));
        Ok(())
    }

    /// An empty cache in the system's temporary folder, which the replica fills.
    pub fn new<B: TrainOps>(batches: &'a [Batch], replica: &mut Replica<B>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("--feature-cache needs a temporary folder")?;
        let store = FeatureStore::open(folder.path(), FeaturePrecision::F32, u64::MAX)?;
        replica.keep_features(&store);
        let cache = replica.cache().context("there is no speech encoder")?.clone();
        Ok(Self { batches, cache, store, _folder: folder })
    }

    /// Does something with each batch, while a thread reads the features of the next ones.
    pub fn each(&self, mut work: impl FnMut(&Batch) -> anyhow::Result<()>) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || {
                for batch in self.batches {
                    if sender.send(self.found(batch)).is_err() {
                        return;
                    }
                }
            });
            receiver.into_iter().try_for_each(|batch| work(&batch))
        })
    }

    /// A batch with the features that the cache has.
    fn found(&self, batch: &Batch) -> Batch {
        let width = batch.longest_samples();
        let rows = batch.sample_lengths.iter().enumerate();
        let waveforms = rows.map(|(row, &samples)| &batch.waveforms[row * width..row * width + samples]);
        Batch { features: waveforms.map(|waveform| self.cache.get(waveform)).collect(), ..batch.clone() }
    }
}
