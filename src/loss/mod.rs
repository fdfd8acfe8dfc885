//! The loss: three task terms, two contrastive terms, swap reconstruction and KL, and their weighted sum (paper,
//! equations 1 to 5). The only place where weights appear.

mod config;
mod contrastive;
mod divergence;
mod reconstruction;
#[cfg(test)]
mod samples;
mod task;

use burn::tensor::{Tensor, backend::Backend};

use crate::model::ClaspOutput;

pub use crate::choices::{ClassWeights, KlDirection, Negatives, Similarity};

pub use config::LossConfig;
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

/// The vectors that the contrastive terms compare, each [examples, hidden]: those of the batch, or of a larger one of
/// which other devices compute the rest.
#[derive(Clone, Debug)]
pub struct Contrasted<B: Backend> {
    /// `h_a,inv`
    pub speech_invariant: Tensor<B, 2>,
    /// `h_t,inv`
    pub text_invariant: Tensor<B, 2>,
    /// `h_a,spe`
    pub speech_specific: Tensor<B, 2>,
    /// `h_t,spe`
    pub text_specific: Tensor<B, 2>,
}

impl<B: Backend> From<&ClaspOutput<B>> for Contrasted<B> {
    fn from(output: &ClaspOutput<B>) -> Self {
        Self {
            speech_invariant: output.speech_invariant.clone(),
            text_invariant: output.text_invariant.clone(),
            speech_specific: output.speech_specific.clone(),
            text_specific: output.text_specific.clone(),
        }
    }
}

/// All terms of a batch.
#[must_use]
pub fn losses<B: Backend>(output: &ClaspOutput<B>, targets: &Targets, config: &LossConfig) -> LossTerms<B> {
    losses_against(output, Contrasted::from(output), targets, config)
}

/// All terms of a batch whose contrastive terms are those of `contrasted`.
#[must_use]
pub fn losses_against<B: Backend>(
    output: &ClaspOutput<B>,
    contrasted: Contrasted<B>,
    targets: &Targets,
    config: &LossConfig,
) -> LossTerms<B> {
    let task_text = cross_entropy(output.logits_text.clone(), targets);
    let task_speech = cross_entropy(output.logits_speech.clone(), targets);
    let task_fusion = cross_entropy(output.logits_fusion.clone(), targets);
    let semantic = contrastive(contrasted.speech_invariant, contrasted.text_invariant, config);
    let modality = -contrastive(contrasted.speech_specific, contrasted.text_specific, config);
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

#[cfg(test)]
mod tests {
    use super::samples::{Train, VALUE_TOLERANCE, assert_close, gradients, matrix, speech, text, value};
    use super::*;

    const LABELS: [usize; 4] = [2, 0, 3, 1];

    /// Every loss term of it is worked out in the tests of its file.
    fn output() -> ClaspOutput<Train> {
        ClaspOutput {
            text: speech(6),
            speech: text(6),
            text_invariant: text(6),
            speech_invariant: speech(6),
            text_specific: text(6),
            speech_specific: speech(6) * 3.0,
            text_reconstructed: text(6),
            speech_reconstructed: speech(6) * 0.5,
            fused: speech(6),
            logits_text: text(4),
            logits_speech: speech(4) * 2.0,
            logits_fusion: speech(4),
        }
    }

    fn terms(output: &ClaspOutput<Train>, config: &LossConfig) -> [f64; 8] {
        losses(output, &Targets::new(&LABELS, 4, &[], 0.0), config).named().map(|(_, term)| value(term))
    }

    /// The terms in the order of `LossTerms::named` without the total: numpy, the cross-entropies also by torch.
    const EXPECTED: [f64; 7] =
        [1.473_212_407, 1.897_036_991, 1.552_036_758, 15.613_413_528, -15.613_413_528, 1.219_723_021, 0.407_056_233];

    #[test]
    fn the_total_is_the_weighted_sum_of_the_terms() {
        let names = losses(&output(), &Targets::new(&LABELS, 4, &[], 0.0), &LossConfig::default());
        let names = names.named().map(|(name, _)| name);
        assert_eq!(
            names,
            ["total", "task_text", "task_speech", "task_fusion", "semantic", "modality", "reconstruction", "kl"]
        );
        let others = LossConfig { semantic: 0.5, modality: 2.0, reconstruction: 3.0, kl: 5.0, ..LossConfig::default() };
        for (config, weights) in [(LossConfig::default(), [0.01, 0.01, 0.01, 0.05]), (others, [0.5, 2.0, 3.0, 5.0])] {
            let [total, found @ ..] = terms(&output(), &config);
            for (found, expected) in found.iter().zip(EXPECTED) {
                assert_close(*found, expected, VALUE_TOLERANCE);
            }
            let tasks: f64 = EXPECTED[..3].iter().sum();
            let weighted: f64 = EXPECTED[3..].iter().zip(weights).map(|(term, weight)| term * weight).sum();
            assert_close(total, tasks + weighted, VALUE_TOLERANCE);
        }
    }

    #[test]
    fn each_term_reads_its_own_tensors() {
        let expected = terms(&output(), &LossConfig::default());
        let zero = || matrix(4, 6, |_, _| 0.0);
        let even = || matrix(4, 4, |_, _| 0.0);
        let invariant = ClaspOutput { text_invariant: zero(), ..output() };
        let specific = ClaspOutput { speech_specific: zero(), ..output() };
        let reconstructed = ClaspOutput { text_reconstructed: zero(), ..output() };
        let logits_text = ClaspOutput { logits_text: even(), ..output() };
        let logits_speech = ClaspOutput { logits_speech: even(), ..output() };
        let logits_fusion = ClaspOutput { logits_fusion: even(), ..output() };
        let fused = ClaspOutput { fused: zero(), ..output() };
        // Numbers as in `EXPECTED`.
        for (changed, wanted) in [
            (invariant, &[3][..]),
            (specific, &[4]),
            (reconstructed, &[5]),
            (logits_text, &[0, 6]),
            (logits_speech, &[1, 6]),
            (logits_fusion, &[2, 6]),
            (fused, &[]),
        ] {
            let found = terms(&changed, &LossConfig::default());
            let moved: Vec<usize> =
                (0..7).filter(|&term| (found[term + 1] - expected[term + 1]).abs() > 1e-3).collect();
            assert_eq!(moved, wanted);
        }
    }

    /// Identical vectors, zeros, certain and wrong logits, each also as a batch of one.
    #[test]
    fn every_term_and_gradient_is_finite_for_awkward_output() {
        for batch in [4, 1] {
            for (vector, logit) in [(0.0, 1e4), (1.0, -1e4), (1e-15, 0.0), (-1e3, 1e4)] {
                let vectors: Vec<_> = (0..9).map(|_| matrix(batch, 6, |_, _| vector)).collect();
                // Each classifier is sure of another label in each row.
                let logits: Vec<_> = [0.0, 1.0, 2.0]
                    .into_iter()
                    .map(|shift| matrix(batch, 4, move |i, j| if (i + j + shift) % 4.0 < 1.0 { logit } else { -logit }))
                    .collect();
                let output = ClaspOutput {
                    text: vectors[0].clone(),
                    speech: vectors[1].clone(),
                    text_invariant: vectors[2].clone(),
                    speech_invariant: vectors[3].clone(),
                    text_specific: vectors[4].clone(),
                    speech_specific: vectors[5].clone(),
                    text_reconstructed: vectors[6].clone(),
                    speech_reconstructed: vectors[7].clone(),
                    fused: vectors[8].clone(),
                    logits_text: logits[0].clone(),
                    logits_speech: logits[1].clone(),
                    logits_fusion: logits[2].clone(),
                };
                let targets = Targets::new(&LABELS[..batch], 4, &[], 0.0);
                let terms = losses(&output, &targets, &LossConfig::default());
                let total = terms.total.clone();
                for (name, term) in terms.named() {
                    let found = value(term);
                    assert!(found.is_finite(), "{name} is {found}");
                    if batch == 1 && ["semantic", "modality"].contains(&name) {
                        assert!(found.abs() <= 0.0, "{name} is {found}");
                    }
                }
                let all: Vec<&Tensor<Train, 2>> = vectors.iter().chain(&logits).collect();
                let all: [&Tensor<Train, 2>; 12] = all.try_into().unwrap();
                for gradient in gradients(&total, all).into_iter().flatten() {
                    assert!(gradient.iter().all(|element| element.is_finite()), "{gradient:?}");
                }
            }
        }
    }
}
