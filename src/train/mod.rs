//! The training loop, in the order in which things happen: batch, forward, losses, backward, update, log; at the end of
//! an epoch the dev score, `best/` and `last/`. It tells what happens as events and prints nothing.

pub mod gradients;
pub mod optimizer;
pub mod schedule;
pub mod setup;
pub mod state;

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;
use burn::{backend::Autodiff, module::AutodiffModule, tensor::Tensor};

use crate::{
    checkpoint::{self, CheckpointError},
    config::OptimizerKind,
    data::{
        batch::{Batch, BatchOptions, plan},
        dataset::Dataset,
        loader::Loader,
    },
    eval::metrics::{Confusion, Headline},
    inference::{self, Pass, Probabilities},
    loss::{LossTerms, Targets, losses},
    model::Clasp,
    ops::{Mode, Ops, StepRandom},
    report::Event,
    run::{
        RunFolder,
        log::{Entry, EpochEntry, EpochScores, Log, Position, StepEntry, cut_back},
        replace::{FileError, replace_folder},
        tensorboard::Events,
    },
};
use gradients::GradientWindow;
use optimizer::{Optimizer, OptimizerConfig};
use setup::Material;
use state::{Best, OPTIMIZER, State, loss_values};

/// Names of the loss terms, in the order in which they are read.
const TERMS: [&str; 8] =
    ["total", "task_text", "task_speech", "task_fusion", "semantic", "modality", "reconstruction", "kl"];

/// Training met a number that is not finite (exit code 4).
#[derive(Debug, thiserror::Error)]
#[error(
    "training diverged at step {step} (epoch {epoch}): {what} is not finite; utterances: {}; the last good checkpoint \
     is {}; a lower train.learning_rate, train.warmup_steps or train.clip_norm may help",
    ids.join(", "),
    checkpoint
)]
pub struct Diverged {
    /// The step, from 1.
    pub step: usize,
    /// The epoch, from 1.
    pub epoch: usize,
    /// The term, or the gradient norm.
    pub what: String,
    /// The utterances of the step.
    pub ids: Vec<String>,
    /// Where the last good checkpoint is.
    pub checkpoint: String,
}

/// The user stopped the run (exit code 130).
#[derive(Debug, thiserror::Error)]
#[error("interrupted at step {step}; the checkpoint {checkpoint} is written: go on with --resume")]
pub struct Interrupted {
    /// Steps that were taken.
    pub step: usize,
    /// The checkpoint.
    pub checkpoint: String,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The best epoch.
    pub best: Option<Best>,
    /// Steps that were taken.
    pub steps: usize,
    /// Epochs that were run.
    pub epochs: usize,
}

/// A run at work.
pub struct Trainer<'a, B: Ops> {
    material: &'a Material,
    folder: &'a RunFolder,
    device: &'a B::Device,
    is_stopped: &'a AtomicBool,
    tell: &'a mut dyn FnMut(&Event),
    model: Held<Clasp<Autodiff<B>>>,
    optimizer: Optimizer<Autodiff<B>>,
    state: State,
    log: Log,
    events: Events,
    total_steps: usize,
}

impl<'a, B: Ops> Trainer<'a, B> {
    /// A run from its beginning, or from `last/` where `resume`.
    ///
    /// # Errors
    /// Weights or a checkpoint that cannot be loaded; a log that cannot be written.
    pub fn new(
        material: &'a Material,
        folder: &'a RunFolder,
        device: &'a B::Device,
        resume: bool,
        is_stopped: &'a AtomicBool,
        tell: &'a mut dyn FnMut(&Event),
    ) -> anyhow::Result<Self> {
        let (model, notes) = if resume {
            let loaded = checkpoint::load::<B>(&folder.last(), device)?;
            (setup::freeze(checkpoint::parameters::trainable(loaded.model), &material.config), Vec::new())
        } else {
            setup::model::<B>(material, device)?
        };
        for note in &notes {
            tell(&Event::Message(note));
        }
        let mut optimizer = Optimizer::new(optimizer_config(material));
        let mut state = State::default();
        if resume {
            state = State::load(&folder.last())?;
            optimizer.load(&folder.last().join(OPTIMIZER), device)?;
        }
        cut_back(&folder.log(), Position { step: state.step, epochs: state.epochs })?;
        let log = Log::open(&folder.log())?;
        let events = Events::open(&folder.events(), state.step)?;
        let mut trainer = Self {
            material,
            folder,
            device,
            is_stopped,
            tell,
            model: Held::new(model),
            optimizer,
            state,
            log,
            events,
            total_steps: 0,
        };
        trainer.total_steps = trainer.count_steps()?;
        Ok(trainer)
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// [`Diverged`]; [`Interrupted`]; an utterance that cannot be read; a checkpoint that cannot be written.
    pub fn run(mut self) -> anyhow::Result<Outcome> {
        let epochs = self.material.config.train.epochs;
        (self.tell)(&Event::Training { epochs, steps: self.total_steps, done: self.state.step });
        while self.state.epochs < epochs && !self.is_out_of_patience() {
            self.epoch()?;
        }
        (self.tell)(&Event::Finished);
        Ok(Outcome { best: self.state.best, steps: self.state.step, epochs: self.state.epochs })
    }

    fn is_out_of_patience(&self) -> bool {
        self.material.config.train.patience.is_some_and(|patience| self.state.epochs_without_better >= patience)
    }

    /// The optimiser steps of all epochs.
    fn count_steps(&self) -> anyhow::Result<usize> {
        let train = &self.material.config.train;
        let steps = |epoch| -> anyhow::Result<usize> { Ok(self.plan(epoch)?.len().div_ceil(train.accumulation_steps)) };
        match train.batch_seconds {
            // Only where seconds limit a batch do epochs have different numbers of them.
            Some(_) => (0..train.epochs).map(steps).sum(),
            None => Ok(steps(0)? * train.epochs),
        }
    }

    /// The batches of an epoch (from 0): a function of the data, the seed and the epoch.
    fn plan(&self, epoch: usize) -> anyhow::Result<Vec<Vec<usize>>> {
        let train = &self.material.config.train;
        let options = BatchOptions { batch_size: train.batch_size, batch_seconds: train.batch_seconds };
        Ok(plan(&self.material.train.lengths()?, options, train.seed, epoch as u64))
    }

    fn epoch(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let config = &self.material.config;
        let window = config.train.accumulation_steps;
        let plan = self.plan(self.state.epochs)?;
        let steps = plan.len().div_ceil(window);
        let rest = plan.get(self.state.batches..).unwrap_or_default().to_vec();
        let mut done = self.state.batches / window;
        let mut loader =
            Loader::new(&self.material.train, rest, self.material.tokenizer.pad_token(), config.run.workers)?;
        loop {
            let batches: Vec<Batch> = loader.by_ref().take(window).collect::<Result<_, _>>().context("data.train")?;
            if batches.is_empty() {
                break;
            }
            let entry = self.step(&batches)?;
            done += 1;
            if entry.step.is_multiple_of(config.train.log_every_steps) {
                self.write(&Entry::Step(entry))?;
            }
            (self.tell)(&Event::Step { entry: &entry, done, of: steps });
            if self.is_stopped.load(Ordering::SeqCst) {
                return Err(self.interrupted()?.into());
            }
            if config.train.save_every_steps.is_some_and(|every| self.state.step.is_multiple_of(every)) {
                self.save_last()?;
            }
        }
        drop(loader);
        self.end_epoch(started)
    }

    /// Appends a line to the log, and its scalars for TensorBoard.
    fn write(&mut self, entry: &Entry) -> Result<(), FileError> {
        self.log.append(entry)?;
        self.events.append(entry)
    }

    /// One optimiser step over a window of batches.
    #[expect(clippy::cast_precision_loss, reason = "numbers of examples and steps are small")]
    fn step(&mut self, batches: &[Batch]) -> anyhow::Result<StepEntry> {
        let started = Instant::now();
        let config = &self.material.config;
        let examples: usize = batches.iter().map(Batch::len).sum();
        let mut window = GradientWindow::default();
        let mut means = [0.0; 8];
        for (place, batch) in batches.iter().enumerate() {
            // A window is averaged over its examples: each batch counts by its size.
            let share = batch.len() as f64 / examples as f64;
            let random = StepRandom::new(config.train.seed, (self.state.batches + place) as u64 + self.epoch_offset());
            let terms = self.terms(batch, Mode::training(&random).with_precision(config.run.precision));
            let gradients = (terms.total.clone() * share).backward();
            let values = read(terms);
            means.iter_mut().zip(values).for_each(|(mean, value)| *mean += value * share);
            window.add::<Autodiff<B>, _>(self.model.get(), gradients);
        }
        let norm = window.norm(1.0);
        let culprit = TERMS.iter().zip(means).find(|(_, mean)| !mean.is_finite()).map(|(name, _)| *name);
        let what = culprit.map(|name| format!("the loss term {name}"));
        if let Some(what) = what.or_else(|| (!norm.is_finite()).then(|| "the gradient norm".to_owned())) {
            return Err(self.diverged(what, batches).into());
        }
        let scale = config.train.clip_norm.map_or(1.0, |limit| if norm > limit { limit / norm } else { 1.0 });
        let train = &config.train;
        let schedule = schedule::factor(train.schedule, self.state.step, train.warmup_steps, self.total_steps);
        let optimizer = &mut self.optimizer;
        self.model.change(|model| optimizer.step(model, &mut window, schedule, scale));
        self.state.step += 1;
        self.state.batches += batches.len();
        self.state.sums.add(&means, examples);
        Ok(StepEntry {
            epoch: self.state.epochs + 1,
            step: self.state.step,
            loss: loss_values(&means),
            learning_rate: train.learning_rate * schedule,
            gradient_norm: norm,
            examples_per_second: examples as f64 / started.elapsed().as_secs_f64().max(1e-9),
        })
    }

    /// Keeps the randomness of one epoch's batches apart from the next one's.
    fn epoch_offset(&self) -> u64 {
        (self.state.epochs as u64) << 32
    }

    fn terms(&self, batch: &Batch, mode: Mode<'_>) -> LossTerms<Autodiff<B>> {
        let output = self.model.get().forward(&inference::inputs(batch), mode, self.device);
        let labels: Vec<usize> = batch.labels.iter().copied().map(Option::unwrap_or_default).collect();
        let loss = &self.material.config.loss;
        let targets =
            Targets::new(&labels, self.material.labels.len(), &self.material.label_weights, loss.label_smoothing);
        losses(&output, &targets, loss)
    }

    fn diverged(&self, what: String, batches: &[Batch]) -> Diverged {
        let last = self.folder.last();
        let checkpoint = if last.is_dir() { last.display().to_string() } else { "not yet written".into() };
        Diverged {
            step: self.state.step + 1,
            epoch: self.state.epochs + 1,
            what,
            ids: batches.iter().flat_map(|batch| batch.ids.clone()).collect(),
            checkpoint,
        }
    }

    /// Scores dev, keeps the best weights, writes `last/`.
    fn end_epoch(&mut self, started: Instant) -> anyhow::Result<()> {
        let epoch = self.state.epochs + 1;
        let dev = match self.material.dev.clone() {
            Some(dev) => {
                let Some(scores) = self.score(&dev).context("data.dev")? else {
                    // All batches of the epoch are done: a resume begins with the scoring.
                    return Err(self.interrupted()?.into());
                };
                Some(scores)
            }
            None => None,
        };
        let score = dev.as_ref().and_then(|dev| dev.fusion.as_ref()).map(|headline| headline.weighted_f1);
        // Without dev the last epoch is the best.
        let is_best = match (score, self.state.best) {
            (Some(score), Some(best)) => best.weighted_f1.is_none_or(|best| score > best),
            _ => true,
        };
        let entry = EpochEntry {
            epoch,
            step: self.state.step,
            train: EpochScores { loss: Some(self.state.sums.mean()), ..EpochScores::default() },
            dev,
            is_best,
            seconds: started.elapsed().as_secs_f64(),
        };
        if is_best {
            self.save(&self.folder.best(), false)?;
            self.state.best = Some(Best { epoch, weighted_f1: score });
            self.state.epochs_without_better = 0;
        } else {
            self.state.epochs_without_better += 1;
        }
        self.state.epochs = epoch;
        self.state.batches = 0;
        self.state.sums = state::LossSums::default();
        self.write(&Entry::Epoch(Box::new(entry)))?;
        (self.tell)(&Event::Epoch(&entry));
        self.save_last()
    }

    /// Writes the checkpoint that the run goes on from.
    fn interrupted(&mut self) -> anyhow::Result<Interrupted> {
        self.save_last()?;
        Ok(Interrupted { step: self.state.step, checkpoint: self.folder.last().display().to_string() })
    }

    /// The scores on a data set; none where the user stopped the run meanwhile.
    fn score(&mut self, dataset: &Arc<Dataset>) -> anyhow::Result<Option<EpochScores>> {
        let model = self.model.get().valid();
        let train = &self.material.config.train;
        let pass = Pass {
            batch_size: train.batch_size,
            workers: self.material.config.run.workers,
            pad_token: self.material.tokenizer.pad_token(),
        };
        let (tell, is_stopped) = (&mut *self.tell, self.is_stopped);
        let of = Some(dataset.len());
        let probabilities = inference::probabilities(&model, self.device, dataset, pass, |done| {
            tell(&Event::Count { what: "scoring dev", done, of });
            if is_stopped.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let Some(probabilities) = probabilities else { return Ok(None) };
        if let Some(label) = only_label(&probabilities).and_then(|label| self.material.labels.name(label)) {
            (self.tell)(&Event::Message(&format!(
                "warning: every dev prediction is `{label}`: the model does not tell the classes apart yet; if that \
                 stays so, a lower train.learning_rate, train.warmup_steps or loss.class_weights may help"
            )));
        }
        scores(&probabilities, dataset.labels(), self.material.labels.len()).map(Some)
    }

    fn save_last(&mut self) -> anyhow::Result<()> {
        self.log.sync()?;
        self.save(&self.folder.last(), true)
    }

    /// Replaces a checkpoint folder by the current weights, with what a resume needs where `is_resumable`.
    fn save(&self, target: &Path, is_resumable: bool) -> anyhow::Result<()> {
        let material = self.material;
        replace_folder(target, |folder| -> Result<(), SaveError> {
            checkpoint::save(self.model.get(), &material.checkpoint, folder)?;
            material.tokenizer.save(folder)?;
            if is_resumable {
                self.optimizer.save(&folder.join(OPTIMIZER))?;
                self.state.save(folder)?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// A value that is changed by consuming it, so that its tensors have one owner and are updated in place.
#[derive(Debug)]
struct Held<T>(Option<T>);

impl<T> Held<T> {
    fn new(value: T) -> Self {
        Self(Some(value))
    }

    fn get(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("the value is missing only while `change` runs"),
        }
    }

    fn change(&mut self, change: impl FnOnce(T) -> T) {
        self.0 = self.0.take().map(change);
    }
}

/// A checkpoint that cannot be written; the run fails, and the one before it is kept.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Weights, config or state.
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    /// The tokenizer's files.
    #[error("{0}")]
    Tokenizer(#[from] crate::data::DataError),
}

fn optimizer_config(material: &Material) -> OptimizerConfig {
    let train = &material.config.train;
    OptimizerConfig {
        decoupled: train.optimizer == OptimizerKind::AdamW,
        weight_decay: train.weight_decay,
        learning_rate: train.learning_rate,
        encoder_learning_rate: train.encoder_learning_rate,
        layer_decay: train.layer_decay,
        text_layers: material.model.text_encoder.num_hidden_layers,
        speech_layers: material.model.speech_encoder.num_hidden_layers,
        speech_norm_is_last: material.model.speech_encoder.do_stable_layer_norm,
    }
}

/// The terms as numbers, in the order of [`TERMS`]: one transfer from the device.
fn read<B: Ops>(terms: LossTerms<Autodiff<B>>) -> [f64; 8] {
    let tensors: Vec<Tensor<B, 1>> = terms.named().into_iter().map(|(_, term)| term.inner()).collect();
    let data = Tensor::cat(tensors, 0).into_data().convert::<f64>();
    data.as_slice::<f64>().ok().and_then(|values| values.try_into().ok()).unwrap_or([f64::NAN; 8])
}

/// The label that the fusion gives to all of several utterances.
fn only_label(probabilities: &[Probabilities]) -> Option<usize> {
    let mut labels = probabilities.iter().map(|found| inference::largest(&found.fusion));
    let first = labels.next()?;
    (probabilities.len() > 1 && labels.all(|label| label == first)).then_some(first)
}

/// The scores of the three classifiers.
fn scores(probabilities: &[Probabilities], truths: &[Option<usize>], labels: usize) -> anyhow::Result<EpochScores> {
    let headline = |pick: fn(&Probabilities) -> &Vec<f32>| -> anyhow::Result<Headline> {
        let pairs: Vec<(usize, usize)> = truths
            .iter()
            .zip(probabilities)
            .filter_map(|(truth, probabilities)| Some(((*truth)?, inference::largest(pick(probabilities)))))
            .collect();
        Ok(Confusion::from_pairs(labels, &pairs)?.headline())
    };
    Ok(EpochScores {
        loss: None,
        fusion: Some(headline(|probabilities| &probabilities.fusion)?),
        text_only: Some(headline(|probabilities| &probabilities.text)?),
        speech_only: Some(headline(|probabilities| &probabilities.speech)?),
    })
}
