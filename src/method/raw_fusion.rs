//! The ablation `raw-only`: the paper's fusion and classifiers on the two encoders' vectors, without projections. Of the
//! auxiliary terms only the divergence is left, since the others compare projected vectors.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::{Encoded, HeadMethod, Logits, Options, Output, Reads, Sequence, Sizes, Term, Terms, TextSizes};
use crate::{
    choices::{FusionKind, FusionVectors},
    config::Fusion as FusionConfig,
    loss::{Contrasted, LossConfig, Targets, cross_entropy, divergence},
    model::{Classifier, Fusion},
    nn::Init,
    ops::{self, Mode, Ops},
};

impl Options for FusionConfig {
    const READS: Reads = Reads::Both;
    const TERMS: &'static [&'static str] = &["task_text", "task_speech", "task_fusion", "kl"];

    fn published(text: TextSizes) -> Self {
        Self {
            kind: FusionKind::MultiHead,
            vectors: FusionVectors::Raw,
            split_heads: text.attention_heads,
            hidden_size: 768,
            layers: 4,
            attention_heads: 8,
            feed_forward: 2048,
            dropout: 0.1,
            slot_embeddings: false,
        }
    }
}

/// The ablation.
#[derive(Module, Debug)]
pub struct RawFusion<B: Backend> {
    fusion: Fusion<B>,
    classifier: Classifier<B>,
    dropout: f64,
}

/// What it makes of a batch.
#[derive(Clone, Debug)]
pub struct RawFusionOutput<B: Backend> {
    text: Tensor<B, 2>,
    speech: Tensor<B, 2>,
    /// [batch, fused size]
    fused: Tensor<B, 2>,
    logits_text: Tensor<B, 2>,
    logits_speech: Tensor<B, 2>,
    logits_fusion: Tensor<B, 2>,
}

impl<B: Ops> HeadMethod<B> for RawFusion<B> {
    type Options = FusionConfig;
    type Output = RawFusionOutput<B>;

    fn new(options: &FusionConfig, sizes: &Sizes, init: &mut Init<'_, B>) -> Self {
        Self {
            fusion: Fusion::new(options, sizes.hidden, init),
            classifier: Classifier::new(sizes.hidden, options.fused_size(), sizes.labels, init),
            dropout: sizes.classifier_dropout,
        }
    }

    fn forward(&self, encoded: &Encoded<B>, mode: Mode<'_>) -> RawFusionOutput<B> {
        let (text, speech) = (encoded.text().vector.clone(), encoded.speech().vector.clone());
        let fused = self.fusion.forward(&[&speech, &text], mode);
        let drop = |vector: &Tensor<B, 2>| ops::dropout(vector.clone(), mode.dropout(self.dropout));
        RawFusionOutput {
            logits_text: self.classifier.text.forward(drop(&text)),
            logits_speech: self.classifier.speech.forward(drop(&speech)),
            logits_fusion: self.classifier.fusion.forward(drop(&fused)),
            text,
            speech,
            fused,
        }
    }

    fn classify_text(&self, text: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        Some(self.classifier.text.forward(ops::dropout(text.vector.clone(), mode.dropout(self.dropout))))
    }

    fn classify_speech(&self, speech: &Sequence<B>, mode: Mode<'_>) -> Option<Tensor<B, 2>> {
        Some(self.classifier.speech.forward(ops::dropout(speech.vector.clone(), mode.dropout(self.dropout))))
    }
}

impl<B: Backend> Output<B> for RawFusionOutput<B> {
    fn logits(&self) -> Logits<B> {
        Logits {
            name: "logits_fusion",
            main: self.logits_fusion.clone(),
            text: Some(self.logits_text.clone()),
            speech: Some(self.logits_speech.clone()),
        }
    }

    fn representations(&self) -> Vec<(&'static str, Tensor<B, 2>)> {
        vec![("text", self.text.clone()), ("speech", self.speech.clone()), ("fused", self.fused.clone())]
    }

    fn losses(&self, _: Option<Contrasted<B>>, targets: &Targets, loss: &LossConfig) -> Terms<B> {
        let task = |name, logits: &Tensor<B, 2>| Term::mean(name, 1.0, cross_entropy(logits.clone(), targets));
        let apart = |logits: &Tensor<B, 2>| divergence(self.logits_fusion.clone(), logits.clone(), loss);
        let kl = apart(&self.logits_text) + apart(&self.logits_speech);
        let others = [
            task("task_speech", &self.logits_speech),
            task("task_fusion", &self.logits_fusion),
            Term::mean("kl", loss.kl, kl),
        ];
        Terms::sum(task("task_text", &self.logits_text), others)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn it_gives_the_reference() {
        fixtures::holds::<RawFusion<fixtures::Train>>("raw-fusion");
    }

    #[test]
    fn awkward_vectors_give_finite_values_and_gradients() {
        fixtures::stays_finite::<RawFusion<fixtures::Train>>();
    }
}
