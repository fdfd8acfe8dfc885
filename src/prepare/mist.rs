//! `clasp prepare mist`: LibriSpeech utterances that hold exactly one idiom of a list, as the paper's MIST (section 5.1
//! and appendix A): the idiom in the transcript may be inflected, have its slots filled, and have words in between.
//!
//! The paper's labels are not published. Where a file gives them they are taken; without it the manifests have none,
//! for a labelling step to fill in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, json};

use crate::data::DataError;
use crate::data::manifest::Row;
use crate::splits::{Declaration, Kind, PARTS};

use super::audio::{AudioOptions, settle};
use super::folder::{Corpus, Fold};
use super::idiom::Idioms;
use super::librispeech;
use super::split::{Member, grouped, stratified};
use super::table::Layout;
use super::table_reader::read_tables;

/// Instances, and idiom types, of the paper's corpus (table 2).
const PUBLISHED: (usize, usize) = (6_325, 1_107);

/// The part of what a labels file leaves out.
const UNLABELLED: &str = "unlabelled";

/// What the parts must not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The split is by label alone.
    Stratified,
    /// No idiom is in two parts.
    IdiomDisjoint,
}

/// What to read, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MistOptions {
    pub librispeech: PathBuf,
    /// Subsets of it.
    pub subsets: Vec<String>,
    /// The list of idioms.
    pub idioms: PathBuf,
    /// A table with the columns `id` and `label`.
    pub labels: Option<PathBuf>,
    /// Words that may stand between those of an idiom.
    pub gap: usize,
    /// Shares of train, dev and test, which sum to 1.
    pub fractions: [f64; 3],
    /// What the parts must not share.
    pub protocol: Protocol,
    /// The same seed gives the same split.
    pub seed: u64,
}

/// Finds the idioms and splits what holds one.
///
/// # Errors
///
/// A file that is missing or malformed; no utterance holds an idiom; the labels fit none.
pub fn prepare(
    options: &MistOptions,
    audio: &AudioOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Corpus, DataError> {
    let idioms = Idioms::read(&options.idioms)?;
    let labels = options.labels.as_deref().map(read_labels).transpose()?;
    let reading = librispeech::read(&options.librispeech, &options.subsets, true)?;
    let utterances = reading.rows.len();
    let found = keep(reading.rows, &idioms, options.gap);
    let (rows, skipped) = settle(found.rows, audio, progress)?;
    if rows.is_empty() {
        return Err(DataError::Table {
            path: options.idioms.clone(),
            reason: format!("none of the {utterances} utterances holds exactly one of the {} idioms", idioms.len()),
        });
    }
    let types: BTreeSet<String> = rows.iter().filter_map(idiom_of).collect();
    let mut counts = Map::new();
    counts.insert("utterances_read".to_owned(), utterances.into());
    counts.insert("idioms_in_list".to_owned(), idioms.len().into());
    counts.insert("with_an_idiom".to_owned(), found.with_any.into());
    counts.insert("with_several_idioms".to_owned(), found.with_several.into());
    counts.insert("instances".to_owned(), rows.len().into());
    counts.insert("idiom_types".to_owned(), types.len().into());
    let mut notes = reading.notes;
    let (instances, published_types) = PUBLISHED;
    notes.push(format!(
        "{} instances of {} idioms; the paper's corpus, of another list, has {instances} of {published_types}: scores \
         are not comparable cell by cell",
        rows.len(),
        types.len()
    ));
    let (labelled, unlabelled) = if let Some(labels) = labels {
        label(rows, labels, options, &mut notes)?
    } else {
        notes.push("no --labels: the utterances have no label, and the split is not stratified by one".to_owned());
        (rows, Vec::new())
    };
    let without = labelled.iter().chain(&unlabelled).filter(|row| row.label.is_none()).count();
    counts.insert("unlabelled".to_owned(), without.into());
    let mut sources = reading.sources;
    sources.push(options.idioms.clone());
    sources.extend(options.labels.clone());
    Ok(Corpus {
        name: "mist",
        protocol: serde_json::to_value(options.protocol)
            .ok()
            .and_then(|word| Some(word.as_str()?.to_owned()))
            .unwrap_or_default(),
        options: serde_json::to_value(options).unwrap_or_default(),
        sources,
        folds: vec![fold(labelled, unlabelled, options)],
        counts,
        notes,
        skipped,
    })
}

/// Utterances that hold exactly one idiom, with it.
struct Found {
    rows: Vec<Row>,
    with_any: usize,
    with_several: usize,
}

fn keep(rows: Vec<Row>, idioms: &Idioms, gap: usize) -> Found {
    let matched: Vec<(Row, Vec<super::idiom::Match>)> = rows
        .into_par_iter()
        .map(|row| {
            let matches = idioms.find(row.text.as_deref().unwrap_or_default(), gap);
            (row, matches)
        })
        .collect();
    let mut found = Found { rows: Vec::new(), with_any: 0, with_several: 0 };
    for (mut row, matches) in matched {
        let Some(first) = matches.first() else { continue };
        found.with_any += 1;
        if matches.iter().any(|other| other.idiom != first.idiom) {
            found.with_several += 1;
            continue;
        }
        let spans: Vec<[usize; 2]> = matches.iter().map(|found| [found.start, found.end]).collect();
        row.extra.insert("idiom".to_owned(), idioms.name(first.idiom).into());
        row.extra.insert("span".to_owned(), json!(spans));
        found.rows.push(row);
    }
    found
}

fn idiom_of(row: &Row) -> Option<String> {
    Some(row.extra.get("idiom")?.as_str()?.to_owned())
}

/// Labels by id.
fn read_labels(path: &Path) -> Result<BTreeMap<String, &'static str>, DataError> {
    let mut labels = BTreeMap::new();
    let mut problems = Vec::new();
    for table in read_tables(path, Layout::default())? {
        for column in ["id", "label"] {
            if !table.columns.iter().any(|found| found == column) {
                problems.push(DataError::Column {
                    path: path.to_path_buf(),
                    column: column.to_owned(),
                    role: "the labels",
                    found: table.columns.clone(),
                });
            }
        }
        DataError::check(std::mem::take(&mut problems))?;
        for record in table.records {
            let mut wrong = |reason| {
                problems.push(DataError::TableRow { path: path.to_path_buf(), line: record.line, reason });
            };
            let cell = |column: &str| record.cells.get(column).and_then(|value| value.as_str()).unwrap_or_default();
            let id = cell("id").trim();
            let label = match cell("label").trim().to_lowercase().as_str() {
                "figurative" | "idiomatic" | "i" => "figurative",
                "literal" | "l" => "literal",
                other => {
                    wrong(format!("the label `{other}` is neither `figurative` nor `literal`; correct it"));
                    continue;
                }
            };
            if labels.insert(id.to_owned(), label).is_some_and(|before| before != label) {
                wrong(format!("`{id}` was given the other label before; correct one"));
            }
        }
    }
    DataError::check(problems)?;
    Ok(labels)
}

/// Gives rows their labels; the second list is of those that have none.
fn label(
    rows: Vec<Row>,
    mut labels: BTreeMap<String, &'static str>,
    options: &MistOptions,
    notes: &mut Vec<String>,
) -> Result<(Vec<Row>, Vec<Row>), DataError> {
    let given = labels.len();
    let (mut labelled, mut unlabelled) = (Vec::new(), Vec::new());
    for mut row in rows {
        if let Some(label) = labels.remove(&row.id) {
            row.label = Some(label.to_owned());
            labelled.push(row);
        } else {
            unlabelled.push(row);
        }
    }
    if labelled.is_empty() {
        return Err(DataError::Table {
            path: options.labels.clone().unwrap_or_default(),
            reason: format!(
                "none of its {given} ids is that of an utterance with one idiom, as `{}`; ids are LibriSpeech's",
                unlabelled.first().map_or("", |row| row.id.as_str())
            ),
        });
    }
    if !labels.is_empty() {
        notes.push(format!("{} of {given} labels are for no utterance with exactly one idiom", labels.len()));
    }
    if !unlabelled.is_empty() {
        notes.push(format!("{} utterances have no label: they are in {UNLABELLED}.jsonl", unlabelled.len()));
    }
    Ok((labelled, unlabelled))
}

fn fold(rows: Vec<Row>, unlabelled: Vec<Row>, options: &MistOptions) -> Fold {
    let idioms: Vec<String> = rows.iter().map(|row| idiom_of(row).unwrap_or_default()).collect();
    let members: Vec<Member> = rows
        .iter()
        .zip(&idioms)
        .map(|(row, group)| Member { label: row.label.as_deref().unwrap_or_default(), group })
        .collect();
    let drawn = match options.protocol {
        Protocol::Stratified => stratified(&members, &options.fractions, options.seed, false),
        Protocol::IdiomDisjoint => grouped(&members, &options.fractions, options.seed),
    };
    let mut parts: Vec<(String, Vec<Row>)> = PARTS.map(|name| (name.to_owned(), Vec::new())).to_vec();
    for (row, part) in rows.into_iter().zip(drawn) {
        if let Some((_, rows)) = parts.get_mut(part) {
            rows.push(row);
        }
    }
    parts.push((UNLABELLED.to_owned(), unlabelled));
    let reason = match options.protocol {
        Protocol::Stratified => "the split is by label, not by speaker",
        Protocol::IdiomDisjoint => "the split keeps idioms apart, not speakers",
    };
    let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
    let shared = Declaration::every_pair(Kind::Speaker, &names, reason);
    Fold { parts, shared }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::prepare::folder;

    /// Four idioms in 40 utterances of two speakers; every tenth utterance holds two of them, every fifth none.
    fn corpus(folder: &Path) -> MistOptions {
        let at = folder.join("LibriSpeech/train-clean-100");
        let idioms = ["kick the bucket", "spill the beans", "break the ice", "hit the sack"];
        let said = ["HE KICKED THE BUCKET", "SHE SPILLS THE BEANS", "THEY BROKE THE ICE", "IT'S TIME TO HIT THE SACK"];
        for speaker in [19, 26] {
            let chapter = at.join(format!("{speaker}/7"));
            std::fs::create_dir_all(&chapter).unwrap();
            let mut lines = String::new();
            for n in 0..20 {
                let id = format!("{speaker}-7-{n:04}");
                let text = match n % 10 {
                    3 => format!("{} AND {}", said[0], said[1]),
                    5 | 8 => "NOTHING OF THE KIND".to_owned(),
                    _ => said[n % 4].to_owned(),
                };
                writeln!(lines, "{id} {text}").unwrap();
                std::fs::write(chapter.join(format!("{id}.flac")), "x").unwrap();
            }
            std::fs::write(chapter.join(format!("{speaker}-7.trans.txt")), lines).unwrap();
        }
        std::fs::write(folder.join("idioms.txt"), idioms.join("\n")).unwrap();
        MistOptions {
            librispeech: folder.join("LibriSpeech"),
            subsets: vec!["train-clean-100".to_owned()],
            idioms: folder.join("idioms.txt"),
            labels: None,
            gap: 1,
            fractions: [0.5, 0.25, 0.25],
            protocol: Protocol::Stratified,
            seed: 1,
        }
    }

    fn made(options: &MistOptions) -> Result<Corpus, DataError> {
        prepare(options, &AudioOptions::default(), &|_, _| {})
    }

    fn part<'a>(corpus: &'a Corpus, name: &str) -> &'a [Row] {
        corpus.folds[0].parts.iter().find(|(found, _)| found == name).map(|(_, rows)| rows.as_slice()).unwrap()
    }

    #[test]
    fn utterances_with_exactly_one_idiom_are_kept_with_its_span() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = made(&corpus(folder.path())).unwrap();
        // Of 20 a speaker: two with several, four with none, 14 with one.
        let count = |key: &str| corpus.counts[key].as_u64().unwrap();
        assert_eq!((count("utterances_read"), count("with_an_idiom"), count("with_several_idioms")), (40, 32, 4));
        assert_eq!((count("instances"), count("idiom_types")), (28, 4));
        let sizes = PARTS.map(|name| part(&corpus, name).len());
        assert_eq!(sizes, [14, 7, 7]);
        let row = PARTS.iter().flat_map(|name| part(&corpus, name)).find(|row| row.id == "19-7-0007").unwrap();
        assert_eq!(row.text.as_deref(), Some("it's time to hit the sack"));
        assert_eq!((&row.extra["idiom"], &row.extra["span"]), (&json!("hit the sack"), &json!([[13, 25]])));
        assert_eq!((row.label.as_deref(), row.speaker.as_deref()), (None, Some("19")));
        assert!(corpus.notes.iter().any(|note| note.contains("no --labels")));
    }

    #[test]
    fn labels_stratify_and_what_has_none_is_apart() {
        let folder = tempfile::tempdir().unwrap();
        let mut options = corpus(folder.path());
        let labels = folder.path().join("labels.csv");
        let mut lines = "id,label\nnobody,literal\n".to_owned();
        for speaker in [19, 26] {
            for n in 0..16 {
                writeln!(lines, "{speaker}-7-{n:04},{}", if n % 2 == 0 { "Idiomatic" } else { "literal" }).unwrap();
            }
        }
        std::fs::write(&labels, &lines).unwrap();
        options.labels = Some(labels.clone());
        let corpus = made(&options).unwrap();
        // 16 to 19 have no label; 18 holds none, so that three a speaker are left.
        assert_eq!(part(&corpus, UNLABELLED).len(), 6);
        // By hand: of 0 to 15 without 3, 5, 8, 13 and 15: seven even ones and four odd ones, a speaker.
        for (name, figurative, literal) in [("train", 7, 4), ("dev", 4, 2), ("test", 3, 2)] {
            let of = |label: &str| part(&corpus, name).iter().filter(|row| row.label.as_deref() == Some(label)).count();
            assert_eq!((of("figurative"), of("literal")), (figurative, literal), "{name}");
        }
        let out = folder.path().join("out");
        let written = folder::write(&out, corpus).unwrap();
        assert!(out.join("unlabelled.jsonl").is_file());
        assert_eq!(written.splits[0].protocol, "stratified");
        std::fs::write(&labels, lines + "19-7-0000,maybe\n").unwrap();
        assert!(made(&options).unwrap_err().to_string().contains("line 35: the label `maybe` is neither"));
    }

    #[test]
    fn no_idiom_crosses_where_they_must_not() {
        let folder = tempfile::tempdir().unwrap();
        let options = MistOptions { protocol: Protocol::IdiomDisjoint, ..corpus(folder.path()) };
        let corpus = made(&options).unwrap();
        let idioms = PARTS.map(|name| part(&corpus, name).iter().filter_map(idiom_of).collect::<BTreeSet<_>>());
        assert_eq!(idioms.iter().map(BTreeSet::len).sum::<usize>(), 4);
        assert!(idioms[0].is_disjoint(&idioms[1]) && idioms[0].is_disjoint(&idioms[2]));
    }
}
