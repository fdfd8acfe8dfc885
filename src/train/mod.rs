//! The training loop, in the order in which things happen: batch, forward, losses, backward, update, log; at the end of
//! an epoch the dev score, `best/` and `last/`. It tells what happens as events and prints nothing.

pub mod gradients;
pub mod group;
pub mod optimizer;
pub mod replica;
pub mod schedule;
pub mod setup;
pub mod state;
pub mod step_result;

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use burn::module::AutodiffModule;

use crate::{
    checkpoint::{self, CheckpointError, sums},
    config::Precision,
    data::{
        batch::{Batch, BatchOptions, plan},
        dataset::Dataset,
        features::{FeatureCache, FeatureStore},
        loader::Loader,
    },
    device::ResolvedDevice,
    eval::metrics::{Confusion, Headline},
    files::{FileError, WEIGHTS},
    inference::pass::{self, Pass, Probabilities},
    memory::{self, DeviceMemory},
    ops::TrainOps,
    panics,
    run::{
        RunFolder,
        log::{self, Entry, EpochEntry, EpochScores, Log, Position, StepEntry, cut_back},
        replace::replace_folder,
        tensorboard::Events,
    },
    terminal::Event,
};
use group::{Group, Member};
use replica::{Replica, StepPlan};
use setup::Material;
use state::{Best, OPTIMIZER, STATE, State};
use step_result::StepOutcome;

/// Training met a number that is not finite (exit code 4).
#[derive(Debug, thiserror::Error)]
#[error(
    "training diverged at step {step} (epoch {epoch}): {what} is not finite; utterances: {}; {}; a lower train.learning_rate, train.warmup_steps or train.clip_norm may help",
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
    pub checkpoint: String,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub best: Option<Best>,
    /// Steps that were taken.
    pub steps: usize,
    /// Epochs that were run.
    pub epochs: usize,
}

/// What a run begins with.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The config and the data.
    pub material: &'a Material,
    pub folder: &'a RunFolder,
    /// The first device, whose memory the log tells.
    pub first: ResolvedDevice,
    /// Whether to go on from `last/`.
    pub is_resumed: bool,
    /// Where the features of speech are kept.
    pub features: Option<&'a Arc<FeatureStore>>,
    /// Steps that one device takes before their losses are read; several devices read those of every step. With 1 no
    /// update is made where a loss or gradient is not finite.
    pub read_every: usize,
    /// Set by the user who wants the run to stop.
    pub is_stopped: &'a AtomicBool,
}

/// Trains to the end, on one device or on several that share each batch. `begin` is called once the weights are loaded
/// and before anything is written.
///
/// # Errors
/// Weights or a checkpoint that cannot be loaded or written; [`Diverged`]; [`Interrupted`]; an utterance that cannot be
/// read; a device that gives up.
pub fn train<B: TrainOps>(
    start: Start<'_>,
    devices: &[B::Device],
    begin: impl FnOnce() -> anyhow::Result<()>,
    notify: &mut dyn FnMut(&Event),
) -> anyhow::Result<Outcome> {
    let [first, others @ ..] = devices else { anyhow::bail!("there is no device to train on") };
    if others.is_empty() {
        let (replica, notes) =
            Replica::<B>::open(start.material, start.folder, start.is_resumed, first, start.features)?;
        begin()?;
        return Trainer::new(start, Team { replica, others: Vec::new() }, first, &notes, notify)?.run();
    }
    let group = Group::new(devices.len());
    std::thread::scope(|scope| {
        let orders = others.iter().enumerate().map(|(place, device)| {
            let (sender, orders) = channel::<StepPlan>();
            let (rank, group) = (place + 1, Arc::clone(&group));
            let serve = move || serve::<B>(start, device, (rank, devices.len(), group), &orders);
            std::thread::Builder::new()
                .name(format!("device-{rank}"))
                .spawn_scoped(scope, serve)
                .map_err(|cause| std::io::Error::other(panics::lack_of_threads(&cause.to_string())))?;
            Ok(sender)
        });
        let led = orders.collect::<std::io::Result<Vec<_>>>().map_err(anyhow::Error::from).and_then(|others| {
            let (mut replica, notes) =
                Replica::<B>::open(start.material, start.folder, start.is_resumed, first, start.features)?;
            begin()?;
            replica.join(Member::join(0, devices.len(), Arc::clone(&group))?);
            Trainer::new(start, Team { replica, others }, first, &notes, notify)?.run()
        });
        // Whoever still waits for this device does so in vain.
        group.stop("the run is over");
        led
    })
}

/// The thread of a device other than the first: it takes the steps that it is sent.
fn serve<B: TrainOps>(
    start: Start<'_>,
    device: &B::Device,
    (rank, count, group): (usize, usize, Arc<Group<B>>),
    orders: &Receiver<StepPlan>,
) {
    let work = || -> anyhow::Result<()> {
        let (mut replica, _) =
            Replica::<B>::open(start.material, start.folder, start.is_resumed, device, start.features)?;
        replica.join(Member::join(rank, count, Arc::clone(&group))?);
        while let Ok(plan) = orders.recv() {
            replica.step(&plan)?;
        }
        Ok(())
    };
    match panics::catch(work) {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => group.stop(&format!("{problem:#}")),
        Err(words) => group.stop(&words),
    }
}

/// The first device, and the way to the threads of the others.
#[derive(Debug)]
struct Team<B: TrainOps> {
    replica: Replica<B>,
    others: Vec<Sender<StepPlan>>,
}

impl<B: TrainOps> Team<B> {
    fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// One step of all devices: a plan for each. A device alone need not be waited for.
    fn step(&mut self, plans: Vec<StepPlan>, is_ahead: bool) -> anyhow::Result<StepOutcome<B>> {
        let mut plans = plans.into_iter();
        let own = plans.next().context("a step without a plan")?;
        if is_ahead {
            return Ok(StepOutcome::Pending(self.replica.step_ahead(&own)?));
        }
        for (other, plan) in self.others.iter().zip(plans) {
            // A device that has stopped reports its reason through the group; `step` below returns the error.
            let _ = other.send(plan);
        }
        Ok(StepOutcome::Read(self.replica.step(&own)?))
    }
}

/// A step that was taken, and what the log tells of it beside what it came to.
#[derive(Debug)]
struct UnreportedStep<B: TrainOps> {
    report: StepOutcome<B>,
    place: StepPosition,
    ids: Vec<String>,
}

/// Where a run stood after a step.
#[derive(Clone, Copy, Debug)]
struct StepPosition {
    /// Its number, from 1.
    step: usize,
    /// Steps of its epoch done, this one included.
    done: usize,
    learning_rate: f64,
}

/// A run at work.
struct Trainer<'a, B: TrainOps> {
    material: &'a Material,
    folder: &'a RunFolder,
    device: &'a B::Device,
    first: ResolvedDevice,
    read_every: usize,
    is_stopped: &'a AtomicBool,
    notify: &'a mut dyn FnMut(&Event),
    team: Team<B>,
    features: Option<&'a Arc<FeatureStore>>,
    /// What keeps the features for scoring, which is in f32 whatever the run trains in.
    scoring_cache: Option<FeatureCache>,
    state: State,
    log: Log,
    events: Events,
    total_steps: usize,
    /// Steps whose losses are not read yet; the state counts them already, their losses not.
    taken: Vec<UnreportedStep<B>>,
    /// When the first of them began.
    taken_since: Instant,
}

impl<'a, B: TrainOps> Trainer<'a, B> {
    /// A run from its beginning, or from `last/`.
    fn new(
        start: Start<'a>,
        team: Team<B>,
        device: &'a B::Device,
        notes: &[String],
        notify: &'a mut dyn FnMut(&Event),
    ) -> anyhow::Result<Self> {
        let Start { material, folder, first, is_resumed, features, read_every, is_stopped } = start;
        for note in notes {
            notify(&Event::Message(note));
        }
        let state = if is_resumed {
            let state = State::load(&folder.last()).with_context(|| not_resumable(folder))?;
            // The weights are checked where they are loaded.
            sums::check(&folder.last(), |name| name != WEIGHTS).with_context(|| not_resumable(folder))?;
            state
        } else {
            State::default()
        };
        if state.best.is_some() && !folder.best().is_dir() {
            let problem =
                format!("the checkpoint of its best epoch, {}, is gone: put it back", folder.best().display());
            return Err(CheckpointError::Damaged { path: folder.last().join(STATE), problem })
                .with_context(|| not_resumable(folder));
        }
        if state.best.is_some() {
            sums::check(&folder.best(), |_| true).with_context(
                || "the run has lost its best epoch; put back what it saved, or begin it anew with --overwrite",
            )?;
        }
        if is_resumed && state.step > 0 && !folder.log().exists() {
            let path = folder.log();
            let text = format!("warning: {} is missing: a new log starts after step {}", path.display(), state.step);
            notify(&Event::Message(&text));
        }
        cut_back(&folder.log(), Position { step: state.step, epochs: state.epochs })?;
        let log = Log::open(&folder.log())?;
        let entries = log::read(&folder.log())?;
        let logged = entries.iter().filter(|entry| matches!(entry, Entry::Epoch(_))).count();
        if logged < state.epochs {
            let lacking = state.epochs - logged;
            let words = format!("warning: {} lacks {lacking} of {} epochs", folder.log().display(), state.epochs);
            notify(&Event::Message(&words));
        }
        let events = Events::open(&folder.events(), &entries)?;
        // Several devices hear of each other's losses in every step.
        let read_every = if team.others.is_empty() { read_every } else { 1 };
        let scoring_cache = features.and_then(|store| team.replica.feature_cache(store, Precision::F32));
        let mut trainer = Self {
            material,
            folder,
            device,
            first,
            read_every,
            is_stopped,
            notify,
            team,
            features,
            scoring_cache,
            state,
            log,
            events,
            total_steps: 0,
            taken: Vec::new(),
            taken_since: Instant::now(),
        };
        trainer.total_steps = trainer.count_steps()?;
        Ok(trainer)
    }

    /// Trains to the end.
    fn run(mut self) -> anyhow::Result<Outcome> {
        let epochs = self.material.config.train.epochs;
        (self.notify)(&Event::Training { epochs, steps: self.total_steps, done: self.state.step });
        while self.state.epochs < epochs && !self.is_out_of_patience() {
            self.epoch()?;
        }
        (self.notify)(&Event::Finished);
        Ok(Outcome { best: self.state.best, steps: self.state.step, epochs: self.state.epochs })
    }

    fn is_out_of_patience(&self) -> bool {
        self.material.config.train.patience.0.is_some_and(|patience| self.state.epochs_without_better >= patience)
    }

    /// The optimiser steps of all epochs.
    fn count_steps(&self) -> anyhow::Result<usize> {
        let train = &self.material.config.train;
        let steps = |epoch| -> anyhow::Result<usize> { Ok(self.plan(epoch)?.len().div_ceil(train.accumulation_steps)) };
        match train.batch_seconds.0 {
            // Only where seconds limit a batch do epochs have different numbers of them.
            Some(_) => (0..train.epochs).map(steps).sum(),
            None => Ok(steps(0)? * train.epochs),
        }
    }

    /// The batches of an epoch (from 0): a function of the data, the seed and the epoch.
    fn plan(&self, epoch: usize) -> anyhow::Result<Vec<Vec<usize>>> {
        let train = &self.material.config.train;
        let options = BatchOptions { batch_size: train.batch_size, batch_seconds: train.batch_seconds.0 };
        Ok(plan(&self.material.train.lengths()?, options, train.seed, epoch as u64))
    }

    fn epoch(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let config = &self.material.config;
        let window = config.train.accumulation_steps;
        let plan = self.plan(self.state.epochs)?;
        if self.state.batches > plan.len() {
            let problem = format!("{} batches of an epoch of {} are done", self.state.batches, plan.len());
            return Err(CheckpointError::Damaged { path: self.folder.last().join(STATE), problem })
                .with_context(|| not_resumable(self.folder));
        }
        let steps = plan.len().div_ceil(window);
        let rest = plan.get(self.state.batches..).unwrap_or_default().to_vec();
        let (pad_token, cache) = (self.material.pad_token(), self.team.replica.cache());
        let mut loader = Loader::new(&self.material.train, rest, pad_token, config.run.workers, cache)?;
        loop {
            let batches: Vec<Batch> = loader.by_ref().take(window).collect::<Result<_, _>>().context("data.train")?;
            if batches.is_empty() {
                break;
            }
            self.take_step(&batches)?;
            self.tell_of_features();
            let is_stopped = self.is_stopped.load(Ordering::SeqCst);
            let is_saved = config.train.save_every_steps.0.is_some_and(|every| self.state.step.is_multiple_of(every));
            if is_stopped || is_saved || self.taken.len() >= self.read_every {
                self.read_steps(steps)?;
            }
            if is_stopped {
                return Err(self.interrupted()?.into());
            }
            if is_saved {
                self.save_last()?;
            }
        }
        self.read_steps(steps)?;
        let waited = loader.waited();
        drop(loader);
        self.end_epoch(started, waited)
    }

    /// Tells what the user should know of the feature cache.
    fn tell_of_features(&mut self) {
        for note in self.features.iter().flat_map(|store| store.take_notes()) {
            (self.notify)(&Event::Message(&note));
        }
    }

    /// Appends a line to the log, and its scalars for TensorBoard.
    fn write(&mut self, entry: &Entry) -> Result<(), FileError> {
        self.log.append(entry)?;
        self.events.append(entry)
    }

    /// One optimiser step over a window of batches.
    fn take_step(&mut self, batches: &[Batch]) -> anyhow::Result<()> {
        if self.taken.is_empty() {
            self.taken_since = Instant::now();
        }
        let train = &self.material.config.train;
        let schedule = schedule::factor(train.schedule, self.state.step, train.warmup_steps, self.total_steps);
        let first = self.state.batches as u64 + self.epoch_offset();
        let objective = self.team.replica.objective();
        let parts = objective.parts(batches, self.team.count(), |number| Some((train.seed, first + number as u64)));
        let plans = parts.into_iter().map(|parts| StepPlan { parts, schedule }).collect();
        let report = self.team.step(plans, self.read_every > 1)?;
        self.state.step += 1;
        self.state.batches += batches.len();
        let place = StepPosition {
            step: self.state.step,
            done: self.state.batches.div_ceil(train.accumulation_steps),
            learning_rate: train.learning_rate * schedule,
        };
        let ids = batches.iter().flat_map(|batch| batch.ids.clone()).collect();
        self.taken.push(UnreportedStep { report, place, ids });
        Ok(())
    }

    /// Reads what the last steps came to, of this many of this epoch.
    #[expect(clippy::cast_precision_loss, reason = "numbers of examples and steps are small")]
    fn read_steps(&mut self, of: usize) -> anyhow::Result<()> {
        let taken = std::mem::take(&mut self.taken);
        let examples: usize = taken.iter().map(|taken| taken.ids.len()).sum();
        let read: Vec<_> =
            taken.into_iter().map(|UnreportedStep { report, place, ids }| (report.read(), place, ids)).collect();
        let seconds = self.taken_since.elapsed().as_secs_f64().max(1e-9);
        for (result, place, ids) in read {
            if let Some(what) = result.first_non_finite() {
                return Err(self.diverged(what, place.step, ids).into());
            }
            self.state.sums.add(&result.losses, ids.len());
            let entry = StepEntry {
                epoch: self.state.epochs + 1,
                step: place.step,
                loss: result.losses.values(),
                learning_rate: place.learning_rate,
                gradient_norm: result.norms.total,
                gradient_norms: result.norms.groups,
                examples_per_second: examples as f64 / seconds,
            };
            (self.notify)(&Event::Step { entry: &entry, done: place.done, of });
            if entry.step.is_multiple_of(self.material.config.train.log_every_steps) {
                self.write(&Entry::Step(entry))?;
            }
        }
        Ok(())
    }

    /// Keeps the randomness of one epoch's batches apart from the next one's.
    fn epoch_offset(&self) -> u64 {
        (self.state.epochs as u64) << 32
    }

    fn diverged(&self, what: String, step: usize, ids: Vec<String>) -> Diverged {
        let last = self.folder.last();
        let checkpoint = if last.is_dir() {
            format!("the last good checkpoint is {}", last.display())
        } else {
            "no checkpoint was written yet".into()
        };
        Diverged { step, epoch: self.state.epochs + 1, what, ids, checkpoint }
    }

    /// Scores dev, keeps the best weights, writes `last/`.
    fn end_epoch(&mut self, started: Instant, waited: Duration) -> anyhow::Result<()> {
        let epoch = self.state.epochs + 1;
        let data_wait = waited.as_secs_f64() / started.elapsed().as_secs_f64().max(1e-9);
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
        let loss = self.state.sums.mean(self.material.model.terms()).values();
        let entry = EpochEntry {
            epoch,
            step: self.state.step,
            train: EpochScores { loss: Some(loss), ..EpochScores::default() },
            dev,
            is_best,
            seconds: started.elapsed().as_secs_f64(),
            data_wait: Some(data_wait),
            resident_memory: memory::resident(),
            device_memory: memory::device(self.first).map(DeviceMemory::used),
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
        let entry = Entry::Epoch(Box::new(entry));
        self.write(&entry)?;
        if let Entry::Epoch(entry) = &entry {
            (self.notify)(&Event::Epoch(entry));
        }
        self.save_last()
    }

    /// Writes the checkpoint that the run goes on from.
    fn interrupted(&mut self) -> anyhow::Result<Interrupted> {
        self.save_last()?;
        Ok(Interrupted { step: self.state.step, checkpoint: self.folder.last().display().to_string() })
    }

    /// The scores on a data set; `None` if the user stopped the run meanwhile.
    fn score(&mut self, dataset: &Arc<Dataset>) -> anyhow::Result<Option<EpochScores>> {
        let model = self.team.replica.model().valid();
        let train = &self.material.config.train;
        let pass = Pass {
            batch_size: train.batch_size,
            batch_seconds: train.batch_seconds.0,
            workers: self.material.config.run.workers,
            pad_token: self.material.pad_token(),
            cache: self.scoring_cache.as_ref(),
        };
        let (notify, is_stopped) = (&mut *self.notify, self.is_stopped);
        let of = Some(dataset.len());
        let probabilities = pass::probabilities(&model, self.device, dataset, pass, |done| {
            notify(&Event::Count { what: "scoring dev", done, of });
            if is_stopped.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let Some(probabilities) = probabilities else { return Ok(None) };
        if let Some(label) = only_label(&probabilities).and_then(|label| self.material.labels.name(label)) {
            (self.notify)(&Event::Message(&format!(
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
            checkpoint::save(self.team.replica.model(), &material.checkpoint, folder)?;
            if let Some(tokenizer) = &material.tokenizer {
                tokenizer.save(folder, material.checkpoint.max_tokens.unwrap_or(material.model.max_tokens()))?;
            }
            if is_resumable {
                self.team.replica.optimizer().save(&folder.join(OPTIMIZER))?;
                self.state.save(folder)?;
            }
            sums::write(folder)?;
            // What was read from a device without memory is no checkpoint.
            panics::out_of_memory().map_or(Ok(()), |problem| Err(SaveError::Memory(problem)))
        })?;
        Ok(())
    }
}

/// What goes before the reason why `last/` cannot be used. Nothing of the run was changed by then.
pub(crate) fn not_resumable(folder: &RunFolder) -> String {
    let best = folder.best();
    let best = if best.is_dir() {
        format!("; to start another run from its best epoch: --set train.init={} --set run.dir=", best.display())
    } else {
        String::new()
    };
    format!("the run cannot go on from {}; begin it anew with --overwrite{best}", folder.last().display())
}

/// A checkpoint that cannot be written; the run fails, and the one before it is kept.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Weights, config or state.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Tokenizer(#[from] crate::data::DataError),
    /// There was no memory for what was to be written.
    #[error("{0}")]
    Memory(String),
}

/// The label that the fusion gives to all of several utterances.
fn only_label(probabilities: &[Probabilities]) -> Option<usize> {
    let mut labels = probabilities.iter().map(|found| pass::largest(&found.fusion));
    let first = labels.next()?;
    (probabilities.len() > 1 && labels.all(|label| label == first)).then_some(first)
}

/// The scores of the classifiers.
fn scores(probabilities: &[Probabilities], truths: &[Option<usize>], labels: usize) -> anyhow::Result<EpochScores> {
    let headline = |pick: fn(&Probabilities) -> Option<&Vec<f32>>| -> anyhow::Result<Option<Headline>> {
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for (truth, probabilities) in truths.iter().zip(probabilities) {
            let Some(picked) = pick(probabilities) else { return Ok(None) };
            pairs.extend(truth.map(|truth| (truth, pass::largest(picked))));
        }
        Ok(Some(Confusion::from_pairs(labels, &pairs)?.headline()))
    };
    Ok(EpochScores {
        loss: None,
        fusion: headline(|probabilities| Some(&probabilities.fusion))?,
        text_only: headline(|probabilities| probabilities.text.as_ref())?,
        speech_only: headline(|probabilities| probabilities.speech.as_ref())?,
    })
}
