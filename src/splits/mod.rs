//! `split.json`, beside the manifests of a split: how it was made, its hash, and what its parts share by design; and
//! `leaks.json`, what a user allowed them to share beyond that.
//!
//! A split is who is in which part. Its hash is that of the sorted lines `part TAB id LF`, so that neither the order of
//! the rows nor anything else in them changes it.

pub mod content;
pub mod overlap;
pub mod record;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    data::{DataError, manifest::Row},
    hash,
};

/// The parts of a split, in the order in which they are used.
pub const PARTS: [&str; 3] = ["train", "dev", "test"];

/// The name of the file that states a split.
pub const SPLIT_FILE: &str = "split.json";

/// The name of the file that states what was allowed.
pub const LEAKS_FILE: &str = "leaks.json";

/// What `format` says in a file of this program.
pub const SPLIT_FORMAT: &str = "clasp-split-1";

/// What `format` says in a file of this program.
pub const LEAKS_FORMAT: &str = "clasp-leaks-1";

/// What two parts of a split can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Who speaks.
    Speaker,
    /// What is said: the transcript, without regard to case and punctuation.
    Text,
    /// The recording, or a piece of it.
    Audio,
}

impl Kind {
    /// Every kind, in the order of the reports.
    pub const ALL: [Self; 3] = [Self::Speaker, Self::Text, Self::Audio];

    /// The word in files and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Speaker => "speaker",
            Self::Text => "text",
            Self::Audio => "audio",
        }
    }
}

/// What a protocol is known to share between two parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    pub kind: Kind,
    /// The two parts, in either order.
    pub splits: [String; 2],
    /// Only what meets this; everything where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Condition>,
    pub reason: String,
}

impl Declaration {
    /// Everything of one kind between two parts.
    pub fn new(kind: Kind, splits: [&str; 2], reason: &str) -> Self {
        Self { kind, splits: splits.map(str::to_owned), only: None, reason: reason.to_owned() }
    }

    /// The same, limited to what meets a condition.
    pub fn only(self, condition: Condition) -> Self {
        Self { only: Some(condition), ..self }
    }

    /// One for each pair of these parts.
    pub fn every_pair(kind: Kind, splits: &[&str], reason: &str) -> Vec<Self> {
        let pairs =
            splits.iter().enumerate().flat_map(|(i, left)| splits[i + 1..].iter().map(move |right| [*left, *right]));
        pairs.map(|pair| Self::new(kind, pair, reason)).collect()
    }
}

/// A limit of a [`Declaration`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Condition {
    /// Every row that shares it has this value of this key (of the keys that are carried along).
    Rows { key: String, value: String },
    /// Texts of at most this many words.
    Words { words: usize },
}

/// One manifest of a split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its rows.
    pub utterances: usize,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// A file that a split was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// An utterance that was left out since its audio cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub id: String,
    pub problem: String,
}

/// The content of `split.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SplitFile {
    /// [`SPLIT_FORMAT`].
    pub format: String,
    /// The corpus: `iemocap`, `slurp`, `librispeech`, `mist`, `magpie` or `table`.
    pub corpus: String,
    pub protocol: String,
    /// Which fold of how many this folder is, as `2 of 5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<String>,
    /// The folders of the folds, in the folder above them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folds: Vec<String>,
    /// The options of the command.
    pub options: Value,
    /// What it was made from.
    pub sources: Vec<Source>,
    /// The hash of the split.
    pub sha256: String,
    /// The manifests, by the name of the part.
    pub files: BTreeMap<String, Part>,
    /// Utterances by part.
    pub utterances: BTreeMap<String, usize>,
    /// Utterances by label, then part. Empty without labels.
    pub labels: BTreeMap<String, BTreeMap<String, usize>>,
    /// What the reader of the corpus counted.
    pub counts: Map<String, Value>,
    /// What the parts share by design: the reader of a score has to know.
    pub shared: Vec<Declaration>,
    /// Utterances that were left out.
    pub skipped: Vec<Skipped>,
    /// Keys of other versions. That they are kept also means that only an object is such a file: without it a list would
    /// be taken for the fields in order.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl SplitFile {
    /// Reads the file in a folder; `None` if there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read or is no such file.
    pub fn read(folder: &Path) -> Result<Option<Self>, DataError> {
        read_json(&folder.join(SPLIT_FILE))
    }
}

/// Leaks that a user allowed with `clasp check --allow-leak`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaks {
    /// [`LEAKS_FORMAT`].
    pub format: String,
    pub allowed: Vec<Allowed>,
}

/// One leak that was found and allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    pub kind: Kind,
    pub splits: [String; 2],
    /// How many speakers, texts or recordings it was.
    pub values: usize,
    /// The SHA-256 of the two manifests: what was allowed was allowed for these.
    pub manifests: [String; 2],
}

impl Leaks {
    /// Reads the file in a folder; nothing is allowed where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read or is no such file.
    pub fn read(folder: &Path) -> Result<Self, DataError> {
        Ok(read_json(&folder.join(LEAKS_FILE))?.unwrap_or_default())
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DataError> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| DataError::file(path, &error))?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| DataError::Table {
        path: path.to_path_buf(),
        reason: format!("not as this program writes it ({error}); make the split again with `clasp prepare`"),
    })
}

/// The hash of a split: `rows` are the parts by name.
pub fn split_hash(rows: &[(&str, &[Row])]) -> String {
    let mut lines: Vec<String> =
        rows.iter().flat_map(|(name, rows)| rows.iter().map(move |row| format!("{name}\t{}\n", row.id))).collect();
    lines.sort_unstable();
    hash::of_bytes(lines.concat().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ids: &[&str]) -> Vec<Row> {
        ids.iter().map(|id| Row { id: (*id).to_owned(), ..Row::default() }).collect()
    }

    /// Against `printf 'dev\tc\ntrain\ta\ntrain\tb\n' | sha256sum`.
    #[test]
    fn the_hash_is_of_who_is_where() {
        const EXPECTED: &str = "630bde1af7b103719d39dd609e8301db246331f9d2163d29b6bbca400745cb3f";
        let dev = rows(&["c"]);
        assert_eq!(split_hash(&[("train", &rows(&["a", "b"])), ("dev", &dev)]), EXPECTED);
        assert_eq!(split_hash(&[("dev", &dev), ("train", &rows(&["b", "a"]))]), EXPECTED);
        assert_ne!(split_hash(&[("dev", &rows(&["b"])), ("train", &rows(&["c", "a"]))]), EXPECTED);
    }

    #[test]
    fn a_split_file_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SplitFile::read(folder.path()).unwrap(), None);
        let scripted = Condition::Rows { key: "style".into(), value: "scripted".into() };
        let short = Condition::Words { words: 5 };
        let file = SplitFile {
            format: SPLIT_FORMAT.into(),
            fold: Some("1 of 5".into()),
            shared: vec![
                Declaration::new(Kind::Text, ["train", "test"], "scripts").only(scripted),
                Declaration::new(Kind::Text, ["train", "test"], "replies").only(short),
                Declaration::new(Kind::Speaker, ["dev", "test"], "all"),
            ],
            ..SplitFile::default()
        };
        std::fs::write(folder.path().join(SPLIT_FILE), serde_json::to_vec(&file).unwrap()).unwrap();
        assert_eq!(SplitFile::read(folder.path()).unwrap(), Some(file));
        std::fs::write(folder.path().join(SPLIT_FILE), "[1").unwrap();
        let error = SplitFile::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("split.json: not as this program writes it"), "{error}");
    }

    #[test]
    fn every_pair_is_declared_once() {
        let pairs: Vec<[String; 2]> =
            Declaration::every_pair(Kind::Text, &PARTS, "").into_iter().map(|declaration| declaration.splits).collect();
        assert_eq!(pairs, [["train", "dev"], ["train", "test"], ["dev", "test"]]);
    }

    #[test]
    fn no_bytes_panic() {
        let folder = tempfile::tempdir().unwrap();
        let good = br#"{"format":"clasp-split-1","fold":"1 of 5","files":{"train":{"utterances":2,"sha256":"00"}},
            "shared":[{"kind":"text","splits":["train","test"],"only":{"words":5},"reason":"replies"}],"more":[1]}"#;
        let leaks = br#"{"format":"clasp-leaks-1","allowed":[{"kind":"speaker","splits":["dev","test"],"values":3,"manifests":["00","01"]}]}"#;
        std::fs::write(folder.path().join(LEAKS_FILE), leaks).unwrap();
        assert_eq!(Leaks::read(folder.path()).unwrap().allowed.len(), 1);
        crate::damage::each(&[&good[..], leaks], 1_000, |bytes| {
            for name in [SPLIT_FILE, LEAKS_FILE] {
                std::fs::write(folder.path().join(name), bytes).unwrap();
            }
            let _ = SplitFile::read(folder.path()).map_err(|error| error.to_string());
            let _ = Leaks::read(folder.path()).map_err(|error| error.to_string());
        });
    }
}
