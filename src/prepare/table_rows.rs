//! The records of tables become utterances.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::data::DataError;
use crate::data::manifest::Row;
use crate::splits::overlap::plain;

use super::table::{Column, SPLITS, TableOptions, is_part_name, part_name};
use super::table_reader::{Record, Table};

/// Keys of a manifest that a column of the same name fills.
const RESERVED: [&str; 9] = ["id", "audio", "text", "label", "speaker", "group", "start", "end", "duration"];

/// An utterance and what must stay with it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub row: Row,
    /// Its values in the columns to group by, in their order; none where there is no text.
    pub groups: Vec<Option<String>>,
    /// The split that the table puts it in.
    pub part: Option<String>,
}

/// The columns that serve a purpose, once the table is known.
struct Columns {
    audio: Option<String>,
    text: Option<String>,
    label: Option<String>,
}

/// Every row of the tables as an utterance, sorted by id; and which columns were taken. A missing audio file is an
/// error here, beside the others, unless it may be missing.
pub(super) fn rows_of(
    options: &TableOptions,
    tables: Vec<Table>,
    may_lack_audio: bool,
) -> Result<(Vec<Item>, BTreeMap<&'static str, String>), DataError> {
    let mut items = Vec::new();
    let mut first_lines: BTreeMap<String, String> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut taken = BTreeMap::new();
    for mut table in tables {
        let columns = columns_of(options, &table)?;
        let by_folder = parts_by_folder(&table, columns.audio.as_ref());
        for (role, column) in [("audio", &columns.audio), ("text", &columns.text), ("label", &columns.label)] {
            if let Some(column) = column {
                taken.insert(role, column.clone());
            }
        }
        let place = if table.part.is_some() { format!(" of {}", table.path.display()) } else { String::new() };
        for record in std::mem::take(&mut table.records) {
            let line = record.line;
            let wrong = |reason| DataError::TableRow { path: table.path.clone(), line, reason };
            let part = table.part.clone().or_else(|| by_folder.get(&line).cloned());
            match item_of(options, &columns, &table.path, part.as_deref(), record) {
                Ok(Item { row: Row { audio: Some(audio), .. }, .. }) if !may_lack_audio && !audio.is_file() => {
                    let hint = "correct the path, name the folder of the audio, or leave such rows out with --skip-bad";
                    problems.push(wrong(format!("no audio file {}; {hint}", audio.display())));
                }
                Ok(item) => {
                    if let Some(first) = first_lines.insert(item.row.id.clone(), format!("line {line}{place}")) {
                        let hint = if options.id.is_none() { "name an id column" } else { "make ids unique" };
                        problems.push(wrong(format!("the id `{}` is already used on {first}; {hint}", item.row.id)));
                    }
                    items.push(item);
                }
                Err(reasons) => problems.extend(reasons.into_iter().map(wrong)),
            }
        }
    }
    DataError::check(problems)?;
    if items.is_empty() {
        return Err(DataError::Table {
            path: options.input.clone(),
            reason: "the table has no rows; add one line for each utterance".to_owned(),
        });
    }
    items.sort_by(|left: &Item, right| left.row.id.cmp(&right.row.id));
    Ok((items, taken))
}

/// The split of each line of an audio folder's only table, where all its files lie in folders named after splits.
fn parts_by_folder(table: &Table, audio: Option<&String>) -> BTreeMap<usize, String> {
    let (true, Some(audio)) = (table.is_of_folder, audio) else { return BTreeMap::new() };
    let part = |record: &Record| {
        let path = text_of(record.cells.get(audio))?;
        let (folder, _) = path.split_once('/')?;
        let part = part_name(folder);
        SPLITS.contains(&part.as_str()).then_some((record.line, part))
    };
    table.records.iter().map(part).collect::<Option<_>>().unwrap_or_default()
}

fn columns_of(options: &TableOptions, table: &Table) -> Result<Columns, DataError> {
    let mut missing = Vec::new();
    let mut require = |role: &'static str, column: &str| {
        if table.columns.iter().any(|found| found == column) {
            return Some(column.to_owned());
        }
        missing.push(DataError::Column {
            path: table.path.clone(),
            column: column.to_owned(),
            role,
            found: table.columns.clone(),
        });
        None
    };
    let mut find = |role: &'static str, column: &Column| match column {
        Column::None => None,
        Column::Named(name) => require(role, name),
        Column::Usual(names) => {
            let found = names.iter().find(|name| table.columns.iter().any(|column| column == *name));
            found.or(names.first()).and_then(|name| require(role, name))
        }
    };
    let columns = Columns {
        audio: find("audio", &options.audio),
        text: find("text", &options.text),
        label: find("label", &options.label),
    };
    let named = [("id", &options.id), ("speaker", &options.speaker), ("split", &options.split)];
    for (role, column) in named {
        if let Some(column) = column {
            require(role, column);
        }
    }
    for column in &options.groups {
        require("grouping", column);
    }
    DataError::check(missing)?;
    Ok(columns)
}

fn item_of(
    options: &TableOptions,
    columns: &Columns,
    path: &Path,
    part: Option<&str>,
    mut record: Record,
) -> Result<Item, Vec<String>> {
    let mut reasons = Vec::new();
    // Copied, since one column may serve two purposes (the speaker, and what to group by).
    let mut cell = |column: Option<&String>, role: &str| -> Option<String> {
        let column = column?;
        let value = text_of(record.cells.get(column)).filter(|value| !value.is_empty());
        if value.is_none() {
            reasons.push(format!("no {role} in column `{column}`; fill it in or remove the row"));
        }
        value
    };
    // Where an utterance has a text and an id, it may lack a recording, as any manifest's.
    let text = columns.text.as_ref().and_then(|column| text_of(record.cells.get(column)));
    let may_lack_audio = options.id.is_some() && text.as_ref().is_some_and(|text| !text.trim().is_empty());
    let has_audio = columns
        .audio
        .as_ref()
        .is_some_and(|column| text_of(record.cells.get(column)).is_some_and(|audio| !audio.is_empty()));
    let audio = if has_audio || !may_lack_audio { cell(columns.audio.as_ref(), "audio") } else { None };
    let label = cell(columns.label.as_ref(), "label");
    let given_id = cell(options.id.as_ref(), "id");
    let speaker = cell(options.speaker.as_ref(), "speaker");
    let named_part = cell(options.split.as_ref(), "split").map(|name| part_name(&name));
    // Texts are the same where `clasp check` says so.
    let group = |column: &String| match &columns.text {
        Some(found) if found == column => text.as_deref().and_then(plain),
        _ => cell(Some(column), "group"),
    };
    let groups: Vec<Option<String>> = options.groups.iter().map(group).collect();
    if let Some(name) = named_part.as_ref().filter(|name| !is_part_name(name)) {
        reasons.push(format!("`{name}` cannot be the name of a split; use letters, digits, - and _"));
    }
    let used = [&columns.audio, &columns.text, &columns.label, &options.id, &options.speaker, &options.split];
    for column in used.into_iter().flatten() {
        record.cells.shift_remove(column);
    }
    let audio = audio.map(|audio| {
        let root = options.audio_root.as_deref().or(path.parent()).unwrap_or(Path::new(""));
        root.join(audio)
    });
    let stem = || audio.as_ref().and_then(|audio| audio.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    let id = given_id.or_else(stem).unwrap_or_default();
    let mut row = Row { id, audio, text, label, speaker, line: record.line, ..Row::default() };
    fill_rest(&mut row, record.cells, &mut reasons);
    // The group that the split respects is stated in the manifest, unless the table has another idea of a group.
    if let ([column], [Some(group)]) = (options.groups.as_slice(), groups.as_slice())
        && row.group.is_none()
        && options.speaker.as_ref() != Some(column)
        && columns.text.as_ref() != Some(column)
    {
        row.group = Some(group.clone());
    }
    let part = part.map(str::to_owned).or(named_part);
    if reasons.is_empty() { Ok(Item { row, groups, part }) } else { Err(reasons) }
}

/// Columns that were not named: those with a manifest's names fill its keys, the others are carried along.
fn fill_rest(row: &mut Row, cells: Map<String, Value>, reasons: &mut Vec<String>) {
    for (column, value) in cells {
        let text = text_of(Some(&value)).filter(|text| !text.is_empty());
        match column.as_str() {
            "speaker" if row.speaker.is_none() => row.speaker = text,
            "group" => row.group = text,
            "start" | "end" | "duration" => {
                let Some(text) = text else { continue };
                let Some(seconds) = text.trim().parse::<f64>().ok().filter(|seconds| seconds.is_finite()) else {
                    reasons.push(format!("`{text}` in column `{column}` is no number of seconds; correct it"));
                    continue;
                };
                match column.as_str() {
                    "start" => row.start = Some(seconds),
                    "end" => row.end = Some(seconds),
                    _ => row.duration = Some(seconds),
                }
            }
            // The column is not the one that was named for this purpose, so it is carried under another name.
            name if RESERVED.contains(&name) => {
                row.extra.insert(format!("table_{name}"), value);
            }
            _ => {
                row.extra.insert(column, value);
            }
        }
    }
    let start = row.start.unwrap_or(0.0);
    if start < 0.0 || row.end.is_some_and(|end| end <= start) || row.duration.is_some_and(|duration| duration <= 0.0) {
        reasons.push("start, end and duration must be 0 or more, with end after start; correct them".to_owned());
    }
}

/// A cell as text: numbers and truth values of JSON as they are written.
fn text_of(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        number @ (Value::Number(_) | Value::Bool(_)) => Some(number.to_string()),
        _ => None,
    }
}
