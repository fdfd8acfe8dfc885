//! Low-rank multimodal fusion (Liu et al. 2018), for speech and text on pooled encoder vectors.
//!
//! Departure: the speech is normalised by layer and not by batch, whose statistics over four examples would be noise;
//! the text goes through one linear map, since its encoder stands for the published recurrent network. One model has
//! all labels, where the published one has a model for each.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{Contrasted, Encoded, HeadMethod, Logits, Misfit, ModelSizes, Options, Output, Reads, Sizes, Term, Terms};
use crate::{
    keys::{Key, Kind, Values, at_least, section},
    loss::{LossConfig, Targets, cross_entropy},
    nn::{Init, LayerNorm, Linear},
    ops::{self, Mode, Ops},
};

/// Added to the variance in the norm (`torch.nn.LayerNorm`).
const EPSILON: f64 = 1e-5;

section! {
    /// `[model.lmf]`. The published values are searched for anew for each label; these lie in the middle of the search.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub struct LmfOptions("model.lmf") {
        /// width to which the speech is reduced
        speech_size: usize [at_least(1)] = 32;
        /// width to which the text is reduced
        text_size: usize [at_least(1)] = 64;
        /// rank of the factors
        rank: usize [at_least(1)] = 4;
        /// dropout on the speech vector
        speech_dropout: f64 [Kind::Dropout] = 0.1;
        /// dropout on the text vector
        text_dropout: f64 [Kind::Dropout] = 0.1;
    }
}

impl Options for LmfOptions {
    const READS: Reads = Reads::Both;
    const TERMS: &'static [&'static str] = &["task_fusion"];
    const KEYS: &'static [Key] = Self::KEYS;

    fn read_from(values: &dyn Values, _: ModelSizes) -> Self {
        Self::read(values)
    }

    fn check(&self, _: usize) -> Result<(), Misfit> {
        let sizes = [("speech_size", self.speech_size), ("text_size", self.text_size), ("rank", self.rank)];
        Misfit::unless_positive(&sizes)
    }
}

/// A norm and three linear maps, each with a rectifier.
#[derive(Module, Debug)]
pub struct SpeechReduction<B: Backend> {
    norm: LayerNorm<B>,
    layers: Vec<Linear<B>>,
    dropout: f64,
}

impl<B: Ops> SpeechReduction<B> {
    fn forward(&self, speech: Tensor<B, 2>, mode: Mode<'_>) -> Tensor<B, 2> {
        let x = ops::dropout(self.norm.forward(speech), mode.dropout(self.dropout));
        self.layers.iter().fold(x, |x, layer| activation::relu(layer.forward(x)))
    }
}

/// The sum over the ranks of the products of both modalities' maps: straight to the logits.
#[derive(Module, Debug)]
pub struct LowRankFusion<B: Backend> {
    /// [rank, speech size + 1, labels]
    speech_factor: Param<Tensor<B, 3>>,
    /// [rank, text size + 1, labels]
    text_factor: Param<Tensor<B, 3>>,
    /// [1, rank]
    weights: Param<Tensor<B, 2>>,
    /// [1, labels]
    bias: Param<Tensor<B, 2>>,
}

impl<B: Backend> LowRankFusion<B> {
    #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
    fn new(speech: usize, text: usize, rank: usize, labels: usize, init: &mut Init<'_, B>) -> Self {
        // `torch.nn.init.xavier_normal_` counts the last axis of three as the extent of a kernel.
        let deviation = |size: usize| (2.0 / ((size + 1 + rank) * labels) as f64).sqrt();
        Self {
            speech_factor: init.normal([rank, speech + 1, labels], deviation(speech)),
            text_factor: init.normal([rank, text + 1, labels], deviation(text)),
            weights: init.normal([1, rank], (2.0 / (rank + 1) as f64).sqrt()),
            bias: init.constant([1, labels], 0.0),
        }
    }

    /// `sum_k w_k ((z_speech F_speech[k]) * (z_text F_text[k])) + b` with z = [1 ; x]: [batch, size] twice -> [batch,
    /// labels].
    fn forward(&self, speech: Tensor<B, 2>, text: Tensor<B, 2>) -> Tensor<B, 2> {
        let by_rank = map(speech, self.speech_factor.val()) * map(text, self.text_factor.val());
        let [rank, batch, labels] = by_rank.dims();
        let summed = self.weights.val().matmul(by_rank.reshape([rank, batch * labels]));
        summed.reshape([batch, labels]) + self.bias.val()
    }
}

/// [1 ; x] by every rank's factor: [batch, size] and [rank, size + 1, labels] -> [rank, batch, labels].
fn map<B: Backend>(x: Tensor<B, 2>, factor: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, _] = x.dims();
    let [rank, size, labels] = factor.dims();
    let ones = Tensor::ones([batch, 1], &x.device());
    let with_one = Tensor::cat(vec![ones, x], 1);
    let side_by_side = factor.swap_dims(0, 1).reshape([size, rank * labels]);
    with_one.matmul(side_by_side).reshape([batch, rank, labels]).swap_dims(0, 1)
}

/// The method.
#[derive(Module, Debug)]
pub struct Lmf<B: Backend> {
    speech: SpeechReduction<B>,
    text: Linear<B>,
    fusion: LowRankFusion<B>,
    text_dropout: f64,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct LmfOutput<B: Backend> {
    text: Tensor<B, 2>,
    speech: Tensor<B, 2>,
    /// [batch, text size]
    text_reduced: Tensor<B, 2>,
    /// [batch, speech size]
    speech_reduced: Tensor<B, 2>,
    logits: Tensor<B, 2>,
}

impl<B: Ops> HeadMethod<B> for Lmf<B> {
    type Options = LmfOptions;
    type Output = LmfOutput<B>;

    fn new(options: &LmfOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let (speech, text) = (options.speech_size, options.text_size);
        Self {
            speech: SpeechReduction {
                norm: LayerNorm::new(sizes.hidden, EPSILON, init),
                layers: [sizes.hidden, speech, speech].map(|input| Linear::uniform(input, speech, init)).into(),
                dropout: options.speech_dropout,
            },
            text: Linear::uniform(sizes.hidden, text, init),
            fusion: LowRankFusion::new(speech, text, options.rank, sizes.labels, init),
            text_dropout: options.text_dropout,
        }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> LmfOutput<B> {
        let (text, speech) = (encoded.text().vector.clone(), encoded.speech().vector.clone());
        let speech_reduced = self.speech.forward(speech.clone(), mode);
        let text_reduced = self.text.forward(ops::dropout(text.clone(), mode.dropout(self.text_dropout)));
        let logits = self.fusion.forward(speech_reduced.clone(), text_reduced.clone());
        LmfOutput { text, speech, text_reduced, speech_reduced, logits }
    }
}

impl<B: Backend> Output<B> for LmfOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits::only("logits_fusion", self.logits.clone())
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![
            ("text", self.text.clone()),
            ("speech", self.speech.clone()),
            ("text_reduced", self.text_reduced.clone()),
            ("speech_reduced", self.speech_reduced.clone()),
        ]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        Terms::sum(Term::mean("task_fusion", 1.0, cross_entropy(self.logits.clone(), targets)), [])
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::flex::FlexDevice;

    use super::{super::fixtures, *};

    #[test]
    fn it_gives_the_reference() {
        fixtures::holds::<Lmf<fixtures::Train>>("lmf");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        fixtures::stays_finite::<Lmf<fixtures::Train>>();
    }

    /// Speech sin(1 + j), text cos(2 + j), two ranks and two labels, factors by a formula of rank, row and label; the
    /// logits worked out in plain Python.
    #[test]
    fn the_sum_over_ranks_is_that_of_the_formula() {
        let device = FlexDevice;
        let row = |value: &dyn Fn(f32) -> f32| {
            let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(value);
            Tensor::<fixtures::Train, 2>::from_floats([values], &device)
        };
        let factor = |element: &dyn Fn(u8, u8, u8) -> u8| {
            let at = |rank, row| [0, 1].map(|label| 0.1 * (f32::from(element(rank, row, label) % 5) - 2.0));
            let values = [0, 1].map(|rank| [0, 1, 2, 3, 4, 5, 6].map(|row| at(rank, row)));
            Param::from_tensor(Tensor::<fixtures::Train, 3>::from_floats(values, &device))
        };
        let fusion = LowRankFusion {
            speech_factor: factor(&|rank, row, label| rank + row + label),
            text_factor: factor(&|rank, row, label| 2 * rank + row + 3 * label),
            weights: Param::from_tensor(Tensor::from_floats([[0.5, -0.25]], &device)),
            bias: Param::from_tensor(Tensor::from_floats([[0.1, -0.1]], &device)),
        };
        let logits = fusion.forward(row(&|place| (1.0 + place).sin()), row(&|place| (2.0 + place).cos()));
        fixtures::assert_close(&fixtures::values(logits), &[0.147_927, 0.001_200], 1e-5);
    }
}
