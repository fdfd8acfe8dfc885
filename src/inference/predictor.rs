//! A checkpoint at work on rows of a manifest, also on rows that lack a modality: what `predict`, `eval` and the end of
//! `train` have in common.

use std::{cmp::Reverse, path::Path, sync::Arc};

use rayon::prelude::*;

use super::pass::{self, Pass, Probabilities, check_frames, rows};

use crate::{
    checkpoint::{
        self, Checkpoint, CheckpointConfig,
        folder::{check_folder, checkpoint_folder, tokenizer},
    },
    data::{
        DataError,
        batch::{BatchOptions, collate, sequential_plan},
        dataset::{Dataset, Example, Limits, Needs},
        labels::Labels,
        manifest::Row,
        text::Tokenizer,
    },
    eval::predictions::{Classification, Extra, Failure, Origin, Origins, Prediction, Row as Output},
    eval::report::InputCounts,
    memory::{self, Doing},
    method::Reads,
    model::Model,
    ops::{Mode, Ops},
};

/// What is said of an utterance whose outputs are no numbers.
pub const NOT_FINITE: &str = "the model's answer is not finite: its weights are damaged, or training had diverged";

/// Seconds after which audio is cut where a checkpoint does not say.
const MAX_SECONDS: f64 = 30.0;

/// A row of input with where its text and speech came from.
#[derive(Clone, Debug)]
pub struct Input {
    /// The row.
    pub row: Row,
    /// Where the text came from.
    pub text: Origin,
    /// Where the speech came from.
    pub speech: Origin,
}

impl Input {
    /// A row as the manifest gives it.
    pub fn given(row: Row) -> Self {
        let provenance = |is_there| if is_there { Origin::Given } else { Origin::Absent };
        let (text, speech) = (provenance(row.text.is_some()), provenance(row.audio.is_some()));
        Self { row, text, speech }
    }
}

/// A checkpoint with what its inputs need.
pub struct Predictor<B: Ops> {
    checkpoint: Checkpoint<B>,
    tokenizer: Option<Arc<Tokenizer>>,
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
        let config = CheckpointConfig::read(&folder)?;
        let reads_text = config.model()?.method.reads().text();
        let load = || tokenizer(&folder).map(Arc::new);
        // The tokenizer is one thread's work, and the weights are as fast as memory or disk.
        let (checkpoint, tokenizer) =
            rayon::join(|| checkpoint::load_with::<B>(config, &folder, device), || reads_text.then(load).transpose());
        let (checkpoint, tokenizer) = (checkpoint?, tokenizer?);
        let positions = checkpoint.model_config.max_tokens();
        let labels = Labels::new(checkpoint.config.labels.clone())?;
        let limits = Limits {
            max_seconds: checkpoint.model_config.max_seconds(checkpoint.config.max_seconds.unwrap_or(MAX_SECONDS)),
            max_tokens: checkpoint.config.max_tokens.unwrap_or(usize::MAX).min(positions),
            do_normalize: checkpoint.config.feature_extractor.do_normalize(),
        };
        Ok(Self { checkpoint, tokenizer, labels, limits, device: device.clone() })
    }

    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    pub fn config(&self) -> &CheckpointConfig {
        &self.checkpoint.config
    }

    pub fn model(&self) -> &Model<B> {
        &self.checkpoint.model
    }

    pub fn reads(&self) -> Reads {
        self.checkpoint.model_config.method.reads()
    }

    /// A data set of what the method reads, for [`pass::run`].
    ///
    /// # Errors
    /// Rows that lack something, all of them listed.
    pub fn dataset(&self, rows: Vec<Row>) -> Result<Arc<Dataset>, DataError> {
        let needs = Needs { text: self.reads().text(), audio: self.reads().speech(), label: false };
        let dataset = Dataset::new(rows, self.tokenizer.as_ref(), None, self.limits, needs)?;
        check_frames(&dataset, &self.checkpoint.model_config)?;
        Ok(Arc::new(dataset))
    }

    /// How to go through a data set.
    pub fn pass(&self, batch_size: usize, workers: usize) -> Pass<'static> {
        Pass { batch_size, batch_seconds: None, workers, pad_token: self.pad_token(), cache: None }
    }

    fn pad_token(&self) -> u32 {
        self.tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.pad_token())
    }

    /// What a row has of what the method reads.
    fn has(&self, row: &Row) -> Has {
        let reads = self.reads();
        Has { text: reads.text() && row.text.is_some(), speech: reads.speech() && row.audio.is_some() }
    }

    /// A result for each input, in its order. What cannot be read becomes a failure; the others go on. `counts` gets
    /// what was cut or empty.
    pub fn predict(&self, inputs: &[Input], options: BatchOptions, counts: &mut InputCounts) -> Vec<Output> {
        let mut results: Vec<Option<Output>> = vec![None; inputs.len()];
        for has in
            [Has { text: true, speech: true }, Has { text: true, speech: false }, Has { text: false, speech: true }]
        {
            let group: Vec<usize> = (0..inputs.len()).filter(|&index| self.has(&inputs[index].row) == has).collect();
            let mut ready = self.read(inputs, &group, has, &mut results);
            // Neighbours in length share a batch.
            ready.sort_by_key(|(_, example)| Reverse((example.waveform.len(), example.tokens.len())));
            let lengths: Vec<usize> = ready.iter().map(|(_, example)| example.waveform.len()).collect();
            for places in sequential_plan(&lengths, options) {
                let batch: Vec<&(usize, Example)> = places.iter().map(|&place| &ready[place]).collect();
                let Some(classified) = self.classify(&batch, has) else {
                    for (index, _) in batch {
                        results[*index] = Some(self.lacking(&inputs[*index]));
                    }
                    continue;
                };
                for (&&(index, ref example), classified) in batch.iter().zip(classified) {
                    counts.cut_texts += usize::from(example.text_was_cut);
                    counts.cut_audio += usize::from(example.audio_was_cut);
                    counts.empty_texts += usize::from(has.text && example.text_is_empty);
                    results[index] = self.output(&inputs[index], classified);
                }
            }
        }
        memory::idle();
        results.into_iter().zip(inputs).map(|(result, input)| result.unwrap_or_else(|| self.lacking(input))).collect()
    }

    /// The failure of a row that lacks what the method cannot do without.
    fn lacking(&self, input: &Input) -> Output {
        let (row, method) = (&input.row, self.checkpoint.model_config.method);
        let lacks = if row.audio.is_none() { "audio" } else { "text" };
        let error = match self.reads() {
            Reads::Both if row.audio.is_none() && row.text.is_none() => {
                "the row has neither `audio` nor `text`; give it one of them, better both".to_owned()
            }
            Reads::Both => format!("the row has no `{lacks}`, and {method} has no classifier for the other alone"),
            Reads::Text => format!("the row has no `text`, which {method} reads"),
            Reads::Speech => format!("the row has no `audio`, which {method} reads"),
        };
        Output::Failure(Failure { id: Some(row.id.clone()), error })
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
                let dataset = Dataset::new(vec![row.clone()], self.tokenizer.as_ref(), None, self.limits, needs)?;
                let example = dataset.example(0)?;
                let samples = example.waveform.len();
                if has.speech && self.checkpoint.model_config.frames(samples) == 0 {
                    return Err(DataError::NoFrame {
                        id: row.id.clone(),
                        line: row.line,
                        path: row.audio.clone().unwrap_or_default(),
                        samples,
                    });
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

    /// What the classifiers say of a batch that has all that the method reads, or one modality of it; `None` if the
    /// method has no classifier for that.
    fn classify(&self, batch: &[&(usize, Example)], has: Has) -> Option<Vec<Probabilities>> {
        let examples: Vec<Example> = batch.iter().map(|(_, example)| example.clone()).collect();
        let batch = collate(&examples, self.pad_token());
        drop(examples);
        memory::now(Doing::Scoring, &batch);
        let inputs = pass::inputs(&batch);
        let (model, device) = (&self.checkpoint.model, &self.device);
        let reads = self.reads();
        if (has.text, has.speech) == (reads.text(), reads.speech()) {
            return Some(pass::classified(&*model.forward(&inputs, Mode::evaluation(), device)));
        }
        // The prediction is then the one classifier's, which is reported beside it too.
        if has.text {
            let logits = model.classify_text(&inputs.tokens, &inputs.text_lengths, Mode::evaluation(), device)?;
            let alone = |text: Vec<f32>| Probabilities { fusion: text.clone(), text: Some(text), speech: None };
            return Some(rows(logits).into_iter().map(alone).collect());
        }
        let logits = model.classify_speech(&inputs.waveforms, &inputs.speech_lengths, Mode::evaluation(), device)?;
        let alone = |speech: Vec<f32>| Probabilities { fusion: speech.clone(), text: None, speech: Some(speech) };
        Some(rows(logits).into_iter().map(alone).collect())
    }

    /// The result of one row.
    fn output(&self, input: &Input, classified: Probabilities) -> Option<Output> {
        let classify = |probabilities: Vec<f32>| Classification::new(self.labels.names(), &probabilities);
        let Probabilities { fusion, text, speech } = classified;
        let row = &input.row;
        let all = || [Some(&fusion), text.as_ref(), speech.as_ref()].into_iter().flatten().flatten();
        if all().any(|probability| !probability.is_finite()) {
            return Some(Output::Failure(Failure { id: Some(row.id.clone()), error: NOT_FINITE.to_owned() }));
        }
        let (text_only, speech_only) = (text.and_then(classify), speech.and_then(classify));
        let reported = classify(fusion)?;
        let named = [("speaker", &row.speaker), ("group", &row.group)];
        let carried = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into())));
        Some(Output::Prediction(Box::new(Prediction {
            id: row.id.clone(),
            fusion: reported,
            text_only,
            speech_only,
            provenance: Origins { text: input.text, speech: input.speech },
            truth: row.label.clone(),
            words: row.text.as_ref().map(|text| text.split_whitespace().count()),
            extra: Extra::from_manifest(carried.chain(row.extra.clone())),
        })))
    }
}
