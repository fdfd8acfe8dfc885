//! `SHA256SUMS` of a checkpoint folder: the hashes of its files, in the form that `sha256sum -c` reads. A folder without
//! it, as older versions wrote, is not checked.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::CheckpointError;
use crate::{files, hash};

/// The name of the file.
pub const FILE: &str = "SHA256SUMS";

/// A line a file.
const LONGEST: u64 = 1 << 16;

/// Writes the hashes of all files of a folder.
///
/// # Errors
/// A file that cannot be read or written.
pub fn write(folder: &Path) -> Result<(), CheckpointError> {
    let failed = |path: &Path, cause| CheckpointError::Write { path: path.to_owned(), cause };
    let entries = std::fs::read_dir(folder).map_err(|cause| failed(folder, cause))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|cause| failed(folder, cause))?;
    paths.retain(|path| path.is_file() && !path.ends_with(FILE));
    paths.sort();
    let hashes: Vec<String> = paths
        .par_iter()
        .with_max_len(1)
        .map(|path| hash::of_file(path).map(|(_, hash)| hash).map_err(|cause| failed(path, cause)))
        .collect::<Result<_, _>>()?;
    let mut text = String::new();
    for (path, hash) in paths.iter().zip(hashes) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{hash}  {name}");
    }
    let path = folder.join(FILE);
    std::fs::write(&path, text).map_err(|cause| failed(&path, cause))
}

/// Compares the files for which `is_wanted` with what was written; returns how many were compared.
///
/// # Errors
/// The first file that is missing or another one than was saved.
pub fn check(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<usize, CheckpointError> {
    let Some(sums) = read(folder)? else { return Ok(0) };
    let wanted: Vec<(String, String)> = sums.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    wanted.par_iter().with_max_len(1).try_for_each(|(name, stated)| {
        let path = folder.join(name);
        let found = files::open_regular(&path).and_then(|_| hash::of_file(&path));
        match found {
            Ok((_, found)) if found == *stated => Ok(()),
            Ok(_) => Err(CheckpointError::Changed { path }),
            Err(cause) => Err(CheckpointError::Read { path, cause }),
        }
    })?;
    Ok(wanted.len())
}

/// The hashes by file name; `None` if the folder states none.
fn read(folder: &Path) -> Result<Option<BTreeMap<String, String>>, CheckpointError> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(&path, LONGEST).map_err(|cause| CheckpointError::Read { path: path.clone(), cause })?;
    let entry = |line: &str| {
        let (hash, name) = line.split_once("  ")?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        (is_hash && is_name).then(|| (name.to_owned(), hash.to_ascii_lowercase()))
    };
    let entries: Option<BTreeMap<_, _>> = text.lines().map(entry).collect();
    let damaged = || CheckpointError::Damaged { path, problem: "a line is no hash and name".into() };
    entries.map(Some).ok_or_else(damaged)
}
