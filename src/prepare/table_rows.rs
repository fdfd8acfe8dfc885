//! The records of tables become utterances.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::data::DataError;
use crate::data::audio::Channel;
use crate::data::manifest::Row;
use crate::data::names::{self, FileNames, normal};
use crate::splits::PARTS;
use crate::splits::overlap::plain;

use super::table::{Column, TableOptions, is_part_name, part_name};
use super::table_reader::{Record, Table};

/// Keys of a manifest that a column of the same name fills.
const RESERVED: [&str; 9] = ["id", "audio", "text", "label", "speaker", "group", "start", "end", "duration"];

/// The column of the ids where none is named and there is no audio.
const ID: &str = "id";

/// An utterance and what must stay with it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub row: Row,
    /// Its values in the columns to group by, in their order; `None` if there is no text.
    pub groups: Vec<Option<String>>,
    /// The split that the table puts it in.
    pub part: Option<String>,
}

/// The columns that serve a purpose, once the table is known.
struct Columns {
    audio: Option<String>,
    text: Option<String>,
    label: Option<String>,
    id: Option<String>,
    speaker: Option<String>,
    split: Option<String>,
    groups: Vec<String>,
}

/// What the tables hold.
pub(super) struct TableItems {
    /// Every row as an utterance, sorted by id.
    pub items: Vec<Item>,
    /// Which columns were taken for what.
    pub columns: BTreeMap<&'static str, String>,
    pub notes: Vec<String>,
}

/// Every row of the tables as an utterance. A missing audio file is an error here, beside the others, unless it may be
/// missing.
pub(super) fn items_of(
    options: &TableOptions,
    tables: Vec<Table>,
    may_lack_audio: bool,
) -> Result<TableItems, DataError> {
    let mut items = Vec::new();
    let mut places = Vec::new();
    let mut problems = Vec::new();
    let mut taken = BTreeMap::new();
    let mut notes = Vec::new();
    let mut files = FileNames::default();
    let base = common_folder(options, &tables);
    let has_several = tables.len() > 1;
    for mut table in tables {
        let columns = columns_of(options, &table)?;
        let by_folder = parts_by_folder(&table, columns.audio.as_ref());
        for (role, column) in [("audio", &columns.audio), ("text", &columns.text), ("label", &columns.label)] {
            if let Some(column) = column {
                taken.insert(role, column.clone());
            }
        }
        let place = if has_several { format!(" of {}", table.path.display()) } else { String::new() };
        notes.extend(table.notes.iter().map(|note| format!("{note}{place}")));
        let records = std::mem::take(&mut table.records);
        let labels: BTreeSet<String> =
            records.iter().filter_map(|record| record.text(columns.label.as_ref())).collect();
        for record in records {
            let line = record.line;
            let wrong = |reason| DataError::TableRow { path: table.path.clone(), line, reason };
            if let Some(lines) = record.swallowed(options, &columns, &table.path, &labels) {
                let reason = format!(
                    "a quotation mark opens a field that ends {lines} {} below, each of which reads as a row; remove the \
                     mark",
                    if lines == 1 { "line" } else { "lines" }
                );
                problems.push(wrong(reason));
                continue;
            }
            let part = table.part.clone().or_else(|| by_folder.get(&line).cloned());
            match item_of(options, &columns, &table.path, part.as_deref(), record, &mut files) {
                Ok(Item { row: Row { audio: Some(audio), .. }, .. }) if !may_lack_audio && !audio.is_file() => {
                    let hint = names::similar(&audio).map_or_else(
                        || {
                            "correct the path, name the folder of the audio, or leave such rows out with --skip-bad"
                                .into()
                        },
                        |found| format!("there is {}; correct the path", found.display()),
                    );
                    problems.push(wrong(format!("no audio file {}; {hint}", audio.display())));
                }
                Ok(item) => {
                    places.push((table.path.clone(), line, format!("line {line}{place}")));
                    items.push(item);
                }
                Err(reasons) => problems.extend(reasons.into_iter().map(wrong)),
            }
        }
    }
    name(&mut items, &base);
    let mut first_places: BTreeMap<&str, &String> = BTreeMap::new();
    for (item, (path, line, place)) in items.iter().zip(&places) {
        if let Some(first) = first_places.insert(&item.row.id, place) {
            let hint = if options.id.is_none() { "name an id column" } else { "make ids unique" };
            let reason = format!("the id `{}` is already used on {first}; {hint}", item.row.id);
            problems.push(DataError::TableRow { path: path.clone(), line: *line, reason });
        }
    }
    DataError::check(problems)?;
    if items.is_empty() {
        return Err(options.wrong("the table has no rows; add one line for each utterance"));
    }
    items.sort_by(|left: &Item, right| left.row.id.cmp(&right.row.id));
    Ok(TableItems { items, columns: taken, notes })
}

/// The folder that all audio paths are relative to: the one given, else that of the table, or above all of them.
fn common_folder(options: &TableOptions, tables: &[Table]) -> PathBuf {
    let mut folders = tables.iter().map(|table| table.path.parent().unwrap_or(Path::new("")));
    let first = options.audio_root.as_deref().or(folders.next()).unwrap_or(Path::new(""));
    let is_above =
        |folder: &&Path| options.audio_root.is_some() || folders.clone().all(|path| path.starts_with(folder));
    first.ancestors().find(is_above).unwrap_or(Path::new("")).to_path_buf()
}

/// Gives ids to items that have none: the names of their audio files; where two files have the same, their paths in the
/// folder `base`; without audio the split and the place in the table.
fn name(items: &mut [Item], base: &Path) {
    let names: [fn(&Path, &Path) -> String; 3] = [
        |path, _| path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        |path, base| slashed(&path.strip_prefix(base).unwrap_or(path).with_extension("")),
        |path, base| slashed(path.strip_prefix(base).unwrap_or(path)),
    ];
    let tells_apart = |name: &&fn(&Path, &Path) -> String| {
        let mut files: BTreeMap<String, &Path> = BTreeMap::new();
        items
            .iter()
            .filter(|item| item.row.id.is_empty())
            .filter_map(|item| item.row.audio.as_deref())
            .all(|path| *files.entry(normal(&name(path, base))).or_insert(path) == path)
    };
    let name = names.iter().find(tells_apart).unwrap_or(&names[2]);
    let digits = items.len().to_string().len();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for item in items.iter_mut().filter(|item| item.row.id.is_empty()) {
        item.row.id = item.row.audio.as_deref().map_or_else(
            || {
                let part = item.part.clone().unwrap_or_else(|| "row".to_owned());
                let count = counts.entry(part.clone()).or_default();
                *count += 1;
                format!("{part}-{count:0digits$}")
            },
            |audio| normal(&name(audio, base)),
        );
    }
}

/// A path with `/` between its parts, whatever the system has, and without those that say nothing.
fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.components().filter(|part| *part != Component::CurDir).collect();
    parts.iter().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

impl Record {
    /// A cell as a name: trimmed and in one form; `None` if nothing is in it.
    fn text(&self, column: Option<&String>) -> Option<String> {
        text_of(self.cells.get(column?)).map(|text| normal(&text)).filter(|text| !text.is_empty())
    }

    /// How many lines a quoted field took in that are rows of their own: each of its lines has as many fields as there are
    /// columns, and a recording, or where there are none a known label, in the right one.
    fn swallowed(
        &self,
        options: &TableOptions,
        columns: &Columns,
        table: &Path,
        labels: &BTreeSet<String>,
    ) -> Option<usize> {
        let below = self.lines.len().checked_sub(1)?;
        let cell =
            |cells: &Map<String, Value>, column: &String| normal(&text_of(cells.get(column)).unwrap_or_default());
        let is_row = |cells: &Map<String, Value>| match (&columns.audio, &columns.label) {
            (Some(audio), _) => {
                let (here, own) = (cell(cells, audio), self.text(Some(audio)).unwrap_or_default());
                let extension = Path::new(&here).extension();
                let is_alike = extension.is_some() && extension == Path::new(&own).extension();
                !here.is_empty() && (is_alike || options.audio_path(table, &here).is_file())
            }
            (None, Some(label)) => labels.contains(&cell(cells, label)),
            (None, None) => false,
        };
        self.lines.iter().all(is_row).then_some(below)
    }
}

/// The split of each line of an audio folder's only table, where all its files lie in folders named after splits.
fn parts_by_folder(table: &Table, audio: Option<&String>) -> BTreeMap<usize, String> {
    let (true, Some(audio)) = (table.is_of_folder, audio) else { return BTreeMap::new() };
    let part = |record: &Record| {
        let path = text_of(record.cells.get(audio))?;
        let (folder, _) = path.trim().split_once('/')?;
        let part = part_name(folder);
        PARTS.contains(&part.as_str()).then_some((record.line, part))
    };
    table.records.iter().map(part).collect::<Option<_>>().unwrap_or_default()
}

fn columns_of(options: &TableOptions, table: &Table) -> Result<Columns, DataError> {
    let mut missing = Vec::new();
    let mut require = |role: &'static str, column: &str| {
        if let Some(found) = table.columns.iter().find(|found| *found == column || **found == normal(column)) {
            return Some(found.clone());
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
    let (audio, text, label) =
        (find("audio", &options.audio), find("text", &options.text), find("label", &options.label));
    // Where there is no audio to name an utterance after, the usual column does.
    let usual = || Some(ID.to_owned()).filter(|id| audio.is_none() && table.columns.contains(id));
    let mut named = |role, column: &Option<String>| column.as_ref().and_then(|column| require(role, column));
    let columns = Columns {
        id: named("id", &options.id.clone().or_else(usual)),
        speaker: named("speaker", &options.speaker),
        split: named("split", &options.split),
        groups: options.groups.iter().filter_map(|column| named("grouping", &Some(column.clone()))).collect(),
        audio,
        text,
        label,
    };
    DataError::check(missing)?;
    Ok(columns)
}

fn item_of(
    options: &TableOptions,
    columns: &Columns,
    path: &Path,
    part: Option<&str>,
    mut record: Record,
    files: &mut FileNames,
) -> Result<Item, Vec<String>> {
    let mut reasons = Vec::new();
    // Copied, since one column may serve two purposes (the speaker, and what to group by).
    let mut cell = |column: Option<&String>, role: &str| -> Option<String> {
        let column = column?;
        let value = record.text(Some(column));
        if value.is_none() {
            reasons.push(format!("no {role} in column `{column}`; fill it in or remove the row"));
        }
        value
    };
    // Where an utterance has a text and an id, it may lack a recording, as any manifest's.
    let text = columns.text.as_ref().and_then(|column| text_of(record.cells.get(column)));
    let may_lack_audio = columns.id.is_some() && text.as_ref().is_some_and(|text| !text.trim().is_empty());
    let has_audio = record.text(columns.audio.as_ref()).is_some();
    let audio = if has_audio || !may_lack_audio { cell(columns.audio.as_ref(), "audio") } else { None };
    let label = cell(columns.label.as_ref(), "label");
    let given_id = cell(columns.id.as_ref(), "id");
    let speaker = cell(columns.speaker.as_ref(), "speaker");
    let named_part = cell(columns.split.as_ref(), "split").map(|name| part_name(&name));
    // Texts are the same where `clasp check` says so.
    let group = |column: &String| match &columns.text {
        Some(found) if found == column => text.as_deref().and_then(plain),
        _ => cell(Some(column), "group"),
    };
    let groups: Vec<Option<String>> = columns.groups.iter().map(group).collect();
    if let Some(name) = named_part.as_ref().filter(|name| !is_part_name(name)) {
        reasons.push(format!("`{name}` cannot be the name of a split; use letters, digits, - and _"));
    }
    let used = [&columns.audio, &columns.text, &columns.label, &columns.id, &columns.speaker, &columns.split];
    for column in used.into_iter().flatten() {
        record.cells.shift_remove(column);
    }
    let audio = audio.map(|audio| files.find(options.audio_path(path, &audio)));
    let id = given_id.unwrap_or_default();
    let mut row = Row { id, audio, text, label, speaker, line: record.line, ..Row::default() };
    fill_rest(&mut row, record.cells, &mut reasons);
    if row.audio.is_some() {
        row.channel = options.channel.or(row.channel);
    }
    // The group that the split respects is stated in the manifest, unless the table has another idea of a group.
    if let ([column], [Some(group)]) = (columns.groups.as_slice(), groups.as_slice())
        && row.group.is_none()
        && columns.speaker.as_ref() != Some(column)
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
        let text = text_of(Some(&value)).map(|text| normal(&text)).filter(|text| !text.is_empty());
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
            "channel" if text.as_deref().is_some_and(|text| Channel::parse(text).is_some()) => {
                row.channel = text.as_deref().and_then(Channel::parse);
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
    } else if let Err(problem) = row.settle_piece() {
        reasons.push(problem.to_string());
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
