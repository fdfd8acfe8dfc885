//! Which folder is a checkpoint's, and what is said of one that is not.

use std::path::{Path, PathBuf};

use super::{CheckpointError, sums};
use crate::{
    config::locate,
    data::{
        DataError,
        text::{self, Tokenizer},
    },
    files::CONFIG,
};

/// The checkpoint folder that a path names: itself, or `best/` of a run folder, or a model of the Hugging Face cache.
pub fn checkpoint_folder(path: &Path) -> PathBuf {
    let path = locate::folder(path.to_owned(), &path.to_string_lossy(), &locate::hub_cache());
    let best = path.join("best");
    if !path.join(CONFIG).exists() && best.join(CONFIG).exists() { best } else { path }
}

/// Says what a path lacks that is to be a checkpoint folder.
///
/// # Errors
/// [`CheckpointError::Config`]
pub fn check_folder(path: &Path) -> Result<(), CheckpointError> {
    let problem = if path.join(CONFIG).exists() {
        return Ok(());
    } else if !path.exists() {
        "there is no such folder, and no such model in the Hugging Face cache (`clasp models fetch NAME` brings one \
         there); name a checkpoint folder, or a run folder"
    } else if !path.is_dir() {
        "it is a file; name a checkpoint folder, or a run folder"
    } else if path.join("best").join(CONFIG).exists() {
        "it is a run folder; name its best/ folder"
    } else if path.join("manifest.json").exists() {
        "the run has no best checkpoint yet; let it come to the end of an epoch (clasp train --resume)"
    } else {
        "it is no checkpoint folder (it has no config.json) and no run folder (it has no best/)"
    };
    Err(CheckpointError::Config { path: path.to_owned(), problem: problem.to_owned() })
}

/// The tokenizer of a folder, as it was saved where the folder states hashes.
///
/// # Errors
/// It is missing, damaged or another one than was saved.
pub fn tokenizer(folder: &Path) -> Result<Tokenizer, CheckpointError> {
    let tokenizer = Tokenizer::load(folder).map_err(|problem| unusable_tokenizer(folder, problem))?;
    sums::check(folder, |name| text::FILES.contains(&name))?;
    Ok(tokenizer)
}

/// The tokenizer is a part of the checkpoint, so that its fault is the checkpoint's.
fn unusable_tokenizer(folder: &Path, problem: DataError) -> CheckpointError {
    match problem {
        DataError::Tokenizer { path, reason } => CheckpointError::Damaged { path, problem: reason },
        DataError::NoTokenizer { missing, .. } => CheckpointError::Config {
            path: folder.to_owned(),
            problem: format!(
                "it has no tokenizer: tokenizer.json, or vocab.json and merges.txt ({missing} missing); copy the \
                 checkpoint again"
            ),
        },
        other => CheckpointError::Config { path: folder.to_owned(), problem: other.to_string() },
    }
}
