//! `SpecAugment` (Park et al. 2019) on hidden features: which spans of an utterance are masked in training, as Hugging
//! Face's `_compute_mask_indices` chooses them.

use crate::random::Random;

/// One kind of masking: along time or along features.
#[derive(Clone, Copy, Debug)]
pub struct SpanMask {
    /// Share of the positions that spans start at, times their length.
    pub probability: f64,
    /// Positions of a span.
    pub length: usize,
    pub min_spans: usize,
}

impl SpanMask {
    /// Which of `positions` are masked. Spans start at different places and may overlap.
    ///
    /// *Departure*: fewer positions than one span gives no mask, where Hugging Face raises an error.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small, non-negative number of spans"
    )]
    pub fn draw(&self, positions: usize, random: &mut Random) -> Vec<bool> {
        let mut masked = vec![false; positions];
        if self.probability <= 0.0 || positions < self.length {
            return masked;
        }
        let expected = self.probability * positions as f64 / self.length as f64;
        let starts = positions - self.length + 1;
        let wanted = ((expected + random.uniform()) as usize).max(self.min_spans);
        let spans = wanted.min(positions / self.length).min(starts);
        let mut candidates: Vec<usize> = (0..starts).collect();
        for chosen in 0..spans {
            candidates.swap(chosen, chosen + random.below(starts - chosen));
            masked[candidates[chosen]..candidates[chosen] + self.length].fill(true);
        }
        masked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_length_and_their_number() {
        let mask = SpanMask { probability: 0.05, length: 10, min_spans: 2 };
        for seed in 0..200 {
            let masked = mask.draw(49, &mut Random::new(seed));
            let count = masked.iter().filter(|&&masked| masked).count();
            // 0.05 * 49 / 10 rounds to 0 or 1, so the minimum of two spans holds: 11 (overlapping) to 20 frames.
            assert!((11..=20).contains(&count), "{count}");
            let longest = masked.split(|&masked| !masked).map(<[bool]>::len).max();
            assert!(longest >= Some(10));
        }
    }

    #[test]
    fn the_expected_number_of_spans_is_probability_times_positions_over_length() {
        let mask = SpanMask { probability: 0.5, length: 1, min_spans: 0 };
        let total: usize =
            (0..2000).map(|seed| mask.draw(11, &mut Random::new(seed)).iter().filter(|&&masked| masked).count()).sum();
        // 0.5 * 11 = 5.5 spans of one position.
        assert!((f64::from(u32::try_from(total).unwrap()) / 2000.0 - 5.5).abs() < 0.05);
    }

    #[test]
    fn short_utterances_and_probability_zero_are_left_alone() {
        let mask = SpanMask { probability: 0.9, length: 10, min_spans: 2 };
        assert!(!mask.draw(9, &mut Random::new(1)).contains(&true));
        assert_eq!(mask.draw(10, &mut Random::new(1)), vec![true; 10]);
        let off = SpanMask { probability: 0.0, ..mask };
        assert!(!off.draw(100, &mut Random::new(1)).contains(&true));
    }
}
