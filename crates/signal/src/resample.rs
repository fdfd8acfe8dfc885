//! Band-limited change of the sample rate of whole clips (rubato's FFT resampler: windowed-sinc filter below both
//! Nyquist frequencies, delay removed).

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

/// The shortest block in samples, on either side: long enough for a steep filter (over 60 dB down at the new Nyquist
/// frequency, flat to 95% of it).
const MIN_BLOCK: usize = 1024;

/// How many samples `count` samples at `from_hz` become at `to_hz`: rounded to the nearest.
pub fn resampled_length(count: usize, from_hz: u32, to_hz: u32) -> usize {
    if from_hz == 0 {
        return 0;
    }
    let from = u128::from(from_hz);
    let length = (count as u128 * u128::from(to_hz) * 2 + from) / (2 * from);
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// The clip `samples` (mono, at `from_hz`) at `to_hz`: [`resampled_length`] samples, aligned in time with the input.
///
/// # Errors
///
/// What the resampler says, where a rate is 0 or it fails.
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>, String> {
    if from_hz == to_hz || samples.is_empty() {
        return Ok(samples.to_vec());
    }
    let length = resampled_length(samples.len(), from_hz, to_hz);
    let (from, to) = (from_hz as usize, to_hz as usize);
    let divisor = greatest_common_divisor(from_hz, to_hz).max(1) as usize;
    let (block_in, block_out) = ((from / divisor).max(1), (to / divisor).max(1));
    // An even number of blocks: half a block is then a whole number of samples on both sides, and no half sample of
    // delay is left over.
    let blocks = MIN_BLOCK.div_ceil(block_in.min(block_out)).next_multiple_of(2);
    let mut resampler =
        Fft::<f32>::new_custom(from, to, blocks * block_in, 1, 1, WindowFunction::BlackmanHarris2, FixedSync::Input)
            .map_err(|error| error.to_string())?;
    let input = InterleavedSlice::new(samples, 1, samples.len()).map_err(|error| error.to_string())?;
    let mut output = resampler.process_all(&input, samples.len(), None).map_err(|error| error.to_string())?.take_data();
    output.resize(length, 0.0);
    Ok(output)
}

/// The largest number that divides both.
pub fn greatest_common_divisor(left: u32, right: u32) -> u32 {
    if right == 0 { left } else { greatest_common_divisor(right, left % right) }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small made-up numbers")]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    const RATES: [u32; 6] = [8_000, 22_050, 44_100, 48_000, 96_000, 44_101];

    fn tone(hertz: f64, rate: u32, count: usize) -> Vec<f32> {
        (0..count).map(|n| (TAU * hertz * n as f64 / f64::from(rate)).sin() as f32 * 0.5).collect()
    }

    /// The mean power in decibels relative to a tone of amplitude 0.5, away from the clip's edges.
    fn level_db(samples: &[f32]) -> f64 {
        let inner = &samples[4_000..samples.len() - 4_000];
        let power = inner.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / inner.len() as f64;
        10.0 * (power / 0.125).log10()
    }

    #[test]
    fn a_tone_below_the_new_nyquist_keeps_its_level_and_its_time() {
        for rate in RATES {
            for hertz in [100.0, 1_000.0, 3_700.0, 7_500.0] {
                if hertz > 0.94 * f64::from(rate) / 2.0 {
                    continue;
                }
                let resampled = resample(&tone(hertz, rate, rate as usize * 2), rate, 16_000).unwrap();
                assert_eq!(resampled.len(), 32_000);
                let level = level_db(&resampled);
                assert!(level.abs() < 0.1, "{rate} Hz, tone of {hertz} Hz: {level} dB");
                // The formula of the tone at the new rate is the expected output, sample by sample.
                let expected = tone(hertz, 16_000, 32_000);
                let worst = (4_000..28_000).map(|n| (resampled[n] - expected[n]).abs()).fold(0.0_f32, f32::max);
                assert!(worst < 0.006, "{rate} Hz, tone of {hertz} Hz: off by {worst}");
            }
        }
    }

    #[test]
    fn a_tone_above_the_new_nyquist_is_gone() {
        for rate in [22_050, 44_100, 48_000, 96_000, 44_101] {
            for hertz in [8_050.0, 8_500.0, 9_000.0, 10_900.0, 15_900.0, 20_000.0, 40_000.0] {
                if hertz > 0.5 * f64::from(rate) {
                    continue;
                }
                let level = level_db(&resample(&tone(hertz, rate, rate as usize * 2), rate, 16_000).unwrap());
                assert!(level < -60.0, "{rate} Hz, tone of {hertz} Hz: {level} dB");
            }
        }
    }

    /// Going up, the images of a tone lie above the old Nyquist frequency: the output is the tone and nothing else.
    #[test]
    fn going_up_adds_no_images() {
        let resampled = resample(&tone(1_000.0, 8_000, 16_000), 8_000, 16_000).unwrap();
        let expected = tone(1_000.0, 16_000, 32_000);
        let rest: Vec<f32> = resampled.iter().zip(&expected).map(|(x, y)| x - y).collect();
        assert!(level_db(&rest) < -60.0, "{}", level_db(&rest));
    }

    #[test]
    fn the_length_is_rounded_for_any_rate_and_length() {
        assert_eq!(resampled_length(44_100, 44_100, 16_000), 16_000);
        assert_eq!(resampled_length(3, 48_000, 16_000), 1);
        assert_eq!(resampled_length(4, 48_000, 16_000), 1);
        assert_eq!(resampled_length(5, 48_000, 16_000), 2);
        for rate in [7_999, 11_025, 48_000, 191_999] {
            for count in [1, 7, 999, 20_011] {
                let output = resample(&vec![0.25; count], rate, 16_000).unwrap();
                assert_eq!(output.len(), resampled_length(count, rate, 16_000), "{rate} {count}");
            }
        }
    }
}
