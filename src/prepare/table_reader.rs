//! Reads CSV, TSV and JSON Lines into records of one kind, with the line of each; and audio folders, which have such a
//! table (`metadata.csv`) in them or in a folder for each split, as Hugging Face writes them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use encoding_rs::Encoding;
use serde_json::{Map, Value};

use super::delimited::{self, Fault, Fields, Quotes};
use super::folder::folders_in;
use super::table::{Layout, TableFormat, part_name};
use crate::data::names::normal;
use crate::data::{DataError, manifest};

/// The names of an audio folder's table.
const METADATA: [&str; 3] = ["metadata.csv", "metadata.tsv", "metadata.jsonl"];

/// A table in memory.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub path: PathBuf,
    /// Whether it is an audio folder's.
    pub is_of_folder: bool,
    /// The split that its folder is named after.
    pub part: Option<String>,
    /// The names of the columns; for JSON Lines, of every key that any row has.
    pub columns: Vec<String>,
    /// The rows in order.
    pub records: Vec<Record>,
    /// What the user should know of how it was read.
    pub notes: Vec<String>,
}

/// One row.
#[derive(Debug)]
pub(super) struct Record {
    /// Where it begins, from 1.
    pub line: usize,
    /// Column to value; strings but for JSON Lines.
    pub cells: Map<String, Value>,
    /// Where a quoted field goes over several lines, each of which could be a row: these rows.
    pub lines: Vec<Map<String, Value>>,
}

/// Reads a table, or the tables of an audio folder.
pub(super) fn read_tables(input: &Path, layout: Layout) -> Result<Vec<Table>, DataError> {
    if !input.is_dir() {
        return Ok(vec![read_file(input, layout)?]);
    }
    if let Some(path) = metadata_in(input) {
        return Ok(vec![Table { is_of_folder: true, ..read_file(&path, layout)? }]);
    }
    let mut tables = Vec::new();
    for folder in folders_in(input)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if let Some(path) = metadata_in(&folder) {
            tables.push(Table { part: Some(part_name(&name)), ..read_file(&path, layout)? });
        }
    }
    if tables.is_empty() {
        let reason = format!(
            "a folder without {}, and none of the folders in it has one; name the table itself",
            METADATA.join(", ")
        );
        return Err(DataError::Table { path: input.to_path_buf(), reason });
    }
    Ok(tables)
}

fn metadata_in(folder: &Path) -> Option<PathBuf> {
    METADATA.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

fn read_file(path: &Path, layout: Layout) -> Result<Table, DataError> {
    let bytes = std::fs::read(path).map_err(|error| DataError::file(path, &error))?;
    Ok(Table { path: path.to_path_buf(), ..read_table(path, &bytes, layout)? })
}

/// Reads a table from bytes.
pub(super) fn read_table(path: &Path, bytes: &[u8], layout: Layout) -> Result<Table, DataError> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    let format = match (layout.format, extension.as_str()) {
        (Some(format), _) => format,
        (None, "csv") => TableFormat::Csv,
        (None, "tsv" | "tab") => TableFormat::Tsv,
        (None, "jsonl" | "ndjson") => TableFormat::Jsonl,
        (None, _) if layout.delimiter.is_some() => TableFormat::Csv,
        (None, _) => {
            let reason = "the extension does not say what it is; name the format: csv, tsv or jsonl".to_owned();
            return Err(DataError::Table { path: path.to_path_buf(), reason });
        }
    };
    let text = decode(path, bytes, layout.encoding)?;
    match (format, layout.delimiter) {
        (TableFormat::Jsonl, Some(_)) => {
            let reason = "JSON Lines have no delimiter; leave --delimiter out, or name another --format".to_owned();
            Err(DataError::Table { path: path.to_path_buf(), reason })
        }
        (TableFormat::Jsonl, None) => read_jsonl(path, &text),
        (_, Some(delimiter)) => read_delimited(path, &text, delimiter, 0),
        (TableFormat::Csv | TableFormat::Tsv, None) => {
            let usual = if format == TableFormat::Tsv { '\t' } else { ',' };
            let (delimiter, stated) = delimited::delimiter(&text, usual);
            read_delimited(path, &text, delimiter, stated)
        }
    }
}

/// The bytes as text: as a byte-order mark says, else in the encoding named, else in UTF-8.
fn decode<'a>(path: &Path, bytes: &'a [u8], named: Option<&'static Encoding>) -> Result<Cow<'a, str>, DataError> {
    let (encoding, bytes) = Encoding::for_bom(bytes)
        .map_or((named.unwrap_or(encoding_rs::UTF_8), bytes), |(encoding, mark)| (encoding, &bytes[mark..]));
    if encoding == encoding_rs::UTF_8 {
        return std::str::from_utf8(bytes).map(Cow::from).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            let line = before.split(|byte| *byte == b'\n').count();
            let reason = "not valid UTF-8; save the file as UTF-8, or, for `prepare table`, name its encoding, as --encoding \
                          windows-1252";
            DataError::TableRow { path: path.to_path_buf(), line, reason: reason.to_owned() }
        });
    }
    encoding.decode_without_bom_handling_and_without_replacement(bytes).ok_or_else(|| DataError::Table {
        path: path.to_path_buf(),
        reason: format!("not valid {}; name the encoding in which it was saved", encoding.name()),
    })
}

fn read_jsonl(path: &Path, text: &str) -> Result<Table, DataError> {
    let mut table = Table::default();
    let mut columns = BTreeSet::new();
    let mut problems = Vec::new();
    for (line, text) in manifest::lines(text.as_bytes()) {
        let reason = match serde_json::from_slice::<Value>(text) {
            Ok(Value::Object(cells)) => {
                for key in cells.keys().filter(|key| !columns.contains(*key)).cloned().collect::<Vec<_>>() {
                    table.columns.push(key.clone());
                    columns.insert(key);
                }
                table.records.push(Record { line, cells, lines: Vec::new() });
                continue;
            }
            Ok(_) => "not a JSON object; write one JSON object a line".to_owned(),
            Err(error) => format!("not valid JSON (column {}); write one JSON object a line", error.column()),
        };
        problems.push(DataError::TableRow { path: path.to_path_buf(), line, reason });
    }
    DataError::check(problems)?;
    Ok(table)
}

/// `stated` lines in front of the columns' names say what the delimiter is.
fn read_delimited(path: &Path, text: &str, delimiter: char, stated: usize) -> Result<Table, DataError> {
    let wrong = |line: usize, reason: String| DataError::TableRow { path: path.to_path_buf(), line, reason };
    let mut table = Table::default();
    let rows = match strictly(text, delimiter) {
        Ok((rows, note)) => {
            table.notes.extend(note);
            rows
        }
        Err(Fault { line, reason }) => return Err(wrong(line, reason)),
    };
    let mut rows = rows.into_iter().skip(stated);
    let Some(first) = rows.next() else { return Ok(table) };
    let rows: Vec<Fields> = rows.collect();
    // What is behind the last name is no column unless a row has a value there.
    let columns = first.values.iter().rposition(|name| !name.trim().is_empty()).map_or(0, |last| last + 1);
    let used = |row: &Fields| row.values.iter().rposition(|field| !field.trim().is_empty()).map_or(0, |last| last + 1);
    let mut is_used = vec![false; first.values.len()];
    for row in &rows {
        for (is_used, field) in is_used.iter_mut().zip(&row.values) {
            *is_used |= !field.trim().is_empty();
        }
    }
    let mut names: Vec<Option<String>> = Vec::with_capacity(first.values.len());
    for (place, name) in first.values.iter().enumerate() {
        let name = normal(name);
        if !name.is_empty() && names.iter().flatten().any(|other| *other == name) {
            return Err(wrong(first.line, format!("two columns are named `{name}`; rename one")));
        }
        names.push(match (name.is_empty(), is_used[place]) {
            (false, _) => Some(name),
            (true, false) => None,
            (true, true) => {
                let name = format!("column_{}", place + 1);
                table.notes.push(format!("column {} has no name; its values are kept as `{name}`", place + 1));
                Some(name)
            }
        });
    }
    let nameless = names.iter().filter(|name| name.is_none()).count();
    let mut problems = Vec::new();
    let (mut blank, mut longer) = (0, 0);
    for row in rows {
        if row.is_blank() {
            blank += 1;
            continue;
        }
        let line = row.line;
        let found = used(&row);
        if found > names.len() || row.values.len() < columns {
            let reason = format!(
                "{} fields where the first line names {columns}; quote fields that hold the delimiter",
                if found > names.len() { found } else { row.values.len() }
            );
            problems.push(wrong(line, reason));
            continue;
        }
        longer += usize::from(row.values.len() > names.len());
        let lines = lines_as_rows(row.raw, delimiter, &names);
        let values = row.values.into_iter().chain(std::iter::repeat_with(String::new));
        table.records.push(Record { line, cells: cells(&names, values), lines });
    }
    DataError::check(problems)?;
    for (count, what) in [
        (nameless, "left out, columns without a name and without a value"),
        (longer, "rows with delimiters behind the last column, and nothing behind these"),
        (blank, "left out, rows of delimiters alone"),
    ] {
        if count > 0 {
            table.notes.push(format!("{what}: {count}"));
        }
    }
    table.columns = names.into_iter().flatten().collect();
    Ok(table)
}

fn cells(names: &[Option<String>], fields: impl Iterator<Item = String>) -> Map<String, Value> {
    names.iter().zip(fields).filter_map(|(name, field)| Some((name.clone()?, Value::String(field)))).collect()
}

/// The rows of a text; and what to say of how its quotation marks are read.
fn strictly(text: &str, delimiter: char) -> Result<(Vec<Fields<'_>>, Option<String>), Fault> {
    let quoted = delimited::rows(text, delimiter, Quotes::Doubled);
    // Most tables with tabs do not quote: a mark is a letter there unless every field that begins with one ends with one.
    if delimiter == '\t' && (quoted.is_err() || !is_quoted(text)) {
        return Ok((delimited::rows(text, delimiter, Quotes::None)?, None));
    }
    if text.contains("\\\"")
        && let Ok(rows) = delimited::rows(text, delimiter, Quotes::Escaped)
    {
        return Ok((
            rows,
            Some("a backslash in front of a quotation mark is read as part of it: \\\" is \"".to_owned()),
        ));
    }
    Ok((quoted?, None))
}

/// The lines of a row that has several, each as the row that it would be without quotation marks; `None` if one of them
/// has another number of fields than there are columns.
fn lines_as_rows(raw: &str, delimiter: char, names: &[Option<String>]) -> Vec<Map<String, Value>> {
    if !raw.contains(['\n', '\r']) {
        return Vec::new();
    }
    let line = |line: &str| {
        let fields: Vec<String> =
            line.split(delimiter).map(|field| field.trim_matches(['"', ' ']).to_owned()).collect();
        (fields.len() == names.len()).then(|| cells(names, fields.into_iter()))
    };
    raw.split(['\n', '\r']).filter(|line| !line.trim().is_empty()).map(line).collect::<Option<_>>().unwrap_or_default()
}

/// Whether every field that begins with a quotation mark also ends with one, line by line.
fn is_quoted(text: &str) -> bool {
    text.lines()
        .all(|line| line.split('\t').all(|field| !field.starts_with('"') || (field.len() > 1 && field.ends_with('"'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No bytes panic, and every row has a cell for every column of a delimited table.
    #[test]
    fn no_bytes_panic() {
        let goods = [
            "\u{feff}file,words\r\na.wav,\"we, \"\"could\"\"\ngo\"\r\nb.wav,é\r\n",
            "file\twords\na.wav\t\"we\tcould\"\nb.wav\tgo\"\n",
            "{\"file\": \"a.wav\", \"words\": null}\n{\"file\": \"b.wav\", \"n\": 1e3}\n",
        ];
        crate::damage::each(&goods, 2_000, |bytes| {
            for format in [TableFormat::Csv, TableFormat::Tsv, TableFormat::Jsonl] {
                let layout = Layout { format: Some(format), ..Layout::default() };
                if let Ok(table) = read_table(Path::new("table"), bytes, layout) {
                    assert!(
                        table.records.iter().all(|record| {
                            format == TableFormat::Jsonl || record.cells.len() == table.columns.len()
                        })
                    );
                }
            }
        });
    }
}
