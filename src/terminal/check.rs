//! What `clasp check` found, as plain text for the terminal.

use std::fmt::Write as _;

use super::escape;
use super::table::Table;
use crate::check::{Facts, Finding, Outcome, Severity, Spread};

/// Labels, and speakers, that are listed; more are counted.
const MOST_ROWS: usize = 80;

/// Ids that are named on a line.
const SHOWN: usize = 4;

/// Columns of the longest bar of a histogram.
const BAR: usize = 40;

/// Counts, histograms, then what was found, the worst last: there it is seen.
pub fn render(outcome: &Outcome) -> String {
    let manifests = &outcome.manifests;
    let mut text = overview(manifests).to_string();
    let parts: [(&str, By); 2] = [("label", |facts| &facts.labels), ("speaker", |facts| &facts.speakers)];
    for (what, by) in parts {
        text.push_str(&counts(manifests, what, by));
    }
    let bound = |bound: f64| if bound < 1.0 && bound > 0.0 { format!("{bound:.1}") } else { format!("{bound:.0}") };
    let spreads: [(&str, Of); 2] =
        [("seconds", |facts| facts.seconds.as_ref()), ("words", |facts| facts.words.as_ref())];
    for (what, of) in spreads {
        text.push_str(&histogram(manifests, what, of, bound));
    }
    for split in &outcome.splits {
        let fold = split.fold.as_ref().map_or_else(String::new, |fold| format!(", fold {fold}"));
        let state = match split.is_unchanged {
            Some(true) => "unchanged",
            Some(false) => "CHANGED since",
            None => "not checked: not all of its manifests were given",
        };
        let _ = writeln!(
            text,
            "\nsplit of {}: {}, protocol {}{fold}; sha256 {}: {state}",
            split.folder.display(),
            split.corpus,
            split.protocol,
            split.sha256.get(..12).unwrap_or(&split.sha256)
        );
    }
    text.push('\n');
    for finding in outcome.findings.iter().rev() {
        text.push_str(&sentence(finding));
    }
    for path in &outcome.leaks_files {
        let _ = writeln!(text, "what was allowed is in {}; later reports say so", path.display());
    }
    let count = |severity, word: &str| {
        let count = outcome.findings.iter().filter(|finding| finding.severity == severity).count();
        format!("{count} {word}{}", if count == 1 { "" } else { "s" })
    };
    let verdict = if outcome.ok { "can be trusted" } else { "CANNOT be trusted" };
    let _ = writeln!(text, "{verdict}: {}, {}", count(Severity::Error, "error"), count(Severity::Warning, "warning"));
    escape::text(&text).into_owned()
}

type Of = fn(&Facts) -> Option<&Spread>;
type By = fn(&Facts) -> &std::collections::BTreeMap<String, usize>;

fn overview(manifests: &[Facts]) -> Table {
    let mut table =
        Table::new(["manifest", "utterances", "labels", "speakers", "hours", "seconds", "words", "empty or none"]);
    for facts in manifests {
        let spread = |spread: &Option<Spread>, digits: usize| {
            spread.as_ref().map_or_else(
                || "-".to_owned(),
                |spread| format!("{:.digits$}/{:.digits$}/{:.digits$}", spread.least, spread.median, spread.most),
            )
        };
        let hours =
            facts.seconds.as_ref().map_or_else(|| "-".to_owned(), |spread| format!("{:.2}", spread.total / 3600.0));
        let without = &facts.without;
        let lacks =
            [(without.label, "label"), (without.text, "text"), (without.audio, "audio"), (without.speaker, "speaker")];
        let lacks: Vec<String> =
            lacks.iter().filter(|(count, _)| *count > 0).map(|(count, key)| format!("{count} {key}")).collect();
        table.row([
            facts.name.clone(),
            facts.utterances.to_string(),
            facts.labels.len().to_string(),
            facts.speakers.len().to_string(),
            hours,
            spread(&facts.seconds, 1),
            spread(&facts.words, 0),
            if lacks.is_empty() { "-".to_owned() } else { lacks.join(", ") },
        ]);
    }
    table
}

fn counts(manifests: &[Facts], what: &str, by: By) -> String {
    let mut names: Vec<&String> = manifests.iter().flat_map(|facts| by(facts).keys()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return String::new();
    }
    if names.len() > MOST_ROWS || manifests.len() > 6 {
        return format!("\n{} {what}s in all; --json lists them\n", names.len());
    }
    let mut table = Table::new(std::iter::once(what).chain(manifests.iter().map(|facts| facts.name.as_str())));
    for name in names {
        let cells = manifests.iter().map(|facts| by(facts).get(name).copied().unwrap_or(0).to_string());
        table.row(std::iter::once(name.clone()).chain(cells));
    }
    format!("\n{table}")
}

fn histogram(manifests: &[Facts], what: &str, of: Of, bound: impl Fn(f64) -> String) -> String {
    let spreads: Vec<&Spread> = manifests.iter().filter_map(of).collect();
    let Some(first) = spreads.first() else { return String::new() };
    let counts: Vec<usize> = (0..first.histogram.len())
        .map(|bin| spreads.iter().filter_map(|spread| spread.histogram.get(bin)).map(|bin| bin.count).sum())
        .collect();
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let mut table = format!("\n{what} of all utterances\n");
    let mut below: Option<f64> = None;
    for (bin, count) in first.histogram.iter().zip(counts) {
        let name = match (below, bin.up_to) {
            (None, Some(up_to)) => format!("up to {}", bound(up_to)),
            (Some(below), Some(up_to)) => format!("over {} to {}", bound(below), bound(up_to)),
            (below, None) => format!("over {}", bound(below.unwrap_or(0.0))),
        };
        below = bin.up_to;
        // At least a mark for what is there at all.
        let length = (count * BAR).div_ceil(most);
        let _ = writeln!(table, "{}", format!("{name:>16} {count:>7} {}", "#".repeat(length)).trim_end());
    }
    table
}

/// A finding, with the first of what it is about.
pub fn sentence(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let Some(manifest) = &finding.manifest else { return format!("{severity}: {}\n", finding.text) };
    let mut text = format!("{severity}: {manifest}: {} ({}", finding.text, finding.count);
    // Ids stand in a line; what is a sentence has its own.
    let (between, is_long) =
        if finding.examples.iter().any(|example| example.contains(": ")) { ("\n  ", true) } else { (", ", false) };
    let shown = if is_long { finding.examples.len() } else { finding.examples.len().min(SHOWN) };
    let more = if finding.count > shown { format!("{between}...") } else { String::new() };
    let shown = finding.examples[..shown].join(between);
    let _ = if is_long { writeln!(text, "):\n  {shown}{more}") } else { writeln!(text, ": {shown}{more})") };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Bin;

    #[test]
    fn a_histogram_is_drawn_to_scale() {
        let spread = Spread {
            total: 0.0,
            least: 0.0,
            median: 0.0,
            most: 0.0,
            histogram: vec![
                Bin { up_to: Some(0.5), count: 1 },
                Bin { up_to: Some(2.0), count: 80 },
                Bin { up_to: None, count: 0 },
            ],
        };
        let without = crate::check::Without { label: 0, text: 0, audio: 0, speaker: 0 };
        let facts = Facts {
            name: "train".into(),
            path: "train.jsonl".into(),
            utterances: 81,
            labels: [("a".to_owned(), 81)].into(),
            speakers: std::collections::BTreeMap::new(),
            without,
            seconds: Some(spread),
            words: None,
            repeated_texts: 0,
        };
        let outcome = Outcome {
            ok: true,
            manifests: vec![facts],
            splits: Vec::new(),
            shared: Vec::new(),
            findings: vec![Finding {
                severity: Severity::Warning,
                check: "text",
                manifest: Some("train".into()),
                count: 12,
                text: "texts are empty".into(),
                examples: vec!["u1".into(), "u\u{1b}2".into()],
            }],
            leaks_files: Vec::new(),
        };
        let text = render(&outcome);
        assert!(text.contains("       up to 0.5       1 #\n"), "{text}");
        assert!(text.contains(&format!("   over 0.5 to 2      80 {}\n", "#".repeat(40))), "{text}");
        assert!(text.contains("          over 2       0\n"), "{text}");
        assert!(
            text.contains("warning: train: texts are empty (12: u1, u\u{fffd}2, ...)\ncan be trusted: 0 errors, 1"),
            "{text}"
        );
    }
}
