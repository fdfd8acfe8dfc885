//! Late fusion: two systems that share nothing, and the mean of their probabilities. Each is trained as if alone: the
//! loss is the sum of both cross-entropies, and Adam takes every parameter for itself (a global norm limit,
//! `train.clip_norm`, would couple them).

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::{
    Contrasted, Encoded, HeadMethod, Logits, Output, Reads, Sequence, Sizes, Term, Terms, options::no_options,
};
use crate::{
    loss::{LossConfig, Targets, cross_entropy, log_softmax},
    nn::{Init, Linear},
    ops::{self, Mode, Ops},
};

no_options!(
    /// It has none of its own.
    LateFusionOptions,
    Reads::Both,
    &["task_text", "task_speech"]
);

/// The two classifiers.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    text: Linear<B>,
    speech: Linear<B>,
}

/// The method.
#[derive(Module, Debug)]
pub struct LateFusion<B: Backend> {
    classifier: Classifier<B>,
    dropout: f64,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct LateFusionOutput<B: Backend> {
    text: Tensor<B, 2>,
    speech: Tensor<B, 2>,
    logits_text: Tensor<B, 2>,
    logits_speech: Tensor<B, 2>,
}

impl<B: Ops> LateFusion<B> {
    fn drop(&self, vector: &Tensor<B, 2>, mode: Mode<'_>) -> Tensor<B, 2> {
        ops::dropout(vector.clone(), mode.dropout(self.dropout))
    }
}

impl<B: Ops> HeadMethod<B> for LateFusion<B> {
    type Options = LateFusionOptions;
    type Output = LateFusionOutput<B>;

    fn new(_: &LateFusionOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let classifier = Classifier {
            text: Linear::uniform(sizes.hidden, sizes.labels, init),
            speech: Linear::uniform(sizes.hidden, sizes.labels, init),
        };
        Self { classifier, dropout: sizes.classifier_dropout }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> LateFusionOutput<B> {
        let (text, speech) = (encoded.text().vector.clone(), encoded.speech().vector.clone());
        LateFusionOutput {
            logits_text: self.classifier.text.forward(self.drop(&text, mode)),
            logits_speech: self.classifier.speech.forward(self.drop(&speech, mode)),
            text,
            speech,
        }
    }

    fn classify_text(&self, text: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        Some(self.classifier.text.forward(self.drop(&text.vector, mode)))
    }

    fn classify_speech(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        Some(self.classifier.speech.forward(self.drop(&speech.vector, mode)))
    }
}

/// The logarithm of the mean of two distributions, of their logits [batch, labels]. The larger of the two logarithms is
/// taken out of the sum, so that a label that both find impossible stays finite.
fn log_mean<B: Backend>(first: Tensor<B, 2>, second: Tensor<B, 2>) -> Tensor<B, 2> {
    let (first, second) = (log_softmax(first), log_softmax(second));
    let apart = (first.clone() - second.clone()).abs();
    first.max_pair(second) + (apart.neg().exp() + 1.0).log() - std::f64::consts::LN_2
}

impl<B: Backend> Output<B> for LateFusionOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits {
            name: "logits_fusion",
            main: log_mean(self.logits_text.clone(), self.logits_speech.clone()),
            text: Some(self.logits_text.clone()),
            speech: Some(self.logits_speech.clone()),
        }
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![("text", self.text.clone()), ("speech", self.speech.clone())]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        let task = |name, logits: &Tensor<B, 2>| Term::mean(name, 1.0, cross_entropy(logits.clone(), targets));
        Terms::sum(task("task_text", &self.logits_text), [task("task_speech", &self.logits_speech)])
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::flex::FlexDevice;

    use super::{super::fixtures, *};

    #[test]
    fn it_gives_the_reference() {
        fixtures::holds::<LateFusion<fixtures::Train>>("late-fusion");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        fixtures::stays_finite::<LateFusion<fixtures::Train>>();
    }

    /// (0.9 + 0.5) / 2 and (0.1 + 0.5) / 2, by hand; a label of which both are sure that it is wrong has a logit of
    /// about -1e4.
    #[test]
    fn the_mean_of_two_distributions_by_hand() {
        let row = |values: [f32; 2]| Tensor::<fixtures::Train, 2>::from_floats([values], &FlexDevice);
        let mean = log_mean(row([9.0_f32.ln(), 0.0]), row([3.0, 3.0])).exp();
        fixtures::assert_close(&fixtures::values(mean), &[0.7, 0.3], 1e-6);
        let sure = log_mean(row([1e4, 0.0]), row([1e4, 0.0]));
        fixtures::assert_close(&fixtures::values(sure), &[0.0, -1e4], 1e-6);
    }
}
