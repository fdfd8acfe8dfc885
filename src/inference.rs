//! A model over a data set: what `train`'s scoring, `eval`, `predict` and `encode` have in common.

use std::{ops::ControlFlow, sync::Arc};

use burn::tensor::{Tensor, activation};

use crate::{
    data::{
        DataError,
        batch::{Batch, BatchOptions, sequential_plan},
        dataset::Dataset,
        loader::Loader,
    },
    memory::{self, Doing},
    method::Output,
    model::{AnySystem, Inputs, System as _},
    ops::{Lengths, Mode, Ops},
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
#[must_use]
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
#[must_use]
pub fn inputs(batch: &Batch) -> Inputs {
    Inputs {
        tokens: batch.tokens.clone(),
        text_lengths: Lengths::new(batch.token_lengths.clone(), batch.longest_tokens()),
        waveforms: batch.waveforms.clone(),
        speech_lengths: Lengths::new(batch.sample_lengths.clone(), batch.longest_samples()),
    }
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
pub struct Pass {
    /// Utterances a batch; changes no result.
    pub batch_size: usize,
    /// Padded seconds of audio a batch, at most; a longer utterance is a batch of its own.
    pub batch_seconds: Option<f64>,
    /// Threads that decode ahead.
    pub workers: usize,
    /// The padding token.
    pub pad_token: u32,
}

/// Runs the model over a data set, batch by batch, and hands each batch with its output to `take`.
///
/// # Errors
/// An utterance that cannot be read; what `take` fails with.
pub fn run<B: Ops, E: From<DataError>>(
    model: &AnySystem<B>,
    device: &B::Device,
    dataset: &Arc<Dataset>,
    pass: Pass,
    mut take: impl FnMut(&Batch, &dyn Output<B>) -> Result<(), E>,
) -> Result<(), E> {
    let options = BatchOptions { batch_size: pass.batch_size, batch_seconds: pass.batch_seconds };
    let plan = sequential_plan(&dataset.lengths()?, options);
    for batch in Loader::new(dataset, plan, pass.pad_token, pass.workers)? {
        let batch = batch?;
        memory::now(Doing::Scoring, &batch);
        let output = model.outputs(&inputs(&batch), Mode::evaluation(), device);
        take(&batch, &*output)?;
    }
    memory::idle();
    Ok(())
}

/// The probabilities of every utterance of a data set, in its order; none where `tell`, which hears how many are done,
/// breaks off.
///
/// # Errors
/// An utterance that cannot be read.
pub fn probabilities<B: Ops>(
    model: &AnySystem<B>,
    device: &B::Device,
    dataset: &Arc<Dataset>,
    pass: Pass,
    mut tell: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<Probabilities>>, DataError> {
    let mut all = vec![Probabilities::default(); dataset.len()];
    let mut done = 0;
    let result = run(model, device, dataset, pass, |batch, output| {
        for (&index, probabilities) in batch.indices.iter().zip(classified(output)) {
            all[index] = probabilities;
        }
        done += batch.len();
        match tell(done) {
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
#[must_use]
pub fn rows<B: Ops>(logits: Tensor<B, 2>) -> Vec<Vec<f32>> {
    let [_, labels] = logits.dims();
    let data = activation::softmax(logits, 1).into_data().convert::<f32>();
    data.as_slice::<f32>().map(|values| values.chunks(labels).map(<[f32]>::to_vec).collect()).unwrap_or_default()
}

/// The number of the largest value; the first of equal ones.
#[must_use]
pub fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
