//! One device's part of training: its copy of the model and of the optimiser, and the steps that it takes together with
//! the other devices. All copies stay equal, since each makes the same update from the same summed gradients.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use burn::{
    backend::Autodiff,
    tensor::{ElementConversion as _, Tensor, backend::AutodiffBackend},
};

use super::{
    gradients::{GradientWindow, Squares},
    group::{GroupError, Member, Message},
    not_resumable,
    optimizer::{Optimizer, OptimizerConfig},
    setup::{self, Material},
    state::{OPTIMIZER, State},
    step_result::{Losses, PendingStep, StepResult},
};
use crate::{
    checkpoint::{self, parameters},
    config::{LossConfig, OptimizerKind, Precision},
    data::{
        batch::Batch,
        features::{FeatureCache, FeatureStore},
    },
    inference::pass,
    loss::Targets,
    memory::{self, Doing},
    method::{Contrasted, Output, Terms},
    model::{Model, ModelConfig},
    ops::{Mode, StepRandom, TrainOps},
    profile,
    random::mix,
    run::RunFolder,
};

/// A device's part of one batch of a window.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// The examples; there may be none.
    pub batch: Batch,
    /// The place of the first of them in the whole batch, and the size of that.
    pub place: (usize, usize),
    /// The examples of all batches of the window.
    pub window: usize,
    /// The sum of the class weights over the window.
    pub window_weight: f64,
    /// Seed of the run and number of the batch, which decide all randomness; none evaluates.
    pub randomness: Option<(u64, u64)>,
}

/// One optimiser step of one device.
#[derive(Clone, Debug)]
pub struct StepPlan {
    /// Its part of each batch of the window.
    pub parts: Vec<MicroBatch>,
    /// Factor on every rate.
    pub schedule: f64,
}

/// What a step depends on beside the model and the data.
#[derive(Clone, Debug)]
pub struct Objective {
    pub loss: LossConfig,
    /// How many labels there are.
    pub labels: usize,
    /// Weights of the labels in the task terms; `None` if all are alike.
    pub label_weights: Vec<f64>,
    /// Whether the contrastive terms see the examples of all devices.
    pub gather_negatives: bool,
    /// Width of the vectors that they compare.
    pub hidden_size: usize,
    /// Largest norm of the gradient.
    pub clip_norm: Option<f64>,
    /// The number format of the forward and backward pass.
    pub precision: Precision,
}

impl Objective {
    fn of(material: &Material) -> Self {
        let config = &material.config;
        Self {
            loss: config.loss.clone(),
            labels: material.labels.len(),
            label_weights: material.label_weights.clone(),
            gather_negatives: config.train.gather_negatives && material.model.contrasted_size() > 0,
            hidden_size: material.model.contrasted_size(),
            clip_norm: config.train.clip_norm.0,
            precision: config.run.precision,
        }
    }

    /// The classes of a batch; all are known in training.
    fn classes(batch: &Batch) -> Vec<usize> {
        batch.labels.iter().copied().map(Option::unwrap_or_default).collect()
    }

    /// Cuts the batches of a window into the parts of `count` devices.
    pub fn parts(
        &self,
        batches: &[Batch],
        count: usize,
        randomness: impl Fn(usize) -> Option<(u64, u64)>,
    ) -> Vec<Vec<MicroBatch>> {
        let window = batches.iter().map(Batch::len).sum();
        let weight = |batch: &Batch| Targets::weight_of(&Self::classes(batch), &self.label_weights);
        let window_weight = batches.iter().map(weight).sum();
        let part = |rank: usize, number: usize, batch: &Batch| {
            let size = batch.len();
            let start = |rank: usize| rank * (size / count) + rank.min(size % count);
            let rows = start(rank)..start(rank + 1);
            MicroBatch {
                place: (rows.start, size),
                batch: if count == 1 { batch.clone() } else { batch.rows(rows) },
                window,
                window_weight,
                randomness: randomness(number),
            }
        };
        (0..count)
            .map(|rank| batches.iter().enumerate().map(|(number, batch)| part(rank, number, batch)).collect())
            .collect()
    }
}

/// A copy of the model at work on one device.
#[derive(Debug)]
pub struct Replica<B: TrainOps> {
    device: B::Device,
    /// None only while the optimiser has it, so that its tensors have one owner and are updated in place.
    model: Option<Model<Autodiff<B>>>,
    optimizer: Optimizer<Autodiff<B>>,
    objective: Objective,
    member: Member<B>,
    /// What keeps the features of speech.
    cache: Option<FeatureCache>,
    /// The run's last checkpoint, named where memory runs out.
    last: PathBuf,
}

impl<B: TrainOps> Replica<B> {
    /// A copy that begins anew, or goes on from `last/` of a run. Returns what the weight files held beside.
    ///
    /// # Errors
    /// Weights or a checkpoint that cannot be loaded.
    pub fn open(
        material: &Material,
        folder: &RunFolder,
        is_resumed: bool,
        device: &B::Device,
        features: Option<&Arc<FeatureStore>>,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        let mut optimizer = Optimizer::new(optimizer_config(material));
        let (model, notes) = if is_resumed {
            let loaded = checkpoint::load::<B>(&folder.last(), device).with_context(|| not_resumable(folder))?;
            optimizer.load(&folder.last().join(OPTIMIZER), device).with_context(|| not_resumable(folder))?;
            let state = State::load(&folder.last()).with_context(|| not_resumable(folder))?;
            let model = parameters::trainable(loaded.model);
            (setup::freeze(model, &material.config, state.frozen_in_evaluation), Vec::new())
        } else {
            setup::model::<B>(material, device)?
        };
        let mut replica = Self::new(model, optimizer, Objective::of(material), device);
        replica.last = folder.last();
        if let Some(store) = features {
            replica.keep_features(store);
        }
        Ok((replica, notes))
    }

    /// A copy of its own.
    pub fn new(
        model: Model<Autodiff<B>>,
        optimizer: Optimizer<Autodiff<B>>,
        objective: Objective,
        device: &B::Device,
    ) -> Self {
        Self {
            device: device.clone(),
            model: Some(model),
            optimizer,
            objective,
            member: Member::alone(),
            cache: None,
            last: PathBuf::new(),
        }
    }

    /// The cache of what the feature encoder makes of speech in a number format.
    pub fn feature_cache(&self, store: &Arc<FeatureStore>, precision: Precision) -> Option<FeatureCache> {
        pass::feature_cache(store, self.model(), precision, &B::name(&self.device))
    }

    /// Takes the features that it trains on from a store, and puts there what it computes.
    pub fn keep_features(&mut self, store: &Arc<FeatureStore>) {
        self.cache = self.feature_cache(store, self.objective.precision);
    }

    /// The cache of the features that it trains on.
    pub fn cache(&self) -> Option<&FeatureCache> {
        self.cache.as_ref()
    }

    /// Takes a place among the devices.
    pub fn join(&mut self, member: Member<B>) {
        self.member = member;
    }

    pub fn model(&self) -> &Model<Autodiff<B>> {
        self.model.as_ref().unwrap_or_else(|| unreachable!("it is missing only while it is updated"))
    }

    pub fn optimizer(&self) -> &Optimizer<Autodiff<B>> {
        &self.optimizer
    }

    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// One optimiser step, together with all other devices; none is made where something is not finite.
    ///
    /// # Errors
    /// Another device stopped.
    pub fn step(&mut self, plan: &StepPlan) -> Result<StepResult, GroupError> {
        let (window, squares, result) = self.gradients(&plan.parts)?;
        if result.first_non_finite().is_none() {
            let factor = self.clipping(squares.as_ref()).map_or(1.0, |factor| factor.into_scalar().elem());
            self.update(window, plan.schedule, factor);
        }
        Ok(result)
    }

    /// One optimiser step of a device that trains alone and is not waited for: the update is made whatever comes out.
    ///
    /// # Errors
    /// Another device stopped.
    pub fn step_ahead(&mut self, plan: &StepPlan) -> Result<PendingStep<B>, GroupError> {
        let (mut window, mut pending) = self.own_gradients(&plan.parts)?;
        pending.squares = self.squares(&window);
        if let Some(factor) = self.clipping(pending.squares.as_ref()) {
            window.scale(&factor);
        }
        self.update(window, plan.schedule, 1.0);
        Ok(pending)
    }

    fn squares(&self, window: &GradientWindow<B>) -> Option<Squares<B>> {
        profile::time::<B, _>(profile::Stage::Optimizer, &self.device, || window.squares())
    }

    /// What the gradients are multiplied by, [1], where they are clipped. It is worked out on the device, so that a step
    /// is the same whether the host waits for it or not.
    fn clipping(&self, squares: Option<&Squares<B>>) -> Option<Tensor<B, 1>> {
        Some(squares?.clipping(self.objective.clip_norm?))
    }

    fn update(&mut self, mut window: GradientWindow<B>, schedule: f64, factor: f64) {
        let Some(model) = self.model.take() else { return };
        let step = || self.optimizer.step(model, &mut window, schedule, factor);
        self.model = Some(profile::time::<B, _>(profile::Stage::Optimizer, &self.device, step));
    }

    /// The gradients of a window, summed over all devices, their squared norms, and what the window comes to.
    ///
    /// # Errors
    /// Another device stopped.
    pub fn gradients(
        &self,
        parts: &[MicroBatch],
    ) -> Result<(GradientWindow<B>, Option<Squares<B>>, StepResult), GroupError> {
        let (mut window, pending) = self.own_gradients(parts)?;
        if self.member.count() == 1 {
            let squares = self.squares(&window);
            let result = PendingStep { squares: squares.clone(), ..pending }.read();
            return Ok((window, squares, result));
        }
        window.sum_over(&self.member, &parameters::shapes(self.model()), &self.device)?;
        let mut squares = self.squares(&window);
        let numbers = pending.read().losses.0.iter().map(|&(_, loss)| loss).collect();
        let tensor = squares.as_ref().map(|squares| squares.values.clone());
        let messages = self.member.all_gather(Message { names: Vec::new(), numbers, tensor })?;
        let mut losses = Losses::new(self.model().terms(), []);
        for message in messages.iter() {
            losses.add(message.numbers.iter().copied(), 1.0);
        }
        // The norms of the first device hold for all: each must scale its gradients by the same number.
        if let (Some(squares), Some(first)) = (&mut squares, &messages[0].tensor) {
            squares.values = first.clone().to_device(&self.device);
        }
        let norms = squares.clone().map(Squares::norms).unwrap_or_default();
        Ok((window, squares, StepResult { losses, norms }))
    }

    /// The gradients of this device's part of a window, and its losses.
    fn own_gradients(&self, parts: &[MicroBatch]) -> Result<(GradientWindow<B>, PendingStep<B>), GroupError> {
        let mut window = GradientWindow::default();
        let mut pending = PendingStep { terms: self.model().terms(), parts: Vec::new(), squares: None };
        for part in parts {
            pending.parts.extend(self.add(part, &mut window)?);
        }
        Ok((window, pending))
    }

    /// Adds the gradients of a part of a batch. Returns its terms, with the sum of them in front, and its share of the
    /// window; `None` if the part has no examples.
    #[expect(clippy::cast_precision_loss, reason = "numbers of examples are small")]
    fn add(
        &self,
        part: &MicroBatch,
        window: &mut GradientWindow<B>,
    ) -> Result<Option<(Tensor<B, 1>, f64)>, GroupError> {
        let (start, size) = part.place;
        let share = part.batch.len() as f64 / part.window as f64;
        let is_gathered = self.objective.gather_negatives && self.member.count() > 1 && size > 1;
        if part.batch.is_empty() {
            if is_gathered {
                self.gather(None, start, size)?;
            }
            return Ok(None);
        }
        memory::now(Doing::Training { last: &self.last }, &part.batch);
        let rank = self.member.rank() as u64;
        // The devices' masks differ; those of the first are those of a run on one.
        let seed = |seed: u64| if rank == 0 { seed } else { mix(seed, rank) };
        let random = part.randomness.map(|(run, batch)| StepRandom::new(seed(run), batch));
        let mode =
            random.as_ref().map_or_else(Mode::evaluation, Mode::training).with_precision(self.objective.precision);
        let (model, cache) = (self.model(), self.cache.as_ref());
        let inputs = pass::inputs_with(&part.batch, model, cache, mode.precision(), &self.device);
        let output = model.forward(&inputs, mode, &self.device);
        drop(inputs);
        let gathered = if is_gathered { self.gather(Some(&*output), start, size)? } else { None };
        let objective = &self.objective;
        let targets = Targets::new(
            &Objective::classes(&part.batch),
            objective.labels,
            &objective.label_weights,
            objective.loss.label_smoothing,
        );
        let targets = targets.part_of(part.window_weight, share);
        let losses = || output.losses(gathered, &targets, &objective.loss);
        let terms = profile::time::<B, _>(profile::Stage::Losses, &self.device, losses);
        drop(output);
        let contrast = if is_gathered { size as f64 / part.window as f64 } else { share };
        profile::time::<B, _>(profile::Stage::Backward, &self.device, || {
            let gradients = terms.objective(share, contrast).backward();
            window.add::<Autodiff<B>, _>(self.model(), gradients);
        });
        Ok(Some((side_by_side(terms), share)))
    }

    /// The vectors that the contrastive terms compare, of all devices; gradients lead to this device's own. Nothing
    /// comes back where it has no examples and only takes part.
    fn gather(
        &self,
        output: Option<&dyn Output<Autodiff<B>>>,
        start: usize,
        size: usize,
    ) -> Result<Option<Contrasted<Autodiff<B>>>, GroupError> {
        let width = self.objective.hidden_size;
        let device = &self.device;
        let own = output.and_then(Output::contrasted).map(|own| {
            let four = [own.speech_invariant, own.text_invariant, own.speech_specific, own.text_specific];
            Tensor::cat(four.to_vec(), 1) // [own examples, 4 hidden]
        });
        let rows = own.as_ref().map_or(0, |own| own.dims()[0]);
        let zeros = |rows: usize| Tensor::<B, 2>::zeros([rows, 4 * width], device);
        let mut padded = vec![zeros(start), zeros(size - start - rows)];
        if let Some(own) = &own {
            padded.insert(1, own.clone().inner());
        }
        padded.retain(|rows| rows.dims()[0] > 0);
        let all =
            self.member.all_reduce(Tensor::cat(padded, 0).reshape([size * 4 * width]))?.reshape([size, 4 * width]);
        let Some(own) = own else { return Ok(None) };
        let mut pieces = vec![own];
        if start > 0 {
            pieces.insert(0, Tensor::from_inner(all.clone().narrow(0, 0, start)));
        }
        if start + rows < size {
            pieces.push(Tensor::from_inner(all.narrow(0, start + rows, size - start - rows)));
        }
        let all = Tensor::cat(pieces, 0);
        let column = |number: usize| all.clone().narrow(1, number * width, width);
        Ok(Some(Contrasted {
            speech_invariant: column(0),
            text_invariant: column(1),
            speech_specific: column(2),
            text_specific: column(3),
        }))
    }
}

fn optimizer_config(material: &Material) -> OptimizerConfig {
    let train = &material.config.train;
    let ModelConfig { text_encoder, speech_encoder, .. } = &material.model;
    OptimizerConfig {
        decoupled: train.optimizer == OptimizerKind::AdamW,
        weight_decay: train.weight_decay,
        learning_rate: train.learning_rate,
        encoder_learning_rate: train.encoder_learning_rate,
        layer_decay: train.layer_decay,
        text_layers: text_encoder.as_ref().map_or(0, |encoder| encoder.num_hidden_layers),
        speech_layers: speech_encoder.as_ref().map_or(0, |encoder| encoder.layers()),
        speech_norm_is_last: speech_encoder.as_ref().is_some_and(|encoder| encoder.is_norm_last()),
    }
}

/// The sum and the terms behind it, [1 + terms].
fn side_by_side<A: AutodiffBackend>(terms: Terms<A>) -> Tensor<A::InnerBackend, 1> {
    let terms = std::iter::once(terms.total).chain(terms.named.into_iter().map(|(_, term)| term));
    Tensor::cat(terms.map(Tensor::inner).collect(), 0)
}
