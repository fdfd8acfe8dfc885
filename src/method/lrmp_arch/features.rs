//! What the network hears: the logarithms of 80 mel energies of a frame and their slopes, each normalised over the
//! frames of its utterance (`scripts/lrmp_torch.py`, function `features`).

use std::sync::OnceLock;

use clasp_signal::fourier_transform;
use rayon::prelude::*;

use crate::{data::SAMPLE_RATE, ops::Lengths};

/// Values of a frame.
pub const WIDTH: usize = 2 * BANDS;

const RATE: f64 = SAMPLE_RATE as f64;
/// 50 ms.
const WINDOW: usize = 800;
/// 12.5 ms.
const HOP: usize = 200;
const FFT: usize = 2048;
const BANDS: usize = 80;
const EMPHASIS: f32 = 0.97;
const FLOOR: f64 = 1e-6;
/// Neighbours on either side that a slope is fitted to.
const DELTA: usize = 4;
/// Added to the variance of a value over the frames.
const EPSILON: f64 = 1e-8;

/// The frames of a batch, padded with zeros.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Row-major [batch, longest, [`WIDTH`]].
    pub values: Vec<f32>,
    /// The frames of each utterance.
    pub lengths: Lengths,
}

/// The frames of row-major samples [batch, samples] of these lengths; at most `limit` frames of each.
pub fn frames(samples: &[f32], lengths: &Lengths, limit: usize) -> Frames {
    let width = lengths.longest();
    let rows: Vec<Vec<f32>> = lengths
        .valid()
        .par_iter()
        .enumerate()
        .map(|(row, &valid)| features(&samples[row * width..row * width + valid], limit))
        .collect();
    let counts: Vec<usize> = rows.iter().map(|row| row.len() / WIDTH).collect();
    let longest = counts.iter().copied().max().unwrap_or(0);
    let mut values = Vec::with_capacity(rows.len() * longest * WIDTH);
    for (place, row) in rows.into_iter().enumerate() {
        values.extend(row);
        values.resize((place + 1) * longest * WIDTH, 0.0);
    }
    Frames { values, lengths: Lengths::new(counts, longest) }
}

/// Frames of this many samples.
const fn count(samples: usize) -> usize {
    samples / HOP + 1
}

/// Row-major [frames, [`WIDTH`]] of an utterance: a frame for each 12.5 ms and one more, centred there. The
/// normalisation is over all of them, also those behind `limit`, which are then left out.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the network is f32; frames are few")]
fn features(wave: &[f32], limit: usize) -> Vec<f32> {
    let count = count(wave.len());
    let energies = log_energies(wave, count);
    let at = |frame: usize, band: usize| energies[frame * BANDS + band];
    let squares: usize = (1..=DELTA).map(|distance| distance * distance).sum();
    // The slope of the line that fits a frame and its neighbours best; the ends are repeated.
    let slope = |frame: usize, band: usize| {
        let sum: f64 = (1..=DELTA)
            .map(|distance| {
                let next = (frame + distance).min(count - 1);
                distance as f64 * (at(next, band) - at(frame.saturating_sub(distance), band))
            })
            .sum();
        sum / (2 * squares) as f64
    };
    let kept = count.min(limit);
    let mut values = vec![0.0_f32; kept * WIDTH];
    for column in 0..WIDTH {
        let series: Vec<f64> = (0..count)
            .map(|frame| if column < BANDS { at(frame, column) } else { slope(frame, column - BANDS) })
            .collect();
        let mean = series.iter().sum::<f64>() / count as f64;
        let variance = series.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64;
        let scale = 1.0 / (variance + EPSILON).sqrt();
        for (frame, value) in series.iter().take(kept).enumerate() {
            values[frame * WIDTH + column] = ((value - mean) * scale) as f32;
        }
    }
    values
}

/// Row-major [frames, bands].
#[expect(clippy::cast_precision_loss, reason = "window lengths are small")]
fn log_energies(wave: &[f32], count: usize) -> Vec<f64> {
    let emphasised: Vec<f64> = wave
        .iter()
        .enumerate()
        .map(|(place, &value)| f64::from(if place == 0 { value } else { value - EMPHASIS * wave[place - 1] }))
        .collect();
    let plan = fourier_transform(FFT);
    let (mut frame, mut spectrum) = (plan.make_input_vec(), plan.make_output_vec());
    let mut energies = Vec::with_capacity(count * BANDS);
    for number in 0..count {
        frame.fill(0.0);
        for (place, value) in frame.iter_mut().take(WINDOW).enumerate() {
            // The window reaches half its length to either side; beyond the utterance there is silence.
            let sample = (number * HOP + place).checked_sub(WINDOW / 2).and_then(|sample| emphasised.get(sample));
            let angle = std::f64::consts::TAU * place as f64 / WINDOW as f64;
            *value = sample.map_or(0.0, |sample| sample * (0.5 - 0.5 * angle.cos()));
        }
        if plan.process(&mut frame, &mut spectrum).is_err() {
            unreachable!("the buffers have the plan's sizes");
        }
        let power: Vec<f64> = spectrum.iter().map(|value| value.re.mul_add(value.re, value.im * value.im)).collect();
        energies.extend(filters().iter().map(|(first, weights)| {
            let energy: f64 = weights.iter().zip(&power[*first..]).map(|(weight, power)| weight * power).sum();
            (energy + FLOOR).ln()
        }));
    }
    energies
}

/// Each band's triangle: its first bin and the weights from there on. All have the same area on Slaney's mel scale.
#[expect(clippy::cast_precision_loss, reason = "bins and bands are few")]
fn filters() -> &'static [(usize, Vec<f64>)] {
    static FILTERS: OnceLock<Vec<(usize, Vec<f64>)>> = OnceLock::new();
    FILTERS.get_or_init(|| {
        let logarithmic = 6.4_f64.ln() / 27.0;
        let to_hz = |mel: f64| if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * (logarithmic * (mel - 15.0)).exp() };
        let highest = 15.0 + (RATE / 2.0 / 1000.0).ln() / logarithmic;
        let edge = |number: usize| to_hz(highest * number as f64 / (BANDS + 1) as f64);
        (0..BANDS)
            .map(|band| {
                let (low, centre, high) = (edge(band), edge(band + 1), edge(band + 2));
                let weight = |bin: usize| {
                    let hz = bin as f64 * RATE / FFT as f64;
                    let height = ((hz - low) / (centre - low)).min((high - hz) / (high - centre)).max(0.0);
                    height * 2.0 / (high - low)
                };
                let bins: Vec<usize> = (0..=FFT / 2).filter(|&bin| weight(bin) > 0.0).collect();
                let first = bins.first().copied().unwrap_or(0);
                (first, bins.into_iter().map(weight).collect())
            })
            .collect()
    })
}
