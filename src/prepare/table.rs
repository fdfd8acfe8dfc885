//! `clasp prepare table`: a CSV, TSV or JSON Lines table with audio, text and label columns becomes manifests with a
//! seeded, stratified split. Neither the order of the table's rows nor the machine changes who goes where.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::data::DataError;
use crate::data::manifest::{self, Row};

use super::split::split;
use super::table_reader::{Record, Table, read_table};

/// Keys of a manifest that a column of the same name fills.
const RESERVED: [&str; 9] = ["id", "audio", "text", "label", "speaker", "group", "start", "end", "duration"];

/// The names of the splits, in the order of the fractions.
pub const SPLITS: [&str; 3] = ["train", "dev", "test"];

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

/// What to read, how, and where to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableOptions {
    /// The table.
    pub input: PathBuf,
    /// How it is written; by the extension of `input` if not given.
    pub format: Option<TableFormat>,
    /// The column of audio paths.
    pub audio: Option<String>,
    /// The column of texts.
    pub text: Option<String>,
    /// The column of labels; without one the split is not stratified and the manifests have no labels.
    pub label: Option<String>,
    /// The column of ids; without one an id is the audio file's name without its extension.
    pub id: Option<String>,
    /// The column of speakers.
    pub speaker: Option<String>,
    /// The folder that audio paths are relative to; the table's own if not given.
    pub audio_root: Option<PathBuf>,
    /// The folder for the manifests; made if it is not there.
    pub output: PathBuf,
    /// The shares of train, dev and test; they sum to 1, and a share of 0 gives no file.
    pub fractions: [f64; 3],
    /// The same seed gives the same split.
    pub seed: u64,
    /// A column whose values never cross splits: the speakers, to test on unheard ones.
    pub group_by: Option<String>,
}

impl TableOptions {
    /// The defaults: columns `audio`, `text` and `label`; 80% train, 10% dev, 10% test; seed 1; no grouping.
    #[must_use]
    pub fn new(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            format: None,
            audio: Some("audio".to_owned()),
            text: Some("text".to_owned()),
            label: Some("label".to_owned()),
            id: None,
            speaker: None,
            audio_root: None,
            output: output.into(),
            fractions: [0.8, 0.1, 0.1],
            seed: 1,
            group_by: None,
        }
    }
}

/// What was made, for the command to print; also the content of `split.json` beside the options.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableReport {
    /// The manifests written.
    pub manifests: Vec<PathBuf>,
    /// Utterances by split.
    pub utterances: BTreeMap<String, usize>,
    /// Utterances by label, then split. Empty without a label column.
    pub labels: BTreeMap<String, BTreeMap<String, usize>>,
    /// Values of `group_by` in each split. Empty without grouping.
    pub groups: BTreeMap<String, usize>,
    /// Speakers that are in more than one split, where speakers are known.
    pub shared_speakers: Option<usize>,
    /// Utterances whose text is empty.
    pub empty_texts: usize,
    /// SHA-256 of the table, in hexadecimal.
    pub input_sha256: String,
}

/// Reads the table and writes `train.jsonl`, `dev.jsonl`, `test.jsonl` and `split.json`.
///
/// # Errors
///
/// The options contradict each other, columns are missing, rows lack something (all of them are reported), a split
/// would be empty, or a file cannot be written.
pub fn prepare(options: &TableOptions) -> Result<TableReport, DataError> {
    check_options(options)?;
    check_output(&options.output)?;
    let bytes = std::fs::read(&options.input).map_err(|error| DataError::file(&options.input, &error))?;
    let input_sha256: String = hexadecimal(&Sha256::digest(&bytes));
    let table = read_table(&options.input, &bytes, options.format)?;
    let items = rows_of(options, table)?;
    let splits = split(&items, options)?;

    let mut report = TableReport {
        manifests: Vec::new(),
        utterances: BTreeMap::new(),
        labels: BTreeMap::new(),
        groups: BTreeMap::new(),
        shared_speakers: shared_speakers(&items, &splits),
        empty_texts: items
            .iter()
            .filter(|item| item.row.text.as_ref().is_some_and(|text| text.trim().is_empty()))
            .count(),
        input_sha256,
    };
    std::fs::create_dir_all(&options.output).map_err(|error| DataError::file(&options.output, &error))?;
    for (place, name) in SPLITS.iter().enumerate() {
        let members: Vec<&Item> =
            items.iter().zip(&splits).filter(|(_, split)| **split == place).map(|(item, _)| item).collect();
        let path = options.output.join(format!("{name}.jsonl"));
        if members.is_empty() {
            // A file of an earlier split would silently be taken for a part of this one.
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DataError::file(&path, &error));
                }
                _ => continue,
            }
        }
        let rows: Vec<Row> = members.iter().map(|item| item.row.clone()).collect();
        manifest::write(&path, &rows)?;
        report.manifests.push(path);
        report.utterances.insert((*name).to_owned(), rows.len());
        for label in rows.iter().filter_map(|row| row.label.clone()) {
            *report.labels.entry(label).or_default().entry((*name).to_owned()).or_default() += 1;
        }
        if options.group_by.is_some() {
            let groups: BTreeSet<&str> = members.iter().map(|item| item.group.as_str()).collect();
            report.groups.insert((*name).to_owned(), groups.len());
        }
    }
    write_split(options, &report)?;
    Ok(report)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An utterance and what must stay with it.
pub(super) struct Item {
    /// The utterance.
    pub row: Row,
    /// What it is grouped by; its id where nothing is.
    pub group: String,
}

/// Manifests that somebody else put into the folder are left alone; those of an earlier call are replaced.
fn check_output(folder: &Path) -> Result<(), DataError> {
    let is_ours = folder.join("split.json").exists();
    match SPLITS.iter().map(|split| folder.join(format!("{split}.jsonl"))).find(|path| !is_ours && path.exists()) {
        None => Ok(()),
        Some(path) => Err(DataError::Table {
            path,
            reason: "it is there already, and no split.json beside it says that it was made by this command; choose \
                     another --output, or remove it"
                .to_owned(),
        }),
    }
}

fn check_options(options: &TableOptions) -> Result<(), DataError> {
    let wrong = |reason: &str| Err(DataError::Table { path: options.input.clone(), reason: reason.to_owned() });
    let is_share = |share: &f64| (0.0..=1.0).contains(share);
    if !options.fractions.iter().all(is_share) || (options.fractions.iter().sum::<f64>() - 1.0).abs() > 1e-6 {
        return wrong("the shares of train, dev and test must be 0 to 1 and sum to 1, as 0.8, 0.1 and 0.1");
    }
    if options.fractions[0] <= 0.0 {
        return wrong("the share of train is 0; give it more than nothing");
    }
    if options.audio.is_none() && options.text.is_none() {
        return wrong("neither an audio nor a text column is named; name at least one");
    }
    if options.id.is_none() && options.audio.is_none() {
        return wrong("without audio there are no file names to make ids from; name an id column");
    }
    Ok(())
}

/// Every row of the table as an utterance, sorted by id.
fn rows_of(options: &TableOptions, table: Table) -> Result<Vec<Item>, DataError> {
    let named = [
        ("audio", &options.audio),
        ("text", &options.text),
        ("label", &options.label),
        ("id", &options.id),
        ("speaker", &options.speaker),
        ("grouping", &options.group_by),
    ];
    let missing: Vec<DataError> = named
        .into_iter()
        .filter_map(|(role, column)| column.as_ref().map(|column| (role, column)))
        .filter(|(_, column)| !table.columns.contains(column))
        .map(|(role, column)| DataError::Column {
            path: options.input.clone(),
            column: column.clone(),
            role,
            found: table.columns.clone(),
        })
        .collect();
    DataError::check(missing)?;

    let mut items = Vec::with_capacity(table.records.len());
    let mut first_lines: BTreeMap<String, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for record in table.records {
        let line = record.line;
        match item_of(options, record) {
            Ok(item) => {
                if let Some(first) = first_lines.insert(item.row.id.clone(), line) {
                    let hint = if options.id.is_none() { "name an id column" } else { "make ids unique" };
                    let reason = format!("the id `{}` is already used on line {first}; {hint}", item.row.id);
                    problems.push(DataError::TableRow { path: options.input.clone(), line, reason });
                }
                items.push(item);
            }
            Err(reasons) => problems.extend(reasons.into_iter().map(|reason| DataError::TableRow {
                path: options.input.clone(),
                line,
                reason,
            })),
        }
    }
    DataError::check(problems)?;
    if items.is_empty() {
        return Err(DataError::Table {
            path: options.input.clone(),
            reason: "the table has no rows; add one line for each utterance".to_owned(),
        });
    }
    items.sort_by(|left, right| left.row.id.cmp(&right.row.id));
    Ok(items)
}

fn item_of(options: &TableOptions, mut record: Record) -> Result<Item, Vec<String>> {
    let mut reasons = Vec::new();
    // Copied, since one column may serve two purposes (the speaker, and what to group by).
    let mut cell = |column: &Option<String>, role: &str, may_be_empty: bool| -> Option<String> {
        let column = column.as_ref()?;
        let value = text_of(record.cells.get(column));
        if value.is_none() || (!may_be_empty && value.as_deref() == Some("")) {
            reasons.push(format!("no {role} in column `{column}`; fill it in or remove the row"));
            return None;
        }
        value
    };
    let audio = cell(&options.audio, "audio", false);
    let label = cell(&options.label, "label", false);
    let given_id = cell(&options.id, "id", false);
    let speaker = cell(&options.speaker, "speaker", false);
    let group = cell(&options.group_by, "group", false);
    let text = options.text.as_ref().map(|column| text_of(record.cells.get(column)).unwrap_or_default());
    let used = [&options.audio, &options.text, &options.label, &options.id, &options.speaker];
    for column in used.into_iter().flatten() {
        record.cells.shift_remove(column);
    }
    let audio = audio.map(|audio| {
        let root = options.audio_root.as_deref().or(options.input.parent()).unwrap_or(Path::new(""));
        root.join(audio)
    });
    if let Some(audio) = audio.as_ref().filter(|audio| !audio.is_file()) {
        reasons.push(format!("no audio file {}; correct the path or name the folder of the audio", audio.display()));
    }
    let stem = || audio.as_ref().and_then(|audio| audio.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    let id = given_id.or_else(stem).unwrap_or_default();
    let mut row = Row { id, audio, text, label, speaker, line: record.line, ..Row::default() };
    fill_rest(&mut row, record.cells, &mut reasons);
    // The group that the split respects is stated in the manifest, unless the table has another idea of a group.
    if row.group.is_none() && options.group_by != options.speaker {
        row.group.clone_from(&group);
    }
    let group = group.unwrap_or_else(|| row.id.clone());
    if reasons.is_empty() { Ok(Item { row, group }) } else { Err(reasons) }
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

fn shared_speakers(items: &[Item], splits: &[usize]) -> Option<usize> {
    let mut seen: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (item, split) in items.iter().zip(splits) {
        if let Some(speaker) = &item.row.speaker {
            seen.entry(speaker).or_default().insert(*split);
        }
    }
    if seen.is_empty() { None } else { Some(seen.values().filter(|splits| splits.len() > 1).count()) }
}

fn write_split(options: &TableOptions, report: &TableReport) -> Result<(), DataError> {
    let path = options.output.join("split.json");
    let failed = |error: serde_json::Error| DataError::file(&path, &error.into());
    let content = json!({
        "protocol": "table",
        "options": serde_json::to_value(options).map_err(failed)?,
        "input_sha256": report.input_sha256,
        "utterances": report.utterances,
        "labels": report.labels,
        "groups": report.groups,
        "empty_texts": report.empty_texts,
        // What the splits share by design: the reader of a score has to know.
        "shared": { "speakers": report.shared_speakers },
    });
    std::fs::write(&path, format!("{content:#}\n")).map_err(|error| DataError::file(&path, &error))
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small made-up numbers")]
mod tests {
    use super::*;

    struct Corpus {
        folder: tempfile::TempDir,
    }

    impl Corpus {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("wav")).unwrap();
            Self { folder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// A CSV of `count` rows, four speakers a label and a tail of rare labels.
        fn table(&self, count: usize) -> Vec<String> {
            let mut lines = Vec::new();
            for i in 0..count {
                let audio = format!("wav/u{i:03}.wav");
                std::fs::write(self.path(&audio), "x").unwrap();
                let label = ["sad", "sad", "sad", "happy", "angry"][i % 5];
                lines.push(format!("{audio},\"one, \"\"two\"\" {i}\",{label},s{},{i}", i % 11));
            }
            lines
        }

        fn options(&self, lines: &[String]) -> TableOptions {
            let input = self.path("table.csv");
            std::fs::write(&input, format!("path,words,label,who,turn\n{}\n", lines.join("\n"))).unwrap();
            TableOptions {
                audio: Some("path".to_owned()),
                text: Some("words".to_owned()),
                speaker: Some("who".to_owned()),
                ..TableOptions::new(input, self.path("out"))
            }
        }

        fn read(&self, name: &str) -> Vec<Row> {
            manifest::read(&self.path(&format!("out/{name}.jsonl"))).unwrap()
        }

        fn ids(&self) -> Vec<Vec<String>> {
            SPLITS.iter().map(|name| self.read(name).into_iter().map(|row| row.id).collect()).collect()
        }
    }

    #[test]
    fn every_label_is_within_one_of_its_share() {
        let corpus = Corpus::new();
        let report = prepare(&corpus.options(&corpus.table(103))).unwrap();
        for (label, total) in [("sad", 63.0), ("happy", 20.0), ("angry", 20.0)] {
            for (name, share) in SPLITS.iter().zip([0.8, 0.1, 0.1]) {
                let count = report.labels[label][*name] as f64;
                assert!((count - total * share).abs() < 1.0, "{label} {name}: {count}");
            }
        }
        assert_eq!(report.utterances.values().sum::<usize>(), 103);
        let row = &corpus.read("train")[0];
        assert_eq!(
            row.speaker.as_deref(),
            Some(format!("s{}", row.extra["turn"].as_str().unwrap().parse::<usize>().unwrap() % 11).as_str())
        );
        assert!(row.text.as_deref().unwrap().starts_with("one, \"two\" "));
        assert!(row.audio.as_ref().unwrap().is_file());
        let text = std::fs::read_to_string(corpus.path("out/train.jsonl")).unwrap();
        assert!(text.contains("\"audio\":\"../wav/u"), "{text}");
        let split: Value =
            serde_json::from_str(&std::fs::read_to_string(corpus.path("out/split.json")).unwrap()).unwrap();
        assert_eq!(split["labels"]["sad"]["train"], report.labels["sad"]["train"]);
        assert_eq!(split["input_sha256"].as_str().unwrap().len(), 64);
        assert_eq!(split["options"]["seed"], 1);
    }

    #[test]
    fn the_order_of_the_rows_does_not_matter_and_the_seed_does() {
        let corpus = Corpus::new();
        let mut lines = corpus.table(60);
        prepare(&corpus.options(&lines)).unwrap();
        let first = corpus.ids();
        lines.reverse();
        prepare(&corpus.options(&lines)).unwrap();
        assert_eq!(corpus.ids(), first);
        prepare(&TableOptions { seed: 2, ..corpus.options(&lines) }).unwrap();
        assert_ne!(corpus.ids(), first);
    }

    #[test]
    fn no_group_crosses_and_shares_are_near() {
        let corpus = Corpus::new();
        let mut options = corpus.options(&corpus.table(220));
        options.fractions = [0.6, 0.2, 0.2];
        let before = prepare(&options).unwrap();
        assert!(before.shared_speakers.unwrap() > 0);
        options.group_by = Some("who".to_owned());
        let report = prepare(&options).unwrap();
        assert_eq!(report.shared_speakers, Some(0));
        assert_eq!(report.groups.values().sum::<usize>(), 11);
        // 11 speakers of 20 utterances each: shares of 132, 44 and 44 can be met to within one speaker.
        for (name, share) in SPLITS.iter().zip([132, 44, 44]) {
            assert!(report.utterances[*name].abs_diff(share) <= 20, "{name}: {}", report.utterances[*name]);
        }
    }

    #[test]
    fn a_share_of_nothing_gives_no_file_and_removes_an_old_one() {
        let corpus = Corpus::new();
        let mut options = corpus.options(&corpus.table(40));
        prepare(&options).unwrap();
        assert!(corpus.path("out/dev.jsonl").exists());
        options.fractions = [0.9, 0.0, 0.1];
        let report = prepare(&options).unwrap();
        assert!(!corpus.path("out/dev.jsonl").exists());
        assert_eq!(report.manifests.len(), 2);
        options.fractions = [0.99, 0.005, 0.005];
        assert!(prepare(&options).unwrap_err().to_string().contains("leave dev empty"));
        options.fractions = [0.9, 0.2, 0.1];
        assert!(prepare(&options).unwrap_err().to_string().contains("sum to 1"));
    }

    #[test]
    fn tsv_and_jsonl_say_the_same_as_csv() {
        let corpus = Corpus::new();
        corpus.table(20);
        let (mut tsv, mut jsonl) = ("audio\ttext\tlabel\tslots\n".to_owned(), String::new());
        for i in 0..20 {
            let line = format!("wav/u{i:03}.wav\t\"he said\t{}\t{{\"drink\": \"tea\"}}\r\n", i % 2);
            tsv += &line;
            let cells =
                json!({"audio": format!("wav/u{i:03}.wav"), "text": "", "label": i % 2, "slots": {"drink": "tea"}});
            jsonl = jsonl + &cells.to_string() + "\n";
        }
        std::fs::write(corpus.path("t.tsv"), tsv).unwrap();
        std::fs::write(corpus.path("t.jsonl"), jsonl).unwrap();
        prepare(&TableOptions::new(corpus.path("t.tsv"), corpus.path("out"))).unwrap();
        let from_tsv = corpus.ids();
        let row = &corpus.read("train")[0];
        assert_eq!((row.text.as_deref(), &row.extra["slots"]), (Some("\"he said"), &json!("{\"drink\": \"tea\"}")));
        let report = prepare(&TableOptions::new(corpus.path("t.jsonl"), corpus.path("out"))).unwrap();
        assert_eq!((corpus.ids(), report.empty_texts), (from_tsv, 20));
        assert_eq!(corpus.read("train")[0].extra["slots"], json!({"drink": "tea"}));
    }

    #[test]
    fn what_is_wrong_with_a_table_is_said_at_once() {
        let corpus = Corpus::new();
        let mut lines = corpus.table(12);
        let options = corpus.options(&lines);
        let wrong = TableOptions { text: Some("txt".to_owned()), id: Some("key".to_owned()), ..options };
        let error = prepare(&wrong).unwrap_err().to_string();
        assert!(
            error.contains("no column `txt` (for text); the columns are `path`, `words`, `label`, `who`, `turn`"),
            "{error}"
        );
        assert!(error.contains("no column `key` (for id)"), "{error}");
        lines[1] = "wav/u001.wav,words,,s1,3".to_owned();
        lines[2] = "wav/none.wav,words,sad,s1,3".to_owned();
        lines[4] = "wav/u003.wav,words,sad,s1,3".to_owned();
        lines[6] = "wav/u006.wav,words,sad".to_owned();
        let error = prepare(&corpus.options(&lines)).unwrap_err().to_string();
        assert!(error.contains("table.csv, line 8: 3 fields where the first line names 5"), "{error}");
        lines.remove(6);
        let error = prepare(&corpus.options(&lines)).unwrap_err().to_string();
        for expected in [
            "table.csv, line 3: no label in column `label`",
            "table.csv, line 4: no audio file",
            "table.csv, line 6: the id `u003` is already used on line 5; name an id column",
        ] {
            assert!(error.contains(expected), "{error}");
        }
        let path = corpus.path("latin.csv");
        std::fs::write(&path, b"audio,text,label\na.wav,caf\xe9,x\n").unwrap();
        let error = prepare(&TableOptions::new(path, corpus.path("out"))).unwrap_err().to_string();
        assert!(error.contains("latin.csv, line 2: not valid UTF-8"), "{error}");
        let path = corpus.path("table.xlsx");
        std::fs::write(&path, "x").unwrap();
        assert!(
            prepare(&TableOptions::new(path, corpus.path("out"))).unwrap_err().to_string().contains("name the format")
        );
    }
}
