//! `clasp measure-step`, which `clasp doctor` runs in a process of its own: two steps of training on the longest
//! utterances, the scoring of a batch of dev and a checkpoint, and how much memory the process took for that.

use std::{fs, ops::ControlFlow, path::Path, sync::Arc};

use anyhow::Context as _;
use burn::module::AutodiffModule as _;
use serde::{Deserialize, Serialize};

use super::memory::{longest, material};
use crate::commands::write_output;
use clasp::{
    checkpoint::{self, parameters},
    cli::MeasureArguments,
    config::{self, Precision},
    data::{
        batch::{Batch, BatchOptions, sequential_plan},
        dataset::Dataset,
        features::FeatureStore,
        loader::Loader,
    },
    device::{self, ResolvedDevice, Task},
    encoder::SpeechEncoderConfig,
    error,
    inference::pass::{self, Pass},
    memory::{self, DeviceMemory},
    ops::TrainOps,
    panics,
    run::RunFolder,
    train::{
        replica::{Replica, StepPlan},
        setup::Material,
        state::OPTIMIZER,
    },
};

/// The first step makes the optimiser's moments; the second has them beside all that a step takes.
const STEPS: u64 = 2;
/// Batches of a window that are computed: the second finds the gradients of the first.
const COMPUTED: usize = 2;
/// Batches that a decoding thread holds: those that wait and the one in its hand.
const DECODED: usize = 3;

/// What was measured, in bytes. Peaks are those of the process so far, on a GPU what it holds there at that time; none
/// where the system does not say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// All parameters.
    pub weights: u64,
    /// The gradients of those that train; those of a window beside those of a batch where batches are accumulated.
    pub gradients: u64,
    /// The optimiser's two moments of those that train.
    pub moments: u64,
    /// The batch on the host.
    pub data: u64,
    /// After the steps.
    pub step: Option<u64>,
    /// After the scoring, where there is a dev split.
    pub scoring: Option<u64>,
    /// After the checkpoint.
    pub checkpoint: Option<u64>,
}

/// Runs `clasp measure-step`: prints [`Measured`] as JSON.
///
/// # Errors
/// What training would fail with.
pub fn run(arguments: &MeasureArguments) -> anyhow::Result<u8> {
    // Where the system ends a process for want of memory, it shall be this one. Not every system lets it be said.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let config = config::load(&arguments.config, &[])?;
    let chosen = device::choose_all(&config.run.device)?;
    let mut material = material(&config, &arguments.folder)?;
    // A step that drops a layer takes less than the most.
    material.model.speech_encoder = material.model.speech_encoder.map(SpeechEncoderConfig::without_layer_drop);
    let work = MeasureTask { material: &material, folder: &arguments.folder, batch: arguments.batch, chosen: &chosen };
    let measured = device::dispatch(chosen[0], work)?;
    write_output(&(serde_json::to_string(&measured)? + "\n"))?;
    Ok(error::SUCCESS)
}

struct MeasureTask<'a> {
    material: &'a Material,
    folder: &'a Path,
    /// Utterances a device.
    batch: usize,
    chosen: &'a [ResolvedDevice],
}

impl Task for MeasureTask<'_> {
    type Output = anyhow::Result<Measured>;

    fn run<B: TrainOps>(self, device: &B::Device) -> Self::Output {
        let held = memory::device(self.chosen[0]).map(DeviceMemory::used);
        let taken = || match held {
            Some(held) => Some(memory::device(self.chosen[0])?.used().saturating_sub(held)),
            None => memory::peak(),
        };
        let Self { material, folder, .. } = self;
        let train = &material.config.train;
        let features = match &material.config.speech.feature_cache {
            Some(cache) => Some(FeatureStore::open(&folder.join("features"), cache.precision, cache.bytes())?),
            None => None,
        };
        let run = RunFolder::new(&folder.join("run"));
        let (mut replica, _) = Replica::<B>::open(material, &run, false, device, features.as_ref())?;

        let plan = self.plan()?;
        let mut loader =
            Loader::new(&material.train, plan, material.pad_token(), material.config.run.workers, replica.cache())?;
        let mut step = |batches: &[Batch], number: u64| -> anyhow::Result<()> {
            let parts = replica.objective().parts(batches, 1, |batch| Some((train.seed, number + batch as u64)));
            let parts = parts.into_iter().next().unwrap_or_default().into_iter().take(COMPUTED).collect();
            replica.step(&StepPlan { parts, schedule: 1.0 })?;
            Ok(())
        };
        let mut next =
            |count: usize| loader.by_ref().take(count).collect::<Result<Vec<Batch>, _>>().context("data.train");
        if train.batch_seconds.0.is_some() {
            step(&next(1)?, 0)?;
        }
        let batches = next(train.accumulation_steps)?;
        for number in 0..STEPS {
            step(&batches, 1 + number * COMPUTED as u64)?;
        }
        panics::stop_if_out_of_memory();
        let step = taken();
        let data = batches.first().map_or(0, bytes);
        drop((loader, batches));

        let scoring = match &material.dev {
            Some(dev) => {
                let cache = features.as_ref().and_then(|store| replica.feature_cache(store, Precision::F32));
                let options = Pass {
                    batch_size: self.batch * self.chosen.len(),
                    batch_seconds: train.batch_seconds.0,
                    workers: material.config.run.workers,
                    pad_token: material.pad_token(),
                    cache: cache.as_ref(),
                };
                // The first batch has the longest utterances.
                pass::probabilities(&replica.model().valid(), device, dev, options, |_| ControlFlow::Break(()))?;
                taken()
            }
            None => None,
        };

        fs::create_dir_all(run.last())?;
        checkpoint::save(replica.model(), &material.checkpoint, &run.last())?;
        replica.optimizer().save(&run.last().join(OPTIMIZER))?;
        panics::stop_if_out_of_memory();

        let trained = float_bytes(parameters::trained(replica.model()).values());
        let window = if train.accumulation_steps > 1 { 2 } else { 1 };
        Ok(Measured {
            weights: float_bytes(parameters::shapes(replica.model()).values()),
            gradients: window * trained,
            moments: 2 * trained,
            data,
            step,
            scoring,
            checkpoint: taken(),
        })
    }
}

impl MeasureTask<'_> {
    /// The batches to read: where seconds limit a batch, the one with the most utterances in front, which may take more;
    /// then those of a window, and as many more as would be decoded ahead.
    fn plan(&self) -> anyhow::Result<Vec<Vec<usize>>> {
        let (dataset, config) = (&self.material.train, &self.material.config);
        let batch = longest_batch(dataset, self.batch)?;
        let lengths = dataset.lengths()?;
        let padded = self.batch * longest(dataset)?.samples;
        let left = lengths.iter().sum::<usize>() / padded.max(1);
        let ahead = left.min(DECODED * config.run.workers);
        let mut plan = vec![batch; config.train.accumulation_steps + ahead];
        if let Some(seconds) = config.train.batch_seconds.0 {
            let options = BatchOptions { batch_size: self.batch, batch_seconds: Some(seconds) };
            let largest = sequential_plan(&lengths, options).into_iter().rev().max_by_key(Vec::len);
            plan.insert(0, largest.unwrap_or_default());
        }
        Ok(plan)
    }
}

/// As many utterances, each as long as the longest when they are padded: the one with the longest audio again and
/// again, and the one with the longest text.
fn longest_batch(dataset: &Arc<Dataset>, count: usize) -> anyhow::Result<Vec<usize>> {
    let place = |lengths: Vec<usize>| (0..lengths.len()).max_by_key(|&place| lengths[place]).unwrap_or(0);
    let mut batch = vec![place(dataset.lengths()?); count];
    if let Some(last) = batch.last_mut().filter(|_| count > 1) {
        *last = place(dataset.token_lengths());
    }
    Ok(batch)
}

fn float_bytes<'a>(shapes: impl Iterator<Item = &'a Vec<usize>>) -> u64 {
    shapes.map(|shape| 4 * shape.iter().product::<usize>() as u64).sum()
}

fn bytes(batch: &Batch) -> u64 {
    (size_of_val(&*batch.tokens) + size_of_val(&*batch.waveforms)) as u64
}
