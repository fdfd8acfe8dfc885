//! The one Transformer layer that both encoders and the fusion are made of. Which checkpoint names its parameters have
//! in each place is a table in `checkpoint::names`.

use burn::{
    module::Module,
    tensor::{Tensor, activation, backend::Backend},
};

use super::wavlm::Gate;
use crate::{
    nn::{Init, LayerNorm, Linear},
    ops::{self, AttentionShape, Lengths, Mode, Ops},
};

/// The non-linearity of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Exact Gaussian error linear unit.
    Gelu,
    /// Rectified linear unit.
    Relu,
}

/// The shape and the dropouts of a layer.
#[derive(Clone, Debug)]
pub struct LayerConfig {
    /// Width of the hidden states.
    pub width: usize,
    /// Attention heads; divides the width.
    pub heads: usize,
    /// Width between the two maps of the feed-forward block.
    pub feed_forward: usize,
    /// Norms before the blocks (pre-norm) and not after the residuals (post-norm).
    pub norm_first: bool,
    /// Whether the attention's keys have a bias (all but Whisper's).
    pub has_key_bias: bool,
    /// Whether attention has a gated bias for the distance of two positions (`WavLM`'s).
    pub is_gated: bool,
    pub activation: Activation,
    /// On the attention weights.
    pub attention_dropout: f64,
    /// On the output of each block.
    pub hidden_dropout: f64,
    /// Behind the non-linearity.
    pub activation_dropout: f64,
    /// Added to the variance in the norms.
    pub epsilon: f64,
}

/// How a layer's fresh weights are drawn.
#[derive(Clone, Copy, Debug)]
pub enum LayerInit {
    /// Normal weights, zero biases: the encoders.
    Normal(f64),
    /// As `torch.nn.Linear`: the fusion.
    Uniform,
}

impl LayerInit {
    fn linear<B: Backend>(self, input: usize, output: usize, init: &mut Init<'_, B>) -> Linear<B> {
        match self {
            Self::Normal(deviation) => Linear::normal(input, output, deviation, init),
            Self::Uniform => Linear::uniform(input, output, init),
        }
    }
}

/// The four maps of multi-head attention.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// What a position looks for.
    pub query: Linear<B>,
    /// What it is found by.
    pub key: Linear<B>,
    pub value: Linear<B>,
    /// On all heads' results.
    pub output: Linear<B>,
}

impl<B: Ops> Attention<B> {
    /// Of a sequence to itself: [batch * time, width] -> the same. `bias` [batch, heads, time, time] is added to the scores;
    /// `dropout` is that of the attention weights.
    pub fn forward(
        &self,
        x: &Tensor<B, 2>,
        bias: Option<Tensor<B, 4>>,
        shape: AttentionShape<'_>,
        dropout: f64,
        mode: Mode<'_>,
    ) -> Tensor<B, 2> {
        let maps = [&self.query, &self.key, &self.value];
        let maps = maps.map(|map| map.forward_in(x.clone(), mode.precision()));
        let dropout = mode.dropout(dropout);
        let attended = match bias {
            None => ops::attention(maps, shape, dropout, mode.precision()),
            Some(bias) => ops::biased_attention(maps, bias, shape, dropout, mode.precision()),
        };
        self.output.forward_in(attended, mode.precision())
    }
}

/// The two maps of the feed-forward block.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    /// To the inner width.
    pub up: Linear<B>,
    /// Back again.
    pub down: Linear<B>,
}

impl<B: Ops> FeedForward<B> {
    /// [rows, width] -> the same. `dropout` is that behind the non-linearity.
    pub fn forward(&self, x: Tensor<B, 2>, activation: Activation, dropout: f64, mode: Mode<'_>) -> Tensor<B, 2> {
        let inner = self.up.forward_in(x, mode.precision());
        let inner = match activation {
            Activation::Gelu => <B as Ops>::gelu(inner),
            Activation::Relu => activation::relu(inner),
        };
        self.down.forward_in(ops::dropout(inner, mode.dropout(dropout)), mode.precision())
    }
}

/// One layer: attention and a feed-forward block, each with a residual and a norm.
#[derive(Module, Debug)]
pub struct TransformerLayer<B: Backend> {
    attention: Attention<B>,
    attention_norm: LayerNorm<B>,
    feed_forward: FeedForward<B>,
    output_norm: LayerNorm<B>,
    gate: Option<Gate<B>>,
    #[module(skip)]
    config: LayerConfig,
}

impl<B: Backend> TransformerLayer<B> {
    /// A layer with fresh parameters.
    pub fn new(config: &LayerConfig, weights: LayerInit, init: &mut Init<'_, B>) -> Self {
        let (width, inner) = (config.width, config.feed_forward);
        let (query, mut key) = (weights.linear(width, width, init), weights.linear(width, width, init));
        if !config.has_key_bias {
            key.bias = None;
        }
        Self {
            attention: Attention {
                query,
                key,
                value: weights.linear(width, width, init),
                output: weights.linear(width, width, init),
            },
            attention_norm: LayerNorm::new(width, config.epsilon, init),
            feed_forward: FeedForward {
                up: weights.linear(width, inner, init),
                down: weights.linear(inner, width, init),
            },
            output_norm: LayerNorm::new(width, config.epsilon, init),
            gate: config.is_gated.then(|| Gate::new(config.heads, width / config.heads, init)),
            config: config.clone(),
        }
    }
}

impl<B: Ops> TransformerLayer<B> {
    /// [batch * time, width] -> the same.
    pub fn forward(&self, x: Tensor<B, 2>, lengths: &Lengths, mode: Mode<'_>) -> Tensor<B, 2> {
        self.forward_beside(x, None, lengths, mode)
    }

    /// The same with a bias of the scores, [heads, time, time], that the layer's gate weighs.
    pub fn forward_beside(
        &self,
        x: Tensor<B, 2>,
        bias: Option<&Tensor<B, 3>>,
        lengths: &Lengths,
        mode: Mode<'_>,
    ) -> Tensor<B, 2> {
        let hidden_dropout = self.config.hidden_dropout;
        if self.config.norm_first {
            let attended = self.attend(&self.attention_norm.forward(x.clone()), bias, lengths, mode);
            let x = x + ops::dropout(attended, mode.dropout(hidden_dropout));
            let mapped = self.map(self.output_norm.forward(x.clone()), mode);
            x + ops::dropout(mapped, mode.dropout(hidden_dropout))
        } else {
            let attended = self.attend(&x, bias, lengths, mode);
            let x = self.attention_norm.forward(x + ops::dropout(attended, mode.dropout(hidden_dropout)));
            let mapped = self.map(x.clone(), mode);
            self.output_norm.forward(x + ops::dropout(mapped, mode.dropout(hidden_dropout)))
        }
    }

    fn attend(&self, x: &Tensor<B, 2>, bias: Option<&Tensor<B, 3>>, lengths: &Lengths, mode: Mode<'_>) -> Tensor<B, 2> {
        let shape = AttentionShape { heads: self.config.heads, lengths };
        let bias = self.gate.as_ref().zip(bias).map(|(gate, bias)| gate.gated(x, bias, mode));
        self.attention.forward(x, bias, shape, self.config.attention_dropout, mode)
    }

    fn map(&self, x: Tensor<B, 2>, mode: Mode<'_>) -> Tensor<B, 2> {
        self.feed_forward.forward(x, self.config.activation, self.config.activation_dropout, mode)
    }
}

/// Stops gradients for the lowest `count` of some layers.
pub(super) fn freeze_lowest<B: Backend, M: Module<B>>(layers: Vec<M>, count: usize) -> Vec<M> {
    let freeze = |(index, layer): (usize, M)| if index < count { layer.no_grad() } else { layer };
    layers.into_iter().enumerate().map(freeze).collect()
}
