//! The speech encoder alone: a linear classifier on the utterance vector of the speech.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::{
    Contrasted, Encoded, HeadMethod, Logits, Output, Reads, Sequence, Sizes, Term, Terms, options::no_options,
};
use crate::{
    loss::{LossConfig, Targets, cross_entropy},
    nn::{Init, Linear},
    ops::{self, Mode, Ops},
};

no_options!(
    /// It has none of its own.
    SpeechOptions,
    Reads::Speech,
    &["task_speech"]
);

/// The classifier.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    speech: Linear<B>,
}

/// The method.
#[derive(Module, Debug)]
pub struct Speech<B: Backend> {
    classifier: Classifier<B>,
    dropout: f64,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct SpeechOutput<B: Backend> {
    speech: Tensor<B, 2>,
    logits: Tensor<B, 2>,
}

impl<B: Ops> HeadMethod<B> for Speech<B> {
    type Options = SpeechOptions;
    type Output = SpeechOutput<B>;

    fn new(_: &SpeechOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let speech = Linear::uniform(sizes.hidden, sizes.labels, init);
        Self { classifier: Classifier { speech }, dropout: sizes.classifier_dropout }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> SpeechOutput<B> {
        let speech = encoded.speech().vector.clone();
        let dropped = ops::dropout(speech.clone(), mode.dropout(self.dropout));
        SpeechOutput { logits: self.classifier.speech.forward(dropped), speech }
    }

    fn classify_speech(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        Some(self.classifier.speech.forward(ops::dropout(speech.vector.clone(), mode.dropout(self.dropout))))
    }
}

impl<B: Backend> Output<B> for SpeechOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits::only("logits_speech", self.logits.clone())
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![("speech", self.speech.clone())]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        Terms::sum(Term::mean("task_speech", 1.0, cross_entropy(self.logits.clone(), targets)), [])
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn it_gives_the_reference() {
        fixtures::holds::<Speech<fixtures::Train>>("speech");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        fixtures::stays_finite::<Speech<fixtures::Train>>();
    }
}
