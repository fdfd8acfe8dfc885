//! The network: two encoder-decoder models, each of which is given both modalities. One encodes speech and decodes text,
//! the other encodes text and decodes speech; both decoders see their whole sequence.

use burn::{
    module::Module,
    tensor::{Int, Tensor, TensorData, activation, backend::Backend},
};

use super::{LrmpOptions, features::WIDTH};
use crate::{
    encoder::layer::{Activation, Attention, FeedForward},
    nn::{Embedding, Init, LayerNorm, Linear},
    ops::{self, AttentionShape, Lengths, Mode, Ops},
};

/// Deviation of fresh weights, as RoBERTa's.
const DEVIATION: f64 = 0.02;
/// Added to the variance in the norms.
const EPSILON: f64 = 1e-5;
/// Added to the scores of padded positions: far below any score.
const MASKED_SCORE: f64 = -1e9;

/// A sequence [batch * time, width] and the valid positions of each example.
#[derive(Clone, Debug)]
pub struct Sequence<B: Backend> {
    /// [batch * time, width]
    pub states: Tensor<B, 2>,
    /// Valid positions.
    pub lengths: Lengths,
}

fn attention<B: Ops>(options: &LrmpOptions, init: &mut Init<'_, B>) -> Attention<B> {
    let mut linear = || Linear::normal(options.width, options.width, DEVIATION, init);
    Attention { query: linear(), key: linear(), value: linear(), output: linear() }
}

/// One post-norm layer; a decoder's also attends to the encoder's states.
#[derive(Module, Debug)]
pub struct Layer<B: Backend> {
    attention: Attention<B>,
    attention_norm: LayerNorm<B>,
    cross_attention: Option<Attention<B>>,
    cross_norm: Option<LayerNorm<B>>,
    feed_forward: FeedForward<B>,
    output_norm: LayerNorm<B>,
    heads: usize,
    dropout: f64,
}

impl<B: Ops> Layer<B> {
    fn new(options: &LrmpOptions, is_decoder: bool, init: &mut Init<'_, B>) -> Self {
        let (width, inner) = (options.width, options.feed_forward);
        Self {
            attention: attention(options, init),
            attention_norm: LayerNorm::new(width, EPSILON, init),
            cross_attention: is_decoder.then(|| attention(options, init)),
            cross_norm: is_decoder.then(|| LayerNorm::new(width, EPSILON, init)),
            feed_forward: FeedForward {
                up: Linear::normal(width, inner, DEVIATION, init),
                down: Linear::normal(inner, width, DEVIATION, init),
            },
            output_norm: LayerNorm::new(width, EPSILON, init),
            heads: options.attention_heads,
            dropout: options.dropout,
        }
    }

    fn forward(&self, x: Sequence<B>, memory: Option<&Sequence<B>>, mode: Mode<'_>) -> Sequence<B> {
        let added = |x: Tensor<B, 2>, y: Tensor<B, 2>| x + ops::dropout(y, mode.dropout(self.dropout));
        let shape = AttentionShape { heads: self.heads, lengths: &x.lengths };
        let attended = self.attention.forward(&x.states, None, shape, self.dropout, mode);
        let mut x = Sequence { states: self.attention_norm.forward(added(x.states, attended)), ..x };
        if let (Some(attention), Some(norm), Some(memory)) = (&self.cross_attention, &self.cross_norm, memory) {
            let attended = self.attend_to(attention, &x, memory, mode);
            x.states = norm.forward(added(x.states, attended));
        }
        let mapped = self.feed_forward.forward(x.states.clone(), Activation::Gelu, 0.0, mode);
        x.states = self.output_norm.forward(added(x.states, mapped));
        x
    }

    /// Attention of one sequence to another one, whose length is its own.
    #[expect(clippy::cast_precision_loss, reason = "head widths are small")]
    fn attend_to(
        &self,
        attention: &Attention<B>,
        x: &Sequence<B>,
        memory: &Sequence<B>,
        mode: Mode<'_>,
    ) -> Tensor<B, 2> {
        let [rows, width] = x.states.dims();
        let batch = x.lengths.batch();
        let head_width = width / self.heads;
        let precision = mode.precision();
        let map = |linear: &Linear<B>, of: &Sequence<B>| {
            let mapped = linear.forward_in(of.states.clone(), precision);
            mapped.reshape([batch, of.lengths.longest(), self.heads, head_width]).swap_dims(1, 2)
        };
        let [query, key, value] =
            [map(&attention.query, x), map(&attention.key, memory), map(&attention.value, memory)];
        let padding = (memory.lengths.mask::<B>(&x.states.device()) - 1.0) * -MASKED_SCORE;
        let scores = ops::product(query, key.transpose(), precision) / (head_width as f64).sqrt()
            + padding.reshape([batch, 1, 1, memory.lengths.longest()]);
        let weights = ops::dropout(activation::softmax(scores, 3), mode.dropout(self.dropout));
        let attended = ops::product(weights, value, precision).swap_dims(1, 2).reshape([rows, width]);
        attention.output.forward_in(attended, precision)
    }
}

/// What a stack is given, on the host.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    /// Row-major tokens [batch, tokens].
    Tokens(&'a [i64]),
    /// Row-major frames [batch, frames, [`WIDTH`]].
    Frames(&'a [f32]),
}

/// The vectors that a stack begins with: of tokens through a small table (as ALBERT's), of frames through a map; each
/// with its position's, normalised.
#[derive(Module, Debug)]
pub struct Input<B: Backend> {
    token: Option<Embedding<B>>,
    projection: Linear<B>,
    position: Embedding<B>,
    norm: LayerNorm<B>,
    dropout: f64,
}

impl<B: Ops> Input<B> {
    fn text(options: &LrmpOptions, init: &mut Init<'_, B>) -> Self {
        let token = Embedding::normal(options.vocab_size, options.embedding, DEVIATION, init);
        Self::new(options, Some(token), (options.embedding, options.text_positions), init)
    }

    fn speech(options: &LrmpOptions, init: &mut Init<'_, B>) -> Self {
        Self::new(options, None, (WIDTH, options.speech_positions), init)
    }

    fn new(
        options: &LrmpOptions,
        token: Option<Embedding<B>>,
        (size, positions): (usize, usize),
        init: &mut Init<'_, B>,
    ) -> Self {
        Self {
            token,
            projection: Linear::normal(size, options.width, DEVIATION, init),
            position: Embedding::normal(positions, options.width, DEVIATION, init),
            norm: LayerNorm::new(options.width, EPSILON, init),
            dropout: options.dropout,
        }
    }

    fn forward(&self, given: Given<'_>, lengths: &Lengths, mode: Mode<'_>, device: &B::Device) -> Tensor<B, 2> {
        let rows = lengths.batch() * lengths.longest();
        let x = match (given, &self.token) {
            (Given::Tokens(tokens), Some(table)) => {
                table.forward(Tensor::<B, 1, Int>::from_data(TensorData::new(tokens.to_vec(), [rows]), device))
            }
            (Given::Frames(frames), None) => Tensor::from_data(TensorData::new(frames.to_vec(), [rows, WIDTH]), device),
            _ => unreachable!("the two models give each stack what it is for"),
        };
        let [_, width] = self.position.weight.dims();
        let places = self.position.weight.val().narrow(0, 0, lengths.longest());
        let x = self.projection.forward_in(x, mode.precision()).reshape([lengths.batch(), lengths.longest(), width]);
        let x = (x + places.unsqueeze()).reshape([rows, width]);
        ops::dropout(self.norm.forward(x), mode.dropout(self.dropout))
    }
}

/// The layers of an encoder or a decoder on their input.
#[derive(Module, Debug)]
pub struct Stack<B: Backend> {
    embedding: Input<B>,
    layers: Vec<Layer<B>>,
}

impl<B: Ops> Stack<B> {
    fn new(options: &LrmpOptions, embedding: Input<B>, is_decoder: bool, init: &mut Init<'_, B>) -> Self {
        Self { embedding, layers: (0..options.layers).map(|_| Layer::new(options, is_decoder, init)).collect() }
    }

    fn forward(
        &self,
        (given, lengths): (Given<'_>, &Lengths),
        memory: Option<&Sequence<B>>,
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Sequence<B> {
        let states = self.embedding.forward(given, lengths, mode, device);
        let x = Sequence { states, lengths: lengths.clone() };
        self.layers.iter().fold(x, |x, layer| layer.forward(x, memory, mode))
    }
}

/// One of the two models.
#[derive(Module, Debug)]
pub struct Translator<B: Backend> {
    encoder: Stack<B>,
    decoder: Stack<B>,
}

impl<B: Ops> Translator<B> {
    /// From speech to text.
    pub fn to_text(options: &LrmpOptions, init: &mut Init<'_, B>) -> Self {
        let (source, target) = (Input::speech(options, init), Input::text(options, init));
        Self { encoder: Stack::new(options, source, false, init), decoder: Stack::new(options, target, true, init) }
    }

    /// From text to speech.
    pub fn to_speech(options: &LrmpOptions, init: &mut Init<'_, B>) -> Self {
        let (source, target) = (Input::text(options, init), Input::speech(options, init));
        Self { encoder: Stack::new(options, source, false, init), decoder: Stack::new(options, target, true, init) }
    }

    /// The target's vector [batch, width]: the mean of its decoded states and their maximum, over valid positions.
    pub fn forward(
        &self,
        source: (Given<'_>, &Lengths),
        target: (Given<'_>, &Lengths),
        mode: Mode<'_>,
        device: &B::Device,
    ) -> Tensor<B, 2> {
        let memory = self.encoder.forward(source, None, mode, device);
        let decoded = self.decoder.forward(target, Some(&memory), mode, device);
        let (batch, time) = (decoded.lengths.batch(), decoded.lengths.longest());
        let [_, width] = decoded.states.dims();
        let states = decoded.states.reshape([batch, time, width]);
        let mask = decoded.lengths.mask::<B>(device).reshape([batch, time, 1]);
        let counts = decoded.lengths.counts::<B>(device).reshape([batch, 1, 1]);
        let mean = (states.clone() * mask.clone()).sum_dim(1) / counts;
        let largest = (states + (mask - 1.0) * -MASKED_SCORE).max_dim(1);
        (mean + largest).reshape([batch, width])
    }
}
