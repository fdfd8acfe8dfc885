//! Reports as plain text for the terminal, at most 80 columns wide where the labels are short.

use std::fmt::{self, Write as _};

use super::comparison::{few_clusters_note, units_words};
use super::escape;
use crate::eval::report::{Breakdown, Estimate, Group, Report};
use crate::splits::record::SplitRecord;
use crate::units::counted;

/// A confusion matrix with more labels than this is left to the report file.
const MOST_LABELS: usize = 12;

/// A breakdown with more groups than this is cut.
const MOST_GROUPS: usize = 30;

/// Letters of a cell that are shown.
const MOST_LETTERS: usize = 60;

/// Rows of cells under a head: the first column to the left, the others to the right.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads.
    pub fn new<Cell: Into<String>>(head: impl IntoIterator<Item = Cell>) -> Self {
        Self { rows: vec![head.into_iter().map(cell_text).collect()] }
    }

    /// Adds a row.
    pub fn row<Cell: Into<String>>(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().map(cell_text).collect());
    }
}

/// A cell on one line, and not wider than a terminal.
fn cell_text(cell: impl Into<String>) -> String {
    let cell = cell.into();
    let cell = if cell.contains(['\n', '\r']) { cell.replace(['\n', '\r'], "\u{fffd}") } else { cell };
    match cell.char_indices().nth(MOST_LETTERS) {
        Some((end, _)) => format!("{}...", &cell[..end]),
        None => cell,
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    write!(line, "{cell:<width$}")?;
                } else {
                    write!(line, "  {cell:>width$}")?;
                }
            }
            writeln!(formatter, "{}", escape::text(line.trim_end()))?;
        }
        Ok(())
    }
}

/// The whole report: the classifiers side by side, then by class, the confusion, by length and by key.
pub fn render(report: &Report) -> String {
    let mut parts = vec![head(report), headline(report).to_string() + &how(report)];
    parts.push(classes(report).to_string());
    if report.labels.len() <= MOST_LABELS {
        parts.push(format!("{}: truth in rows, prediction in columns\n{}", report.reported(), confusion(report)));
    }
    if report.by_text_length.len() > 1 {
        parts.push(format!("accuracy by words of the text\n{}", groups(report, "words", &report.by_text_length)));
    }
    for Breakdown { key, groups: parts_of } in &report.by {
        parts.push(format!("accuracy by {key}\n{}", groups(report, key, parts_of)));
    }
    parts.join("\n")
}

/// The headline numbers of the three classifiers, each with its interval.
pub fn headline(report: &Report) -> Table {
    let systems = report.systems();
    let head = std::iter::once(report.split.as_str()).chain(systems.iter().map(|&(name, _)| name));
    let mut table = Table::new(head);
    if systems.iter().any(|(_, scores)| scores.examples != report.examples) {
        let counts = systems.iter().map(|(_, scores)| scores.examples.to_string());
        table.row(std::iter::once("examples".to_owned()).chain(counts));
    }
    let columns: Vec<[(&str, &Estimate); 4]> = systems.iter().map(|(_, scores)| scores.headline.named()).collect();
    for (place, (name, _)) in report.fusion.headline.named().into_iter().enumerate() {
        let estimates = columns.iter().filter_map(|column| column.get(place)).map(|(_, estimate)| shown(estimate));
        table.row(std::iter::once(name.to_owned()).chain(estimates));
    }
    table
}

/// Precision, recall, F1 and support of each class, and the F1 of the single modalities beside.
pub fn classes(report: &Report) -> Table {
    let single = [("text only F1", report.text_only.as_ref()), ("speech only F1", report.speech_only.as_ref())];
    let single: Vec<_> = single.into_iter().filter_map(|(name, scores)| scores.map(|scores| (name, scores))).collect();
    let head = ["class", "support", "precision", "recall", "F1"].into_iter();
    let mut table = Table::new(head.chain(single.iter().map(|&(name, _)| name)));
    for (place, class) in report.fusion.per_class.iter().enumerate() {
        let score = &class.score;
        let mut row = vec![class.label.clone(), score.support.to_string()];
        row.extend([score.precision, score.recall, score.f1].map(number));
        row.extend(
            single.iter().filter_map(|(_, scores)| scores.per_class.get(place)).map(|class| number(class.score.f1)),
        );
        table.row(row);
    }
    table
}

/// The confusion matrix of the reported prediction.
pub fn confusion(report: &Report) -> Table {
    let mut table = Table::new(std::iter::once("").chain(report.labels.iter().map(String::as_str)));
    for (label, row) in report.labels.iter().zip(&report.fusion.confusion) {
        table.row(std::iter::once(label.clone()).chain(row.iter().map(u64::to_string)));
    }
    table
}

fn groups(report: &Report, key: &str, groups: &[Group]) -> String {
    let has = [report.text_only.is_some(), report.speech_only.is_some(), true];
    let names = ["text only", "speech only", report.reported()];
    let present = || names.into_iter().zip(has).filter_map(|(name, has)| has.then_some(name));
    let mut table = Table::new([key, "examples"].into_iter().chain(present()));
    let mut largest: Vec<usize> = (0..groups.len()).collect();
    largest.sort_by_key(|&place| std::cmp::Reverse(groups[place].examples));
    largest.truncate(MOST_GROUPS);
    largest.sort_unstable();
    for group in largest.iter().map(|&place| &groups[place]) {
        let mut row = vec![group.value.clone(), group.examples.to_string()];
        let cells = [group.text_only.as_ref(), group.speech_only.as_ref(), Some(&group.fusion)];
        for (cell, _) in cells.into_iter().zip(has).filter(|&(_, has)| has) {
            row.push(cell.map_or_else(|| "-".to_owned(), |headline| shown(&headline.accuracy)));
        }
        table.row(row);
    }
    let mut text = table.to_string();
    if groups.len() > MOST_GROUPS {
        let _ = writeln!(text, "the {MOST_GROUPS} largest of {} groups; the report file has all", groups.len());
    }
    if largest.iter().any(|&place| groups[place].fusion.accuracy.interval.is_none()) {
        let single = if report.bootstrap.cluster.is_some() { "a single cluster" } else { "a single example" };
        let _ = writeln!(text, "{single} has no interval");
    }
    text
}

fn head(report: &Report) -> String {
    let mut text = format!("{}: {}", report.split, counted(report.examples, "example"));
    let inputs = &report.inputs;
    for (count, what) in [
        (report.failed, "failed"),
        (report.unlabelled, "without a label"),
        (inputs.cut_texts, "with the text cut"),
        (inputs.cut_audio, "with the audio cut"),
        (inputs.empty_texts, "with an empty text"),
    ] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text.push('\n');
    if let Some(unknown) = &report.unknown_labels {
        let done = if unknown.are_dropped { "left out" } else { "counted as wrong" };
        for (label, count) in &unknown.counts {
            let _ = writeln!(
                text,
                "warning: the model does not know `{}`: {} {done}",
                cell_text(label),
                counted(*count, "example")
            );
        }
    }
    if let Some(uses) = report.test_uses {
        let _ = writeln!(text, "uses of the test split by this run: {uses}");
    }
    if let Some(label) = report.only_prediction() {
        let _ = writeln!(
            text,
            "warning: every prediction is `{}`: the model has not learnt to tell the classes apart",
            cell_text(label)
        );
    }
    for sentence in report.data_split.iter().flat_map(SplitRecord::sentences) {
        let _ = writeln!(text, "{sentence}");
    }
    text
}

fn how(report: &Report) -> String {
    let bootstrap = &report.bootstrap;
    let over = match &bootstrap.cluster {
        Some(key) => units_words(Some(key), bootstrap.clusters),
        None => "examples".to_owned(),
    };
    let mut text = format!(
        "in brackets: {:.0}% intervals, bootstrap over {over}, {} resamples, seed {}\n",
        bootstrap.level * 100.0,
        bootstrap.resamples,
        bootstrap.seed
    );
    if let Some(note) = bootstrap.clusters.and_then(few_clusters_note) {
        let _ = writeln!(text, "{note}");
    }
    let absent: Vec<String> = report
        .fusion
        .per_class
        .iter()
        .filter(|class| class.score.support == 0)
        .map(|class| format!("`{}`", cell_text(&class.label)))
        .collect();
    if !absent.is_empty() {
        let _ = writeln!(
            text,
            "not in the data: {}; balanced accuracy leaves such a class out, and so does macro F1 unless it is \
             predicted: then its F1 is 0",
            absent.join(", ")
        );
    }
    text
}

fn shown(estimate: &Estimate) -> String {
    let interval = estimate.interval.map(|[low, high]| format!(" [{} {}]", number(low), number(high)));
    number(estimate.value) + &interval.unwrap_or_default()
}

fn number(value: f64) -> String {
    format!("{value:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::predictions::{Classification, Extra, Origin, Origins, Prediction, Probabilities, Row};
    use crate::eval::report::{InputCounts, ReportOptions};

    fn report() -> Report {
        let labels = ["high no", "high yes"].map(String::from);
        let says =
            |label: usize| Classification { label: labels[label].clone(), probabilities: Probabilities(Vec::new()) };
        let rows: Vec<Row> = (0..40)
            .map(|n| {
                Row::Prediction(Box::new(Prediction {
                    id: n.to_string(),
                    fusion: says(n % 2),
                    text_only: Some(says(0)),
                    speech_only: Some(says(usize::from(n < 20))),
                    provenance: Origins { text: Origin::Given, speech: Origin::Given },
                    truth: Some(labels[n % 2].clone()),
                    words: Some(n % 3),
                    extra: Extra::from_manifest([("speaker".to_owned(), (n % 2).into())]),
                }))
            })
            .collect();
        let options = ReportOptions {
            keys: vec!["speaker".into()],
            resamples: 200,
            inputs: InputCounts { empty_texts: 14, ..InputCounts::default() },
            test_uses: Some(2),
            ..ReportOptions::new("test", &labels)
        };
        Report::from_predictions(&rows, &options).unwrap()
    }

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(["", "one", "2"]);
        table.row(["größe", "1", "22"]);
        table.row(["a", "", "3"]);
        assert_eq!(table.to_string(), "       one   2\ngröße    1  22\na            3\n");
    }

    #[test]
    fn a_report_shows_three_classifiers_with_intervals() {
        let text = render(&report());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "test: 40 examples, 14 with an empty text");
        assert_eq!(lines[1], "uses of the test split by this run: 2");
        let lines = &lines[1..];
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[2]), ["test", "text", "only", "speech", "only", "fusion"]);
        assert!(lines[3].starts_with("accuracy ") && lines[3].ends_with("1.000 [1.000 1.000]"), "{text}");
        assert!(lines[3].contains(" 0.500 ["), "{text}");
        assert!(lines[7].ends_with("95% intervals, bootstrap over examples, 200 resamples, seed 1"), "{text}");
        // By hand: always "high no" has precision 1/2 and recall 1 on it, F1 2/3; the other class has none.
        assert_eq!(words(lines[10]), ["high", "no", "20", "1.000", "1.000", "1.000", "0.667", "0.500"]);
        assert_eq!(words(lines[11]), ["high", "yes", "20", "1.000", "1.000", "1.000", "0.000", "0.500"]);
        assert!(text.contains("accuracy by words of the text\n") && text.contains("accuracy by speaker\n"), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_collapsed_model_is_named() {
        let mut report = report();
        report.fusion.confusion = vec![vec![20, 0], vec![20, 0]];
        assert!(render(&report).contains("warning: every prediction is `high no`"));
    }

    #[test]
    fn long_lists_are_left_to_the_file() {
        let mut report = report();
        let group = |number: usize| Group {
            value: format!("speaker{number}"),
            examples: 10 + number,
            ..report.by[0].groups[0].clone()
        };
        report.by[0].groups = (0..35).map(group).collect();
        let text = render(&report);
        assert!(text.contains("the 30 largest of 35 groups; the report file has all\n"), "{text}");
        assert!(!text.contains("speaker4 ") && text.contains("speaker5 ") && text.contains("speaker34 "), "{text}");
    }
}
