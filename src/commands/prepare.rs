//! `clasp prepare`: corpora to manifests.

use std::fmt::Write as _;

use super::write_output;
use clasp::{
    cli::{PrepareArguments, PrepareCorpus, PrepareTableArguments, TableFormat},
    config::{ConfigError, Problem},
    error,
    prepare::table::{self, TableOptions},
};

/// Runs `clasp prepare`.
///
/// # Errors
/// A table that cannot be read or used.
pub fn run(arguments: PrepareArguments) -> anyhow::Result<u8> {
    match arguments.corpus {
        PrepareCorpus::Table(arguments) => run_table(arguments),
    }
}

fn run_table(arguments: PrepareTableArguments) -> anyhow::Result<u8> {
    let wrong = |reason: String| ConfigError::invalid("command line", vec![Problem::conflict("--fractions", reason)]);
    let fractions: [f64; 3] = arguments.fractions.try_into().map_err(|found: Vec<f64>| {
        wrong(format!("must be three numbers, train, dev and test, as in 0.8,0.1,0.1; found {}", found.len()))
    })?;
    let is_share = |share: &f64| (0.0..=1.0).contains(share);
    if !fractions.iter().all(is_share) || (fractions.iter().sum::<f64>() - 1.0).abs() > 1e-6 {
        let [train, dev, test] = fractions;
        let reason = format!("must be shares of 0 to 1 that sum to 1, as in 0.8,0.1,0.1; found {train},{dev},{test}");
        return Err(wrong(reason).into());
    }
    let options = TableOptions {
        input: arguments.input,
        format: arguments.format.map(|format| match format {
            TableFormat::Csv => table::TableFormat::Csv,
            TableFormat::Tsv => table::TableFormat::Tsv,
            TableFormat::Jsonl => table::TableFormat::Jsonl,
        }),
        audio: named(arguments.audio_column),
        text: named(arguments.text_column),
        label: named(arguments.label_column),
        id: arguments.id_column,
        speaker: arguments.speaker_column,
        audio_root: arguments.audio_root,
        output: arguments.output,
        fractions,
        seed: arguments.seed,
        group_by: arguments.group_by,
    };
    let report = table::prepare(&options)?;
    write_output(&describe(&report))?;
    Ok(error::SUCCESS)
}

/// A column, or none where its name is empty.
fn named(column: String) -> Option<String> {
    Some(column).filter(|column| !column.is_empty())
}

/// What was written, for people.
fn describe(report: &table::TableReport) -> String {
    let mut counts = clasp::report::table::Table::new(["label", "train", "dev", "test"]);
    for (label, splits) in &report.labels {
        let cell = |split: &str| splits.get(split).copied().unwrap_or(0).to_string();
        counts.row([label.clone(), cell("train"), cell("dev"), cell("test")]);
    }
    let cell = |split: &str| report.utterances.get(split).copied().unwrap_or(0).to_string();
    counts.row(["all".to_owned(), cell("train"), cell("dev"), cell("test")]);
    let mut text = counts.to_string();
    if let Some(shared) = report.shared_speakers.filter(|&shared| shared > 0) {
        let _ = writeln!(
            text,
            "note: {shared} speakers are in more than one split; --group-by with their column keeps them apart"
        );
    }
    if report.empty_texts > 0 {
        let _ = writeln!(text, "note: {} utterances have no words", report.empty_texts);
    }
    for manifest in &report.manifests {
        let _ = writeln!(text, "{}", manifest.display());
    }
    text
}
