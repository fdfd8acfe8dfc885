//! The tables of a comparison: for the terminal, Markdown, CSV and JSON. The first is in the paper's form, a system a
//! row and accuracy and F1 of each corpus; the others have intervals, differences and p, folds, and costs.

use std::path::Path;

use anyhow::Context as _;

use super::csv;
use super::result::{Cell, CorpusResult, Results};
use crate::eval::metrics::Headline;
use crate::eval::report::Estimate;
use crate::files::replace_file;
use crate::terminal::comparison::{cluster_note, difference_words, p_words, units_words};
use crate::terminal::table::Table;
use crate::units;

/// The files that a comparison writes, without their endings.
const NAME: &str = "table";

/// Letters of a line below the tables.
const WIDTH: usize = 100;

/// Nothing to show.
const NONE: &str = "-";

/// A table with its heading.
struct Section {
    heading: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Section {
    fn new(heading: String, head: &[&str]) -> Self {
        Self { heading, head: head.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new(), notes: Vec::new() }
    }

    fn text(&self) -> String {
        let mut table = Table::new(self.head.clone());
        self.rows.iter().for_each(|row| table.row(row.clone()));
        format!("{}\n\n{table}{}", self.heading, lines(&self.notes, "", "\n"))
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("|---|{}\n", "---:|".repeat(self.head.len().saturating_sub(1)));
        let rows = self.rows.iter().map(|row| line(row)).collect::<Vec<_>>().concat();
        let notes = lines(&self.notes, "\n", "\n");
        format!("## {}\n\n{}{rule}{rows}{notes}", self.heading, line(&self.head))
    }
}

/// The lines, each between a start and an end.
fn lines(lines: &[String], start: &str, end: &str) -> String {
    lines.iter().map(|line| [start, line, end].concat()).collect::<Vec<_>>().concat()
}

/// A note in lines of at most [`WIDTH`] letters.
fn wrapped(note: &str) -> String {
    let mut text = String::new();
    let mut width = 0;
    for word in note.split(' ') {
        let letters = word.chars().count();
        if width > 0 && width + 1 + letters > WIDTH {
            text.push_str("\n  ");
            width = 2;
        } else if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += letters;
    }
    text
}

/// The tables as plain text.
pub fn text(results: &Results) -> String {
    let parts: Vec<String> = parts(results).iter().map(Section::text).collect();
    let notes: Vec<String> = notes(results).iter().map(|note| wrapped(note)).collect();
    format!("{}\n{}", parts.join("\n"), lines(&notes, "", "\n"))
}

/// The tables as Markdown, with every run that they come from.
pub fn markdown(results: &Results) -> String {
    let mut parts: Vec<String> = parts(results).iter().map(Section::markdown).collect();
    parts.push(lines(&notes(results), "- ", "\n"));
    parts.push(runs(results).markdown());
    format!("# {}\n\n{}", results.plan, parts.join("\n"))
}

/// Writes `table.md`, `table.csv` and `table.json` into a folder.
///
/// # Errors
/// A file that cannot be written.
pub fn write(results: &Results, folder: &Path) -> anyhow::Result<()> {
    let mut json = serde_json::to_vec_pretty(results).context("the table as JSON")?;
    json.push(b'\n');
    replace_file(&folder.join(format!("{NAME}.json")), &json)?;
    replace_file(&folder.join(format!("{NAME}.csv")), &csv::csv(results)?)?;
    replace_file(&folder.join(format!("{NAME}.md")), markdown(results).as_bytes())?;
    Ok(())
}

fn parts(results: &Results) -> Vec<Section> {
    let mut parts = vec![paper(results)];
    for corpus in &results.corpora {
        parts.push(pooled(corpus));
        if corpus.systems.iter().any(|cell| cell.against.is_some()) {
            parts.push(differences(corpus, results));
        }
        if corpus.folds > 1 {
            parts.push(folds(corpus));
        }
        parts.push(costs(corpus));
    }
    parts
}

/// Means and deviations, as in the paper.
fn paper(results: &Results) -> Section {
    let mut part = Section::new(format!("{}: mean ± standard deviation over runs, on test", results.plan), &["system"]);
    for corpus in &results.corpora {
        part.head.extend([format!("{} accuracy", corpus.name), format!("{} F1", corpus.name)]);
    }
    let mut systems: Vec<&str> = Vec::new();
    for cell in results.cells() {
        if !systems.contains(&cell.system.as_str()) {
            systems.push(&cell.system);
        }
    }
    for system in systems {
        let mut row = vec![system.to_owned()];
        for corpus in &results.corpora {
            let cell = corpus.systems.iter().find(|cell| cell.system == system);
            for pick in [|score: &Headline| score.accuracy, |score: &Headline| score.weighted_f1] {
                row.push(cell.map_or_else(
                    || NONE.to_owned(),
                    |cell| match &cell.deviation {
                        Some(deviation) => format!("{:.3} ± {:.3}", pick(&cell.mean), pick(deviation)),
                        None => format!("{:.3}", pick(&cell.mean)),
                    },
                ));
            }
        }
        part.rows.push(row);
    }
    part.notes.push("F1: weighted F1".to_owned());
    part
}

fn pooled(corpus: &CorpusResult) -> Section {
    let over = units_words(corpus.cluster.as_deref(), corpus.clusters);
    let heading = format!("{}: pooled over folds, with 95% intervals over {over}", corpus.name);
    let mut part = Section::new(heading, &["system", "runs", "accuracy", "weighted F1"]);
    for cell in &corpus.systems {
        let shown = |estimate: Estimate| {
            let interval = estimate.interval.map(|[low, high]| format!(" [{low:.3} {high:.3}]"));
            format!("{:.3}{}", estimate.value, interval.unwrap_or_default())
        };
        let planned = cell.runs.len() + cell.missing.len();
        let runs =
            if cell.missing.is_empty() { planned.to_string() } else { format!("{} of {planned}", cell.runs.len()) };
        part.rows.push(vec![cell.system.clone(), runs, shown(cell.pooled.accuracy), shown(cell.pooled.weighted_f1)]);
    }
    part
}

fn differences(corpus: &CorpusResult, results: &Results) -> Section {
    let reference = results.reference.as_deref().unwrap_or(NONE);
    let heading = format!("{}: difference to {reference}, pooled over folds", corpus.name);
    let head = ["system", "pairs", "accuracy", "p", "McNemar p", "weighted F1", "p"];
    let mut part = Section::new(heading, &head);
    for cell in &corpus.systems {
        let Some(against) = &cell.against else { continue };
        let difference = &against.comparison.difference;
        part.rows.push(vec![
            cell.system.clone(),
            against.paired_runs.to_string(),
            difference_words(difference.accuracy.value, difference.accuracy.interval),
            p_words(against.p_holm.accuracy),
            p_words(against.mcnemar_p_holm),
            difference_words(difference.weighted_f1.value, difference.weighted_f1.interval),
            p_words(against.p_holm.weighted_f1),
        ]);
    }
    part
}

fn folds(corpus: &CorpusResult) -> Section {
    let mut part =
        Section::new(format!("{}: accuracy / weighted F1 by fold, mean over seeds", corpus.name), &["system"]);
    part.head.extend((1..=corpus.folds).map(|fold| format!("fold {fold}")));
    for cell in &corpus.systems {
        let score = |fold| cell.by_fold.iter().find(|score| score.fold == fold);
        let shown = |fold| {
            score(fold).map_or_else(
                || NONE.to_owned(),
                |score| format!("{:.3} / {:.3}", score.mean.accuracy, score.mean.weighted_f1),
            )
        };
        part.rows.push(std::iter::once(cell.system.clone()).chain((1..=corpus.folds).map(shown)).collect());
    }
    part
}

fn costs(corpus: &CorpusResult) -> Section {
    let head = ["system", "parameters", "training time a run", "memory", "on the device", "uses of test a run"];
    let mut part = Section::new(format!("{}: what it takes", corpus.name), &head);
    for cell in &corpus.systems {
        let shown = |value: Option<String>| value.unwrap_or_else(|| NONE.to_owned());
        part.rows.push(vec![
            cell.system.clone(),
            shown(cell.parameters.map(parameters)),
            shown(cell.seconds.map(units::duration)),
            shown(cell.peak_memory_bytes.map(units::bytes)),
            shown(cell.device_memory_bytes.map(units::bytes)),
            uses(cell),
        ]);
    }
    part
}

/// The uses of the test split: one number where all runs have the same.
fn uses(cell: &Cell) -> String {
    let least = cell.runs.iter().map(|run| run.test_uses).min().unwrap_or_default();
    let most = cell.runs.iter().map(|run| run.test_uses).max().unwrap_or_default();
    if least == most { most.to_string() } else { format!("{least} to {most}") }
}

fn runs(results: &Results) -> Section {
    let head = ["run", "accuracy", "weighted F1", "best epoch", "uses of test", "folder"];
    let mut part = Section::new("Runs".to_owned(), &head);
    for run in results.cells().flat_map(|cell| &cell.runs) {
        part.rows.push(vec![
            run.name.clone(),
            format!("{:.4}", run.score.accuracy),
            format!("{:.4}", run.score.weighted_f1),
            run.best_epoch.map_or_else(|| NONE.to_owned(), |epoch| epoch.to_string()),
            run.test_uses.to_string(),
            run.folder.display().to_string(),
        ]);
    }
    part
}

/// How the numbers were made, and what a reader should know of them.
fn notes(results: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    for corpus in &results.corpora {
        let protocol =
            corpus.protocol.as_ref().map_or_else(|| "no stated protocol".to_owned(), |name| format!("protocol {name}"));
        let selection = if corpus.selects_on_test {
            "the best epoch is selected on recordings of the test data (dev and test share them), so that the scores \
             are too high"
        } else if corpus.takes_last_epoch {
            "there is no dev: the last epoch is taken"
        } else {
            "the best epoch is selected on dev"
        };
        let folds = units::counted(corpus.folds, "fold");
        // A table's protocol says it itself.
        let folds = if protocol.ends_with(&folds) { String::new() } else { format!(", {folds}") };
        let utterances = units::counted(corpus.utterances, "test utterance");
        notes.push(format!("{}: {protocol}{folds}, {utterances}; {selection}", corpus.name));
        notes.extend(corpus.shared.iter().map(|sentence| format!("{}: {sentence}", corpus.name)));
        notes.extend(corpus.clusters.map(|clusters| format!("{}: {}", corpus.name, cluster_note(clusters))));
        if let (1.., Some(key)) = (corpus.lacking_cluster, &corpus.cluster) {
            notes.push(format!(
                "{}: {} test utterance(s) lack `{key}`: each counts as a cluster of its own",
                corpus.name, corpus.lacking_cluster
            ));
        }
        if corpus.shared_utterances > 0 {
            notes.push(format!(
                "{}: several folds test the same {}: each counts once, its predictions weighted equally",
                corpus.name,
                units::counted(corpus.shared_utterances, "utterance")
            ));
        }
        if corpus.repeats_ids {
            notes.push(format!(
                "{}: folds have the same ids for utterances of different labels: those of each fold count apart",
                corpus.name
            ));
        }
        if !corpus.absent.is_empty() {
            notes.push(format!("{}: no run is done of {}", corpus.name, corpus.absent.join(", ")));
        }
        notes.extend(unpaired(corpus, results.reference.as_deref()));
    }
    notes.push(format!(
        "pooled: the predictions of all folds scored together, then the mean over seeds. Intervals: {:.0}%, bootstrap, \
         {} resamples, an utterance drawn with all its predictions; they reflect the size of the test data, as the \
         deviation reflects seeds and folds",
        results.level * 100.0,
        results.resamples
    ));
    if results.comparisons > 0 {
        notes.push(format!(
            "p: two-sided, runs of the same fold and seed paired; by Holm over the {} comparison(s) here, each kind of \
             test by itself. McNemar: with several seeds an utterance counts for the system that is right about it \
             more often",
            results.comparisons
        ));
    }
    notes.push(
        "memory: the most that a run held on the host, and that was in use on its CUDA device at the end of an epoch"
            .to_owned(),
    );
    let missing: Vec<&str> = results.cells().flat_map(|cell| &cell.missing).map(String::as_str).collect();
    if results.runs_done < results.runs_planned {
        let shown: Vec<&str> = missing.iter().copied().take(10).collect();
        let which = if shown.is_empty() { String::new() } else { format!(", among them {}", shown.join(", ")) };
        notes.push(format!(
            "{} of {} runs are not done and not included{which}",
            results.runs_planned - results.runs_done,
            results.runs_planned
        ));
    }
    notes
}

/// Systems of which not every run can be compared with one of the reference.
fn unpaired(corpus: &CorpusResult, reference: Option<&str>) -> Vec<String> {
    let Some(reference) = corpus.systems.iter().find(|cell| Some(cell.system.as_str()) == reference) else {
        return Vec::new();
    };
    let others = || corpus.systems.iter().filter(|cell| cell.system != reference.system);
    let mut notes = Vec::new();
    let alone: Vec<&str> = others().filter(|cell| cell.against.is_none()).map(|cell| cell.system.as_str()).collect();
    if !alone.is_empty() {
        notes.push(format!(
            "{}: no difference to {} for {}: they share no fold and seed",
            corpus.name,
            reference.system,
            alone.join(", ")
        ));
    }
    let partly: Vec<String> = others()
        .filter_map(|cell| {
            let pairs = cell.against.as_ref()?.paired_runs;
            (pairs < cell.runs.len()).then(|| format!("{} ({pairs} of {})", cell.system, cell.runs.len()))
        })
        .collect();
    if !partly.is_empty() {
        notes.push(format!(
            "{}: the difference to {} uses only runs with a fold and seed that the reference has, for {}",
            corpus.name,
            reference.system,
            partly.join(", ")
        ));
    }
    notes
}

/// 218.9 M
#[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
fn parameters(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{:.1} k", count as f64 / 1e3),
        _ => format!("{:.1} M", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_notes_are_broken_between_words() {
        let text = wrapped(&"word ".repeat(30));
        assert!(text.lines().count() == 2 && text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.split_whitespace().count(), 30);
        assert_eq!(wrapped("a note"), "a note");
    }

    #[test]
    fn numbers_of_parameters_are_said_as_people_say_them() {
        assert_eq!([0, 9_999, 12_345, 218_912_345].map(parameters), ["0", "9999", "12.3 k", "218.9 M"]);
        assert_eq!([1 << 20, 3 << 29].map(units::bytes), ["1 MiB", "1.5 GiB"]);
    }
}
