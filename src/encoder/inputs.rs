//! A batch as the encoders take it, on the host.

use crate::ops::Lengths;

/// A batch of both modalities on the host, padded on the right.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Row-major [batch, tokens].
    pub tokens: Vec<i64>,
    /// Tokens of each example.
    pub text_lengths: Lengths,
    /// Row-major [batch, samples], each normalised over its own samples, zero behind them; of no use where there are
    /// `features`.
    pub waveforms: Vec<f32>,
    /// Samples of each example.
    pub speech_lengths: Lengths,
    /// What the feature encoder makes of the waveforms, where that is known.
    pub features: Option<Frames>,
}

/// What the feature encoder makes of a batch, on the host, padded on the right.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Row-major [batch, frames, channels], zero behind the valid frames.
    pub values: Vec<f32>,
    /// Frames of each example.
    pub lengths: Lengths,
    /// Values of a frame.
    pub channels: usize,
}

/// A batch of speech: what the encoder begins with.
#[derive(Clone, Copy, Debug)]
pub enum Speech<'a> {
    /// Row-major samples [batch, samples].
    Samples(&'a [f32], &'a Lengths),
    /// What the feature encoder made of them.
    Frames(&'a Frames),
}

impl Inputs {
    /// The features where they are known, else the samples.
    pub fn speech(&self) -> Speech<'_> {
        match &self.features {
            Some(frames) => Speech::Frames(frames),
            None => Speech::Samples(&self.waveforms, &self.speech_lengths),
        }
    }
}
