//! What the readers of the corpora have in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::data::manifest::Row;
use crate::data::{DataError, FileProblem};

/// What the reader of a corpus gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The utterances, sorted by id (by bytes), so that neither the disk's order nor the locale decides anything.
    pub rows: Vec<Row>,
    /// The files that were read, but for audio.
    pub sources: Vec<PathBuf>,
    pub counts: Map<String, Value>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// The bytes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(|error| DataError::file(path, &error))
}

/// A line as text and whether it was UTF-8: other bytes are taken as Latin-1, where every byte is a character.
pub(super) fn decode(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), true),
        Err(_) => (bytes.iter().copied().map(char::from).collect(), false),
    }
}

/// Options as they go into `split.json`; `path` is the one that they name.
pub(super) fn json(options: &impl Serialize, path: &Path) -> Result<Value, DataError> {
    // A path that is not text is all that can fail.
    serde_json::to_value(options)
        .map_err(|_| DataError::File { path: path.to_path_buf(), problem: FileProblem::PathNotText })
}

/// How often each value occurs.
pub(super) fn tally<'a>(values: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// A note on every count that is not the published one: `items` are its name, what was found, what was published.
pub(crate) fn difference<'a>(what: &str, items: impl IntoIterator<Item = (&'a str, usize, usize)>) -> Option<String> {
    let different: Vec<String> = items
        .into_iter()
        .filter(|(_, found, published)| found != published)
        .map(|(name, found, published)| format!("{name} {found} of the published {published}"))
        .collect();
    (!different.is_empty()).then(|| format!("{what}: {}", different.join(", ")))
}

/// Helpers of the tests of the corpora.
#[cfg(test)]
pub(super) mod testing {
    use std::path::Path;

    use crate::data::audio::write_wav;
    use crate::data::manifest::Row;
    use crate::random::Random;
    use crate::splits::Declaration;

    /// For who wants no news of the progress.
    pub fn silent(_: usize, _: usize) {}

    /// Writes a file and the folders above it.
    pub fn put(path: &Path, content: impl AsRef<[u8]>) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Writes a tenth of a second of audio.
    pub fn put_wav(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_wav(path, &[0.25; 1600], 16_000).unwrap();
    }

    /// Ids in order.
    pub fn ids(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.id.as_str()).collect()
    }

    /// Declarations as `kind left right`, with the condition as JSON where there is one.
    pub fn declared(shared: &[Declaration]) -> Vec<String> {
        let text = |declaration: &Declaration| {
            let [left, right] = &declaration.splits;
            let only = declaration.only.as_ref().map(|only| format!(" {}", serde_json::to_string(only).unwrap()));
            format!("{} {left} {right}{}", declaration.kind.word(), only.unwrap_or_default())
        };
        shared.iter().map(text).collect()
    }

    /// Calls a parser with random bytes and with random changes of a good file.
    pub fn never_panics(good: &[u8], rounds: usize, mut parse: impl FnMut(&[u8])) {
        const MEANT: &[u8] = b"\t\n\r []-:;|\"{},0\xFF_";
        let mut random = Random::new(17);
        for round in 0..rounds {
            let mut bytes = good.to_vec();
            if round % 4 == 0 {
                bytes = (0..random.below(200)).map(|_| random.next_u64().to_le_bytes()[0]).collect();
            }
            for _ in 0..=random.below(6) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    _ if bytes.is_empty() => {}
                    // A byte that means something to these formats.
                    0 => bytes[at] = MEANT[random.below(MEANT.len())],
                    1 => bytes[at] = random.next_u64().to_le_bytes()[0],
                    2 => drop(bytes.drain(at..(at + random.below(9)).min(bytes.len()))),
                    _ => bytes.truncate(at),
                }
            }
            parse(&bytes);
        }
    }
}
