//! The text encoder alone: a linear classifier on the utterance vector of the text.

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
    TextOptions,
    Reads::Text,
    &["task_text"]
);

/// The classifier.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    text: Linear<B>,
}

/// The method.
#[derive(Module, Debug)]
pub struct Text<B: Backend> {
    classifier: Classifier<B>,
    dropout: f64,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct TextOutput<B: Backend> {
    text: Tensor<B, 2>,
    logits: Tensor<B, 2>,
}

impl<B: Ops> HeadMethod<B> for Text<B> {
    type Options = TextOptions;
    type Output = TextOutput<B>;

    fn new(_: &TextOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let text = Linear::uniform(sizes.hidden, sizes.labels, init);
        Self { classifier: Classifier { text }, dropout: sizes.classifier_dropout }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> TextOutput<B> {
        let text = encoded.text().vector.clone();
        let dropped = ops::dropout(text.clone(), mode.dropout(self.dropout));
        TextOutput { logits: self.classifier.text.forward(dropped), text }
    }

    fn classify_text(&self, text: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        Some(self.classifier.text.forward(ops::dropout(text.vector.clone(), mode.dropout(self.dropout))))
    }
}

impl<B: Backend> Output<B> for TextOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits::only("logits_text", self.logits.clone())
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![("text", self.text.clone())]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        Terms::sum(Term::mean("task_text", 1.0, cross_entropy(self.logits.clone(), targets)), [])
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn it_gives_the_reference() {
        fixtures::holds::<Text<fixtures::Train>>("text");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        fixtures::stays_finite::<Text<fixtures::Train>>();
    }
}
