//! A model over a data set: what `train`'s scoring, `eval`, `predict` and `encode` have in common.

use std::{ops::ControlFlow, sync::Arc};

use burn::tensor::{Tensor, activation};

use crate::{
    config::Precision,
    data::{
        DataError,
        batch::{Batch, BatchOptions, sequential_plan},
        dataset::Dataset,
        features::{FeatureCache, FeatureStore, Features},
        loader::Loader,
    },
    encoder::{Frames, Inputs, SpeechEncoder},
    memory::{self, Doing},
    method::Output,
    model::{Model, ModelConfig},
    ops::{Lengths, Mode, Ops},
    panics,
};

/// What the classifiers say of one utterance, in the order of the labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probabilities {
    /// The prediction: the fusion classifier's, or the only one's.
    pub fusion: Vec<f32>,
    /// The text classifier's, where there is one beside it.
    pub text: Option<Vec<f32>>,
    /// The speech classifier's, where there is one beside it.
    pub speech: Option<Vec<f32>>,
}

/// What an output's classifiers say, an utterance after the other.
pub fn classified<B: Ops>(output: &dyn Output<B>) -> Vec<Probabilities> {
    let logits = output.logits();
    let fusion = rows(logits.main);
    let alone = |logits: Option<Tensor<B, 2>>| match logits {
        Some(logits) => rows(logits).into_iter().map(Some).collect(),
        None => vec![None; fusion.len()],
    };
    let (text, speech) = (alone(logits.text), alone(logits.speech));
    let three = fusion.into_iter().zip(text).zip(speech);
    three.map(|((fusion, text), speech)| Probabilities { fusion, text, speech }).collect()
}

/// A padded batch as the model takes it.
pub fn inputs(batch: &Batch) -> Inputs {
    Inputs {
        tokens: batch.tokens.clone(),
        text_lengths: Lengths::new(batch.token_lengths.clone(), batch.longest_tokens()),
        waveforms: batch.waveforms.clone(),
        speech_lengths: Lengths::new(batch.sample_lengths.clone(), batch.longest_samples()),
        features: None,
    }
}

/// The cache of what a model's feature encoder makes of speech, computed in a number format by a backend of this name;
/// `None` if the method has no such encoder.
pub fn feature_cache<B: Ops>(
    store: &Arc<FeatureStore>,
    model: &Model<B>,
    precision: Precision,
    backend: &str,
) -> Option<FeatureCache> {
    Some(store.of(&model.speech_encoder.as_ref()?.features_identity(precision, backend)))
}

/// A padded batch as the model takes it, with the features of its speech where there is a cache. What the loader did not
/// find there is computed, each utterance alone, so that it is the same whichever batch it comes in, and stored.
pub fn inputs_with<B: Ops>(
    batch: &Batch,
    model: &Model<B>,
    cache: Option<&FeatureCache>,
    precision: Precision,
    device: &B::Device,
) -> Inputs {
    let inputs = inputs(batch);
    let (Some(cache), Some(encoder)) = (cache, &model.speech_encoder) else { return inputs };
    let width = batch.longest_samples();
    let rows = batch.sample_lengths.iter().enumerate().map(|(row, &samples)| {
        let found = batch.features.get(row).cloned().flatten();
        found.unwrap_or_else(|| {
            let waveform = &batch.waveforms[row * width..row * width + samples];
            cache.put(waveform, features(encoder, waveform, precision, device))
        })
    });
    let rows: Vec<Arc<Features>> = rows.collect();
    Inputs { features: Some(side_by_side(&rows)), waveforms: Vec::new(), ..inputs }
}

/// What the feature encoder makes of one waveform.
fn features<B: Ops>(
    encoder: &SpeechEncoder<B>,
    waveform: &[f32],
    precision: Precision,
    device: &B::Device,
) -> Features {
    let lengths = Lengths::full(1, waveform.len());
    let (features, _) = encoder.features(waveform, &lengths, precision, device);
    let [_, frames, channels] = features.dims();
    Features { frames, channels, values: numbers(features) }
}

/// The features of a batch, zero behind the end of each utterance.
fn side_by_side(rows: &[Arc<Features>]) -> Frames {
    let longest = rows.iter().map(|row| row.frames).max().unwrap_or(0);
    let channels = rows.iter().map(|row| row.channels).max().unwrap_or(0);
    let mut values = Vec::with_capacity(rows.len() * longest * channels);
    for (number, row) in rows.iter().enumerate() {
        values.extend_from_slice(&row.values);
        values.resize((number + 1) * longest * channels, 0.0);
    }
    Frames { values, lengths: Lengths::new(rows.iter().map(|row| row.frames).collect(), longest), channels }
}

/// Why a pass over a data set ends early.
enum Stop {
    Asked,
    Data(DataError),
}

impl From<DataError> for Stop {
    fn from(problem: DataError) -> Self {
        Self::Data(problem)
    }
}

/// How a data set is gone through.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// Utterances a batch; changes no result.
    pub batch_size: usize,
    /// Padded seconds of audio a batch, at most; a longer utterance is a batch of its own.
    pub batch_seconds: Option<f64>,
    /// Threads that decode ahead.
    pub workers: usize,
    pub pad_token: u32,
    /// What keeps the features of speech.
    pub cache: Option<&'a FeatureCache>,
}

/// Every utterance must give the speech encoder a frame.
///
/// # Errors
/// Those that do not, all of them; lengths that cannot be known.
pub fn check_frames(dataset: &Dataset, model: &ModelConfig) -> Result<(), DataError> {
    let Some(encoder) = &model.speech_encoder else { return Ok(()) };
    let lengths = dataset.lengths()?;
    let short = dataset.rows().iter().zip(lengths).filter(|(_, samples)| encoder.frames(*samples) == 0);
    DataError::check(
        short
            .map(|(row, samples)| DataError::NoFrame {
                id: row.id.clone(),
                line: row.line,
                path: row.audio.clone().unwrap_or_default(),
                samples,
            })
            .collect(),
    )
}

/// Runs the model over a data set, batch by batch, and hands each batch with its output to `take`.
///
/// # Errors
/// An utterance that cannot be read; what `take` fails with.
pub fn run<B: Ops, E: From<DataError>>(
    model: &Model<B>,
    device: &B::Device,
    dataset: &Arc<Dataset>,
    pass: Pass<'_>,
    mut take: impl FnMut(&Batch, &dyn Output<B>) -> Result<(), E>,
) -> Result<(), E> {
    let options = BatchOptions { batch_size: pass.batch_size, batch_seconds: pass.batch_seconds };
    let plan = sequential_plan(&dataset.lengths()?, options);
    for batch in Loader::new(dataset, plan, pass.pad_token, pass.workers, pass.cache)? {
        let batch = batch?;
        memory::now(Doing::Scoring, &batch);
        let mode = Mode::evaluation();
        let inputs = inputs_with(&batch, model, pass.cache, mode.precision(), device);
        let output = model.forward(&inputs, mode, device);
        take(&batch, &*output)?;
        panics::stop_if_out_of_memory();
    }
    memory::idle();
    Ok(())
}

/// The probabilities of every utterance of a data set, in its order; `None` if `notify`, which hears how many are done,
/// breaks off.
///
/// # Errors
/// An utterance that cannot be read.
pub fn probabilities<B: Ops>(
    model: &Model<B>,
    device: &B::Device,
    dataset: &Arc<Dataset>,
    pass: Pass<'_>,
    mut notify: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<Probabilities>>, DataError> {
    let mut all = vec![Probabilities::default(); dataset.len()];
    let mut done = 0;
    let result = run(model, device, dataset, pass, |batch, output| {
        for (&index, probabilities) in batch.indices.iter().zip(classified(output)) {
            all[index] = probabilities;
        }
        done += batch.len();
        match notify(done) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stop::Asked),
        }
    });
    match result {
        Ok(()) => Ok(Some(all)),
        Err(Stop::Asked) => Ok(None),
        Err(Stop::Data(problem)) => Err(problem),
    }
}

/// The softmax of logits [batch, labels], a row an utterance.
pub fn rows<B: Ops>(logits: Tensor<B, 2>) -> Vec<Vec<f32>> {
    let [_, labels] = logits.dims();
    numbers(activation::softmax(logits, 1)).chunks(labels).map(<[f32]>::to_vec).collect()
}

/// The numbers of a tensor, once the device has computed them.
#[expect(clippy::expect_used, reason = "what was converted to f32 is f32")]
fn numbers<B: Ops, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    panics::stop_if_out_of_memory();
    data.into_vec().expect("f32")
}

/// The number of the largest value; the first of equal ones.
pub fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
