//! Writes what a corpus came to: a folder of manifests with its `split.json`, or such a folder for each fold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::data::DataError;
use crate::data::manifest::{self, Row};
use crate::data::names::look_alikes;
use crate::files::replace_file;
use crate::hash;
use crate::splits::{
    Declaration, LEAKS_FILE, PARTS, Part, SPLIT_FILE, SPLIT_FORMAT, Skipped, Source, SplitFile, split_hash,
};

/// More files than this are hashed into one digest.
const MOST_SOURCES: usize = 20;

/// A corpus under a protocol, ready to be written.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    /// Its name, as in `split.json`.
    pub name: &'static str,
    pub protocol: String,
    /// The options of the command.
    pub options: Value,
    pub sources: Vec<PathBuf>,
    /// One folder, or one for each fold.
    pub folds: Vec<Fold>,
    pub counts: Map<String, Value>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Utterances that were left out.
    pub skipped: Vec<Skipped>,
}

/// The parts of one fold, or of the only split.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// Parts by name (`train`, `dev`, `test` or others), in the order to show. A part without rows gives no file.
    pub parts: Vec<(String, Vec<Row>)>,
    /// What the parts share by design.
    pub shared: Vec<Declaration>,
}

impl Fold {
    /// A fold of these parts.
    pub fn new<const PARTS: usize>(parts: [(&str, Vec<Row>); PARTS]) -> Self {
        let parts = parts.into_iter().map(|(name, rows)| (name.to_owned(), rows)).collect();
        Self { parts, shared: Vec::new() }
    }
}

/// What was written, for the command to print.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written {
    pub corpus: String,
    pub protocol: String,
    pub manifests: Vec<PathBuf>,
    /// `split.json` of each folder that has manifests.
    pub splits: Vec<SplitFile>,
    pub counts: Map<String, Value>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Utterances that were left out.
    pub skipped: Vec<Skipped>,
}

/// Refuses a folder with manifests that this program did not make there, also in the folders of folds; those of an
/// earlier call are replaced.
///
/// # Errors
///
/// Such a manifest.
pub fn check(output: &Path) -> Result<(), DataError> {
    let is_fold = |path: &PathBuf| {
        let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("fold"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    if output.exists() && !output.is_dir() {
        let reason = "it is a file; choose another --output, a folder".to_owned();
        return Err(DataError::Table { path: output.to_path_buf(), reason });
    }
    for folder in std::iter::once(output.to_path_buf()).chain(folders_in(output)?.into_iter().filter(is_fold)) {
        if folder.join(SPLIT_FILE).exists() {
            continue;
        }
        if let Some(path) = files_in(&folder)?.into_iter().find(|path| is_manifest(path)) {
            let reason = "it is there already, and no split.json beside it says that it was made by this command; \
                          choose another --output, or remove it";
            return Err(DataError::Table { path, reason: reason.to_owned() });
        }
    }
    Ok(())
}

/// Refuses to read what would be replaced.
fn check_sources(output: &Path, sources: &[PathBuf]) -> Result<(), DataError> {
    let Ok(output) = output.canonicalize() else { return Ok(()) };
    let is_inside =
        |path: &&PathBuf| is_manifest(path) && path.canonicalize().is_ok_and(|path| path.starts_with(&output));
    sources.iter().find(is_inside).map_or(Ok(()), |path| {
        let reason = "the input lies in the output folder and would be replaced; choose another --output".to_owned();
        Err(DataError::Table { path: path.clone(), reason })
    })
}

/// Writes manifests and `split.json` into `output`; more than one fold goes into `fold1`, `fold2`, ... in it. What an
/// earlier call left there and this one does not write is removed.
///
/// # Errors
///
/// As [`check`]; a file cannot be written.
pub fn write(output: &Path, corpus: Corpus) -> Result<Written, DataError> {
    check(output)?;
    check_sources(output, &corpus.sources)?;
    let made = |folder: &Path| std::fs::create_dir_all(folder).map_err(|error| DataError::write(folder, &error));
    made(output)?;
    let sources = sources(&corpus.sources)?;
    let common = SplitFile {
        format: SPLIT_FORMAT.to_owned(),
        corpus: corpus.name.to_owned(),
        protocol: corpus.protocol.clone(),
        options: corpus.options,
        sources,
        counts: corpus.counts.clone(),
        skipped: corpus.skipped.clone(),
        ..SplitFile::default()
    };
    let count = corpus.folds.len();
    let folders: Vec<String> = (1..=count).map(|number| format!("fold{number}")).collect();
    let old = old_files(output, if count > 1 { &folders } else { &[] })?;
    let mut written = Written {
        corpus: common.corpus.clone(),
        protocol: corpus.protocol,
        manifests: Vec::new(),
        splits: Vec::new(),
        counts: corpus.counts,
        notes: corpus.notes,
        skipped: corpus.skipped,
    };
    if count > 1 {
        save(output, &SplitFile { folds: folders.clone(), ..common.clone() })?;
        for (number, (name, fold)) in folders.iter().zip(&corpus.folds).enumerate() {
            let folder = output.join(name);
            made(&folder)?;
            let common = SplitFile { fold: Some(format!("{} of {count}", number + 1)), ..common.clone() };
            write_fold(&folder, fold, common, &mut written)?;
        }
    } else if let Some(fold) = corpus.folds.first() {
        write_fold(output, fold, common, &mut written)?;
    }
    written.notes.extend(look_alikes(written.splits.iter().flat_map(|split| split.labels.keys())));
    remove(&old, &written.manifests)?;
    Ok(written)
}

fn write_fold(folder: &Path, fold: &Fold, mut file: SplitFile, written: &mut Written) -> Result<(), DataError> {
    let parts: Vec<(&str, &[Row])> = fold
        .parts
        .iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(name, rows)| (name.as_str(), rows.as_slice()))
        .collect();
    file.sha256 = split_hash(&parts);
    file.shared.clone_from(&fold.shared);
    let mut contents = Vec::new();
    for (name, rows) in parts {
        let path = folder.join(format!("{name}.jsonl"));
        let content = manifest::to_text(&path, rows)?;
        let sha256 = hash::of_bytes(content.as_bytes());
        file.files.insert(name.to_owned(), Part { utterances: rows.len(), sha256 });
        file.utterances.insert(name.to_owned(), rows.len());
        for label in rows.iter().filter_map(|row| row.label.as_ref()) {
            let by_part: &mut BTreeMap<String, usize> = file.labels.entry(label.clone()).or_default();
            *by_part.entry(name.to_owned()).or_default() += 1;
        }
        contents.push((path, content));
    }
    // First: whatever happens to the manifests, it says whose they are, and that they are not what it states.
    save(folder, &file)?;
    for (path, content) in contents {
        replace(&path, content.as_bytes())?;
        written.manifests.push(path);
    }
    written.splits.push(file);
    Ok(())
}

/// What an earlier call left that this one replaces or has no use for: a file of another split would be taken for a
/// part of this one. In the folders of folds that are none any more also their `split.json` and themselves.
fn old_files(folder: &Path, folds: &[String]) -> Result<Vec<PathBuf>, DataError> {
    let unknown = || SplitFile { utterances: PARTS.map(|name| (name.to_owned(), 0)).into(), ..SplitFile::default() };
    let old = match SplitFile::read(folder) {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(old)) => old,
        // As another version wrote it.
        Err(_) => unknown(),
    };
    let is_plain = |name: &String| !name.contains(['/', '\\']);
    let names = old.utterances.into_keys().filter(is_plain).map(|name| format!("{name}.jsonl"));
    // What was allowed was allowed for the old split.
    let mut found: Vec<PathBuf> = names.chain([LEAKS_FILE.to_owned()]).map(|name| folder.join(name)).collect();
    for name in old.folds.iter().filter(|name| is_plain(name)) {
        let path = folder.join(name);
        found.extend(old_files(&path, &[])?);
        if !folds.contains(name) {
            found.extend([path.join(SPLIT_FILE), path]);
        }
    }
    Ok(found)
}

/// Removes old files, but for those that are written anew; folders only where nobody put more into them.
fn remove(old: &[PathBuf], new: &[PathBuf]) -> Result<(), DataError> {
    for path in old.iter().filter(|path| !new.contains(path)) {
        if path.is_dir() {
            let _ = std::fs::remove_dir(path);
            continue;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(DataError::write(path, &error)),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a file in one step: it is the old one or the new one.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), DataError> {
    replace_file(path, content).map_err(|error| DataError::write(path, &error.cause))
}

fn save(folder: &Path, file: &SplitFile) -> Result<(), DataError> {
    let path = folder.join(SPLIT_FILE);
    let text = serde_json::to_string_pretty(file).map_err(|error| DataError::write(&path, &error.into()))?;
    replace(&path, (text + "\n").as_bytes())
}

/// Each file with its hash; of many, the folder that all are in with the hash of the lines `hash TAB path LF`.
fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, DataError> {
    let hashed: Vec<Source> = paths
        .par_iter()
        .map(|path| {
            let (_, sha256) = hash::of_file(path).map_err(|error| DataError::file(path, &error))?;
            Ok(Source { path: path.clone(), sha256 })
        })
        .collect::<Result<_, DataError>>()?;
    if hashed.len() <= MOST_SOURCES {
        return Ok(hashed);
    }
    let common = paths.iter().skip(1).fold(paths[0].clone(), |common, path| {
        common.ancestors().find(|folder| path.starts_with(folder)).unwrap_or(Path::new("")).to_path_buf()
    });
    let mut lines: Vec<String> = hashed
        .iter()
        .map(|source| {
            let path = source.path.strip_prefix(&common).unwrap_or(&source.path);
            format!("{}\t{}\n", source.sha256, path.display())
        })
        .collect();
    lines.sort_unstable();
    Ok(vec![Source { path: common, sha256: hash::of_bytes(lines.concat().as_bytes()) }])
}

/// Whether a file is a manifest, by its name.
pub(crate) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl")
}

/// The files of a folder, sorted; `None` if it is not there. Names that begin with a dot are left out: what a system
/// puts beside files (`._name`) is no part of a corpus.
///
/// # Errors
///
/// The folder cannot be read.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    entries(folder, Path::is_file)
}

/// The folders in a folder, sorted, as [`files_in`].
///
/// # Errors
///
/// The folder cannot be read.
pub fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    entries(folder, Path::is_dir)
}

fn entries(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, DataError> {
    let failed = |error: std::io::Error| DataError::file(folder, &error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with('.') && is_wanted(&entry.path()) {
            paths.push(entry.path());
        }
    }
    // By bytes: the order in which the disk has them, and the locale, decide nothing.
    paths.sort_unstable();
    Ok(paths)
}
