//! Reads the JSON records of the corpus, and the table of its type-based split.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{MagpieOptions, PUBLISHED};
use crate::data::DataError;
use crate::data::manifest::{self, Row};
use crate::prepare::reading::{self, Reading};
use crate::splits::PARTS;

/// The columns of the table.
const COLUMNS: [&str; 7] = ["split", "label", "idiom", "idiom_token", "sentence", "sentence_marked", "context"];

/// An utterance of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub line: usize,
    /// None in the table, which has no ids.
    pub id: Option<String>,
    pub text: String,
    /// `i`, `l`, `f`, `o` or `?`.
    pub code: &'static str,
    pub part: Option<&'static str>,
    pub confidence: Option<f64>,
    /// Whether the file says where in the text the idiom is, and it is there.
    pub has_span: bool,
    pub extra: Map<String, Value>,
}

/// What is wrong in which line.
pub(super) type Wrong = (usize, String);

/// A JSON record. What only some files have, or nothing depends on, may be missing.
#[derive(Deserialize)]
struct Record {
    id: Value,
    idiom: String,
    label: String,
    context: Vec<String>,
    offsets: Option<Value>,
    confidence: Option<f64>,
    split: Option<String>,
    genre: Option<Value>,
    variant_type: Option<Value>,
    document_id: Option<Value>,
    sentence_no: Option<Value>,
}

/// The rows that have a label and enough confidence, and the part of each by id where the files say it.
pub(super) fn read(options: &MagpieOptions) -> Result<(Reading, HashMap<String, &'static str>), DataError> {
    // Numbers are counted over all tables, so the order in which a shell gives the files must not matter.
    let mut paths = options.input.clone();
    paths.sort_unstable();
    let mut kept = Kept::default();
    let mut problems = Vec::new();
    for path in &paths {
        let bytes = reading::read(path)?;
        let bytes = unpacked(path, &bytes)?;
        let (items, wrong) = if is_table(path) { table(&bytes) } else { records(&bytes) };
        let wrong = wrong.into_iter().chain(items.into_iter().filter_map(|item| kept.add(item, path, options).err()));
        problems.extend(wrong.map(|(line, reason)| DataError::TableRow { path: path.clone(), line, reason }));
    }
    DataError::check(problems)?;
    if kept.places.is_empty() {
        let reason = "no rows; name the files of MAGPIE".to_owned();
        return Err(DataError::Table { path: paths[0].clone(), reason });
    }
    Ok(kept.done(paths))
}

#[derive(Default)]
struct Kept {
    rows: Vec<Row>,
    part_of: HashMap<String, &'static str>,
    places: HashMap<String, (PathBuf, usize)>,
    by_label: BTreeMap<&'static str, usize>,
    /// Rows of tables so far, by part.
    numbers: BTreeMap<&'static str, usize>,
    unsure: usize,
    without_span: usize,
}

impl Kept {
    fn add(&mut self, item: Item, path: &Path, options: &MagpieOptions) -> Result<(), Wrong> {
        let line = item.line;
        let id = item.id.unwrap_or_else(|| {
            let part = item.part.unwrap_or_default();
            let number = self.numbers.entry(part).or_default();
            *number += 1;
            format!("{part}-{number:05}")
        });
        if let Some((first, number)) = self.places.insert(id.clone(), (path.to_path_buf(), line)) {
            let reason = format!("`{id}` is already in {}, line {number}; name every row once", first.display());
            return Err((line, reason));
        }
        *self.by_label.entry(item.code).or_default() += 1;
        let label = match item.code {
            "i" => "figurative",
            "l" => "literal",
            _ => return Ok(()),
        };
        if let Some(least) = options.min_confidence {
            let Some(confidence) = item.confidence else {
                return Err((line, format!("`{id}` has no confidence; leave the least confidence out")));
            };
            if confidence < least {
                self.unsure += 1;
                return Ok(());
            }
        }
        self.without_span += usize::from(!item.has_span);
        if let Some(part) = item.part {
            self.part_of.insert(id.clone(), part);
        }
        let text = Some(item.text);
        self.rows.push(Row { id, text, label: Some(label.to_owned()), extra: item.extra, line, ..Row::default() });
        Ok(())
    }

    fn done(mut self, sources: Vec<PathBuf>) -> (Reading, HashMap<String, &'static str>) {
        self.rows.sort_by(|left, right| left.id.cmp(&right.id));
        let mut notes = Vec::new();
        let others: usize = self.by_label.iter().filter(|(code, _)| !["i", "l"].contains(*code)).map(|(_, n)| n).sum();
        if others > 0 {
            notes.push(format!("rows that are neither idiomatic nor literal (f, o, ?), left out: {others}"));
        }
        if self.unsure > 0 {
            notes.push(format!("rows below the least confidence, left out: {}", self.unsure));
        }
        if self.without_span > 0 {
            notes.push(format!("rows that do not say where the idiom is, kept without `span`: {}", self.without_span));
        }
        let is_unfiltered = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("MAGPIE_unfiltered"))
        };
        if sources.iter().all(is_unfiltered) {
            let found = |code: &str| self.by_label.get(code).copied().unwrap_or_default();
            let items = PUBLISHED.map(|(code, published)| (code, found(code), published));
            notes.extend(reading::difference("rows of MAGPIE_unfiltered by label", items));
        }
        let mut counts = Map::new();
        counts.insert("rows".to_owned(), self.places.len().into());
        counts.insert("by_label".to_owned(), json!(self.by_label));
        counts.insert("below_confidence".to_owned(), self.unsure.into());
        counts.insert("kept".to_owned(), self.rows.len().into());
        (Reading { rows: self.rows, sources, counts, notes }, self.part_of)
    }
}

fn is_table(path: &Path) -> bool {
    let is = |path: &Path, word: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(word));
    is(path, "tsv") || (is(path, "gz") && path.file_stem().is_some_and(|stem| is(Path::new(stem), "tsv")))
}

/// The content of a gzip file; other files as they are.
fn unpacked<'a>(path: &Path, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, DataError> {
    if !bytes.starts_with(&[0x1F, 0x8B]) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut content = Vec::new();
    match flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut content) {
        Ok(_) => Ok(Cow::Owned(content)),
        Err(error) => {
            let reason = format!("cannot be unpacked ({error}); fetch the file again");
            Err(DataError::Table { path: path.to_path_buf(), reason })
        }
    }
}

/// Reads JSON Lines, or a file that is one record or an array of them.
pub(super) fn records(bytes: &[u8]) -> (Vec<Item>, Vec<Wrong>) {
    let lines = manifest::lines(bytes);
    let is_record = |line: &[u8]| serde_json::from_slice::<Map<String, Value>>(line).is_ok();
    let is_lines = lines.first().is_some_and(|(_, line)| is_record(line));
    let whole = if is_lines { None } else { serde_json::from_slice::<Value>(bytes).ok() };
    let results: Vec<Result<Item, Wrong>> = match whole {
        Some(Value::Array(values)) => values
            .into_iter()
            .enumerate()
            .map(|(i, value)| record(1, value).map_err(|(line, reason)| (line, format!("record {}: {reason}", i + 1))))
            .collect(),
        Some(value) => vec![record(1, value)],
        None => lines
            .into_iter()
            .map(|(line, text)| match serde_json::from_slice(text) {
                Ok(value) => record(line, value),
                Err(error) => {
                    Err((line, format!("not valid JSON (column {}); write one record a line", error.column())))
                }
            })
            .collect(),
    };
    sorted_out(results)
}

fn sorted_out(results: Vec<Result<Item, Wrong>>) -> (Vec<Item>, Vec<Wrong>) {
    let (mut items, mut wrong) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(item) => items.push(item),
            Err(problem) => wrong.push(problem),
        }
    }
    (items, wrong)
}

fn record(line: usize, value: Value) -> Result<Item, Wrong> {
    let wrong = |reason: String| (line, reason);
    let record: Record = serde_json::from_value(value)
        .map_err(|error| wrong(format!("not a record of MAGPIE ({error}); copy the file from the corpus again")))?;
    let id = match &record.id {
        Value::Number(number) => number.to_string(),
        Value::String(text) if !text.is_empty() => text.clone(),
        other => return Err(wrong(format!("`id` is {other}; it must be a number"))),
    };
    let Some(text) = record.context.get(2).cloned() else {
        let number = record.context.len();
        return Err(wrong(format!("`context` has {number} sentences; the third one is needed, which has the idiom")));
    };
    let code = code(&record.label).map_err(wrong)?;
    let part = record.split.as_deref().map(part).transpose().map_err(wrong)?;
    let span = record.offsets.and_then(|offsets| span(&offsets, &text));
    let has_span = span.is_some();
    let keys = [
        ("idiom", Some(record.idiom.into())),
        ("span", span),
        ("context", Some(record.context.into())),
        ("confidence", record.confidence.map(Value::from)),
        ("genre", record.genre),
        ("variant_type", record.variant_type),
        ("document_id", record.document_id),
        ("sentence_no", record.sentence_no),
    ];
    let extra = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    let id = Some(format!("magpie-{id}"));
    Ok(Item { line, id, text, code, part, confidence: record.confidence, has_span, extra })
}

fn code(label: &str) -> Result<&'static str, String> {
    match label {
        "i" | "idiomatic" => Ok("i"),
        "l" | "literal" => Ok("l"),
        "f" => Ok("f"),
        "o" => Ok("o"),
        "?" => Ok("?"),
        other => Err(format!("unknown label `{other}`; it must be one of i, l, f, o, ?, idiomatic, literal")),
    }
}

fn part(split: &str) -> Result<&'static str, String> {
    match split {
        "training" | "train" => Ok(PARTS[0]),
        "development" | "dev" => Ok(PARTS[1]),
        "test" => Ok(PARTS[2]),
        other => Err(format!("unknown split `{other}`; it must be training, development or test")),
    }
}

/// `[[start, end), ...]` in characters; none unless each is a piece of the text.
fn span(offsets: &Value, text: &str) -> Option<Value> {
    let spans: Vec<[usize; 2]> = serde_json::from_value(offsets.clone()).ok()?;
    let length = text.chars().count();
    let is_there = !spans.is_empty() && spans.iter().all(|[start, end]| start < end && *end <= length);
    is_there.then(|| json!(spans))
}

/// Reads the table: fields between tabs, in quotation marks where they hold such marks or line ends.
pub(super) fn table(bytes: &[u8]) -> (Vec<Item>, Vec<Wrong>) {
    let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').flexible(true).has_headers(false).from_reader(bytes);
    let mut places: Option<[usize; 7]> = None;
    let mut results = Vec::new();
    for result in reader.byte_records() {
        let record = match result {
            Ok(record) => record,
            Err(error) => {
                results.push(Err((1, format!("{error}; correct the table"))));
                break;
            }
        };
        let line = record.position().and_then(|position| usize::try_from(position.line()).ok()).unwrap_or(1);
        let fields: Option<Vec<&str>> = record.iter().map(|field| std::str::from_utf8(field).ok()).collect();
        let Some(fields) = fields else {
            results.push(Err((line, "not valid UTF-8; save the file as UTF-8".to_owned())));
            continue;
        };
        if let Some(places) = places {
            results.push(table_row(line, &fields, places));
            continue;
        }
        let mut found = [0; 7];
        for (place, column) in found.iter_mut().zip(COLUMNS) {
            match fields.iter().position(|field| *field == column) {
                Some(position) => *place = position,
                None => results.push(Err((line, format!("no column `{column}`; the first line must name it")))),
            }
        }
        if !results.is_empty() {
            break;
        }
        places = Some(found);
    }
    sorted_out(results)
}

fn table_row(line: usize, fields: &[&str], places: [usize; 7]) -> Result<Item, Wrong> {
    let wrong = |reason: String| (line, reason);
    if places.iter().any(|place| *place >= fields.len()) {
        let number = fields.len();
        return Err(wrong(format!(
            "only {number} fields; put quotation marks around fields that hold tabs or line ends"
        )));
    }
    let [split, label, idiom, token, sentence, marked, context] = places.map(|place| fields[place]);
    let part = part(split).map_err(wrong)?;
    let code = code(label).map_err(wrong)?;
    // Some end in a line end.
    let text = sentence.trim_end();
    let span = marked_span(text, marked, token);
    let has_span = span.is_some();
    let keys =
        [("idiom", Some(idiom.into())), ("span", span.map(|span| json!([span]))), ("context", Some(context.into()))];
    let extra = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    Ok(Item { line, id: None, text: text.to_owned(), code, part: Some(part), confidence: None, has_span, extra })
}

/// Where the idiom is, in characters: `marked` is the text with a token in its place.
pub(super) fn marked_span(text: &str, marked: &str, token: &str) -> Option<[usize; 2]> {
    let (before, after) = marked.split_once(token).filter(|_| !token.is_empty())?;
    let idiom = text.strip_prefix(before)?.strip_suffix(after.trim_end()).filter(|idiom| !idiom.is_empty())?;
    let start = before.chars().count();
    Some([start, start + idiom.chars().count()])
}
