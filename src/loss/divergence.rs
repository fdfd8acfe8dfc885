//! The divergence between the fusion classifier's prediction and a single modality's (equation 4).

use burn::tensor::{Tensor, backend::Backend};

use super::{KlDirection, LossConfig};

/// KL(fusion ‖ unimodal) of two sets of logits [batch, labels], the mean over the batch -> [1]; reversed where the
/// config asks.
#[must_use]
pub fn divergence<B: Backend>(fusion: Tensor<B, 2>, unimodal: Tensor<B, 2>, config: &LossConfig) -> Tensor<B, 1> {
    let fusion = if config.kl_detach { fusion.detach() } else { fusion };
    match config.kl_direction {
        KlDirection::FusionToUnimodal => kl(fusion, unimodal),
        KlDirection::UnimodalToFusion => kl(unimodal, fusion),
    }
}

/// KL(softmax p ‖ softmax q), the mean over the batch.
#[expect(clippy::cast_precision_loss, reason = "batches are small")]
fn kl<B: Backend>(p_logits: Tensor<B, 2>, q_logits: Tensor<B, 2>) -> Tensor<B, 1> {
    let [batch, _] = p_logits.dims();
    let (log_p, log_q) = (log_softmax(p_logits), log_softmax(q_logits));
    (log_p.clone().exp() * (log_p - log_q)).sum() / batch as f64
}

/// The logarithm of the softmax over the last axis: [rows, classes] -> the same; finite for any finite logits.
#[must_use]
pub fn log_softmax<B: Backend>(logits: Tensor<B, 2>) -> Tensor<B, 2> {
    let shifted = logits.clone() - logits.detach().max_dim(1);
    shifted.clone() - shifted.exp().sum_dim(1).log()
}
