//! The loss: three task terms, two contrastive terms, swap reconstruction and KL, and their weighted sum (paper,
//! equations 1 to 5). The only place where weights appear.

mod contrastive;
mod divergence;
mod reconstruction;
mod task;

use burn::tensor::{Tensor, backend::Backend};

use crate::model::ClaspOutput;

pub use crate::config::{ClassWeights, KlDirection, LossConfig, Negatives, Similarity};

pub use contrastive::contrastive;
pub use divergence::{divergence, log_softmax};
pub use reconstruction::reconstruction;
pub use task::{Targets, class_weights, cross_entropy};

/// Every term, unweighted, and the weighted sum; each [1].
#[derive(Clone, Debug)]
pub struct LossTerms<B: Backend> {
    /// The weighted sum. It can be negative.
    pub total: Tensor<B, 1>,
    /// Cross-entropy of the text classifier.
    pub task_text: Tensor<B, 1>,
    /// Cross-entropy of the speech classifier.
    pub task_speech: Tensor<B, 1>,
    /// Cross-entropy of the fusion classifier.
    pub task_fusion: Tensor<B, 1>,
    /// Equation 1.
    pub semantic: Tensor<B, 1>,
    /// Equation 2.
    pub modality: Tensor<B, 1>,
    /// Equation 3.
    pub reconstruction: Tensor<B, 1>,
    /// Equation 4.
    pub kl: Tensor<B, 1>,
}

impl<B: Backend> LossTerms<B> {
    /// The terms with their names: `total` first.
    #[must_use]
    pub fn named(self) -> [(&'static str, Tensor<B, 1>); 8] {
        [
            ("total", self.total),
            ("task_text", self.task_text),
            ("task_speech", self.task_speech),
            ("task_fusion", self.task_fusion),
            ("semantic", self.semantic),
            ("modality", self.modality),
            ("reconstruction", self.reconstruction),
            ("kl", self.kl),
        ]
    }
}

/// All terms of a batch.
#[must_use]
pub fn losses<B: Backend>(output: &ClaspOutput<B>, targets: &Targets, config: &LossConfig) -> LossTerms<B> {
    let task_text = cross_entropy(output.logits_text.clone(), targets);
    let task_speech = cross_entropy(output.logits_speech.clone(), targets);
    let task_fusion = cross_entropy(output.logits_fusion.clone(), targets);
    let semantic = contrastive(output.speech_invariant.clone(), output.text_invariant.clone(), config);
    let modality = -contrastive(output.speech_specific.clone(), output.text_specific.clone(), config);
    let reconstruction = (reconstruction(output.speech.clone(), output.speech_reconstructed.clone(), config)
        + reconstruction(output.text.clone(), output.text_reconstructed.clone(), config))
        * 0.5;
    let kl = divergence(output.logits_fusion.clone(), output.logits_text.clone(), config)
        + divergence(output.logits_fusion.clone(), output.logits_speech.clone(), config);
    let total = task_text.clone()
        + task_speech.clone()
        + task_fusion.clone()
        + semantic.clone() * config.semantic
        + modality.clone() * config.modality
        + reconstruction.clone() * config.reconstruction
        + kl.clone() * config.kl;
    LossTerms { total, task_text, task_speech, task_fusion, semantic, modality, reconstruction, kl }
}
