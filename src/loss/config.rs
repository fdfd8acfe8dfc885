//! `[loss]` of the config: the weights of the terms, and their options.

use serde::{Deserialize, Serialize};

use crate::{
    choices::{ClassWeights, KlDirection, Negatives, Similarity},
    keys::{Kind, Range, Unset, section},
};

section! {
    /// `[loss]`, and `loss` of a checkpoint's `config.json`; the defaults are the paper's.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    pub struct LossConfig("loss") {
        /// weight of the semantic term (alpha)
        semantic: f64 = 0.01;
        /// weight of the modality term (beta)
        modality: f64 = 0.01;
        /// weight of the reconstruction term (gamma)
        reconstruction: f64 = 0.01;
        /// weight of the divergence (delta; zeta)
        kl: f64 = 0.05;
        /// divides the similarities
        temperature: f64 [Kind::Number(Range::Positive)] = 0.1;
        /// similarity of two vectors
        similarity: Similarity = Similarity::Cosine;
        /// what a pair is contrasted with; only within a batch, accumulation adds none
        negatives: Negatives = Negatives::Printed;
        /// no gradient into the targets of the reconstruction
        detach_target: bool = false;
        /// from which distribution the divergence is measured
        kl_direction: KlDirection = KlDirection::FusionToUnimodal;
        /// no gradient of the divergence into the fusion
        kl_detach: bool = false;
        /// weights of the labels
        class_weights: ClassWeights = ClassWeights::None;
        /// label smoothing
        label_smoothing: f64 [Kind::Number(Range::BelowOne)] = 0.0;
    }
}

impl LossConfig {
    /// The keys that every method reads; the others are of the paper's system.
    pub const COMMON: [&'static str; 2] = ["loss.class_weights", "loss.label_smoothing"];
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::read(&Unset)
    }
}
