//! The one Transformer layer that both encoders and the fusion are made of. Which checkpoint names its parameters have
//! in each place is a table in `checkpoint::names`.

use burn::{
    module::Module,
    tensor::{Tensor, activation, backend::Backend},
};

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
    /// The feed-forward block's non-linearity.
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
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    output: Linear<B>,
}

/// The two maps of the feed-forward block.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    up: Linear<B>,
    down: Linear<B>,
}

/// One layer: attention and a feed-forward block, each with a residual and a norm.
#[derive(Module, Debug)]
pub struct TransformerLayer<B: Backend> {
    attention: Attention<B>,
    attention_norm: LayerNorm<B>,
    feed_forward: FeedForward<B>,
    output_norm: LayerNorm<B>,
    #[module(skip)]
    config: LayerConfig,
}

impl<B: Backend> TransformerLayer<B> {
    /// A layer with fresh parameters.
    pub fn new(config: &LayerConfig, weights: LayerInit, init: &mut Init<'_, B>) -> Self {
        let (width, inner) = (config.width, config.feed_forward);
        Self {
            attention: Attention {
                query: weights.linear(width, width, init),
                key: weights.linear(width, width, init),
                value: weights.linear(width, width, init),
                output: weights.linear(width, width, init),
            },
            attention_norm: LayerNorm::new(width, config.epsilon, init),
            feed_forward: FeedForward {
                up: weights.linear(width, inner, init),
                down: weights.linear(inner, width, init),
            },
            output_norm: LayerNorm::new(width, config.epsilon, init),
            config: config.clone(),
        }
    }
}

impl<B: Ops> TransformerLayer<B> {
    /// [batch * time, width] -> the same.
    pub fn forward(&self, x: Tensor<B, 2>, lengths: &Lengths, mode: Mode<'_>) -> Tensor<B, 2> {
        let hidden_dropout = self.config.hidden_dropout;
        if self.config.norm_first {
            let attended = self.attend(&self.attention_norm.forward(x.clone()), lengths, mode);
            let x = x + ops::dropout(attended, mode.dropout(hidden_dropout));
            let mapped = self.map(self.output_norm.forward(x.clone()), mode);
            x + ops::dropout(mapped, mode.dropout(hidden_dropout))
        } else {
            let attended = self.attend(&x, lengths, mode);
            let x = self.attention_norm.forward(x + ops::dropout(attended, mode.dropout(hidden_dropout)));
            let mapped = self.map(x.clone(), mode);
            self.output_norm.forward(x + ops::dropout(mapped, mode.dropout(hidden_dropout)))
        }
    }

    fn attend(&self, x: &Tensor<B, 2>, lengths: &Lengths, mode: Mode<'_>) -> Tensor<B, 2> {
        let maps = [&self.attention.query, &self.attention.key, &self.attention.value];
        let attended = ops::attention(
            maps.map(|map| map.forward_in(x.clone(), mode.precision())),
            AttentionShape { heads: self.config.heads, lengths },
            mode.dropout(self.config.attention_dropout),
            mode.precision(),
        );
        self.attention.output.forward_in(attended, mode.precision())
    }

    fn map(&self, x: Tensor<B, 2>, mode: Mode<'_>) -> Tensor<B, 2> {
        let inner = self.feed_forward.up.forward_in(x, mode.precision());
        let inner = match self.config.activation {
            Activation::Gelu => <B as Ops>::gelu(inner),
            Activation::Relu => activation::relu(inner),
        };
        let inner = ops::dropout(inner, mode.dropout(self.config.activation_dropout));
        self.feed_forward.down.forward_in(inner, mode.precision())
    }
}
