//! Reads CSV, TSV and JSON Lines into records of one kind, with the line of each; and audio folders, which have such a
//! table (`metadata.csv`) in them or in a folder for each split, as Hugging Face writes them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::folder::folders_in;
use super::table::{TableFormat, part_name};
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
}

/// One row.
#[derive(Debug)]
pub(super) struct Record {
    /// Where it begins, from 1.
    pub line: usize,
    /// Column to value; strings but for JSON Lines.
    pub cells: Map<String, Value>,
}

/// Reads a table, or the tables of an audio folder.
pub(super) fn read_tables(input: &Path, format: Option<TableFormat>) -> Result<Vec<Table>, DataError> {
    if !input.is_dir() {
        return Ok(vec![read_file(input, format)?]);
    }
    if let Some(path) = metadata_in(input) {
        return Ok(vec![Table { is_of_folder: true, ..read_file(&path, format)? }]);
    }
    let mut tables = Vec::new();
    for folder in folders_in(input)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if let Some(path) = metadata_in(&folder) {
            tables.push(Table { part: Some(part_name(&name)), ..read_file(&path, format)? });
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

fn read_file(path: &Path, format: Option<TableFormat>) -> Result<Table, DataError> {
    let bytes = std::fs::read(path).map_err(|error| DataError::file(path, &error))?;
    Ok(Table { path: path.to_path_buf(), ..read_table(path, &bytes, format)? })
}

/// Reads a table from bytes; `format` decides, else the extension.
pub(super) fn read_table(path: &Path, bytes: &[u8], format: Option<TableFormat>) -> Result<Table, DataError> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    let format = match (format, extension.as_str()) {
        (Some(format), _) => format,
        (None, "csv") => TableFormat::Csv,
        (None, "tsv" | "tab") => TableFormat::Tsv,
        (None, "jsonl" | "ndjson") => TableFormat::Jsonl,
        (None, _) => {
            let reason = "the extension does not say what it is; name the format: csv, tsv or jsonl".to_owned();
            return Err(DataError::Table { path: path.to_path_buf(), reason });
        }
    };
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match format {
        TableFormat::Jsonl => read_jsonl(path, bytes),
        TableFormat::Csv => read_delimited(path, bytes, b',', true),
        TableFormat::Tsv => read_delimited(path, bytes, b'\t', is_quoted(bytes)),
    }
}

fn read_jsonl(path: &Path, bytes: &[u8]) -> Result<Table, DataError> {
    let mut table = Table::default();
    let mut problems = Vec::new();
    for (line, text) in manifest::lines(bytes) {
        let reason = match serde_json::from_slice::<Value>(text) {
            Ok(Value::Object(cells)) => {
                let new: Vec<String> = cells.keys().filter(|key| !table.columns.contains(key)).cloned().collect();
                table.columns.extend(new);
                table.records.push(Record { line, cells });
                continue;
            }
            _ if std::str::from_utf8(text).is_err() => "not valid UTF-8; save the file as UTF-8".to_owned(),
            Ok(_) => "not a JSON object; write one JSON object a line".to_owned(),
            Err(error) => format!("not valid JSON (column {}); write one JSON object a line", error.column()),
        };
        problems.push(DataError::TableRow { path: path.to_path_buf(), line, reason });
    }
    DataError::check(problems)?;
    Ok(table)
}

fn read_delimited(path: &Path, bytes: &[u8], delimiter: u8, is_quoted: bool) -> Result<Table, DataError> {
    let wrong = |line: u64, reason: String| DataError::TableRow {
        path: path.to_path_buf(),
        line: usize::try_from(line).unwrap_or(usize::MAX),
        reason,
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(is_quoted)
        .flexible(true)
        .has_headers(false)
        .from_reader(bytes);
    let mut table = Table::default();
    let mut problems = Vec::new();
    for record in reader.byte_records() {
        let record = record.map_err(|error| wrong(1, format!("{error}; correct the table")))?;
        let line = record.position().map_or(1, csv::Position::line);
        let Some(fields) = record
            .iter()
            .map(|field| std::str::from_utf8(field).ok().map(ToOwned::to_owned))
            .collect::<Option<Vec<String>>>()
        else {
            problems.push(wrong(line, "not valid UTF-8; save the file as UTF-8".to_owned()));
            continue;
        };
        if table.columns.is_empty() {
            if let Some(column) = fields.iter().enumerate().find(|(i, name)| fields[..*i].contains(name)) {
                return Err(wrong(line, format!("two columns are named `{}`; rename one", column.1)));
            }
            table.columns = fields;
        } else if fields.len() == table.columns.len() {
            let cells = table.columns.iter().cloned().zip(fields.into_iter().map(Value::String)).collect();
            table.records.push(Record { line: usize::try_from(line).unwrap_or(usize::MAX), cells });
        } else {
            let reason = format!(
                "{} fields where the first line names {}; quote fields that hold the delimiter",
                fields.len(),
                table.columns.len()
            );
            problems.push(wrong(line, reason));
        }
    }
    DataError::check(problems)?;
    Ok(table)
}

/// Whether a TSV file quotes: every field that begins with a quotation mark must also end with one. Most do not quote,
/// and a stray mark at the beginning of a text would swallow the lines behind it.
fn is_quoted(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').all(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.split(|byte| *byte == b'\t')
            .all(|field| !field.starts_with(b"\"") || (field.len() > 1 && field.ends_with(b"\"")))
    })
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
                if let Ok(table) = read_table(Path::new("table"), bytes, Some(format)) {
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
