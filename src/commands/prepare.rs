//! `clasp prepare`: corpora to manifests.

use std::fmt::Write as _;

use serde_json::Value;

use super::{counting, write_output};
use clasp::{
    cli::{
        IemocapProtocol, Microphone, MistProtocol, PrepareArguments, PrepareCorpus, PrepareOutput,
        PrepareTableArguments, TableFormat,
    },
    config::{ConfigError, Problem},
    data::DataError,
    error,
    prepare::{
        audio::AudioOptions,
        folder::{self, Corpus, Written},
        iemocap::{self, IemocapOptions},
        librispeech::{self, LibriSpeechOptions},
        magpie::{self, MagpieOptions},
        mist::{self, MistOptions},
        slurp::{self, SlurpOptions},
        split::are_shares,
        table::{self, Column, Input, Layout, TableOptions},
    },
    splits::{PARTS, SplitFile},
    terminal::table::Table,
};

/// Utterances that were left out and are listed; more are counted.
const MOST_SKIPPED: usize = 20;

/// Runs `clasp prepare`.
///
/// # Errors
/// A corpus that cannot be read or used; manifests that cannot be written.
pub fn run(arguments: PrepareArguments) -> anyhow::Result<u8> {
    match arguments.corpus {
        PrepareCorpus::Table(arguments) => {
            let options = table_options(&arguments)?;
            make(&arguments.to, |audio, progress| table::prepare(&options, audio, progress))
        }
        PrepareCorpus::Iemocap(arguments) => {
            let protocol = match arguments.protocol {
                IemocapProtocol::Kang2022 => iemocap::Protocol::Kang2022,
                IemocapProtocol::Strict => iemocap::Protocol::Strict,
                IemocapProtocol::Speaker10 => iemocap::Protocol::Speaker10,
            };
            let options = IemocapOptions { root: arguments.root, protocol };
            make(&arguments.to, |audio, progress| iemocap::prepare(&options, audio, progress))
        }
        PrepareCorpus::Slurp(arguments) => {
            let microphone = match arguments.microphone {
                Microphone::Both => slurp::Microphone::Both,
                Microphone::Headset => slurp::Microphone::Headset,
                Microphone::Far => slurp::Microphone::Far,
            };
            let (root, audio) = (arguments.root, arguments.audio);
            let options = SlurpOptions { root, audio, synthetic: arguments.synthetic, microphone };
            make(&arguments.to, |audio, progress| slurp::prepare(&options, audio, progress))
        }
        PrepareCorpus::Librispeech(arguments) => {
            let (root, subsets) = (arguments.root, arguments.subsets);
            let options = LibriSpeechOptions { root, subsets, lowercase: arguments.lowercase };
            make(&arguments.to, |audio, progress| librispeech::prepare(&options, audio, progress))
        }
        PrepareCorpus::Mist(arguments) => {
            let options = MistOptions {
                librispeech: arguments.librispeech,
                subsets: arguments.subsets,
                idioms: arguments.idioms,
                labels: arguments.labels,
                gap: arguments.gap,
                fractions: fractions(arguments.fractions)?,
                protocol: match arguments.protocol {
                    MistProtocol::Stratified => mist::Protocol::Stratified,
                    MistProtocol::IdiomDisjoint => mist::Protocol::IdiomDisjoint,
                },
                seed: arguments.seed,
            };
            make(&arguments.to, |audio, progress| mist::prepare(&options, audio, progress))
        }
        PrepareCorpus::Magpie(arguments) => {
            let (input, min_confidence) = (arguments.input, arguments.min_confidence);
            if min_confidence.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                let problem = Problem::conflict("--min-confidence", "must be a share of 0 to 1, as 0.75".to_owned());
                return Err(ConfigError::invalid("command line", vec![problem]).into());
            }
            let options = MagpieOptions { min_confidence, seed: arguments.seed, ..MagpieOptions::new(input) };
            make(&arguments.to, |audio, progress| magpie::prepare(&options, audio, progress))
        }
    }
}

/// Reads a corpus, writes its manifests, says what was written.
fn make(
    to: &PrepareOutput,
    prepare: impl FnOnce(&AudioOptions, &(dyn Fn(usize, usize) + Sync)) -> Result<Corpus, DataError>,
) -> anyhow::Result<u8> {
    // Before hours of converting, not after them.
    folder::check(&to.output)?;
    let audio = AudioOptions { convert: to.convert.then(|| to.output.join("audio")), skip_bad: to.skip_bad };
    let corpus = counting("converting audio", |progress| prepare(&audio, progress))?;
    let written = folder::write(&to.output, corpus)?;
    if to.json {
        write_output(&format!("{:#}\n", serde_json::to_value(&written)?))?;
    } else {
        write_output(&describe(&written))?;
    }
    Ok(error::SUCCESS)
}

fn fractions(given: Vec<f64>) -> Result<[f64; 3], ConfigError> {
    let wrong = |reason: String| ConfigError::invalid("command line", vec![Problem::conflict("--fractions", reason)]);
    let fractions: [f64; 3] = given.try_into().map_err(|found: Vec<f64>| {
        wrong(format!("must be three numbers, train, dev and test, as in 0.8,0.1,0.1; found {}", found.len()))
    })?;
    if !are_shares(&fractions) {
        let [train, dev, test] = fractions;
        let reason = format!("must be shares of 0 to 1 that sum to 1, as in 0.8,0.1,0.1; found {train},{dev},{test}");
        return Err(wrong(reason));
    }
    Ok(fractions)
}

fn table_options(arguments: &PrepareTableArguments) -> Result<TableOptions, ConfigError> {
    let (inputs, splits) = (&arguments.input, &arguments.split);
    if !(inputs.len() == splits.len() || (inputs.len() == 1 && splits.is_empty())) {
        let reason = format!(
            "one input, or one --split for each, as in --input a.csv --split train --input b.csv --split dev; found {} \
             inputs and {} splits",
            inputs.len(),
            splits.len()
        );
        return Err(ConfigError::invalid("command line", vec![Problem::conflict("--input", reason)]));
    }
    let splits = splits.iter().map(Some).chain(std::iter::repeat(None));
    let mut options = TableOptions {
        inputs: inputs
            .iter()
            .zip(splits)
            .map(|(path, split)| Input { path: path.clone(), split: split.cloned() })
            .collect(),
        ..TableOptions::new("")
    };
    let given = [&arguments.audio_column, &arguments.text_column, &arguments.label_column];
    for (column, given) in [&mut options.audio, &mut options.text, &mut options.label].into_iter().zip(given) {
        match given.as_deref() {
            None => {}
            Some("") => *column = Column::None,
            Some(name) => *column = Column::Named(name.to_owned()),
        }
    }
    Ok(TableOptions {
        layout: Layout {
            format: arguments.format.map(|format| match format {
                TableFormat::Csv => table::TableFormat::Csv,
                TableFormat::Tsv => table::TableFormat::Tsv,
                TableFormat::Jsonl => table::TableFormat::Jsonl,
            }),
            delimiter: arguments.delimiter,
            encoding: arguments.encoding,
        },
        id: arguments.id_column.clone(),
        speaker: arguments.speaker_column.clone(),
        split: arguments.split_column.clone(),
        channel: arguments.channel,
        audio_root: arguments.audio_root.clone(),
        fractions: fractions(arguments.fractions.clone())?,
        folds: arguments.folds,
        seed: arguments.seed,
        groups: arguments.groups.clone(),
        declared: arguments.declare_shared.iter().map(|kind| kind.kind()).collect(),
        ..options
    })
}

/// What was written, for people.
fn describe(written: &Written) -> String {
    let mut text = match written.splits.as_slice() {
        [only] => labels(only).to_string(),
        folds => folds_table(folds).to_string(),
    };
    for (name, count) in &written.counts {
        let _ = writeln!(text, "{}: {}", name.replace('_', " "), counted(count));
    }
    for note in &written.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if !written.skipped.is_empty() {
        let _ = writeln!(text, "left out, since their audio cannot be used: {}", written.skipped.len());
        for skipped in written.skipped.iter().take(MOST_SKIPPED) {
            let _ = writeln!(text, "  {}: {}", skipped.id, skipped.problem);
        }
        if let Some(more) = written.skipped.len().checked_sub(MOST_SKIPPED).filter(|more| *more > 0) {
            let _ = writeln!(text, "  and {more} more, in split.json");
        }
    }
    for manifest in &written.manifests {
        let _ = writeln!(text, "{}", manifest.display());
    }
    text
}

/// A count, or several by name, on one line.
fn counted(value: &Value) -> String {
    match value {
        Value::Object(counts) => {
            let each = counts.iter().map(|(name, count)| format!("{} {}", name.replace('_', " "), counted(count)));
            each.collect::<Vec<_>>().join(", ")
        }
        Value::String(word) => word.clone(),
        other => other.to_string(),
    }
}

/// The parts of a split in the order in which they are used.
fn parts(split: &SplitFile) -> Vec<&String> {
    let mut names: Vec<&String> = split.utterances.keys().collect();
    names.sort_by_key(|name| PARTS.iter().position(|known| known == name).unwrap_or(PARTS.len()));
    names
}

fn labels(split: &SplitFile) -> Table {
    let names = parts(split);
    let mut table = Table::new(std::iter::once("label").chain(names.iter().map(|name| name.as_str())));
    for (label, counts) in &split.labels {
        let cells = names.iter().map(|name| counts.get(*name).copied().unwrap_or(0).to_string());
        table.row(std::iter::once(label.clone()).chain(cells));
    }
    let cells = names.iter().map(|name| split.utterances[*name].to_string());
    table.row(std::iter::once("all".to_owned()).chain(cells));
    table
}

fn folds_table(folds: &[SplitFile]) -> Table {
    let names = folds.first().map(parts).unwrap_or_default();
    let mut table = Table::new(std::iter::once("fold").chain(names.iter().map(|name| name.as_str())));
    for fold in folds {
        let name = fold.fold.clone().unwrap_or_default();
        let cells = names.iter().map(|name| fold.utterances.get(*name).copied().unwrap_or(0).to_string());
        table.row(std::iter::once(name).chain(cells));
    }
    table
}
