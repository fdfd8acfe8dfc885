//! How much memory a step of training takes, and a forward pass alone: worked out from the shapes of what the
//! operations hold, part by part in the order in which they run.
//!
//! Held all the time are the weights, the optimiser's moments of what trains and the batch. The forward pass adds what
//! each operation keeps for its backward (`crate::ops::autodiff`; a frozen part keeps nothing); the backward pass gives
//! that back and leaves gradients instead. The most at any moment counts.

mod frozen;
mod stages;

use std::collections::BTreeMap;

use burn::backend::{Flex, flex::FlexDevice};

use crate::{
    checkpoint::parameters,
    config::{Config, Precision},
    device::Chosen,
    encoder::Wav2Vec2Config,
    model::{AnySystem, ModelConfig},
};

pub use frozen::Frozen;
use stages::{Blocks, Forms, Stage};

/// Of the program itself: code, tables and threads' stacks that are in memory. Measured on x86-64 Linux.
const PROGRAM: u64 = 20 << 20;
/// On a device memory is handed out in pages, which are not filled: what the pages take over what they hold. Not
/// measured.
const PAGES: f64 = 1.2;
/// Batches that a decoding thread holds: those that wait, the one in its hand and its examples before they are padded.
const BATCHES_A_WORKER: usize = 4;
/// Copies of a batch while it is computed: the model's inputs, and the tensor that is made of them.
const COPIES: usize = 2;

/// The size of a batch: as many utterances, each as long as the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Utterances.
    pub batch: usize,
    /// Samples of the longest.
    pub samples: usize,
    /// Tokens of the longest.
    pub tokens: usize,
}

/// Bytes, part by part. The gradients grow as the activations shrink, so that the most at once is less than the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// The model's parameters.
    pub weights: u64,
    /// Gradients of what trains; those of a window beside those of a batch where batches are accumulated.
    pub gradients: u64,
    /// The optimiser's two moments of what trains.
    pub moments: u64,
    /// What the operations keep for their backward.
    pub activations: u64,
    /// The batch and those that are decoded ahead; they are the host's, and no part of a device's total.
    pub data: u64,
    /// The most that one operation holds beside all that while it runs.
    pub working: u64,
    /// The most at once.
    pub total: u64,
}

/// What decides how much memory a model takes.
#[derive(Debug)]
pub struct Footprint {
    model: ModelConfig,
    /// Elements of every parameter.
    parameters: BTreeMap<String, usize>,
    frozen: Frozen,
    chosen: Chosen,
    threads: usize,
    /// Of training; what only scores does so in f32.
    precision: Precision,
    /// Whether gradients of several batches are added up.
    accumulates: bool,
    /// Batches that are decoded and wait.
    waiting: usize,
    /// Samples of all there is to decode.
    samples: usize,
}

impl Footprint {
    /// Of a model by itself that trains on a device, one batch a step, with no batches decoded ahead.
    #[must_use]
    pub fn new(model: &ModelConfig, frozen: Frozen, chosen: Chosen, threads: usize) -> Self {
        let empty = AnySystem::<Flex>::empty(model, &FlexDevice);
        let shapes = parameters::shapes(&empty);
        let parameters = shapes.into_iter().map(|(name, shape)| (name, shape.iter().product())).collect();
        Self {
            model: model.clone(),
            parameters,
            frozen,
            chosen,
            threads,
            precision: Precision::F32,
            accumulates: false,
            waiting: 0,
            samples: 0,
        }
    }

    /// The same with training in another number format.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Of a run on so many samples of audio in all.
    #[must_use]
    pub fn of_run(model: &ModelConfig, config: &Config, samples: usize, chosen: Chosen, threads: usize) -> Self {
        let frozen = Frozen::of(config, model);
        let window = config.train.accumulation_steps;
        // The batches of a window, twice: whole, and as the parts that the devices get.
        let waiting = BATCHES_A_WORKER * config.run.workers + 2 * window - 1;
        let alone = Self::new(model, frozen, chosen, threads).with_precision(config.run.precision);
        Self { accumulates: window > 1, waiting, samples, ..alone }
    }

    /// A step of training.
    #[must_use]
    pub fn step(&self, shape: Shape) -> Estimate {
        let stages = self.stages(shape, true);
        let gradients = self.blocks(|name| !self.frozen.holds(name));
        let sums = if self.accumulates { gradients } else { Blocks::default() };
        let data = self.data(shape);
        let held = self.weights() + gradients + gradients + sums + data;
        let forward = stages.in_order();
        let mut most = Most::default();
        let mut kept = Blocks::default();
        for stage in &forward {
            most.see(held + kept + stage.forward);
            kept = kept + stage.kept;
        }
        let activations = kept;
        let mut done = Blocks::default();
        for stage in stages.backward() {
            most.see(held + kept + done + stage.backward + stage.gradients);
            kept = kept - stage.kept;
            done = done + stage.gradients;
        }
        // Between what a step keeps in smaller blocks these find no room.
        most.small += stages.largest.small;
        Estimate {
            weights: self.weights().all(),
            gradients: (gradients + sums).all(),
            moments: 2 * gradients.all(),
            activations: activations.all(),
            data: self.host_data(shape),
            working: working(&forward, |stage| stage.forward.all().max(stage.backward.all())),
            total: self.total(most),
        }
    }

    /// A forward pass alone, beside the moments where it scores for a run that goes on.
    #[must_use]
    pub fn evaluation(&self, shape: Shape, is_in_training: bool) -> Estimate {
        let stages = self.stages(shape, false).in_order();
        let trained = self.blocks(|name| !self.frozen.holds(name));
        let moments = if is_in_training { trained + trained } else { Blocks::default() };
        let held = self.weights() + moments + self.data(shape);
        let mut most = Most::default();
        for stage in &stages {
            most.see(held + stage.forward);
        }
        Estimate {
            weights: self.weights().all(),
            moments: moments.all(),
            data: self.host_data(shape),
            working: working(&stages, |stage| stage.forward.all()),
            total: self.total(most),
            ..Estimate::default()
        }
    }

    /// The most utterances of this length a batch whose step takes no more than so many bytes; 0 where not even one
    /// does.
    #[must_use]
    pub fn largest_batch(&self, longest: Shape, available: u64) -> usize {
        const MOST: usize = 1 << 20;
        let fits = |batch: usize| self.step(Shape { batch, ..longest }).total <= available;
        // The first that does not fit lies between these.
        let (mut low, mut high) = (0, 1);
        while high < MOST && fits(high) {
            (low, high) = (high, 2 * high);
        }
        while high - low > 1 {
            let middle = low.midpoint(high);
            if fits(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn total(&self, most: Most) -> u64 {
        match self.chosen {
            Chosen::Cpu => PROGRAM + most.small + most.large,
            Chosen::Cuda(_) => scaled(most.both, PAGES),
        }
    }

    fn weights(&self) -> Blocks {
        self.blocks(|_| true)
    }

    /// The parameters whose names `is_wanted` likes.
    fn blocks(&self, is_wanted: impl Fn(&str) -> bool) -> Blocks {
        let wanted = self.parameters.iter().filter(|(name, _)| is_wanted(name));
        wanted.map(|(_, &elements)| Blocks::tensors(1, elements)).fold(Blocks::default(), |sum, next| sum + next)
    }

    /// The trained parameters below a name.
    fn gradients(&self, prefix: &str) -> Blocks {
        self.blocks(|name| name.starts_with(prefix) && !self.frozen.holds(name))
    }

    /// The batches on the host, in bytes.
    fn host_data(&self, shape: Shape) -> u64 {
        let waiting = (self.waiting * shape.batch * shape.samples).min(self.samples);
        let copies = if self.chosen == Chosen::Cpu { COPIES } else { 1 };
        Blocks::tensors(1, waiting).all() + batches(1 + copies, shape).all()
    }

    /// The same where the model computes.
    fn data(&self, shape: Shape) -> Blocks {
        if self.chosen == Chosen::Cpu { Blocks { small: self.host_data(shape), large: 0 } } else { batches(1, shape) }
    }

    fn stages(&self, shape: Shape, trains: bool) -> Stages {
        let forms = if self.chosen == Chosen::Cpu { Forms::Cpu } else { Forms::Gpu };
        let precision = if trains { self.precision } else { Precision::F32 };
        let place = stages::Place { shape, forms, threads: self.threads, precision, trains };
        let (frozen, model) = (&self.frozen, &self.model);
        let with = |stage: Stage, prefix: &str| Stage { gradients: self.gradients(prefix), ..stage };

        let mut text_stages = Vec::new();
        if let Some(text) = &model.text_encoder {
            let embeddings = place.text_embeddings(text, !frozen.holds("text_encoder.embeddings."));
            text_stages.push(with(embeddings, "text_encoder.embeddings."));
            for layer in 0..text.num_hidden_layers {
                let prefix = format!("text_encoder.encoder.layer.{layer}.");
                let stage = place.layer(&text.layer(), shape.tokens, !frozen.holds(&prefix));
                text_stages.push(with(stage, &prefix));
            }
        }
        let (speech_stages, largest) =
            model.speech_encoder.as_ref().map_or_else(Default::default, |speech| self.speech_stages(speech, place));

        Stages { text: text_stages, speech: speech_stages, heads: self.head_stages(place), largest }
    }

    /// Those of what stands on the encoders.
    fn head_stages(&self, place: stages::Place) -> Vec<Stage> {
        let is_head = |name: &str| !name.starts_with("text_encoder.") && !name.starts_with("speech_encoder.");
        let is_layer = |name: &str| name.starts_with("fusion.layers.");
        let architecture = &self.model.architecture;
        let hidden = architecture.hidden_size;
        if let Some(options) = self.model.head() {
            // The gradients of another method's layers are counted with those of the rest.
            let layers = options.layers(hidden, place.shape.tokens, place.shape.samples);
            let fused = layers.last().map_or(hidden, |(layer, positions)| layer.width * positions);
            let stages = layers.iter().map(|(layer, positions)| place.layer(layer, *positions, true));
            let rest = Stage { gradients: self.blocks(is_head), ..place.heads(hidden, fused) };
            return std::iter::once(rest).chain(stages).collect();
        }
        let fusion = &architecture.fusion;
        let gradients = self.blocks(|name| is_head(name) && !is_layer(name));
        let mut stages = vec![Stage { gradients, ..place.heads(hidden, fusion.fused_size()) }];
        for layer in 0..fusion.layers {
            let stage = place.layer(&fusion.layer(), fusion.tokens(), true);
            stages.push(Stage { gradients: self.gradients(&format!("fusion.layers.{layer}.")), ..stage });
        }
        stages
    }

    /// Those of the speech encoder, and the two largest tensors of its feature encoder.
    fn speech_stages(&self, speech: &Wav2Vec2Config, place: stages::Place) -> (Vec<Stage>, Blocks) {
        let frozen = &self.frozen;
        let frames = speech.frames(place.shape.samples);
        let features = "speech_encoder.feature_extractor.";
        let (mut found, largest) = place.feature_encoder(speech, !frozen.holds(features));
        for (index, stage) in found.iter_mut().enumerate() {
            stage.gradients = self.gradients(&format!("{features}conv_layers.{index}."));
        }
        let front = place.speech_front(speech, frames, !frozen.holds("speech_encoder.encoder.pos_conv_embed."));
        let others = self.gradients("speech_encoder.feature_projection.")
            + self.gradients("speech_encoder.masked_spec_embed")
            + self.gradients("speech_encoder.encoder.pos_conv_embed.")
            + self.gradients("speech_encoder.encoder.layer_norm.");
        found.push(Stage { gradients: others, ..front });
        for layer in 0..speech.num_hidden_layers {
            let prefix = format!("speech_encoder.encoder.layers.{layer}.");
            let stage = place.layer(&speech.layer(), frames, !frozen.holds(&prefix));
            found.push(Stage { gradients: self.gradients(&prefix), ..stage });
        }
        (found, largest)
    }
}

/// The parts of a pass.
struct Stages {
    text: Vec<Stage>,
    speech: Vec<Stage>,
    heads: Vec<Stage>,
    /// The two largest tensors of the feature encoder.
    largest: Blocks,
}

impl Stages {
    fn in_order(&self) -> Vec<Stage> {
        [&self.text, &self.speech, &self.heads].into_iter().flatten().copied().collect()
    }

    /// From the last to the first; the two encoders go back side by side, as the operations of a graph do that are
    /// equally far from its beginning.
    fn backward(&self) -> Vec<Stage> {
        let [text, speech, heads] = [&self.text, &self.speech, &self.heads]
            .map(|stages| stages.iter().copied().filter(|stage| stage.goes_back()).collect::<Vec<Stage>>());
        let mut order: Vec<Stage> = heads.into_iter().rev().collect();
        for place in (0..text.len().max(speech.len())).rev() {
            order.extend([&speech, &text].into_iter().filter_map(|stages| stages.get(place)).copied());
        }
        order
    }
}

/// The most that was held: in small blocks, in large ones, and in both at one moment. The C library keeps the small
/// ones it has once asked for, so that their most stays while the large ones come and go.
#[derive(Clone, Copy, Default)]
struct Most {
    small: u64,
    large: u64,
    both: u64,
}

impl Most {
    fn see(&mut self, held: Blocks) {
        self.small = self.small.max(held.small);
        self.large = self.large.max(held.large);
        self.both = self.both.max(held.all());
    }
}

/// As many copies of a batch; a token takes eight bytes.
fn batches(copies: usize, shape: Shape) -> Blocks {
    Blocks::tensors(copies, shape.batch * shape.samples) + Blocks::tensors(2 * copies, shape.batch * shape.tokens)
}

fn working(stages: &[Stage], most: impl Fn(&Stage) -> u64) -> u64 {
    stages.iter().map(most).max().unwrap_or(0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "an estimate in bytes"
)]
fn scaled(bytes: u64, factor: f64) -> u64 {
    (bytes as f64 * factor) as u64
}

#[cfg(test)]
mod tests;
