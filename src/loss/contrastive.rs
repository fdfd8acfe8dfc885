//! The contrastive functional of equations 1 and 2: `semantic` is its value on the invariant vectors, `modality` its
//! negative on the specific ones.

use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::{LossConfig, Negatives, Similarity};

/// Square of the floor of a norm, 1e-12.
const SQUARED_NORM_FLOOR: f64 = 1e-24;

/// In place of a score that is not in the sum.
const LEFT_OUT: f32 = -1e30;

/// `mean_i [log sum of the scores that i is compared with - log f(speech_i, text_i)]`, of speech and text
/// [batch, width] -> [1]. 0 for a batch of one: nothing to hold it against.
pub fn contrastive<B: Backend>(speech: Tensor<B, 2>, text: Tensor<B, 2>, config: &LossConfig) -> Tensor<B, 1> {
    let [batch, _] = speech.dims();
    let device = speech.device();
    if batch < 2 {
        return Tensor::zeros([1], &device);
    }
    let (speech, text) = match config.similarity {
        Similarity::Cosine => (normalised(speech), normalised(text)),
        Similarity::Dot => (speech, text),
    };
    let inverse = 1.0 / config.temperature;
    let scores = |left: &Tensor<B, 2>, right: &Tensor<B, 2>| left.clone().matmul(right.clone().transpose()) * inverse;
    let matched = (speech.clone() * text.clone()).sum_dim(1) * inverse; // [batch, 1]
    let against = match config.negatives {
        Negatives::Printed | Negatives::WithPositive => {
            let others = others_only(batch, &device);
            let mut rows = vec![scores(&speech, &speech) + others.clone(), scores(&text, &text) + others];
            if config.negatives == Negatives::WithPositive {
                rows.push(matched.clone());
            }
            log_sum_exp(Tensor::cat(rows, 1))
        }
        Negatives::CrossModal => {
            let forward = scores(&speech, &text);
            (log_sum_exp(forward.clone()) + log_sum_exp(forward.transpose())) * 0.5
        }
    };
    (against - matched).mean()
}

/// Rows divided by their norm, floored at 1e-12.
fn normalised<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    // The floor is inside the root, so that the gradient of a zero vector is finite.
    let norm = x.clone().square().sum_dim(1).clamp_min(SQUARED_NORM_FLOOR).sqrt();
    x / norm
}

/// 0 off the diagonal and a very negative number on it, [batch, batch].
fn others_only<B: Backend>(batch: usize, device: &B::Device) -> Tensor<B, 2> {
    let mut values = vec![0.0_f32; batch * batch];
    values.iter_mut().step_by(batch + 1).for_each(|value| *value = LEFT_OUT);
    Tensor::from_data(TensorData::new(values, [batch, batch]), device)
}

/// [rows, columns] -> [rows, 1]
fn log_sum_exp<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let largest = x.clone().detach().max_dim(1);
    (x - largest.clone()).exp().sum_dim(1).log() + largest
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        GRADIENT_TOLERANCE, Train, VALUE_TOLERANCE, assert_begins_with, assert_close, assert_finite, awkward_pairs,
        gradients, matrix, reordered, speech, text, value,
    };
    use super::*;

    const SIMILARITIES: [Similarity; 2] = [Similarity::Cosine, Similarity::Dot];
    const NEGATIVES: [Negatives; 3] = [Negatives::Printed, Negatives::WithPositive, Negatives::CrossModal];

    fn config(similarity: Similarity, negatives: Negatives, temperature: f64) -> LossConfig {
        LossConfig { temperature, similarity, negatives, ..LossConfig::default() }
    }

    fn all_configs() -> impl Iterator<Item = LossConfig> {
        let pairs = SIMILARITIES.into_iter().flat_map(|similarity| NEGATIVES.map(|negatives| (similarity, negatives)));
        pairs.flat_map(|(similarity, negatives)| {
            [1.0, 0.1].map(|temperature| config(similarity, negatives, temperature))
        })
    }

    /// In numpy at double precision, with `s(x, y) = cos(x, y) / temperature` or `x @ y / temperature` and m over both
    /// modalities:
    /// printed: `mean_i [log(sum_m sum_{j != i} exp(s(m_i, m_j))) - s(a_i, t_i)]`;
    /// with positive: `exp(s(a_i, t_i))` is in the sum too;
    /// cross-modal: half of `log(sum_j exp(s(a_i, t_j))) - s(a_i, t_i)` and half of the same from t to a.
    #[test]
    fn values_are_those_of_the_formula() {
        use Negatives::{CrossModal, Printed, WithPositive};
        use Similarity::{Cosine, Dot};
        for (similarity, negatives, at_one, at_a_tenth) in [
            (Cosine, Printed, 3.054_106_437, 15.613_413_528),
            (Cosine, WithPositive, 3.102_374_462, 15.613_416_886),
            (Cosine, CrossModal, 1.552_227_875, 5.967_689_191),
            (Dot, Printed, 5.851_361_864, 46.584_530_524),
            (Dot, WithPositive, 5.855_960_500, 46.584_530_524),
            (Dot, CrossModal, 2.270_541_536, 17.791_956_212),
        ] {
            for (temperature, expected) in [(1.0, at_one), (0.1, at_a_tenth)] {
                let config = config(similarity, negatives, temperature);
                let found = value(contrastive(speech(6), text(6), &config));
                assert_close(found, expected, VALUE_TOLERANCE);
                // Every form treats the two modalities alike.
                assert_close(value(contrastive(text(6), speech(6), &config)), expected, VALUE_TOLERANCE);
            }
        }
    }

    /// The derivatives of the same formulas by the first row of speech and of text (numpy, complex step).
    #[test]
    fn gradients_are_those_of_the_formula() {
        use Negatives::{CrossModal, Printed, WithPositive};
        use Similarity::{Cosine, Dot};
        type Rows = ([f64; 6], [f64; 6]);
        let cosine_printed: Rows = (
            [-0.464_804_893, 0.313_645_983, 0.803_732_188, 0.554_870_726, -0.204_136_323, -0.775_461_378],
            [-0.267_214_864, -0.035_506_813, 0.228_846_037, 0.282_798_897, 0.076_747_755, -0.199_864_919],
        );
        let cosine_with_positive: Rows = (
            [-0.464_804_704, 0.313_645_856, 0.803_731_862, 0.554_870_501, -0.204_136_240, -0.775_461_063],
            [-0.267_214_863, -0.035_506_813, 0.228_846_037, 0.282_798_896, 0.076_747_754, -0.199_864_919],
        );
        let cosine_cross_modal: Rows = (
            [0.569_823_797, -0.384_511_755, -0.985_328_973, -0.680_239_277, 0.250_259_273, 0.950_670_602],
            [-0.286_052_345, -0.038_009_889, 0.244_978_684, 0.302_734_985, 0.082_158_136, -0.213_954_524],
        );
        // With and without the positive in the sum the dot products agree to ten digits.
        let dot_printed: Rows = (
            [3.402_067_365, 6.077_504_869, 3.165_312_425, -2.657_053_666, -6.036_536_869, -3.866_055_914],
            [-2.095_609_587, -2.318_066_975, -0.409_304_276, 1.875_770_887, 2.436_270_947, 0.756_874_734],
        );
        let dot_cross_modal: Rows = (
            [3.923_690_661, 0.680_751_281, -3.188_067_688, -4.125_791_927, -1.270_282_095, 2.753_119_237],
            [-1.094_864_079, -1.132_803_687, -0.129_248_809, 0.993_136_827, 1.202_437_045, 0.306_222_189],
        );
        for (similarity, negatives, expected) in [
            (Cosine, Printed, cosine_printed),
            (Cosine, WithPositive, cosine_with_positive),
            (Cosine, CrossModal, cosine_cross_modal),
            (Dot, Printed, dot_printed),
            (Dot, WithPositive, dot_printed),
            (Dot, CrossModal, dot_cross_modal),
        ] {
            let (speech, text) = (speech(6), text(6));
            let loss = contrastive(speech.clone(), text.clone(), &config(similarity, negatives, 0.1));
            let [by_speech, by_text] = gradients(&loss, [&speech, &text]).map(Option::unwrap);
            assert_begins_with(&by_speech, &expected.0, GRADIENT_TOLERANCE);
            assert_begins_with(&by_text, &expected.1, GRADIENT_TOLERANCE);
        }
        let (speech, text) = (speech(6), text(6));
        let loss = contrastive(speech.clone(), text, &config(Cosine, Printed, 1.0));
        let [by_speech] = gradients(&loss, [&speech]).map(Option::unwrap);
        let expected = [-0.050_653_290, 0.034_180_365, 0.087_588_751, 0.060_468_443, -0.022_246_273, -0.084_507_868];
        assert_begins_with(&by_speech, &expected, GRADIENT_TOLERANCE);
    }

    /// All similarities are 1, so at temperature 1 the sums count their terms: 6 negatives of 4 rows, 6 and the
    /// positive, the 4 of the other modality.
    #[test]
    fn identical_vectors_count_the_terms() {
        for (negatives, terms) in [(NEGATIVES[0], 6.0_f64), (NEGATIVES[1], 7.0), (NEGATIVES[2], 4.0)] {
            let same = || matrix(4, 6, |_, j| j - 2.0);
            let found = value(contrastive(same(), same(), &config(Similarity::Cosine, negatives, 1.0)));
            assert_close(found, terms.ln(), VALUE_TOLERANCE);
        }
    }

    #[test]
    fn a_batch_of_one_gives_exactly_zero_and_no_gradient() {
        for config in all_configs() {
            let (speech, text) = (matrix(1, 6, |_, j| j - 2.0), matrix(1, 6, |_, j| 3.0 - j));
            let loss = contrastive(speech.clone(), text.clone(), &config);
            assert!(value(loss.clone()).abs() <= 0.0);
            // In a sum with another term, as in training.
            let total = loss + (speech.clone() * text.clone() * 0.0).sum();
            for gradient in gradients(&total, [&speech, &text]).into_iter().flatten() {
                assert!(gradient.iter().all(|element| element.abs() <= 0.0));
            }
        }
    }

    #[test]
    fn the_order_of_the_batch_does_not_matter() {
        for config in all_configs() {
            let in_order = value(contrastive(speech(6), text(6), &config));
            let order = [2, 0, 3, 1];
            let found = value(contrastive(reordered(&speech(6), &order), reordered(&text(6), &order), &config));
            assert_close(found, in_order, VALUE_TOLERANCE);
        }
    }

    #[test]
    fn awkward_input_gives_finite_values_and_gradients() {
        for config in all_configs() {
            for (name, speech, text) in awkward_pairs(6) {
                println!("{name}: {config:?}");
                let alone = contrastive(speech.clone(), text.clone(), &config);
                let total = alone + (speech.clone() * 0.0).sum() + (text.clone() * 0.0).sum();
                assert_finite(&total, [&speech, &text]);
            }
        }
    }

    /// The cosine does not see the lengths, above the floor of 1e-12.
    #[test]
    fn the_cosine_has_no_unit() {
        let config = LossConfig::default();
        let scaled: Tensor<Train, 2> = speech(6) * 1e-6;
        assert_close(value(contrastive(scaled, text(6) * 1e6, &config)), 15.613_413_528, VALUE_TOLERANCE);
    }
}
