//! The log-mel spectrogram of Whisper (Radford et al. 2023, section 2.2), as Hugging Face's `WhisperFeatureExtractor`
//! computes it: frames of 25 ms every 10 ms at 16 kHz, a periodic Hann window, mirrored ends, Slaney's mel scale.
//!
//! No crate serves: those for mel spectrograms have other scales or norms, and none has this floor.

use std::{f64::consts::PI, sync::Arc};

use crate::{RealToComplex, fourier_transform};

/// Samples of a frame.
const WINDOW: usize = 400;
/// Samples from a frame to the next.
const HOP: usize = 160;
/// Hertz of the highest frequency.
const NYQUIST: f64 = 8000.0;
/// The smallest power whose logarithm is taken.
const LEAST_POWER: f64 = 1e-10;
/// Powers of ten below the loudest value at which all that is quieter lies.
const DEPTH: f64 = 8.0;

/// The spectrogram of a number of bins, of utterances with zeros behind them to a length.
#[derive(Clone)]
pub struct MelSpectrogram {
    /// Samples that are heard: 30 s in the published models.
    longest: usize,
    /// Each bin: its first frequency, and the weights from there on.
    filters: Vec<(usize, Vec<f64>)>,
    window: Vec<f64>,
    transform: Arc<dyn RealToComplex<f64>>,
}

impl MelSpectrogram {
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    pub fn new(bins: usize, longest: usize) -> Self {
        let frequencies = WINDOW / 2 + 1;
        let highest = to_mel(NYQUIST);
        let edges: Vec<f64> = (0..bins + 2).map(|edge| to_hertz(highest * edge as f64 / (bins + 1) as f64)).collect();
        let hertz = |frequency: usize| NYQUIST * frequency as f64 / (frequencies - 1) as f64;
        let filters = edges.windows(3).map(|edges| {
            let [low, centre, high] = [edges[0], edges[1], edges[2]];
            let weight = |frequency: usize| {
                let up = (hertz(frequency) - low) / (centre - low);
                let down = (high - hertz(frequency)) / (high - centre);
                // Slaney's norm: each triangle has the same area.
                up.min(down).max(0.0) * 2.0 / (high - low)
            };
            let weights: Vec<f64> = (0..frequencies).map(weight).collect();
            let first = weights.iter().position(|weight| *weight > 0.0).unwrap_or(0);
            let last = weights.iter().rposition(|weight| *weight > 0.0).map_or(first, |last| last + 1);
            (first, weights[first..last].to_vec())
        });
        let window = (0..WINDOW).map(|sample| 0.5 - 0.5 * (2.0 * PI * sample as f64 / WINDOW as f64).cos());
        Self { longest, filters: filters.collect(), window: window.collect(), transform: fourier_transform(WINDOW) }
    }

    pub fn bins(&self) -> usize {
        self.filters.len()
    }

    /// The first `frames` frames, row-major [frames, bins]. What is more than 8 powers of ten below the loudest value is raised to that, then all is
    /// scaled: (x + 4) / 4.
    #[expect(clippy::cast_possible_truncation, reason = "features are single precision")]
    pub fn frames(&self, samples: &[f32], frames: usize) -> Vec<f32> {
        let samples = &samples[..samples.len().min(self.longest)];
        // Frames that hear a sample; the others are at the least power.
        let heard = ((samples.len() + WINDOW / 2 - 1) / HOP + 1).min(self.longest / HOP);
        let mut spectrum = self.transform.make_output_vec();
        let mut frame = self.transform.make_input_vec();
        let mut logarithms = Vec::with_capacity(heard.max(frames) * self.bins());
        for number in 0..heard {
            for (offset, (value, window)) in frame.iter_mut().zip(&self.window).enumerate() {
                let at = self.mirrored(number * HOP + offset);
                *value = window * samples.get(at).copied().map_or(0.0, f64::from);
            }
            // Only lengths that do not fit fail.
            let _ = self.transform.process(&mut frame, &mut spectrum);
            for (first, weights) in &self.filters {
                let powers = spectrum[*first..].iter().map(realfft::num_complex::Complex::norm_sqr);
                let power: f64 = powers.zip(weights).map(|(power, weight)| power * weight).sum();
                logarithms.push(power.max(LEAST_POWER).log10());
            }
        }
        let loudest = logarithms.iter().copied().fold(LEAST_POWER.log10(), f64::max);
        logarithms.resize(frames * self.bins(), LEAST_POWER.log10());
        logarithms.into_iter().map(|value| ((value.max(loudest - DEPTH) + 4.0) / 4.0) as f32).collect()
    }

    /// The sample at a place of the signal with half a window mirrored at either end.
    fn mirrored(&self, place: usize) -> usize {
        let front = WINDOW / 2;
        if place < front {
            return front - place;
        }
        let at = place - front;
        if at < self.longest { at } else { (2 * (self.longest - 1)).saturating_sub(at) }
    }
}

/// Slaney's scale: linear up to 1 kHz, logarithmic above.
fn to_mel(hertz: f64) -> f64 {
    if hertz < 1000.0 { 3.0 * hertz / 200.0 } else { 15.0 + (hertz / 1000.0).ln() * 27.0 / 6.4_f64.ln() }
}

fn to_hertz(mel: f64) -> f64 {
    if mel < 15.0 { 200.0 * mel / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4_f64.ln() / 27.0).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Silence is at the least power, 10^-10, and the scaled value (-10 + 4) / 4.
    #[test]
    fn silence_is_at_the_floor() {
        let mel = MelSpectrogram::new(80, 480_000);
        let values = mel.frames(&[0.0; 1600], 20);
        assert_eq!(values.len(), 20 * 80);
        assert!(values.iter().all(|value| (value + 1.5).abs() < 1e-6));
    }

    /// Columns of `mel_filter_bank(201, 80, 0, 8000, 16000, norm="slaney", mel_scale="slaney")` of transformers 5.24: their
    /// first frequency, how many have a weight, and the sum of these.
    #[test]
    fn filters_are_those_of_transformers() {
        let mel = MelSpectrogram::new(80, 480_000);
        for (bin, first, count, sum) in [
            (0, 1, 1, 0.024_862_593_984_176_087),
            (25, 24, 2, 0.024_914_435_587_623_292),
            (40, 42, 3, 0.026_664_860_534_783_265),
            (79, 186, 14, 0.024_925_339_738_858_847),
        ] {
            let (start, weights) = &mel.filters[bin];
            assert_eq!((*start, weights.len()), (first, count), "{bin}");
            assert!((weights.iter().sum::<f64>() - sum).abs() < 1e-12, "{bin}: {}", weights.iter().sum::<f64>());
        }
    }

    /// A tone of 1 kHz, by transformers' `WhisperFeatureExtractor._np_extract_fbank_features`.
    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "samples are single precision")]
    fn a_tone_is_where_transformers_has_it() {
        let tone: Vec<f32> =
            (0..3200_u16).map(|sample| (2.0 * PI * 1000.0 * f64::from(sample) / 16_000.0).sin() as f32).collect();
        let values = MelSpectrogram::new(80, 480_000).frames(&tone, 23);
        for (frame, bin, expected) in [
            (0, 0, 0.950_263),
            (0, 25, 1.486_014_7),
            (3, 25, 1.491_640_2),
            (3, 40, -0.409_833_3),
            (10, 26, 1.590_166_7),
            (10, 79, -0.409_833_3),
            (20, 25, 1.413_606_4),
            (21, 25, 0.504_768_8),
            (22, 0, -0.409_833_3),
        ] {
            let value = values[frame * 80 + bin];
            assert!((value - expected).abs() < 1e-5, "{frame} {bin}: {value}");
        }
    }
}
