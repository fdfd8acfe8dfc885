//! The reconstruction error of one modality (equation 3). The paper prints an un-squared norm and calls it the mean
//! squared error; this is the latter.

use burn::tensor::{Tensor, backend::Backend};

use super::LossConfig;

/// `mean((target - reconstructed)^2)` of two [batch, hidden] -> [1].
pub fn reconstruction<B: Backend>(
    target: Tensor<B, 2>,
    reconstructed: Tensor<B, 2>,
    config: &LossConfig,
) -> Tensor<B, 1> {
    let target = if config.detach_target { target.detach() } else { target };
    (target - reconstructed).square().mean()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{
        GRADIENT_TOLERANCE, VALUE_TOLERANCE, assert_begins_with, assert_close, assert_finite, awkward_pairs, gradients,
        matrix, reordered, speech, text, value,
    };
    use super::*;

    /// `mean((A - T)^2)` in numpy; halves of two modalities are put together in `losses`.
    #[test]
    fn values_are_those_of_the_formula() {
        let config = LossConfig::default();
        assert_close(value(reconstruction(speech(6), text(6), &config)), 1.548_402_315, VALUE_TOLERANCE);
        let text_term = reconstruction(speech(6), text(6), &config);
        let speech_term = reconstruction(text(6), speech(6) * 0.5, &config);
        assert_close(value((text_term + speech_term) * 0.5), 1.219_723_021, VALUE_TOLERANCE);
        let first = |matrix: Tensor<_, 2>| matrix.narrow(0, 0, 1);
        let text_term = reconstruction(first(speech(6)), first(text(6)), &config);
        let speech_term = reconstruction(first(text(6)), first(speech(6) * 0.5), &config);
        assert_close(value((text_term + speech_term) * 0.5), 1.522_919_148, VALUE_TOLERANCE);
    }

    /// Half of `mean((a - t)^2)` over 4 x 6 elements has the derivative (a - t) / 24 by a, and its negative by t.
    #[test]
    fn gradients_are_those_of_the_formula() {
        let config = LossConfig::default();
        let (target, reconstructed) = (speech(6), text(6));
        let loss = reconstruction(target.clone(), reconstructed.clone(), &config) * 0.5;
        let expected = [0.052_400_743, 0.079_137_080, 0.033_115_151, -0.043_352_695, -0.079_962_273, -0.043_054_906];
        let [by_target, by_reconstructed] = gradients(&loss, [&target, &reconstructed]).map(Option::unwrap);
        assert_begins_with(&by_target, &expected, GRADIENT_TOLERANCE);
        assert_begins_with(&by_reconstructed, &expected.map(|element: f64| -element), GRADIENT_TOLERANCE);
        let (target, reconstructed) = (text(6), speech(6).mul_scalar(0.5).detach().require_grad());
        let loss = reconstruction(target, reconstructed.clone(), &config) * 0.5;
        let expected = [0.034_870_097, 0.060_193_384, 0.030_175_151, -0.027_585_976, -0.059_984_684, -0.037_233_750];
        let [by_reconstructed] = gradients(&loss, [&reconstructed]).map(Option::unwrap);
        assert_begins_with(&by_reconstructed, &expected, GRADIENT_TOLERANCE);
    }

    #[test]
    fn a_detached_target_gets_no_gradient_and_changes_no_value() {
        let config = LossConfig { detach_target: true, ..LossConfig::default() };
        let (target, reconstructed) = (speech(6), text(6));
        let loss = reconstruction(target.clone(), reconstructed.clone(), &config);
        assert_close(value(loss.clone()), 1.548_402_315, VALUE_TOLERANCE);
        let [by_target, by_reconstructed] = gradients(&loss, [&target, &reconstructed]);
        assert!(by_target.is_none() && by_reconstructed.is_some());
    }

    #[test]
    fn equal_vectors_have_no_error_and_the_two_sides_count_alike() {
        let config = LossConfig::default();
        assert!(value(reconstruction(speech(6), speech(6), &config)).abs() <= 0.0);
        let one_way = value(reconstruction(speech(6), text(6), &config));
        assert_close(value(reconstruction(text(6), speech(6), &config)), one_way, VALUE_TOLERANCE);
        let order = [1, 3, 2, 0];
        let found = value(reconstruction(reordered(&speech(6), &order), reordered(&text(6), &order), &config));
        assert_close(found, one_way, VALUE_TOLERANCE);
        // (3 - 1)^2 in every place.
        let found = value(reconstruction(matrix(1, 5, |_, _| 3.0), matrix(1, 5, |_, _| 1.0), &config));
        assert_close(found, 4.0, VALUE_TOLERANCE);
    }

    #[test]
    fn awkward_input_gives_finite_values_and_gradients() {
        for (name, target, reconstructed) in awkward_pairs(6) {
            println!("{name}");
            let loss = reconstruction(target.clone(), reconstructed.clone(), &LossConfig::default());
            assert_finite(&loss, [&target, &reconstructed]);
        }
    }
}
