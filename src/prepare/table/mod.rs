//! `clasp prepare table`: a CSV, TSV or JSON Lines table with audio, text and label columns, or an audio folder with
//! `metadata.csv`, becomes manifests with a seeded, stratified split or folds. Neither the order of the table's rows
//! nor the machine changes who goes where.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use encoding_rs::Encoding;
use serde::Serialize;
use serde_json::{Map, json};

use crate::data::DataError;
use crate::data::audio::Channel;
use crate::data::manifest::Row;
use crate::splits::content;
use crate::splits::overlap;
use crate::splits::{Declaration, Kind, PARTS, Skipped};

use super::audio::{AudioOptions, settle};
use super::folder::{Corpus, Fold};
use super::split::{Member, are_shares, connected, grouped, stratified};
use super::table_reader::read_tables;
use super::table_rows::{Item, TableItems, items_of};

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// Fields between commas, quoted where needed; the first line names the columns.
    Csv,
    /// Fields between tabs; the first line names the columns.
    Tsv,
    /// One JSON object a line.
    Jsonl,
}

/// A column's name: given by the user, or the usual one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Column {
    /// There is none.
    None,
    /// The first of these that the table has.
    Usual(&'static [&'static str]),
    Named(String),
}

/// How tables are written, as far as the user says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Layout {
    /// By the extension of the table if not given.
    pub format: Option<TableFormat>,
    /// What stands between fields; as the first line has it if not given.
    pub delimiter: Option<char>,
    /// UTF-8 if not given. A byte-order mark decides before it.
    pub encoding: Option<&'static Encoding>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Input {
    /// The table, or a folder with `metadata.csv` in it or in its folders `train`, `validation` and `test`.
    pub path: PathBuf,
    /// The split that its rows are in; where it is not given, they say so themselves or are divided.
    pub split: Option<String>,
}

/// What to read, how, and where to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableOptions {
    /// One, or one or more for each split.
    pub inputs: Vec<Input>,
    #[serde(flatten)]
    pub layout: Layout,
    /// The column of audio paths.
    pub audio: Column,
    pub text: Column,
    /// The column of labels; without one the split is not stratified and the manifests have no labels.
    pub label: Column,
    /// The column of ids; without one an id is the audio file's name without its extension, or its path where two have the
    /// same name, or the row's place where there is no audio.
    pub id: Option<String>,
    pub speaker: Option<String>,
    /// The column that says which split a row is in: nothing is drawn then.
    pub split: Option<String>,
    /// The channel that is read of every recording, whatever the table says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// The folder that audio paths are relative to; the table's own if not given.
    pub audio_root: Option<PathBuf>,
    /// The shares of train, dev and test; they sum to 1, and a share of 0 gives no file.
    pub fractions: [f64; 3],
    /// So many folds instead: each part is test once, and the next one dev.
    pub folds: Option<usize>,
    /// The same seed gives the same split.
    pub seed: u64,
    /// Columns whose values never cross splits: the speakers, to test on unheard ones.
    pub groups: Vec<String>,
    /// What the splits may share: every speaker says the same few sentences, for example.
    pub declared: Vec<Kind>,
}

impl TableOptions {
    /// The defaults: the usual columns; 80% train, 10% dev, 10% test; seed 1; no grouping.
    pub fn new(input: impl Into<PathBuf>) -> Self {
        Self {
            inputs: vec![Input { path: input.into(), split: None }],
            layout: Layout::default(),
            audio: Column::Usual(&["audio", "file_name"]),
            text: Column::Usual(&["text", "transcription", "sentence"]),
            label: Column::Usual(&["label"]),
            id: None,
            speaker: None,
            split: None,
            channel: None,
            audio_root: None,
            fractions: [0.8, 0.1, 0.1],
            folds: None,
            seed: 1,
            groups: Vec::new(),
            declared: Vec::new(),
        }
    }

    pub(super) fn wrong(&self, reason: impl Into<String>) -> DataError {
        let path = self.inputs.first().map(|input| input.path.clone()).unwrap_or_default();
        DataError::Table { path, reason: reason.into() }
    }

    /// The file that a cell of a table names.
    pub(super) fn audio_path(&self, table: &Path, cell: &str) -> PathBuf {
        self.audio_root.as_deref().or(table.parent()).unwrap_or(Path::new("")).join(cell)
    }
}

/// Reads the table and splits it.
///
/// # Errors
///
/// The options contradict each other, columns are missing, rows lack something (all of them are reported), or a split
/// would be empty.
pub fn prepare(
    options: &TableOptions,
    audio: &AudioOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Corpus, DataError> {
    check_options(options)?;
    let mut tables = Vec::new();
    for input in &options.inputs {
        for mut table in read_tables(&input.path, options.layout)? {
            if let Some(split) = &input.split {
                let split = part_name(split);
                if let Some(own) = table.part.replace(split.clone()).filter(|own| *own != split) {
                    let reason = format!("its folder says that it is {own}, --split that it is {split}");
                    return Err(DataError::Table { path: table.path, reason });
                }
            }
            tables.push(table);
        }
    }
    let sources = tables.iter().map(|table| table.path.clone()).collect();
    let TableItems { items, columns, mut notes } = items_of(options, tables, audio.skip_bad)?;
    let is_preset = items.iter().any(|item| item.part.is_some());
    if is_preset && (options.folds.is_some() || !options.groups.is_empty()) {
        let reason = "the table says which split each row is in, so that neither --folds nor --groups can be met; \
                      give one table without splits";
        return Err(options.wrong(reason));
    }
    let (items, skipped) = settle_items(items, audio, progress)?;
    let groups = groups(options, &items);
    let folds = if is_preset { vec![preset(items.clone())] } else { drawn(options, &items, &groups)? };
    let mut counts = Map::new();
    let empty = |item: &&Item| item.row.text.as_ref().is_some_and(|text| text.trim().is_empty());
    counts.insert("utterances".to_owned(), items.len().into());
    counts.insert("empty_texts".to_owned(), items.iter().filter(empty).count().into());
    for (key, lacks) in [
        ("without_audio", items.iter().filter(|item| item.row.audio.is_none()).count()),
        ("without_text", items.iter().filter(|item| item.row.text.is_none()).count()),
    ] {
        if lacks > 0 {
            counts.insert(key.to_owned(), lacks.into());
        }
    }
    counts.insert("columns".to_owned(), json!(columns));
    if !options.groups.is_empty() {
        counts.insert("groups".to_owned(), groups.iter().collect::<BTreeSet<_>>().len().into());
    }
    let (folds, mut found): (Vec<Fold>, Vec<Vec<String>>) =
        folds.into_iter().map(|fold| declare(fold, options, is_preset, &items)).unzip();
    // Of the first fold that has any: they say the same of all.
    found.retain(|notes| !notes.is_empty());
    notes.extend(found.into_iter().next().unwrap_or_default());
    Ok(Corpus {
        name: "table",
        protocol: if is_preset {
            "given".to_owned()
        } else {
            let kind = if options.groups.is_empty() { "stratified" } else { "grouped" };
            options.folds.map_or_else(|| kind.to_owned(), |folds| format!("{kind}, {folds} folds"))
        },
        options: serde_json::to_value(options).unwrap_or_default(),
        sources,
        folds,
        counts,
        notes,
        skipped,
    })
}

fn check_options(options: &TableOptions) -> Result<(), DataError> {
    if !are_shares(&options.fractions) {
        return Err(options.wrong("the shares of train, dev and test must be 0 to 1 and sum to 1, as 0.8, 0.1 and 0.1"));
    }
    if options.fractions[0] <= 0.0 {
        return Err(options.wrong("the share of train is 0; it must be above 0"));
    }
    if options.folds.is_some_and(|folds| !(3..=100).contains(&folds)) {
        return Err(options.wrong("there must be 3 to 100 folds: one part is test, one is dev, the others are train"));
    }
    if options.audio == Column::None && options.text == Column::None {
        return Err(options.wrong("neither an audio nor a text column is named; name at least one"));
    }
    let splits = options.inputs.iter().filter_map(|input| input.split.as_deref());
    if options.inputs.is_empty() || (options.inputs.len() > 1 && splits.clone().count() < options.inputs.len()) {
        return Err(options.wrong("name one table, or a split for each, as in --input a.csv --split train"));
    }
    if let Some(name) = splits.map(part_name).find(|name| !is_part_name(name)) {
        return Err(options.wrong(format!("`{name}` cannot be the name of a split; use letters, digits, - and _")));
    }
    Ok(())
}

fn settle_items(
    items: Vec<Item>,
    audio: &AudioOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<(Vec<Item>, Vec<Skipped>), DataError> {
    let (rows, rest): (Vec<Row>, Vec<_>) = items.into_iter().map(|item| (item.row, (item.groups, item.part))).unzip();
    let mut rest: HashMap<String, _> = rows.iter().map(|row| row.id.clone()).zip(rest).collect();
    let (rows, skipped) = settle(rows, audio, progress)?;
    let items = rows.into_iter().filter_map(|row| {
        let (groups, part) = rest.remove(&row.id)?;
        Some(Item { row, groups, part })
    });
    Ok((items.collect(), skipped))
}

/// What each item must stay with: the id of the first item that it is connected with.
fn groups(options: &TableOptions, items: &[Item]) -> Vec<String> {
    if options.groups.is_empty() {
        return items.iter().map(|item| item.row.id.clone()).collect();
    }
    let values: Vec<Vec<(usize, String)>> = items
        .iter()
        .map(|item| item.groups.iter().enumerate().filter_map(|(kind, value)| Some((kind, value.clone()?))).collect())
        .collect();
    connected(&values).into_iter().map(|first| items[first].row.id.clone()).collect()
}

fn preset(items: Vec<Item>) -> Fold {
    let mut parts: Vec<(String, Vec<Row>)> = PARTS.map(|name| (name.to_owned(), Vec::new())).to_vec();
    for item in items {
        let name = item.part.unwrap_or_else(|| "train".to_owned());
        match parts.iter_mut().find(|(found, _)| *found == name) {
            Some((_, rows)) => rows.push(item.row),
            None => parts.push((name, vec![item.row])),
        }
    }
    Fold { parts, shared: Vec::new() }
}

fn drawn(options: &TableOptions, items: &[Item], groups: &[String]) -> Result<Vec<Fold>, DataError> {
    let members: Vec<Member> = items
        .iter()
        .zip(groups)
        .map(|(item, group)| Member { label: item.row.label.as_deref().unwrap_or_default(), group })
        .collect();
    let draw = |shares: &[f64]| {
        if options.groups.is_empty() {
            stratified(&members, shares, options.seed, options.folds.is_some())
        } else {
            grouped(&members, shares, options.seed)
        }
    };
    let rows = |parts: &[usize], wanted: &dyn Fn(usize) -> bool| -> Vec<Row> {
        items.iter().zip(parts).filter(|(_, part)| wanted(**part)).map(|(item, _)| item.row.clone()).collect()
    };
    let folds: Vec<Fold> = if let Some(count) = options.folds {
        #[expect(clippy::cast_precision_loss, reason = "at most 100")]
        let parts = draw(&vec![1.0 / count as f64; count]);
        let fold = |test: usize| {
            let dev = (test + 1) % count;
            Fold::new([
                ("train", rows(&parts, &|part| part != test && part != dev)),
                ("dev", rows(&parts, &|part| part == dev)),
                ("test", rows(&parts, &|part| part == test)),
            ])
        };
        (0..count).map(fold).collect()
    } else {
        let parts = draw(&options.fractions);
        vec![Fold::new([0, 1, 2].map(|wanted| (PARTS[wanted], rows(&parts, &|part| part == wanted))))]
    };
    for (number, fold) in folds.iter().enumerate() {
        for ((name, rows), share) in fold.parts.iter().zip(options.fractions) {
            if rows.is_empty() && (share > 0.0 || options.folds.is_some()) {
                if !options.groups.is_empty() && groups.iter().collect::<BTreeSet<_>>().len() < parts_of(options) {
                    return Err(options.wrong(format!(
                        "rows that share any of {} are connected with nearly all others, so that too few groups are left \
                         for the splits; group by fewer columns, and declare what all share, as with --declare-shared text",
                        options.groups.join(", ")
                    )));
                }
                let what = if options.groups.is_empty() { "utterances" } else { "utterances in their groups" };
                return Err(options.wrong(options.folds.map_or_else(
                    || {
                        let count = items.len();
                        format!(
                            "{count} {what} leave {name} empty at a share of {share}; give {name} a larger share, or 0"
                        )
                    },
                    |_| {
                        format!("{} {what} leave {name} of fold {} empty; ask for fewer folds", items.len(), number + 1)
                    },
                )));
            }
        }
    }
    Ok(folds)
}

/// How many splits there must be.
fn parts_of(options: &TableOptions) -> usize {
    options.folds.unwrap_or_else(|| options.fractions.iter().filter(|share| **share > 0.0).count())
}

/// Whether the groups that there would be, if what is shared were kept apart too, are too few for the splits.
fn cannot_be_apart(kind: Kind, options: &TableOptions, items: &[Item]) -> bool {
    let values: Vec<Vec<(usize, String)>> = items
        .iter()
        .map(|item| {
            let own = match kind {
                Kind::Speaker => item.row.speaker.clone(),
                Kind::Text => overlap::plain_text(&item.row),
                Kind::Audio => None,
            };
            let groups = item.groups.iter().chain([&own]).cloned().enumerate();
            groups.filter_map(|(kind, value)| Some((kind, value?))).collect()
        })
        .collect();
    connected(&values).into_iter().collect::<BTreeSet<_>>().len() < parts_of(options)
}

/// Declares what the splits share as far as that is known or meant: the user's own words, and the speakers of a drawn
/// split that are no groups. And what to say of all that is shared.
fn declare(mut fold: Fold, options: &TableOptions, is_preset: bool, items: &[Item]) -> (Fold, Vec<String>) {
    let parts: Vec<overlap::Part> = fold.parts.iter().map(|(name, rows)| overlap::Part { name, rows }).collect();
    let contents = content::known_by(content::paths(parts.iter().map(|part| part.rows)), true);
    let piece = |row: &Row| Some(overlap::Piece::of(row, contents.get(row.audio.as_ref()?)?.clone()));
    let shared = overlap::find(&parts, &[], &piece, &|_, _| false);
    let filled: Vec<&str> = parts.iter().filter(|part| !part.rows.is_empty()).map(|part| part.name).collect();
    let mut declared: Vec<Declaration> = options
        .declared
        .iter()
        .flat_map(|kind| {
            let reason = format!("as meant, by --declare-shared {}", kind.word());
            Declaration::every_pair(*kind, &filled, &reason)
        })
        .collect();
    let reason = if options.groups.is_empty() {
        "the split is stratified by label, not by speaker".to_owned()
    } else {
        format!("the split keeps {} apart, not the speakers", options.groups.join(", "))
    };
    let mut notes = Vec::new();
    for overlap in &shared {
        let [left, right] = overlap.splits.each_ref().map(String::as_str);
        let what = format!("{left} and {right} share {} {}", overlap.values, overlap.noun());
        if options.declared.contains(&overlap.kind) {
            notes.push(format!("{what}, as declared"));
            continue;
        }
        let hint = match overlap.kind {
            Kind::Audio => "the table names a recording twice".to_owned(),
            _ if is_preset => "the splits are given".to_owned(),
            kind if cannot_be_apart(kind, options, items) => format!(
                "they cannot be kept apart, since that leaves too few groups; if that is meant, --declare-shared {} writes \
                 it into split.json",
                kind.word()
            ),
            Kind::Speaker => "--groups with the speakers' column keeps them apart".to_owned(),
            Kind::Text => "--groups with the texts' column keeps them apart".to_owned(),
        };
        notes.push(format!("{what}; {hint}"));
        if !is_preset && overlap.kind == Kind::Speaker {
            declared.push(Declaration::new(overlap.kind, [left, right], &reason));
        }
    }
    fold.shared = declared;
    (fold, notes)
}

/// The name of a split as this program calls it.
pub(super) fn part_name(given: &str) -> String {
    match given.trim().to_lowercase().as_str() {
        "train" | "training" => "train".to_owned(),
        "dev" | "devel" | "development" | "valid" | "validation" | "val" => "dev".to_owned(),
        "test" | "testing" => "test".to_owned(),
        _ => given.trim().to_owned(),
    }
}

/// Whether a manifest can have this name.
pub(super) fn is_part_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || "-_".contains(letter))
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small made-up numbers")]
mod tests;
