//! Multi-head fusion: utterance vectors, cut into tokens, through a small Transformer (paper, section 3.3).

use burn::{
    module::{Module, Param},
    tensor::{Tensor, backend::Backend},
};

use super::clasp::ClaspOptions;
use crate::{
    choices::FusionKind,
    encoder::layer::{LayerInit, TransformerLayer},
    nn::{Init, Linear},
    ops::{Lengths, Mode, Ops},
};

/// Several vectors to one. `multi_head` cuts each into pieces and maps every piece to a token; `attention` keeps the
/// whole vectors (the ablation without multi-head fusion) and adds no map.
#[derive(Module, Debug)]
pub struct Fusion<B: Backend> {
    input: Option<Linear<B>>,
    slot_embedding: Option<Param<Tensor<B, 2>>>,
    layers: Vec<TransformerLayer<B>>,
    tokens: usize,
}

impl<B: Backend> Fusion<B> {
    /// A fusion of vectors of `hidden` elements with fresh parameters.
    pub fn new(config: &ClaspOptions, hidden: usize, init: &mut Init<'_, B>) -> Self {
        let tokens = config.tokens();
        let layer = config.layer();
        Self {
            input: (config.kind == FusionKind::MultiHead)
                .then(|| Linear::uniform(hidden / config.split_heads, config.hidden_size, init)),
            slot_embedding: config.slot_embeddings.then(|| init.normal([tokens, config.hidden_size], 0.02)),
            layers: (0..config.layers).map(|_| TransformerLayer::new(&layer, LayerInit::Uniform, init)).collect(),
            tokens,
        }
    }
}

impl<B: Ops> Fusion<B> {
    /// As many [batch, hidden] as the config has vectors -> [batch, fused size]: the outputs of all tokens, concatenated.
    pub fn forward(&self, all: &[&Tensor<B, 2>], mode: Mode<'_>) -> Tensor<B, 2> {
        let rows: Tensor<B, 3> = Tensor::stack(all.iter().map(|&vector| vector.clone()).collect(), 1);
        let [batch, vectors, hidden] = rows.dims(); // [batch, vectors, hidden]
        let width = vectors * hidden / self.tokens;
        let mut x = rows.reshape([batch * self.tokens, width]);
        if let Some(input) = &self.input {
            x = input.forward_in(x, mode.precision()); // [batch * tokens, fusion hidden]
        }
        let [_, width] = x.dims();
        if let Some(slots) = &self.slot_embedding {
            let slots = slots.val().reshape([1, self.tokens, width]);
            x = (x.reshape([batch, self.tokens, width]) + slots).reshape([batch * self.tokens, width]);
        }
        let lengths = Lengths::full(batch, self.tokens);
        for layer in &self.layers {
            x = layer.forward(x, &lengths, mode);
        }
        x.reshape([batch, self.tokens * width])
    }
}
