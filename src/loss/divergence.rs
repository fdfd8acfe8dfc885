//! The divergence between the fusion classifier's prediction and a single modality's (equation 4).

use burn::tensor::{Tensor, backend::Backend};

use super::{KlDirection, LossConfig};

/// KL(fusion ‖ unimodal) of two sets of logits [batch, labels], the mean over the batch -> [1]; reversed where the
/// config asks.
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
pub fn log_softmax<B: Backend>(logits: Tensor<B, 2>) -> Tensor<B, 2> {
    let shifted = logits.clone() - logits.detach().max_dim(1);
    shifted.clone() - shifted.exp().sum_dim(1).log()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        GRADIENT_TOLERANCE, VALUE_TOLERANCE, assert_begins_with, assert_close, assert_finite, awkward_pairs, gradients,
        matrix, reordered, speech, text, value, values,
    };
    use super::*;

    fn config(kl_direction: KlDirection, kl_detach: bool) -> LossConfig {
        LossConfig { kl_direction, kl_detach, ..LossConfig::default() }
    }

    const DIRECTIONS: [KlDirection; 2] = [KlDirection::FusionToUnimodal, KlDirection::UnimodalToFusion];

    /// `mean_i sum_c p_ic (log p_ic - log q_ic)` of the softmaxes, in numpy at double precision.
    #[test]
    fn both_directions_have_the_values_of_the_formula() {
        for (direction, expected, both) in
            [(DIRECTIONS[0], 0.335_179_733, 0.407_056_233), (DIRECTIONS[1], 0.386_715_039, 0.444_702_073)]
        {
            let config = config(direction, false);
            let to_text = divergence(speech(4), text(4), &config);
            assert_close(value(to_text.clone()), expected, VALUE_TOLERANCE);
            let to_twice = divergence(speech(4), speech(4) * 2.0, &config);
            assert_close(value(to_text + to_twice), both, VALUE_TOLERANCE);
        }
    }

    /// By hand: p = (1/2, 1/2), q = (1/4, 3/4).
    /// KL(p ‖ q) = (log 2 + log 2/3) / 2, its derivative by q's logits is q - p, and by those of p it is
    /// `p_c (log(p_c / q_c) - KL)`.
    #[test]
    fn two_classes_by_hand() {
        let (even, uneven) = (matrix(1, 2, |_, _| 0.3), matrix(1, 2, |_, j| 5.0 + j * 3.0_f64.ln()));
        let loss = divergence(even.clone(), uneven.clone(), &config(DIRECTIONS[0], false));
        let expected = f64::midpoint(2.0_f64.ln(), (2.0_f64 / 3.0).ln());
        assert_close(value(loss.clone()), expected, VALUE_TOLERANCE);
        let [by_even, by_uneven] = gradients(&loss, [&even, &uneven]).map(Option::unwrap);
        assert_begins_with(&by_uneven, &[-0.25, 0.25], GRADIENT_TOLERANCE);
        let by_hand = [2.0_f64.ln(), (2.0_f64 / 3.0).ln()].map(|ratio| 0.5 * (ratio - expected));
        assert_begins_with(&by_even, &by_hand, GRADIENT_TOLERANCE);
    }

    #[test]
    fn equal_distributions_have_no_divergence() {
        for direction in DIRECTIONS {
            let fusion = speech(4);
            // Logits that differ by a constant are the same distribution.
            let loss = divergence(fusion.clone(), speech(4) + 3.0, &config(direction, false));
            assert!(value(loss.clone()).abs() < 1e-6);
            let [gradient] = gradients(&loss, [&fusion]).map(Option::unwrap);
            assert!(gradient.iter().all(|element| element.abs() < 1e-6));
        }
    }

    #[test]
    fn detached_fusion_logits_get_no_gradient() {
        for direction in DIRECTIONS {
            for kl_detach in [false, true] {
                let (fusion, unimodal) = (speech(4), text(4));
                let loss = divergence(fusion.clone(), unimodal.clone(), &config(direction, kl_detach));
                let [by_fusion, by_unimodal] = gradients(&loss, [&fusion, &unimodal]);
                assert_eq!(by_fusion.is_none(), kl_detach);
                assert!(by_unimodal.unwrap().iter().any(|element| element.abs() > 1e-3));
            }
        }
    }

    #[test]
    fn the_order_of_the_batch_does_not_matter() {
        let order = [3, 1, 0, 2];
        for direction in DIRECTIONS {
            let config = config(direction, false);
            let in_order = value(divergence(speech(4), text(4), &config));
            let found = value(divergence(reordered(&speech(4), &order), reordered(&text(4), &order), &config));
            assert_close(found, in_order, VALUE_TOLERANCE);
        }
    }

    #[test]
    fn awkward_logits_give_finite_values_and_gradients() {
        for direction in DIRECTIONS {
            for (name, fusion, unimodal) in awkward_pairs(4) {
                println!("{name}");
                let loss = divergence(fusion.clone(), unimodal.clone(), &config(direction, false));
                assert!(value(loss.clone()) > -1e-6);
                assert_finite(&loss, [&fusion, &unimodal]);
            }
        }
    }

    /// 1e4 against -1e4: all of p where q has e^-20000.
    #[test]
    fn opposite_certainties_diverge_by_the_difference_of_the_logits() {
        let sure = matrix(1, 2, |_, j| 1e4 - 2e4 * j);
        let loss = divergence(sure.clone(), sure * -1.0, &config(DIRECTIONS[0], false));
        assert_close(value(loss), 2e4, VALUE_TOLERANCE);
    }

    #[test]
    fn log_softmax_sums_to_one_and_keeps_differences() {
        let rows = values(log_softmax(matrix(2, 3, |i, j| 1e4 * i + j)));
        for row in rows.chunks(3) {
            assert_close(row.iter().map(|value| value.exp()).sum(), 1.0, VALUE_TOLERANCE);
            assert_close(row[2] - row[0], 2.0, 1e-5);
        }
    }
}
