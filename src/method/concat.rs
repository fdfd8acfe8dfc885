//! Early fusion: one linear classifier on both utterance vectors side by side, speech first.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::{Contrasted, Encoded, HeadMethod, Logits, Output, Reads, Sizes, Term, Terms, options::no_options};
use crate::{
    loss::{LossConfig, Targets, cross_entropy},
    nn::{Init, Linear},
    ops::{self, Mode, Ops},
};

no_options!(
    /// It has none of its own.
    ConcatOptions,
    Reads::Both,
    &["task_fusion"]
);

/// The classifier.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    fusion: Linear<B>,
}

/// The method.
#[derive(Module, Debug)]
pub struct Concat<B: Backend> {
    classifier: Classifier<B>,
    dropout: f64,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct ConcatOutput<B: Backend> {
    text: Tensor<B, 2>,
    speech: Tensor<B, 2>,
    /// [batch, 2 * hidden]
    fused: Tensor<B, 2>,
    logits: Tensor<B, 2>,
}

impl<B: Ops> HeadMethod<B> for Concat<B> {
    type Options = ConcatOptions;
    type Output = ConcatOutput<B>;

    fn new(_: &ConcatOptions, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        let fusion = Linear::uniform(2 * sizes.hidden, sizes.labels, init);
        Self { classifier: Classifier { fusion }, dropout: sizes.classifier_dropout }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> ConcatOutput<B> {
        let (text, speech) = (encoded.text().vector.clone(), encoded.speech().vector.clone());
        let fused = Tensor::cat(vec![speech.clone(), text.clone()], 1);
        let dropped = ops::dropout(fused.clone(), mode.dropout(self.dropout));
        ConcatOutput { logits: self.classifier.fusion.forward(dropped), text, speech, fused }
    }
}

impl<B: Backend> Output<B> for ConcatOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits::only("logits_fusion", self.logits.clone())
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![("text", self.text.clone()), ("speech", self.speech.clone()), ("fused", self.fused.clone())]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, _: &LossConfig) -> Terms<B> {
        Terms::sum(Term::mean("task_fusion", 1.0, cross_entropy(self.logits.clone(), targets)), [])
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn it_gives_the_reference() {
        fixtures::holds::<Concat<fixtures::Train>>("concat");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        fixtures::stays_finite::<Concat<fixtures::Train>>();
    }
}
