//! One encoder alone, the text's or the speech's: a linear classifier on its utterance vector.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{
    Contrasted, Encoded, HeadMethod, Logits, ModelSizes, Options, Output, Reads, Sequence, Sizes, Term, Terms,
};
use crate::{
    keys::Values,
    loss::{LossConfig, Targets, cross_entropy},
    nn::{Init, Linear},
    ops::{self, Mode, Ops},
};

/// The text encoder alone.
pub type Text<B> = Unimodal<B, true>;
/// The speech encoder alone.
pub type Speech<B> = Unimodal<B, false>;
/// Those of [`Text`].
pub type TextOptions = UnimodalOptions<true>;
/// Those of [`Speech`].
pub type SpeechOptions = UnimodalOptions<false>;

/// It has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnimodalOptions<const IS_TEXT: bool> {}

impl<const IS_TEXT: bool> Options for UnimodalOptions<IS_TEXT> {
    const READS: Reads = if IS_TEXT { Reads::Text } else { Reads::Speech };
    const TERMS: &'static [&'static str] = &[if IS_TEXT { "task_text" } else { "task_speech" }];

    fn read_from(_: &dyn Values, _: ModelSizes) -> Self {
        Self {}
    }
}

/// The classifier of the one modality.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    text: Option<Linear<B>>,
    speech: Option<Linear<B>>,
}

/// The method.
#[derive(Module, Debug)]
pub struct Unimodal<B: Backend, const IS_TEXT: bool> {
    classifier: Classifier<B>,
    dropout: f64,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct UnimodalOutput<B: Backend, const IS_TEXT: bool> {
    /// [batch, hidden]
    vector: Tensor<B, 2>,
    logits: Tensor<B, 2>,
}

impl<B: Ops, const IS_TEXT: bool> Unimodal<B, IS_TEXT> {
    fn classify(&self, vector: &Tensor<B, 2>, mode: Mode<'_>) -> Tensor<B, 2> {
        let Classifier { text, speech } = &self.classifier;
        let Some(classifier) = text.as_ref().or(speech.as_ref()) else { unreachable!("it has one of them") };
        classifier.forward(ops::dropout(vector.clone(), mode.dropout(self.dropout)))
    }
}

impl<B: Ops, const IS_TEXT: bool> HeadMethod<B> for Unimodal<B, IS_TEXT> {
    type Options = UnimodalOptions<IS_TEXT>;
    type Output = UnimodalOutput<B, IS_TEXT>;

    fn new(_: &Self::Options, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let classifier = Linear::uniform(sizes.hidden, sizes.labels, init);
        let (text, speech) = if IS_TEXT { (Some(classifier), None) } else { (None, Some(classifier)) };
        Self { classifier: Classifier { text, speech }, dropout: sizes.classifier_dropout }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> Self::Output {
        let vector = if IS_TEXT { encoded.text() } else { encoded.speech() }.vector.clone();
        UnimodalOutput { logits: self.classify(&vector, mode), vector }
    }

    fn classify_text(&self, text: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        IS_TEXT.then(|| self.classify(&text.vector, mode))
    }

    fn classify_speech(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        (!IS_TEXT).then(|| self.classify(&speech.vector, mode))
    }
}

impl<B: Backend, const IS_TEXT: bool> Output<B> for UnimodalOutput<B, IS_TEXT> {
    fn logits(&self) -> Logits<B> {
        Logits::only(if IS_TEXT { "logits_text" } else { "logits_speech" }, self.logits.clone())
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![(if IS_TEXT { "text" } else { "speech" }, self.vector.clone())]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        let term = UnimodalOptions::<IS_TEXT>::TERMS[0];
        Terms::sum(Term::mean(term, 1.0, cross_entropy(self.logits.clone(), targets)), [])
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn both_give_the_reference() {
        fixtures::holds::<Text<fixtures::Train>>("text");
        fixtures::holds::<Speech<fixtures::Train>>("speech");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        fixtures::stays_finite::<Text<fixtures::Train>>();
        fixtures::stays_finite::<Speech<fixtures::Train>>();
    }
}
