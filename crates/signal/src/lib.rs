//! Sample rates and spectra.
//!
//! A crate of its own, since it knows nothing of a model and the libraries that it calls are generic down to each butterfly
//! of a Fourier transform: those were a fifth of the code that a change of the program compiled again.

mod mel;
mod resample;

use std::sync::Arc;

use realfft::RealFftPlanner;
pub use realfft::RealToComplex;

pub use mel::MelSpectrogram;
pub use resample::{greatest_common_divisor, resample, resampled_length};

/// The Fourier transform of `length` real numbers: `length / 2 + 1` complex ones.
pub fn fourier_transform(length: usize) -> Arc<dyn RealToComplex<f64>> {
    RealFftPlanner::new().plan_fft_forward(length)
}
