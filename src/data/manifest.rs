//! Manifests: JSON Lines, one utterance a line (docs/formats.md). The reader is strict and reports every problem of a
//! file at once; the parser of one line serves `predict`, which goes on past bad rows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::audio::{Channel, Piece};
use super::names::{FileNames, normal};
use super::{DataError, FileProblem};
use crate::files::{absolute, relative};

/// One utterance of a manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Unique in its manifest.
    pub id: String,
    /// The audio file, resolved against the manifest's folder.
    pub audio: Option<PathBuf>,
    /// What is said; may be empty.
    pub text: Option<String>,
    /// As its speaker and group: without space around it and in Unicode's normal form C.
    pub label: Option<String>,
    /// Who speaks.
    pub speaker: Option<String>,
    /// What belongs together: a recording, a dialogue, a session.
    pub group: Option<String>,
    /// Where the utterance begins in the audio, in seconds.
    pub start: Option<f64>,
    /// Where it ends, in seconds.
    pub end: Option<f64>,
    /// How long the piece or, where there is no `start` and no `end`, the file is, in seconds. See [`Row::settle_piece`].
    pub duration: Option<f64>,
    /// Which channel of the audio is the utterance's; their mean where it is not stated.
    pub channel: Option<Channel>,
    /// Every other key, carried through to predictions.
    pub extra: Map<String, Value>,
    /// The line in the manifest, from 1.
    pub line: usize,
}

/// What is wrong with one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// Nothing but space, and rows follow.
    #[error("the line is blank; delete it")]
    Blank,
    /// Bytes that are not UTF-8.
    #[error("not valid UTF-8 (byte {column} of the line); save the file as UTF-8")]
    NotUtf8 {
        /// The first bad byte, from 1.
        column: usize,
    },
    /// Not JSON.
    #[error("not valid JSON ({reason}); write one JSON object a line")]
    NotJson { reason: String },
    /// JSON, but no object.
    #[error("found {found}, not a JSON object; write one JSON object a line")]
    NotObject { found: &'static str },
    /// No `id`.
    #[error("no `id`; give every utterance a unique one")]
    NoId,
    /// Neither `audio` nor `text`.
    #[error("neither `audio` nor `text` (the keys are {keys}); give at least one of them")]
    NothingToRead { keys: String },
    /// A key of another type.
    #[error("`{key}` must be {expected}, found {found}")]
    WrongType {
        key: &'static str,
        expected: &'static str,
        /// The type and the value found.
        found: String,
    },
    /// An empty string where one must be filled.
    #[error("`{key}` is empty; fill it in or leave the key out")]
    Empty { key: &'static str },
    /// A number out of its range.
    #[error("`{key}` is {value}; it must be {expected}")]
    OutOfRange { key: &'static str, value: String, expected: &'static str },
    /// `end` is not after `start`.
    #[error("`end` ({end}) is not after `start` ({start}); both are seconds from the beginning of the file")]
    EndBeforeStart { start: String, end: String },
    /// `duration` is neither that of the piece nor can it be the file's.
    #[error(
        "`duration` ({duration}) is not `end` less `start` ({piece}), and shorter than `end` ({end}), so not the file's; \
         correct one of them"
    )]
    OtherDuration { duration: String, piece: String, end: String },
    /// An id that was used before.
    #[error("the id `{id}` is already used on line {first}; make ids unique")]
    DuplicateId {
        id: String,
        /// The line that used it first.
        first: usize,
    },
}

/// How far times that should agree may be from each other, in seconds: manifests round.
pub(crate) const ROUNDING: f64 = 0.1;

impl Row {
    /// Gives a piece that is stated by `start` and `duration` its `end`.
    ///
    /// # Errors
    ///
    /// `start`, `end` and `duration` contradict each other.
    pub(crate) fn settle_piece(&mut self) -> Result<(), LineProblem> {
        if let (Some(start), None, Some(duration)) = (self.start, self.end, self.duration) {
            self.end = Some(start + duration);
        }
        match (self.end, self.file_seconds()) {
            (Some(end), Some(duration)) if duration < end - ROUNDING => Err(LineProblem::OtherDuration {
                duration: duration.to_string(),
                piece: (end - self.start.unwrap_or(0.0)).to_string(),
                end: end.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// What of its audio a row names.
    pub fn piece(&self) -> Piece {
        Piece { start: self.start, end: self.end, channel: self.channel.unwrap_or_default() }
    }

    /// The `duration` of a piece where it is not the piece's: then it must be the file's.
    pub(crate) fn file_seconds(&self) -> Option<f64> {
        let (end, duration) = (self.end?, self.duration?);
        ((end - self.start.unwrap_or(0.0) - duration).abs() > ROUNDING).then_some(duration)
    }
}

/// The lines of a manifest with their numbers from 1: without a byte-order mark, line ends and blank lines at the end.
pub fn lines(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut lines: Vec<(usize, &[u8])> = bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .map(|(i, line)| (i + 1, line.strip_suffix(b"\r").unwrap_or(line)))
        .collect();
    while lines.last().is_some_and(|(_, line)| line.trim_ascii().is_empty()) {
        lines.pop();
    }
    lines
}

/// Reads a whole manifest.
///
/// # Errors
///
/// The file cannot be read, has no rows, or any of its lines is wrong (all of them are reported).
pub fn read(path: &Path) -> Result<Vec<Row>, DataError> {
    let bytes = std::fs::read(path).map_err(|error| DataError::file(path, &error))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let mut rows: Vec<Row> = Vec::new();
    let mut first_lines: HashMap<String, usize> = HashMap::new();
    let mut problems = Vec::new();
    let mut files = FileNames::default();
    for (line, text) in lines(&bytes) {
        let mut found = Vec::new();
        let mut row = parse(text, line, base, &mut found);
        row.audio = row.audio.map(|path| files.find(path));
        if !row.id.is_empty() {
            if let Some(first) = first_lines.get(&row.id) {
                found.push(LineProblem::DuplicateId { id: row.id.clone(), first: *first });
            } else {
                first_lines.insert(row.id.clone(), line);
            }
        }
        problems.extend(found.into_iter().map(|problem| DataError::Line {
            path: Some(path.to_path_buf()),
            line,
            problem,
        }));
        rows.push(row);
    }
    DataError::check(problems)?;
    if rows.is_empty() {
        return Err(DataError::EmptyManifest { path: path.to_path_buf() });
    }
    Ok(rows)
}

/// Parses one line (text or bytes); `base` is the folder that audio paths are relative to.
///
/// # Errors
///
/// Everything that is wrong with the line; the error names the line but no file.
pub fn parse_line(line_text: impl AsRef<[u8]>, line: usize, base: &Path) -> Result<Row, DataError> {
    let mut found = Vec::new();
    let mut row = parse(line_text.as_ref(), line, base, &mut found);
    row.audio = row.audio.map(|path| FileNames::default().find(path));
    DataError::check(found.into_iter().map(|problem| DataError::Line { path: None, line, problem }).collect())?;
    Ok(row)
}

/// The id of a line if it has one, however wrong the rest is: what a result with an error is filed under.
pub fn id_of_line(line_text: impl AsRef<[u8]>) -> Option<String> {
    let value: Value = serde_json::from_str(trimmed(std::str::from_utf8(line_text.as_ref()).ok()?)).ok()?;
    value.get("id")?.as_str().filter(|id| !id.is_empty()).map(ToOwned::to_owned)
}

/// Checks that every row has what a command reads.
///
/// # Errors
///
/// Every row that lacks something, with its id, line and the key.
pub fn require(rows: &[Row], needs_text: bool, needs_audio: bool, needs_label: bool) -> Result<(), DataError> {
    let mut problems = Vec::new();
    for row in rows {
        let mut lacks = |key, hint| {
            problems.push(DataError::Lacking { id: row.id.clone(), line: row.line, key, hint });
        };
        if needs_text && row.text.is_none() {
            lacks("text", "this method reads text: give every utterance one (it may be empty)");
        }
        if needs_audio && row.audio.is_none() {
            lacks("audio", "this method reads speech: give every utterance an audio file");
        }
        if needs_label && row.label.is_none() {
            lacks("label", "training and scoring need one for every utterance");
        }
    }
    DataError::check(problems)
}

/// Writes a manifest: audio paths relative to its folder where they share more than the root with it, else absolute.
///
/// # Errors
///
/// The file cannot be written, or an audio path is not text.
pub fn write(path: &Path, rows: &[Row]) -> Result<(), DataError> {
    std::fs::write(path, to_text(path, rows)?).map_err(|error| DataError::write(path, &error))
}

/// What [`write`] writes; the folder of `path` must be there.
///
/// # Errors
///
/// As [`write`].
pub fn to_text(path: &Path, rows: &[Row]) -> Result<String, DataError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|error| DataError::write(folder, &error))?;
    let mut text = String::new();
    for row in rows {
        text.push_str(&Value::Object(to_json(row, &folder)?).to_string());
        text.push('\n');
    }
    Ok(text)
}

fn to_json(row: &Row, folder: &Path) -> Result<Map<String, Value>, DataError> {
    let mut map = Map::new();
    map.insert("id".to_owned(), row.id.clone().into());
    if let Some(audio) = &row.audio {
        let written = relative(&absolute(audio).map_err(|error| DataError::file(audio, &error))?, folder);
        let Some(written) = written.to_str() else {
            return Err(DataError::File { path: audio.clone(), problem: FileProblem::PathNotText });
        };
        map.insert("audio".to_owned(), written.into());
    }
    let texts = [("text", &row.text), ("label", &row.label), ("speaker", &row.speaker), ("group", &row.group)];
    for (key, value) in texts {
        if let Some(value) = value {
            map.insert(key.to_owned(), value.clone().into());
        }
    }
    // The end that follows from the other two is not written.
    let end = row
        .end
        .filter(|end| row.start.zip(row.duration).is_none_or(|(start, length)| (start + length - end).abs() > 0.0));
    for (key, value) in [("start", row.start), ("end", end), ("duration", row.duration)] {
        if let Some(value) = value {
            map.insert(key.to_owned(), value.into());
        }
    }
    if let Some(channel) = row.channel {
        map.insert("channel".to_owned(), serde_json::json!(channel));
    }
    for (key, value) in &row.extra {
        map.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Ok(map)
}

fn parse(bytes: &[u8], line: usize, base: &Path, found: &mut Vec<LineProblem>) -> Row {
    let mut row = Row { line, ..Row::default() };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => trimmed(text),
        Err(error) => {
            found.push(LineProblem::NotUtf8 { column: error.valid_up_to() + 1 });
            return row;
        }
    };
    if text.is_empty() {
        found.push(LineProblem::Blank);
        return row;
    }
    let mut map = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(map)) => map,
        Ok(other) => {
            found.push(LineProblem::NotObject { found: kind(&other) });
            return row;
        }
        Err(error) => {
            // The position in the file is ours to give; the parser's "line 1" would contradict it.
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            found.push(LineProblem::NotJson { reason: format!("{reason}, column {}", error.column()) });
            return row;
        }
    };
    let keys = super::list(&map.keys().cloned().collect::<Vec<_>>());
    let has_something = ["audio", "text"].iter().any(|key| map.get(*key).is_some_and(|value| !value.is_null()));
    if map.get("id").is_none_or(Value::is_null) {
        found.push(LineProblem::NoId);
    }
    row.id = take_text(&mut map, "id", false, found).unwrap_or_default();
    row.audio = take_text(&mut map, "audio", false, found).map(|audio| base.join(audio));
    row.text = take_text(&mut map, "text", true, found);
    row.label = take_name(&mut map, "label", found);
    row.speaker = take_name(&mut map, "speaker", found);
    row.group = take_name(&mut map, "group", found);
    row.start = take_seconds(&mut map, "start", found);
    row.end = take_seconds(&mut map, "end", found);
    row.duration = take_seconds(&mut map, "duration", found);
    row.channel = map.get("channel").and_then(channel);
    if row.channel.is_some() {
        map.shift_remove("channel");
    }
    if !has_something {
        found.push(LineProblem::NothingToRead { keys });
    }
    if let (start, Some(end)) = (row.start.unwrap_or(0.0), row.end)
        && end <= start
    {
        found.push(LineProblem::EndBeforeStart { start: start.to_string(), end: end.to_string() });
    } else if let Err(problem) = row.settle_piece() {
        found.push(problem);
    }
    row.extra = map;
    row
}

/// A line without what may stand around the object.
fn trimmed(line: &str) -> &str {
    line.trim_start_matches('\u{feff}').trim()
}

/// Takes a string out of the object. A null counts as a key that is not there.
fn take_text(
    map: &mut Map<String, Value>,
    key: &'static str,
    may_be_empty: bool,
    found: &mut Vec<LineProblem>,
) -> Option<String> {
    match map.shift_remove(key)? {
        Value::Null => None,
        Value::String(text) if text.is_empty() && !may_be_empty => {
            found.push(LineProblem::Empty { key });
            None
        }
        Value::String(text) => Some(text),
        other => {
            let expected = if key == "id" || key == "label" { "a string (write it in quotes)" } else { "a string" };
            found.push(LineProblem::WrongType { key, expected, found: show(&other) });
            None
        }
    }
}

/// Takes a string out of the object that other rows have too: what looks the same is the same.
fn take_name(map: &mut Map<String, Value>, key: &'static str, found: &mut Vec<LineProblem>) -> Option<String> {
    let name = normal(&take_text(map, key, false, found)?);
    if name.is_empty() {
        found.push(LineProblem::Empty { key });
    }
    Some(name).filter(|name| !name.is_empty())
}

/// Takes a number of seconds out of the object. A null counts as a key that is not there.
fn take_seconds(map: &mut Map<String, Value>, key: &'static str, found: &mut Vec<LineProblem>) -> Option<f64> {
    let value = map.shift_remove(key)?;
    if value.is_null() {
        return None;
    }
    let Some(seconds) = value.as_f64() else {
        found.push(LineProblem::WrongType { key, expected: "a number of seconds", found: show(&value) });
        return None;
    };
    let (is_right, expected) =
        if key == "start" { (seconds >= 0.0, "0 or more seconds") } else { (seconds > 0.0, "more than 0 seconds") };
    if !(is_right && seconds.is_finite()) {
        found.push(LineProblem::OutOfRange { key, value: value.to_string(), expected });
        return None;
    }
    Some(seconds)
}

/// A channel, where a value is one; anything else is an extra key.
pub(crate) fn channel(value: &Value) -> Option<Channel> {
    match value {
        Value::String(text) if text == "mean" => Some(Channel::Mean),
        number => number.as_u64().and_then(|number| usize::try_from(number).ok()).map(Channel::Number),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => format!("{} ({value})", kind(value)),
        _ => kind(value).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn read_text(text: impl AsRef<[u8]>) -> Result<Vec<Row>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_row_keeps_every_key_and_audio_is_resolved() {
        let line = r#"{"id": "u1", "audio": "wav/a.wav", "text": "", "label": "sad", "speaker": "F1", "group": "s1",
            "start": 0.5, "end": 2, "duration": 9.25, "turn": 3, "notes": ["x"]}"#;
        let row = parse_line(line.replace('\n', " "), 7, Path::new("/corpus")).unwrap();
        assert_eq!(row.audio.as_deref(), Some(Path::new("/corpus/wav/a.wav")));
        assert_eq!((row.text.as_deref(), row.label.as_deref()), (Some(""), Some("sad")));
        assert_eq!((row.start, row.end, row.duration), (Some(0.5), Some(2.0), Some(9.25)));
        assert_eq!(row.extra.keys().collect::<Vec<_>>(), ["turn", "notes"]);
        assert_eq!(row.line, 7);
    }

    #[test]
    fn a_mark_carriage_returns_and_blank_lines_at_the_end_are_no_errors() {
        let rows =
            read_text("\u{feff}{\"id\":\"a\",\"text\":\"x\"}\r\n{\"id\":\"b\",\"text\":\"y\"}\r\n\r\n \n").unwrap();
        assert_eq!(rows.iter().map(|row| (row.id.as_str(), row.line)).collect::<Vec<_>>(), [("a", 1), ("b", 2)]);
    }

    #[test]
    fn every_problem_of_a_file_is_reported_with_its_line() {
        let mut text = br#"{"id":"a","text":"x"}
{"id":"a","text":"x"}
{"id":7,"text":"x"}
{"id":"c","audio":"a.wav","start":2,"end":1}

{"id":"d","text":"x","label":3}
{"id":"e","text":"x","label":true}
{"id":"f","label":"sad"}
[1]
"#
        .to_vec();
        text.extend(b"{\"id\":\"g\",\"text\":\"\xff\"}\n{\"text\":\"x\"}\n{\"id\": \"h\", text}\n");
        let error = read_text(text).unwrap_err();
        let expected = [
            "line 2: the id `a` is already used on line 1",
            "line 3: `id` must be a string (write it in quotes), found a number (7)",
            "line 4: `end` (1) is not after `start` (2)",
            "line 5: the line is blank",
            "line 6: `label` must be a string (write it in quotes), found a number (3)",
            "line 7: `label` must be a string (write it in quotes), found a boolean (true)",
            "line 8: neither `audio` nor `text` (the keys are `id`, `label`)",
            "line 9: found a list, not a JSON object",
            "line 10: not valid UTF-8 (byte 19 of the line)",
            "line 11: no `id`",
            "and 1 more (11 problems in all)",
        ];
        for (line, expected) in error.lines().zip(expected) {
            assert!(line.contains(expected), "{line}\n{expected}");
        }
        assert_eq!(error.lines().count(), expected.len());
    }

    #[test]
    fn an_empty_file_a_missing_file_and_a_folder_are_errors() {
        assert!(read_text("\n\n").unwrap_err().contains("the manifest is empty"));
        assert!(
            read(Path::new("/nowhere/x.jsonl")).unwrap_err().to_string().contains("/nowhere/x.jsonl: no such file")
        );
        assert!(read(Path::new("/")).unwrap_err().to_string().contains("this is a folder"));
    }

    #[test]
    fn require_names_rows_and_keys() {
        let row = parse_line(r#"{"id":"a","text":"x"}"#, 4, Path::new("")).unwrap();
        assert!(require(std::slice::from_ref(&row), true, false, false).is_ok());
        let error = require(&[row], true, true, true).unwrap_err().to_string();
        assert!(error.contains("utterance `a` (line 4): no `audio`"), "{error}");
        assert!(error.contains("utterance `a` (line 4): no `label`"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("out")).unwrap();
        std::fs::create_dir_all(folder.path().join("wav")).unwrap();
        let mut extra = Map::new();
        extra.insert("turn".to_owned(), 3.into());
        let rows = vec![
            Row {
                id: "a".to_owned(),
                audio: Some(folder.path().join("wav/a.wav")),
                text: Some("é \"q\"\nx".to_owned()),
                start: Some(0.1),
                extra,
                line: 1,
                ..Row::default()
            },
            Row { id: "b".to_owned(), audio: Some("/elsewhere/b.wav".into()), line: 2, ..Row::default() },
        ];
        let path = folder.path().join("out/train.jsonl");
        write(&path, &rows).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"audio\":\"../wav/a.wav\""), "{text}");
        assert!(text.contains("\"audio\":\"/elsewhere/b.wav\""), "{text}");
        let again = read(&path).unwrap();
        assert_eq!(again[0].audio.as_ref().unwrap().file_name(), rows[0].audio.as_ref().unwrap().file_name());
        assert_eq!((&again[0].text, &again[0].extra, again[0].start), (&rows[0].text, &rows[0].extra, Some(0.1)));
        assert_eq!(again[1], rows[1]);
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut random = Random::new(11);
        let seed_line = br#"{"id":"a","audio":"a.wav","text":"x","start":1e400,"end":2,"label":null}"#;
        for round in 0..20_000 {
            let mut bytes = if round % 2 == 0 {
                seed_line.to_vec()
            } else {
                (0..random.below(60)).map(|_| random.next_u64().to_le_bytes()[0]).collect()
            };
            for _ in 0..random.below(4) {
                if !bytes.is_empty() {
                    let at = random.below(bytes.len());
                    bytes[at] = random.next_u64().to_le_bytes()[0];
                }
            }
            let _ = parse_line(&bytes, 1, Path::new("/"));
            let _ = id_of_line(&bytes);
            let _ = lines(&bytes);
        }
    }
}
