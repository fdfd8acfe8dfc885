//! A checkpoint at work on rows of a manifest, also on rows that lack a modality: what `predict`, `eval` and the end of
//! `train` have in common.

use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
    sync::Arc,
};

use rayon::prelude::*;

use crate::{
    checkpoint::{self, Checkpoint, CheckpointConfig, CheckpointError},
    config::locate,
    data::{
        DataError,
        batch::{BatchOptions, collate, sequential_plan},
        dataset::{Dataset, Example, Limits, Needs},
        labels::Labels,
        manifest::Row,
        text::Tokenizer,
    },
    eval::predictions::{Classification, Extra, Failure, Prediction, Provenance, Provenances, Row as Output},
    eval::report::InputCounts,
    inference::{self, rows},
    memory::{self, Doing},
    ops::{Lengths, Mode, Ops},
    train::setup::check_frames,
};

/// Seconds after which audio is cut where a checkpoint does not say.
const MAX_SECONDS: f64 = 30.0;

/// The checkpoint folder that a path names: itself, or `best/` of a run folder, or a model of the Hugging Face cache.
#[must_use]
pub fn checkpoint_folder(path: &Path) -> PathBuf {
    let path = locate::folder(path.to_owned(), &path.to_string_lossy(), &locate::hub_cache());
    let best = path.join("best");
    if !path.join("config.json").exists() && best.join("config.json").exists() { best } else { path }
}

/// Says what a path lacks that is to be a checkpoint folder.
///
/// # Errors
/// [`CheckpointError::Config`]
pub fn check_folder(path: &Path) -> Result<(), CheckpointError> {
    let problem = if path.join("config.json").exists() {
        return Ok(());
    } else if !path.exists() {
        "there is no such folder, and no such model in the Hugging Face cache (`clasp models fetch NAME` brings one \
         there); name a checkpoint folder, or a run folder"
    } else if !path.is_dir() {
        "it is a file; name a checkpoint folder, or a run folder"
    } else if path.join("best/config.json").exists() {
        "it is a run folder; name its best/ folder"
    } else if path.join("manifest.json").exists() {
        "the run has no best checkpoint yet; let it come to the end of an epoch (clasp train --resume)"
    } else {
        "it is no checkpoint folder (it has no config.json) and no run folder (it has no best/)"
    };
    Err(CheckpointError::Config { path: path.to_owned(), problem: problem.to_owned() })
}

/// The tokenizer is a part of the checkpoint, so that its fault is the checkpoint's.
fn unusable_tokenizer(folder: &Path, problem: DataError) -> CheckpointError {
    match problem {
        DataError::Tokenizer { path, reason } => CheckpointError::Damaged { path, problem: reason },
        DataError::NoTokenizer { missing, .. } => CheckpointError::Config {
            path: folder.to_owned(),
            problem: format!(
                "it has no tokenizer: tokenizer.json, or vocab.json and merges.txt ({missing} missing); copy the \
                 checkpoint again"
            ),
        },
        other => CheckpointError::Config { path: folder.to_owned(), problem: other.to_string() },
    }
}

/// A row of input with where its text and speech came from.
#[derive(Clone, Debug)]
pub struct Input {
    /// The row.
    pub row: Row,
    /// Where the text came from.
    pub text: Provenance,
    /// Where the speech came from.
    pub speech: Provenance,
}

impl Input {
    /// A row as the manifest gives it.
    #[must_use]
    pub fn given(row: Row) -> Self {
        let provenance = |is_there| if is_there { Provenance::Given } else { Provenance::Absent };
        let (text, speech) = (provenance(row.text.is_some()), provenance(row.audio.is_some()));
        Self { row, text, speech }
    }
}

/// A checkpoint with what its inputs need.
pub struct Predictor<B: Ops> {
    checkpoint: Checkpoint<B>,
    tokenizer: Arc<Tokenizer>,
    labels: Labels,
    limits: Limits,
    device: B::Device,
}

/// Which modalities a group of rows has.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Has {
    text: bool,
    speech: bool,
}

impl<B: Ops> Predictor<B> {
    /// Loads a checkpoint folder, or the best checkpoint of a run folder.
    ///
    /// # Errors
    /// Files that are missing, damaged, or do not fit.
    pub fn load(path: &Path, device: &B::Device) -> anyhow::Result<Self> {
        let folder = checkpoint_folder(path);
        check_folder(&folder)?;
        let checkpoint = checkpoint::load(&folder, device)?;
        let tokenizer = Arc::new(Tokenizer::load(&folder).map_err(|problem| unusable_tokenizer(&folder, problem))?);
        let labels = Labels::new(checkpoint.config.labels.clone())?;
        let limits = Limits {
            max_seconds: checkpoint.config.max_seconds.unwrap_or(MAX_SECONDS),
            max_tokens: checkpoint
                .config
                .max_tokens
                .unwrap_or(usize::MAX)
                .min(checkpoint.model_config.text_encoder.max_tokens()),
        };
        Ok(Self { checkpoint, tokenizer, labels, limits, device: device.clone() })
    }

    /// The checkpoint's labels.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The checkpoint's config.
    #[must_use]
    pub fn config(&self) -> &CheckpointConfig {
        &self.checkpoint.config
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &crate::model::Clasp<B> {
        &self.checkpoint.model
    }

    /// A data set of both modalities, for [`inference::run`].
    ///
    /// # Errors
    /// Rows that lack something, all of them listed.
    pub fn dataset(&self, rows: Vec<Row>) -> Result<Arc<Dataset>, DataError> {
        let needs = Needs { text: true, audio: true, label: false };
        let dataset = Dataset::new(rows, Some(&self.tokenizer), None, self.limits, needs)?;
        check_frames(&dataset, &self.checkpoint.model_config)?;
        Ok(Arc::new(dataset))
    }

    /// How to go through a data set.
    #[must_use]
    pub fn pass(&self, batch_size: usize, workers: usize) -> inference::Pass {
        inference::Pass { batch_size, batch_seconds: None, workers, pad_token: self.tokenizer.pad_token() }
    }

    /// A result for each input, in its order. What cannot be read becomes a failure; the others go on. `counts` gets
    /// what was cut or empty.
    pub fn predict(&self, inputs: &[Input], options: BatchOptions, counts: &mut InputCounts) -> Vec<Output> {
        let mut results: Vec<Option<Output>> = vec![None; inputs.len()];
        for has in
            [Has { text: true, speech: true }, Has { text: true, speech: false }, Has { text: false, speech: true }]
        {
            let group: Vec<usize> = (0..inputs.len()).filter(|&index| has.fits(&inputs[index].row)).collect();
            let mut ready = self.read(inputs, &group, has, &mut results);
            // Neighbours in length share a batch.
            ready.sort_by_key(|(_, example)| Reverse((example.waveform.len(), example.tokens.len())));
            let lengths: Vec<usize> = ready.iter().map(|(_, example)| example.waveform.len()).collect();
            for places in sequential_plan(&lengths, options) {
                let batch: Vec<&(usize, Example)> = places.iter().map(|&place| &ready[place]).collect();
                for (&&(index, ref example), classified) in batch.iter().zip(self.classify(&batch, has)) {
                    counts.cut_texts += usize::from(example.text_was_cut);
                    counts.cut_audio += usize::from(example.audio_was_cut);
                    counts.empty_texts += usize::from(has.text && example.text_is_empty);
                    results[index] = self.output(&inputs[index], classified);
                }
            }
        }
        memory::idle();
        let failure = |input: &Input| {
            let error = "the row has neither `audio` nor `text`; give it one of them, better both".to_owned();
            Output::Failure(Failure { id: Some(input.row.id.clone()), error })
        };
        results.into_iter().zip(inputs).map(|(result, input)| result.unwrap_or_else(|| failure(input))).collect()
    }

    /// The examples of a group that can be read, with their places; the others become failures.
    fn read(
        &self,
        inputs: &[Input],
        group: &[usize],
        has: Has,
        results: &mut [Option<Output>],
    ) -> Vec<(usize, Example)> {
        let needs = Needs { text: has.text, audio: has.speech, label: false };
        let read: Vec<Result<Example, DataError>> = group
            .par_iter()
            .map(|&index| {
                let row = &inputs[index].row;
                let dataset = Dataset::new(vec![row.clone()], Some(&self.tokenizer), None, self.limits, needs)?;
                let example = dataset.example(0)?;
                let samples = example.waveform.len();
                if has.speech && self.checkpoint.model_config.speech_encoder.frames(samples) == 0 {
                    return Err(DataError::NoFrame { id: row.id.clone(), line: row.line, samples });
                }
                Ok(example)
            })
            .collect();
        let mut ready = Vec::with_capacity(group.len());
        for (&index, example) in group.iter().zip(read) {
            match example {
                Ok(example) => ready.push((index, example)),
                Err(problem) => {
                    let id = Some(inputs[index].row.id.clone());
                    results[index] = Some(Output::Failure(Failure { id, error: problem.to_string() }));
                }
            }
        }
        ready
    }

    /// What the classifiers say of a batch: fusion, text, speech; what a modality is missing for is none.
    fn classify(&self, batch: &[&(usize, Example)], has: Has) -> Vec<[Option<Vec<f32>>; 3]> {
        let examples: Vec<Example> = batch.iter().map(|(_, example)| example.clone()).collect();
        let batch = collate(&examples, self.tokenizer.pad_token());
        drop(examples);
        memory::now(Doing::Scoring, &batch);
        let model = &self.checkpoint.model;
        let text_lengths = Lengths::new(batch.token_lengths.clone(), batch.longest_tokens());
        let speech_lengths = Lengths::new(batch.sample_lengths.clone(), batch.longest_samples());
        let text = || model.encode_text(&batch.tokens, &text_lengths, Mode::evaluation(), &self.device);
        let speech = || model.encode_speech(&batch.waveforms, &speech_lengths, Mode::evaluation(), &self.device);
        match (has.text, has.speech) {
            (true, true) => {
                let output = model.heads(text(), speech(), Mode::evaluation());
                let alone = rows(output.logits_text).into_iter().zip(rows(output.logits_speech));
                let fused = rows(output.logits_fusion).into_iter().zip(alone);
                fused.map(|(fusion, (text, speech))| [Some(fusion), Some(text), Some(speech)]).collect()
            }
            (true, false) => {
                let logits = model.classify_text(text(), Mode::evaluation());
                rows(logits).into_iter().map(|text| [None, Some(text), None]).collect()
            }
            _ => {
                let logits = model.classify_speech(speech(), Mode::evaluation());
                rows(logits).into_iter().map(|speech| [None, None, Some(speech)]).collect()
            }
        }
    }

    /// The result of one row. Where a modality is missing the prediction is the other's classifier.
    fn output(&self, input: &Input, [fusion, text, speech]: [Option<Vec<f32>>; 3]) -> Option<Output> {
        let classify = |probabilities: Option<Vec<f32>>| Classification::new(self.labels.names(), &probabilities?);
        let (text_only, speech_only) = (classify(text), classify(speech));
        let reported = classify(fusion).or_else(|| text_only.clone()).or_else(|| speech_only.clone())?;
        let row = &input.row;
        let named = [("speaker", &row.speaker), ("group", &row.group)];
        let carried = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into())));
        Some(Output::Prediction(Box::new(Prediction {
            id: row.id.clone(),
            fusion: reported,
            text_only,
            speech_only,
            provenance: Provenances { text: input.text, speech: input.speech },
            truth: row.label.clone(),
            words: row.text.as_ref().map(|text| text.split_whitespace().count()),
            extra: Extra::from_manifest(carried.chain(row.extra.clone())),
        })))
    }
}

impl Has {
    fn fits(self, row: &Row) -> bool {
        (self.text, self.speech) == (row.text.is_some(), row.audio.is_some())
    }
}
