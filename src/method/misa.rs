//! MISA (Hazarika et al. 2020) for speech and text: each modality in a space that both share and in one of its own, and
//! a small Transformer over the four vectors.

use burn::{
    module::Module,
    tensor::{Tensor, activation, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Contrasted, Encoded, HeadMethod, Logits, Misfit, ModelSizes, Options, Output, Reads, Sizes, Term, Terms,
    moments::{central_moment_discrepancy, difference},
};
use crate::{
    encoder::layer::{Activation, LayerConfig, LayerInit, TransformerLayer},
    keys::{Key, Kind, Values, at_least, section},
    loss::{LossConfig, Targets, cross_entropy},
    nn::{Init, LayerNorm, Linear},
    ops::{self, Lengths, Mode, Ops},
};

/// Added to the variance in the norms (`torch.nn.LayerNorm`).
const EPSILON: f64 = 1e-5;
/// Vectors that the Transformer attends over.
const TOKENS: usize = 4;
section! {
    /// `[model.misa]`, with the published values.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct MisaOptions("model.misa") {
        /// width of all its vectors
        size: usize [at_least(1)] = 128;
        /// attention heads; divides the size
        attention_heads: usize [at_least(1)] = 2;
        /// inner width of the Transformer layer
        feed_forward: usize [at_least(1)] = 2048;
        /// dropout in the Transformer layer
        fusion_dropout: f64 [Kind::Dropout] = 0.1;
        /// dropout between the two maps of the classifier
        dropout: f64 [Kind::Dropout] = 0.5;
        /// weight of the difference term
        difference: f64 = 0.3;
        /// weight of the similarity term
        similarity: f64 = 1.0;
        /// weight of the reconstruction term
        reconstruction: f64 = 1.0;
    }
}

impl Options for MisaOptions {
    const READS: Reads = Reads::Both;
    const TERMS: &'static [&'static str] = &["task_fusion", "similarity", "difference", "reconstruction"];
    const KEYS: &'static [Key] = Self::KEYS;

    fn read_from(values: &dyn Values, _: ModelSizes) -> Self {
        Self::read(values)
    }

    fn contrasted_size(&self, _: usize) -> usize {
        self.size
    }

    fn check(&self, _: usize) -> Result<(), Misfit> {
        Misfit::unless_positive(&[("feed_forward", self.feed_forward)])?;
        Misfit::unless_divides("attention_heads", self.attention_heads, "model.misa.size", self.size)
    }
}

impl MisaOptions {
    /// The shape of its Transformer layer.
    fn layer(&self) -> LayerConfig {
        LayerConfig {
            width: self.size,
            heads: self.attention_heads,
            feed_forward: self.feed_forward,
            norm_first: false,
            has_key_bias: true,
            is_gated: false,
            activation: Activation::Relu,
            attention_dropout: self.fusion_dropout,
            hidden_dropout: self.fusion_dropout,
            activation_dropout: self.fusion_dropout,
            epsilon: EPSILON,
        }
    }
}

/// Into the common width: linear, rectifier, norm.
#[derive(Module, Debug)]
pub struct Projection<B: Backend> {
    linear: Linear<B>,
    norm: LayerNorm<B>,
}

impl<B: Ops> Projection<B> {
    fn new(input: usize, size: usize, init: &mut Init<'_, B>) -> Self {
        Self { linear: Linear::uniform(input, size, init), norm: LayerNorm::new(size, EPSILON, init) }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.norm.forward(activation::relu(self.linear.forward(x)))
    }
}

/// What each modality has for itself.
#[derive(Module, Debug)]
pub struct Modality<B: Backend> {
    projection: Projection<B>,
    specific: Linear<B>,
    reconstruction: Linear<B>,
}

impl<B: Ops> Modality<B> {
    fn new(input: usize, size: usize, init: &mut Init<'_, B>) -> Self {
        Self {
            projection: Projection::new(input, size, init),
            specific: Linear::uniform(size, size, init),
            reconstruction: Linear::uniform(size, size, init),
        }
    }

    fn forward(&self, vector: Tensor<B, 2>, shared: &Linear<B>) -> Spaces<B> {
        let projected = self.projection.forward(vector.clone());
        let specific = activation::sigmoid(self.specific.forward(projected.clone()));
        let invariant = activation::sigmoid(shared.forward(projected.clone()));
        let reconstructed = self.reconstruction.forward(specific.clone() + invariant.clone());
        Spaces { vector, projected, specific, invariant, reconstructed }
    }
}

/// The method.
#[derive(Module, Debug)]
pub struct Misa<B: Backend> {
    text: Modality<B>,
    speech: Modality<B>,
    invariant: Linear<B>,
    fusion: TransformerLayer<B>,
    hidden: Linear<B>,
    output: Linear<B>,
    #[module(skip)]
    options: MisaOptions,
}

/// One modality's vectors: the encoder's [batch, hidden], and those of the method, each [batch, size].
#[derive(Clone, Debug)]
struct Spaces<B: Backend> {
    vector: Tensor<B, 2>,
    projected: Tensor<B, 2>,
    specific: Tensor<B, 2>,
    invariant: Tensor<B, 2>,
    reconstructed: Tensor<B, 2>,
}

impl<B: Backend> Spaces<B> {
    /// Mean squared error; its target, too, has a gradient.
    fn error(&self) -> Tensor<B, 1> {
        (self.projected.clone() - self.reconstructed.clone()).square().mean()
    }
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct MisaOutput<B: Backend> {
    text: Spaces<B>,
    speech: Spaces<B>,
    /// [batch, 4 * size]
    fused: Tensor<B, 2>,
    logits: Tensor<B, 2>,
    options: MisaOptions,
}

impl<B: Ops> HeadMethod<B> for Misa<B> {
    type Options = MisaOptions;
    type Output = MisaOutput<B>;

    fn new(options: &MisaOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let size = options.size;
        Self {
            text: Modality::new(sizes.hidden, size, init),
            speech: Modality::new(sizes.hidden, size, init),
            invariant: Linear::uniform(size, size, init),
            fusion: TransformerLayer::new(&options.layer(), LayerInit::Uniform, init),
            hidden: Linear::uniform(TOKENS * size, TOKENS * size / 2, init),
            output: Linear::uniform(TOKENS * size / 2, sizes.labels, init),
            options: options.clone(),
        }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> MisaOutput<B> {
        let text = self.text.forward(encoded.text().vector.clone(), &self.invariant);
        let speech = self.speech.forward(encoded.speech().vector.clone(), &self.invariant);
        let tokens = [&text.specific, &speech.specific, &text.invariant, &speech.invariant].map(Tensor::clone);
        let tokens: Tensor<B, 3> = Tensor::stack(tokens.to_vec(), 1); // [batch, 4, size]
        let [batch, count, size] = tokens.dims();
        let lengths = Lengths::full(batch, count);
        let attended = self.fusion.forward(tokens.reshape([batch * count, size]), &lengths, mode);
        let fused = attended.reshape([batch, count * size]);
        let hidden = ops::dropout(self.hidden.forward(fused.clone()), mode.dropout(self.options.dropout));
        let logits = self.output.forward(activation::relu(hidden));
        MisaOutput { text, speech, fused, logits, options: self.options.clone() }
    }
}

impl<B: Backend> MisaOutput<B> {
    fn vectors(&self) -> Contrasted<B> {
        Contrasted {
            speech_invariant: self.speech.invariant.clone(),
            text_invariant: self.text.invariant.clone(),
            speech_specific: self.speech.specific.clone(),
            text_specific: self.text.specific.clone(),
        }
    }
}

/// The similarity and the difference term. One example has no moments: both are 0.
fn over_the_batch<B: Backend>(vectors: Contrasted<B>) -> [Tensor<B, 1>; 2] {
    let Contrasted { speech_invariant, text_invariant, speech_specific, text_specific } = vectors;
    let [examples, _] = text_invariant.dims();
    if examples < 2 {
        let zero = || Tensor::zeros([1], &text_invariant.device());
        return [zero(), zero()];
    }
    let apart = difference(text_specific.clone(), text_invariant.clone())
        + difference(speech_specific.clone(), speech_invariant.clone())
        + difference(text_specific, speech_specific);
    [central_moment_discrepancy(text_invariant, speech_invariant), apart]
}

impl<B: Backend> Output<B> for MisaOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits::only("logits_fusion", self.logits.clone())
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        let (text, speech) = (&self.text, &self.speech);
        [
            ("text", &text.vector),
            ("speech", &speech.vector),
            ("text_projected", &text.projected),
            ("speech_projected", &speech.projected),
            ("text_invariant", &text.invariant),
            ("speech_invariant", &speech.invariant),
            ("text_specific", &text.specific),
            ("speech_specific", &speech.specific),
            ("text_reconstructed", &text.reconstructed),
            ("speech_reconstructed", &speech.reconstructed),
            ("fused", &self.fused),
        ]
        .map(|(name, vector)| (name, vector.clone()))
        .into()
    }

    fn contrasted(&self) -> Option<Contrasted<B>> {
        Some(self.vectors())
    }

    fn losses(&self, contrasted: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        let options = &self.options;
        let reconstruction = (self.text.error() + self.speech.error()) * 0.5;
        let task = Term::mean("task_fusion", 1.0, cross_entropy(self.logits.clone(), targets));
        let reconstruction = Term::mean("reconstruction", options.reconstruction, reconstruction);
        let [similarity, difference] = over_the_batch(contrasted.unwrap_or_else(|| self.vectors()));
        let others = [
            Term::contrast("similarity", options.similarity, similarity),
            Term::contrast("difference", options.difference, difference),
            reconstruction,
        ];
        Terms::sum(task, others)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn it_gives_the_reference() {
        fixtures::holds::<Misa<fixtures::Train>>("misa");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        fixtures::stays_finite::<Misa<fixtures::Train>>();
    }
}
