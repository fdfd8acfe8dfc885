//! What each part of the model keeps for its backward pass, and what it holds while it runs.
//!
//! Sizes are those of the operations in `crate::ops`: an operation keeps its inputs; dropout makes its mask again, and
//! attention its weights.

use std::ops::{Add, Sub};

use super::Shape;
use crate::{
    config::Precision,
    encoder::{RobertaConfig, Wav2Vec2Config, layer::LayerConfig},
};

/// From this size on glibc gives a block back to the system as soon as it is freed (`DEFAULT_MMAP_THRESHOLD_MAX`).
const LARGE: u64 = 32 << 20;
/// The most elements of windows that a positional convolution lays out at once (`crate::ops`, its form for GPUs).
const WINDOWS: usize = 1 << 26;
/// Vectors of an utterance that the projections, reconstructions, classifiers and losses keep.
const VECTORS: usize = 24;

/// Bytes in blocks of two kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    pub small: u64,
    pub large: u64,
}

impl Blocks {
    /// As many f32 tensors of so many elements each.
    pub fn tensors(count: usize, elements: usize) -> Self {
        Self::of(count, (elements as u64).saturating_mul(4))
    }

    /// The same of bf16.
    pub fn halves(count: usize, elements: usize) -> Self {
        Self::of(count, (elements as u64).saturating_mul(2))
    }

    fn of(count: usize, bytes: u64) -> Self {
        let all = bytes.saturating_mul(count as u64);
        if bytes > LARGE { Self { small: 0, large: all } } else { Self { small: all, large: 0 } }
    }

    pub fn all(self) -> u64 {
        self.small.saturating_add(self.large)
    }

    /// The larger of two.
    fn or(self, other: Self) -> Self {
        if self.all() < other.all() { other } else { self }
    }
}

impl Add for Blocks {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { small: self.small.saturating_add(other.small), large: self.large.saturating_add(other.large) }
    }
}

impl Sub for Blocks {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { small: self.small.saturating_sub(other.small), large: self.large.saturating_sub(other.large) }
    }
}

/// Which forms of the operations run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// Those of the CPU.
    Cpu,
    /// Those of CUDA, which hold the scores of all heads while an attention runs.
    Gpu,
}

/// One part of the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stage {
    /// For its backward.
    pub kept: Blocks,
    /// Beside what is kept, while it runs forward.
    pub forward: Blocks,
    /// Beside what is kept, while it runs backward.
    pub backward: Blocks,
    /// What its backward leaves.
    pub gradients: Blocks,
}

impl Stage {
    /// Whether it is a part of the graph that the backward pass goes through.
    pub fn goes_back(self) -> bool {
        self.kept.all() > 0
    }
}

/// Where a pass runs, and over what.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub shape: Shape,
    pub forms: Forms,
    pub threads: usize,
    /// Of the products, convolutions and attention.
    pub precision: Precision,
    /// Whether dropouts are on.
    pub trains: bool,
}

impl Place {
    /// 1 where a dropout is on.
    fn dropout(self, probability: f64) -> usize {
        usize::from(self.trains && probability > 0.0)
    }

    /// A stage that keeps and goes back only where it is trained.
    fn stage(self, is_trained: bool, kept: Blocks, forward: Blocks, backward: Blocks) -> Stage {
        let is_trained = is_trained && self.trains;
        let where_trained = |blocks: Blocks| if is_trained { blocks } else { Blocks::default() };
        Stage { kept: where_trained(kept), forward, backward: where_trained(backward), gradients: Blocks::default() }
    }

    /// One Transformer layer over `time` positions of each utterance.
    pub fn layer(self, config: &LayerConfig, time: usize, is_trained: bool) -> Stage {
        let rows = self.shape.batch * time;
        let narrow = |count: usize| Blocks::tensors(count, rows * config.width);
        let wide = |count: usize| Blocks::tensors(count, rows * config.feed_forward);
        let operands = self.operands(config);
        match self.forms {
            Forms::Cpu => {
                let scores = self.dropout(config.attention_dropout);
                // Input, query, key, value, attended; input and output of the middle norm, input of the last. In
                // bf16 the input is rounded for each of three maps.
                let rounded = if self.precision == Precision::Bf16 { 2 } else { 0 };
                let kept = narrow(8 + rounded) + wide(2) + operands;
                // A score for every two positions, of the heads at work.
                let heads = self.threads.min(self.shape.batch * config.heads);
                let weights = |count: usize| Blocks::tensors(heads * count, time * time);
                let forward = (narrow(5) + weights(1 + scores)).or(narrow(1) + wide(2));
                let backward = (narrow(5) + weights(3 + scores)).or(narrow(1) + wide(2));
                self.stage(is_trained, kept, forward, backward)
            }
            Forms::Gpu => {
                // As on the CPU; in bf16 what products and attention keep has half the size.
                let kept = match self.precision {
                    Precision::F32 => narrow(8) + wide(2),
                    Precision::Bf16 => {
                        let halves = |count: usize, width: usize| Blocks::halves(count, rows * width);
                        narrow(2) + wide(1) + halves(8, config.width) + halves(1, config.feed_forward)
                    }
                } + operands;
                // Scores and weights of all heads, and behind the backward pass the gradients of both; and the heads'
                // vectors apart from each other.
                let elements = self.shape.batch * config.heads * time * time;
                let weights = |count: usize| Blocks::tensors(count, elements);
                let forward = (narrow(7) + weights(2)).or(narrow(1) + wide(2));
                let backward = (narrow(9) + weights(4)).or(narrow(1) + wide(2));
                self.stage(is_trained, kept, forward, backward)
            }
        }
    }

    /// A layer's matrices in bf16, which each product has its own copy of.
    fn operands(self, config: &LayerConfig) -> Blocks {
        let copies = |count: usize, elements: usize| match (self.precision, self.forms) {
            (Precision::F32, _) => Blocks::default(),
            (Precision::Bf16, Forms::Cpu) => Blocks::tensors(count, elements),
            (Precision::Bf16, Forms::Gpu) => Blocks::halves(count, elements),
        };
        copies(4, config.width * config.width) + copies(2, config.width * config.feed_forward)
    }

    /// The sum of a token's three vectors, and its norm.
    pub fn text_embeddings(self, config: &RobertaConfig, is_trained: bool) -> Stage {
        let rows = |count: usize| Blocks::tensors(count, self.shape.batch * self.shape.tokens * config.hidden_size);
        let kept = rows(1);
        // The gradient of the table is added to a table of zeros.
        let table = Blocks::tensors(1, config.vocab_size * config.hidden_size);
        self.stage(is_trained, kept, rows(4), rows(3) + table)
    }

    /// The convolutions that turn samples into frames, and the two largest tensors of them all: the input and the output
    /// of the first one's non-linearity.
    pub fn feature_encoder(self, config: &Wav2Vec2Config, is_trained: bool) -> (Vec<Stage>, Blocks) {
        let mut time = self.shape.samples;
        let mut input = Blocks::tensors(1, self.shape.batch * time);
        let mut channels = 1;
        let mut largest = Blocks::default();
        let mut stages = Vec::with_capacity(config.conv_dim.len());
        let steps = config.conv_kernel.iter().zip(&config.conv_stride).zip(&config.conv_dim);
        for (index, ((&kernel, &stride), &width)) in steps.enumerate() {
            time = if time < kernel { 0 } else { (time - kernel) / stride + 1 };
            let output = |count: usize| Blocks::tensors(count, self.shape.batch * time * width);
            let norms = usize::from(index == 0 || config.feat_extract_norm == "layer");
            // What non-linearity and norm keep, and how many tensors they hold at once: on GPUs the norm is a graph of
            // small operations.
            let kept = 1 + norms;
            let copies = if self.forms == Forms::Cpu { 2 } else { 4 };
            let mut forward = output(copies).or(input + output(1));
            if index == 0 {
                largest = output(copies);
                if self.trains {
                    // Their smaller blocks are counted apart: see `Footprint::step`.
                    forward.small = 0;
                }
            }
            // The windows of the examples at work; nothing in front of the first one wants a gradient.
            let examples = if index == 0 { 0 } else { self.threads.min(self.shape.batch) };
            let windows = Blocks::tensors(examples, time * kernel * channels);
            let backward = output(2).or(input + output(1) + windows);
            stages.push(self.stage(is_trained, input + output(kept), forward, backward));
            (input, channels) = (output(1), width);
        }
        (stages, largest)
    }

    /// From the frames to the input of the layers: a norm, a map, the positional convolution and the encoder's norm.
    pub fn speech_front(self, config: &Wav2Vec2Config, frames: usize, is_trained: bool) -> Stage {
        let rows = self.shape.batch * frames;
        let features = config.conv_dim.last().copied().unwrap_or(0);
        let narrow = |count: usize| Blocks::tensors(count, rows * config.hidden_size);
        let group = config.hidden_size / config.num_conv_pos_embedding_groups;
        let weight = Blocks::tensors(1, config.hidden_size * group * config.num_conv_pos_embeddings);
        let kept = Blocks::tensors(2, rows * features) + narrow(3) + weight;
        // All that a frame of the positional convolution sees lies side by side.
        let windows = match self.forms {
            Forms::Cpu => Blocks::default(),
            Forms::Gpu => Blocks::tensors(1, (rows * config.hidden_size * config.num_conv_pos_embeddings).min(WINDOWS)),
        };
        self.stage(is_trained, kept, narrow(4) + weight + windows, narrow(5) + weight + windows)
    }

    /// All that follows from the two utterance vectors, but for the fusion's layers.
    /// `hidden` and `fused` are the widths of those and of the fused vector.
    pub fn heads(self, hidden: usize, fused: usize) -> Stage {
        let batch = self.shape.batch;
        let fused = Blocks::tensors(3, batch * fused);
        let vectors = Blocks::tensors(VECTORS, batch * hidden);
        self.stage(true, fused + vectors, fused + vectors, fused + vectors)
    }
}
