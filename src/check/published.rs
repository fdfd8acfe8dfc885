//! The published counts of known corpora against those found.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::manifest::Row;
use crate::prepare::reading::difference;
use crate::prepare::{iemocap, librispeech, slurp};
use crate::splits::SplitFile;

/// What differs from what is published, a sentence each; nothing for a corpus without published counts.
pub(super) fn differences(state: &SplitFile, parts: &[(&str, &[Row])]) -> Vec<String> {
    match state.corpus.as_str() {
        "iemocap" => iemocap(parts).into_iter().collect(),
        "slurp" => slurp(state, parts),
        "librispeech" => librispeech(parts).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// A fold has every utterance of the four classes, some of them in two parts.
fn iemocap(parts: &[(&str, &[Row])]) -> Option<String> {
    let rows: BTreeMap<&str, &str> = parts
        .iter()
        .flat_map(|(_, rows)| rows.iter())
        .map(|row| (row.id.as_str(), row.label.as_deref().unwrap_or_default()))
        .collect();
    let published = |class: usize| iemocap::PUBLISHED.iter().filter_map(|session| session.get(class)).sum::<usize>();
    let classes = iemocap::CLASSES.iter().enumerate().map(|(place, class)| {
        let found = rows.values().filter(|label| *label == class).count();
        (*class, found, published(place))
    });
    let total = (0..iemocap::CLASSES.len()).map(published).sum();
    difference("utterances", classes.chain([("all", rows.len(), total)]))
}

/// The published counts are of every real recording.
fn slurp(state: &SplitFile, parts: &[(&str, &[Row])]) -> Vec<String> {
    let is_chosen = |key: &str, value: &str| state.options.get(key).is_none_or(|found| *found == value);
    if !is_chosen("microphone", "both") {
        return Vec::new();
    }
    let sentence = |(name, rows): &(&str, &[Row])| {
        let (_, [sentences, recordings, _]) = slurp::PUBLISHED.iter().find(|(part, _)| part == name)?;
        let real: Vec<&Row> = rows
            .iter()
            .filter(|row| row.extra.get("microphone").is_none_or(|microphone| microphone != "synthetic"))
            .collect();
        let groups: BTreeSet<Option<&str>> = real.iter().map(|row| row.group.as_deref()).collect();
        // Sources give one recording more or less for train.
        let recordings = if real.len() + 1 == *recordings { real.len() } else { *recordings };
        difference(name, [("sentences", groups.len(), *sentences), ("recordings", real.len(), recordings)])
    };
    parts.iter().filter_map(sentence).collect()
}

fn librispeech(parts: &[(&str, &[Row])]) -> Option<String> {
    let items = parts.iter().filter_map(|(name, rows)| {
        let (_, published) = librispeech::PUBLISHED.iter().find(|(subset, _)| subset == name)?;
        Some((*name, rows.len(), *published))
    });
    difference("utterances", items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_by_class_and_part() {
        let row = |id: usize, label: &str, group: Option<&str>| Row {
            id: id.to_string(),
            label: Some(label.to_owned()),
            group: group.map(str::to_owned),
            ..Row::default()
        };
        let state = |corpus: &str| SplitFile { corpus: corpus.to_owned(), ..SplitFile::default() };
        // Section 3.1's totals: neutral 1,708, happy 1,636, angry 1,103, sad 1,084.
        let counts = [("neutral", 1708), ("happy", 1636), ("angry", 1103), ("sad", 1084)];
        let labels = counts.iter().flat_map(|(label, count)| std::iter::repeat_n(*label, *count));
        let whole: Vec<Row> = labels.enumerate().map(|(id, label)| row(id, label, None)).collect();
        let (train, test) = whole.split_at(5000);
        assert!(differences(&state("iemocap"), &[("train", train), ("dev", test), ("test", test)]).is_empty());
        let found = differences(&state("iemocap"), &[("train", train), ("test", &test[1..])]);
        assert_eq!(found, ["utterances: sad 1083 of the published 1084, all 5530 of the published 5531"]);
        let test = [row(1, "a", Some("7")), row(2, "a", Some("7"))];
        let found = differences(&state("slurp"), &[("test", &test)]);
        assert_eq!(found, ["test: sentences 1 of the published 2974, recordings 2 of the published 13078"]);
        let found = differences(&state("librispeech"), &[("dev-clean", &test), ("mine", &test)]);
        assert_eq!(found, ["utterances: dev-clean 2 of the published 2703"]);
        assert!(differences(&state("table"), &[("test", &test)]).is_empty());
    }
}
