//! A manifest made ready: rows with their tokens and classes, and audio that is read when an example is asked for.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::audio;
use super::features::Features;
use super::labels::Labels;
use super::manifest::{self, ROUNDING, Row};
use super::text::{Encoding, Tokenizer};
use super::{AudioProblem, DataError};

/// What is longer is cut, and counted; what becomes of the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Seconds of audio.
    pub max_seconds: f64,
    /// Tokens of text, `<s>` and `</s>` included.
    pub max_tokens: usize,
    /// Whether a waveform is given mean 0 and variance 1 then: `do_normalize` of the feature extractor.
    pub do_normalize: bool,
}

/// What every row must have, because the method or the command reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    pub text: bool,
    pub audio: bool,
    /// Trains or scores: every row needs a label of the label set. Otherwise labels are taken where they are known.
    pub label: bool,
}

/// One utterance, ready for a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// Its place in the dataset.
    pub index: usize,
    pub id: String,
    /// Token ids; empty where text is not read.
    pub tokens: Vec<u32>,
    /// Mono 16 kHz, cut, then normalised; empty where speech is not read.
    pub waveform: Vec<f32>,
    /// What the feature encoder makes of it, where a cache has that.
    pub features: Option<Arc<Features>>,
    pub label: Option<usize>,
    /// Whether `max_tokens` cut the text.
    pub text_was_cut: bool,
    /// Whether `max_seconds` cut the audio.
    pub audio_was_cut: bool,
    /// Whether there are no words at all.
    pub text_is_empty: bool,
}

/// How often the limits and empty text were met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Texts that were cut.
    pub text_cut: usize,
    /// Texts without a word.
    pub text_empty: usize,
    /// Recordings that were cut.
    pub audio_cut: usize,
}

/// The utterances of one manifest.
#[derive(Debug)]
pub struct Dataset {
    rows: Vec<Row>,
    encodings: Vec<Encoding>,
    labels: Vec<Option<usize>>,
    limits: Limits,
    needs: Needs,
    /// Seconds of each row before the cut, once asked for.
    seconds: OnceLock<Vec<f64>>,
}

impl Dataset {
    /// Checks the rows against what is needed and encodes their text (in parallel).
    ///
    /// # Errors
    ///
    /// Every row that lacks something or has an unknown label; text is needed but there is no tokenizer.
    pub fn new(
        rows: Vec<Row>,
        tokenizer: Option<&Arc<Tokenizer>>,
        labels: Option<&Labels>,
        limits: Limits,
        needs: Needs,
    ) -> Result<Self, DataError> {
        manifest::require(&rows, needs.text, needs.audio, needs.label)?;
        let classes = classes(&rows, labels, needs)?;
        let encodings = if needs.text {
            let Some(tokenizer) = tokenizer else {
                return Err(DataError::NoTokenizer { folder: "the text encoder".into(), missing: "all three are" });
            };
            rows.par_iter()
                .map(|row| tokenizer.encode(row.text.as_deref().unwrap_or_default(), limits.max_tokens))
                .collect::<Result<Vec<_>, _>>()?
        } else {
            vec![Encoding::default(); rows.len()]
        };
        Ok(Self { rows, encodings, labels: classes, limits, needs, seconds: OnceLock::new() })
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One row of the manifest.
    pub fn row(&self, index: usize) -> Option<&Row> {
        self.rows.get(index)
    }

    /// Every row, in the manifest's order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The class of every row, where known.
    pub fn labels(&self) -> &[Option<usize>] {
        &self.labels
    }

    /// The number of tokens of every row after the cut; zeros where text is not read.
    pub fn token_lengths(&self) -> Vec<usize> {
        self.encodings.iter().map(|encoding| encoding.ids.len()).collect()
    }

    /// Reads one utterance.
    ///
    /// # Errors
    ///
    /// Its audio cannot be used: names id, line and path.
    pub fn example(&self, index: usize) -> Result<Example, DataError> {
        let (Some(row), Some(encoding)) = (self.rows.get(index), self.encodings.get(index)) else {
            return Err(DataError::LoaderStopped { batch: index });
        };
        let mut example = Example {
            index,
            id: row.id.clone(),
            tokens: encoding.ids.clone(),
            label: self.labels.get(index).copied().flatten(),
            text_was_cut: encoding.was_cut,
            text_is_empty: self.needs.text && is_empty(row),
            ..Example::default()
        };
        if let (true, Some(path)) = (self.needs.audio, &row.audio) {
            check_duration(row).map_err(|problem| of_row(row, problem))?;
            let (waveform, was_cut) =
                audio::load_cut(path, row.piece(), self.limits.max_seconds).map_err(|problem| of_row(row, problem))?;
            example.waveform = waveform.samples;
            example.audio_was_cut = was_cut;
            // After the cut, so that what is cut away has no say.
            if self.limits.do_normalize {
                audio::normalise(&mut example.waveform);
            }
        }
        Ok(example)
    }

    /// Samples of every row after the cut, for planning batches: as the manifest states them, else as the file's
    /// header does (probed in parallel, once). Zeros where speech is not read.
    ///
    /// # Errors
    ///
    /// Every file whose length cannot be found.
    pub fn lengths(&self) -> Result<Vec<usize>, DataError> {
        let most = audio::samples_of(self.limits.max_seconds);
        Ok(self.seconds()?.iter().map(|seconds| audio::samples_of(*seconds).min(most)).collect())
    }

    /// How often the limits and empty text were met.
    ///
    /// # Errors
    ///
    /// As [`Dataset::lengths`].
    pub fn counts(&self) -> Result<Counts, DataError> {
        let most = audio::samples_of(self.limits.max_seconds);
        Ok(Counts {
            text_cut: self.encodings.iter().filter(|encoding| encoding.was_cut).count(),
            text_empty: self.rows.iter().filter(|row| self.needs.text && is_empty(row)).count(),
            audio_cut: self.seconds()?.iter().filter(|seconds| audio::samples_of(**seconds) > most).count(),
        })
    }

    fn seconds(&self) -> Result<&[f64], DataError> {
        if let Some(seconds) = self.seconds.get() {
            return Ok(seconds);
        }
        let found: Vec<Result<f64, DataError>> = self
            .rows
            .par_iter()
            .map(|row| if self.needs.audio { seconds_of(row).map_err(|problem| of_row(row, problem)) } else { Ok(0.0) })
            .collect();
        let mut seconds = Vec::with_capacity(found.len());
        let mut problems = Vec::new();
        for result in found {
            match result {
                Ok(length) => seconds.push(length),
                Err(problem) => problems.push(problem),
            }
        }
        DataError::check(problems)?;
        Ok(self.seconds.get_or_init(|| seconds))
    }
}

fn classes(rows: &[Row], labels: Option<&Labels>, needs: Needs) -> Result<Vec<Option<usize>>, DataError> {
    let Some(labels) = labels else {
        return Ok(vec![None; rows.len()]);
    };
    if needs.label {
        labels.check(rows)?;
    }
    Ok(rows.iter().map(|row| labels.index(row.label.as_ref()?)).collect())
}

fn is_empty(row: &Row) -> bool {
    row.text.as_ref().is_none_or(|text| text.trim().is_empty())
}

fn of_row(row: &Row, problem: DataError) -> DataError {
    DataError::Utterance { id: row.id.clone(), line: row.line, problem: Box::new(problem) }
}

/// Compares the `duration` of a piece with the file's, where it is not the piece's.
///
/// # Errors
///
/// It is not the file's either; or the file cannot be read.
pub(crate) fn check_duration(row: &Row) -> Result<(), DataError> {
    let (Some(stated), Some(path)) = (row.file_seconds(), row.audio.as_deref()) else { return Ok(()) };
    let file = audio::probe(path)?;
    if (stated - file).abs() > ROUNDING {
        let problem = AudioProblem::OtherDuration { stated, file };
        return Err(DataError::Audio { path: path.to_path_buf(), problem });
    }
    Ok(())
}

/// The row's length in seconds.
fn seconds_of(row: &Row) -> Result<f64, DataError> {
    check_duration(row)?;
    if let Some(end) = row.end {
        return Ok((end - row.start.unwrap_or(0.0)).max(0.0));
    }
    if let Some(duration) = row.duration {
        return Ok(duration);
    }
    let Some(path) = row.audio.as_deref() else { return Ok(0.0) };
    let duration = audio::probe(path)?;
    match row.start {
        Some(seconds) if seconds >= duration => {
            let problem = AudioProblem::OutsideFile { key: "start", seconds, duration };
            Err(DataError::Audio { path: path.to_path_buf(), problem })
        }
        start => Ok((duration - start.unwrap_or(0.0)).max(0.0)),
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small made-up numbers")]
mod tests {
    use super::*;
    use crate::data::manifest::parse_line;
    use std::path::Path;

    const BOTH: Needs = Needs { text: true, audio: true, label: true };
    const LIMITS: Limits = Limits { max_seconds: 0.5, max_tokens: 8, do_normalize: true };

    fn tokenizer() -> Arc<Tokenizer> {
        Arc::new(Tokenizer::train(&["yes please no thanks"], 270).unwrap())
    }

    /// One second and a tenth of a second of a ramp, at 16 kHz.
    fn corpus(folder: &Path) -> Vec<Row> {
        let ramp = |count: usize| (0..count).map(|n| n as f32 / 32_000.0).collect::<Vec<f32>>();
        audio::write_wav(&folder.join("a.wav"), &ramp(16_000), 16_000).unwrap();
        audio::write_wav(&folder.join("b.wav"), &ramp(1_600), 16_000).unwrap();
        [
            r#"{"id":"a","audio":"a.wav","text":"yes yes yes yes yes yes yes yes yes","label":"y"}"#,
            r#"{"id":"b","audio":"b.wav","text":" ","label":"n"}"#,
            r#"{"id":"c","audio":"a.wav","text":"no","label":"n","start":0.25,"end":0.5}"#,
        ]
        .iter()
        .enumerate()
        .map(|(i, line)| parse_line(line, i + 1, folder).unwrap())
        .collect()
    }

    #[test]
    fn examples_are_cut_then_normalised_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let rows = corpus(folder.path());
        let labels = Labels::from_rows(&rows).unwrap();
        let dataset = Dataset::new(rows, Some(&tokenizer()), Some(&labels), LIMITS, BOTH).unwrap();
        let example = dataset.example(0).unwrap();
        assert_eq!((example.tokens.len(), example.waveform.len(), example.label), (8, 8_000, Some(1)));
        assert!(example.text_was_cut && example.audio_was_cut && !example.text_is_empty);
        let mean = example.waveform.iter().map(|x| f64::from(*x)).sum::<f64>() / 8_000.0;
        let variance = example.waveform.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 8_000.0;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
        assert!(dataset.example(1).unwrap().text_is_empty);
        assert_eq!(dataset.lengths().unwrap(), [8_000, 1_600, 4_000]);
        assert_eq!(dataset.example(2).unwrap().waveform.len(), 4_000);
        assert_eq!(dataset.counts().unwrap(), Counts { text_cut: 1, text_empty: 1, audio_cut: 1 });
        assert_eq!(dataset.token_lengths()[0], 8);
    }

    #[test]
    fn what_is_not_read_is_not_asked_for() {
        let rows = vec![
            parse_line(r#"{"id":"a","text":"no"}"#, 1, Path::new("")).unwrap(),
            parse_line(r#"{"id":"b","text":"no","audio":"missing.wav","label":"new"}"#, 2, Path::new("")).unwrap(),
        ];
        let labels = Labels::new(vec!["n".to_owned()]).unwrap();
        let needs = Needs { text: true, audio: false, label: false };
        let dataset = Dataset::new(rows.clone(), Some(&tokenizer()), Some(&labels), LIMITS, needs).unwrap();
        assert!(dataset.example(1).unwrap().waveform.is_empty());
        assert_eq!((dataset.lengths().unwrap(), dataset.labels()), (vec![0, 0], [None, None].as_slice()));
        let error = Dataset::new(rows, Some(&tokenizer()), Some(&labels), LIMITS, BOTH).unwrap_err().to_string();
        assert!(error.contains("utterance `a` (line 1): no `audio`"), "{error}");
    }

    #[test]
    fn problems_name_the_utterance_and_come_together() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = corpus(folder.path());
        rows[0].audio = Some(folder.path().join("missing.wav"));
        std::fs::write(folder.path().join("b.wav"), "").unwrap();
        let labels = Labels::new(vec!["y".to_owned(), "n".to_owned()]).unwrap();
        let dataset = Dataset::new(rows.clone(), Some(&tokenizer()), Some(&labels), LIMITS, BOTH).unwrap();
        let error = dataset.lengths().unwrap_err().to_string();
        assert_eq!(error.lines().count(), 3, "{error}");
        assert!(
            error.starts_with("utterance `a` (line 1): ") && error.contains("missing.wav: no such file"),
            "{error}"
        );
        assert!(error.contains("utterance `b` (line 2): ") && error.contains("is empty"), "{error}");
        let known = Labels::new(vec!["y".to_owned()]).unwrap();
        let error = Dataset::new(rows, Some(&tokenizer()), Some(&known), LIMITS, BOTH).unwrap_err().to_string();
        assert!(error.starts_with("unknown label `n`: 2 utterances, the first is utterance `b` (line 2)"), "{error}");
    }
}
