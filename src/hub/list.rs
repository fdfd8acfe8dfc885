//! What the Hugging Face cache has.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{HubError, lacks};
use crate::checkpoint::FORMAT;
use crate::config::hub::MAIN;
use crate::files::CONFIG;

/// A snapshot of a model in the cache.
#[derive(Clone, Debug, Serialize)]
pub struct Cached {
    /// What a config calls it.
    pub name: String,
    pub id: String,
    /// Branch or tag, else the commit.
    pub revision: String,
    /// `clasp` for a checkpoint, else the `model_type` of its `config.json`.
    pub kind: String,
    pub folder: PathBuf,
    /// The length of its files together.
    pub bytes: u64,
    /// What it lacks, where it is not complete.
    pub missing: Option<String>,
}

/// The models of a cache, by name.
///
/// # Errors
/// [`HubError::Disk`]; a cache that is not there has none.
pub fn list(cache: &Path) -> Result<Vec<Cached>, HubError> {
    let mut models = Vec::new();
    for folder in entries(cache)? {
        let file_name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(id) = file_name.strip_prefix("models--").map(|name| name.replace("--", "/")) else { continue };
        let refs = refs(&folder.join("refs"))?;
        for snapshot in entries(&folder.join("snapshots"))?.into_iter().filter(|path| path.is_dir()) {
            let commit = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
            models.push(cached(id.clone(), refs.get(&commit).unwrap_or(&commit), snapshot)?);
        }
    }
    models.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(models)
}

fn cached(id: String, revision: &str, folder: PathBuf) -> Result<Cached, HubError> {
    let name = if revision == MAIN { id.clone() } else { format!("{id}@{revision}") };
    let text = fs::read_to_string(folder.join(CONFIG)).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let kind = if config["format"] == FORMAT { "clasp" } else { config["model_type"].as_str().unwrap_or("unknown") };
    let bytes = entries(&folder)?.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum();
    Ok(Cached {
        name,
        id,
        revision: revision.to_owned(),
        kind: kind.to_owned(),
        bytes,
        missing: lacks(&folder),
        folder,
    })
}

/// The branches and tags of a model, by commit; `main` wins.
fn refs(folder: &Path) -> Result<BTreeMap<String, String>, HubError> {
    let mut refs = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for path in entries(&inner)? {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let (Ok(commit), Ok(name)) = (fs::read_to_string(&path), path.strip_prefix(folder)) else { continue };
            let name = name.to_string_lossy().into_owned();
            let best = refs.entry(commit.trim().to_owned()).or_insert_with(|| name.clone());
            if name == MAIN {
                *best = name;
            }
        }
    }
    Ok(refs)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, HubError> {
    let failed = |cause| HubError::Disk { path: folder.to_owned(), cause };
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(failed),
        Err(problem) if problem.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(problem) => Err(failed(problem)),
    }
}
