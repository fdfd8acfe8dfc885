//! `clasp bench --feature-cache`: the training job with the features of the frozen convolutions from the disk, as
//! `clasp train` does with `speech.feature_cache`. The warm-up fills the cache; every later epoch reads it back.

use std::sync::{Arc, mpsc::sync_channel};

use anyhow::Context as _;
use tempfile::TempDir;

use super::Trainee;
use clasp::{
    cli::{BenchArguments, Job},
    config::{ConfigError, FeaturePrecision, Problem},
    data::{
        batch::Batch,
        features::{FeatureCache, FeatureStore},
    },
    encoder::Inputs,
    inference::pass::{feature_cache, inputs_with},
    ops::Ops,
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
pub struct Cached {
    batches: Vec<(Batch, Vec<usize>)>,
    cache: FeatureCache,
    store: Arc<FeatureStore>,
    _folder: TempDir,
}

impl Cached {
    /// Whether all features were stored.
    ///
    /// # Errors
    /// Why they were not: then nothing was read back either.
    pub fn check(&self) -> anyhow::Result<()> {
        let notes = self.store.take_notes();
        anyhow::ensure!(notes.is_empty(), "--feature-cache: {}; TMPDIR names another folder", notes.join("; "));
        Ok(())
    }

    /// An empty cache in the system's temporary folder.
    pub fn new<B: Ops>(
        batches: &[(Inputs, Vec<usize>)],
        trainee: &Trainee<B>,
        device: &B::Device,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("--feature-cache needs a temporary folder")?;
        let store = FeatureStore::open(folder.path(), FeaturePrecision::F32, u64::MAX)?;
        let model = trainee.model.as_ref().ok_or_else(|| anyhow::anyhow!("there is no model"))?;
        let cache = feature_cache(&store, model, trainee.precision, &B::name(device))
            .ok_or_else(|| anyhow::anyhow!("there is no speech encoder"))?;
        let batches = batches.iter().map(|(inputs, labels)| (batch(inputs), labels.clone())).collect();
        Ok(Self { batches, cache, store, _folder: folder })
    }

    /// One optimiser step for each batch, while a thread reads the features of the next ones.
    pub fn epoch<B: Ops>(&self, trainee: &mut Trainee<B>, device: &B::Device) {
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || {
                for (batch, labels) in &self.batches {
                    if sender.send((self.found(batch), labels)).is_err() {
                        return;
                    }
                }
            });
            for (batch, labels) in receiver {
                let Some(model) = &trainee.model else { return };
                let inputs = inputs_with(&batch, model, Some(&self.cache), trainee.precision, device);
                trainee.step(&inputs, labels, device);
            }
        });
    }

    /// A batch with the features that the cache has.
    fn found(&self, batch: &Batch) -> Batch {
        let width = batch.longest_samples();
        let rows = batch.sample_lengths.iter().enumerate();
        let waveforms = rows.map(|(row, &samples)| &batch.waveforms[row * width..row * width + samples]);
        Batch { features: waveforms.map(|waveform| self.cache.get(waveform)).collect(), ..batch.clone() }
    }
}

fn batch(inputs: &Inputs) -> Batch {
    Batch {
        tokens: inputs.tokens.clone(),
        token_lengths: inputs.text_lengths.valid().to_vec(),
        waveforms: inputs.waveforms.clone(),
        sample_lengths: inputs.speech_lengths.valid().to_vec(),
        ..Batch::default()
    }
}
