//! `recordings-sha256.jsonl`: the size, the time and the SHA-256 of every recording that a run reads, a line each.
//!
//! A resume reads again only the files whose size or time is another: their content decides, so that a copied folder
//! goes on and a recording that was replaced is noticed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::manifest::Row;
use crate::files::{FileError, replace_file};
use crate::hash;

/// A recording of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    pub split: String,
    /// As its manifest names it, relative to that: the two move together.
    pub audio: PathBuf,
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970; 0 where the file system does not say.
    pub modified: u64,
    pub sha256: String,
}

/// A split with the path of its manifest.
pub type Part<'a> = (&'a str, &'a Path, &'a [Row]);

/// The recordings of some splits as they are now. Of those that are in `known`, with the same size and time, the hash
/// is taken from there; `None` for `known` reads them all. What is not there is left out.
///
/// # Errors
/// A file cannot be read.
pub fn of(parts: &[Part], known: Option<&[Recording]>) -> Result<Vec<Recording>, FileError> {
    let known: HashMap<(&str, &Path), &Recording> = known
        .into_iter()
        .flatten()
        .map(|recording| ((recording.split.as_str(), recording.audio.as_path()), recording))
        .collect();
    let files: BTreeSet<(&str, &Path, &Path)> = parts
        .iter()
        .flat_map(|&(split, manifest, rows)| {
            let base = manifest.parent().unwrap_or(Path::new(""));
            let audio = rows.iter().filter_map(|row| row.audio.as_deref());
            audio.map(move |path| (split, path.strip_prefix(base).unwrap_or(path), path))
        })
        .collect();
    files
        .into_par_iter()
        .filter_map(|(split, audio, path)| now(split, audio, path, known.get(&(split, audio)).copied()).transpose())
        .collect()
}

fn now(split: &str, audio: &Path, path: &Path, known: Option<&Recording>) -> Result<Option<Recording>, FileError> {
    let failed = |source| FileError::new("hash", path, source);
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or_default();
    let is_known = |known: &&Recording| modified > 0 && (known.bytes, known.modified) == (metadata.len(), modified);
    let (bytes, sha256) = match known.filter(is_known) {
        Some(known) => (known.bytes, known.sha256.clone()),
        None => hash::of_file(path).map_err(failed)?,
    };
    Ok(Some(Recording { split: split.to_owned(), audio: audio.to_owned(), bytes, modified, sha256 }))
}

/// Adds those of `known` that are not there now, as they were: they may come back.
pub fn keep(known: &[Recording], now: &mut Vec<Recording>) {
    let here: HashSet<(String, PathBuf)> =
        now.iter().map(|recording| (recording.split.clone(), recording.audio.clone())).collect();
    let is_gone = |old: &&Recording| !here.contains(&(old.split.clone(), old.audio.clone()));
    now.extend(known.iter().filter(is_gone).cloned());
}

/// A sentence for each recording whose content is another than it was.
pub fn changed(known: &[Recording], now: &[Recording]) -> Vec<String> {
    let now: HashMap<(&str, &Path), &Recording> =
        now.iter().map(|recording| ((recording.split.as_str(), recording.audio.as_path()), recording)).collect();
    known
        .iter()
        .filter_map(|old| {
            let place = format!("{}: the recording {}", old.split, old.audio.display());
            match now.get(&(old.split.as_str(), old.audio.as_path())) {
                None => Some(format!("{place} is gone")),
                Some(now) => (now.sha256 != old.sha256).then(|| format!("{place} has changed")),
            }
        })
        .collect()
}

/// Reads the file; `None` if a run has none, as those of older programs.
///
/// # Errors
/// It cannot be read, or a line is no recording.
pub fn read(path: &Path) -> Result<Option<Vec<Recording>>, FileError> {
    let failed = |source| FileError::new("read", path, source);
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let parsed: Result<Vec<Recording>, _> = text.lines().map(serde_json::from_str).collect();
    parsed.map(Some).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Writes the file, in one step.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, recordings: &[Recording]) -> Result<(), FileError> {
    let mut text = Vec::new();
    for recording in recordings {
        serde_json::to_writer(&mut text, recording).map_err(|error| FileError::new("write", path, error.into()))?;
        text.push(b'\n');
    }
    replace_file(path, &text)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_content_decides_where_size_or_time_differ() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.wav"), "abc").unwrap();
        fs::write(at("b.wav"), "two").unwrap();
        let row = |name: &str| Row { audio: Some(at(name)), ..Row::default() };
        // Two pieces of one recording, and one that is not there.
        let rows = [row("a.wav"), row("a.wav"), row("b.wav"), row("none.wav")];
        let manifest = at("train.jsonl");
        let parts = [("train", manifest.as_path(), &rows[..])];
        let first = of(&parts, None).unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!((first[0].audio.as_path(), first[0].bytes), (Path::new("a.wav"), 3));
        // FIPS 180-2, appendix B.1.
        assert!(first[0].sha256.starts_with("ba7816bf8f01cfea"));
        write(&at("list"), &first).unwrap();
        assert_eq!(read(&at("list")).unwrap().unwrap(), first);
        assert_eq!(read(&at("no list")).unwrap(), None);

        // Another time, as of a copy: read again, and the same.
        let touch = |name: &str, seconds| {
            let file = File::options().write(true).open(at(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        touch("a.wav", 1_000);
        let second = of(&parts, Some(&first)).unwrap();
        assert!(changed(&first, &second).is_empty() && second[0].modified == 1_000_000_000_000);
        // Other content of the same size and time is found only by reading all.
        fs::write(at("a.wav"), "abd").unwrap();
        touch("a.wav", 1_000);
        assert_eq!(of(&parts, Some(&second)).unwrap(), second);
        assert_eq!(changed(&second, &of(&parts, None).unwrap()), ["train: the recording a.wav has changed"]);
        touch("a.wav", 1_001);
        fs::remove_file(at("b.wav")).unwrap();
        let third = of(&parts, Some(&second)).unwrap();
        assert_eq!(
            changed(&second, &third),
            ["train: the recording a.wav has changed", "train: the recording b.wav is gone"]
        );
        let mut kept = third;
        keep(&second, &mut kept);
        assert_eq!((kept.len(), &kept[1]), (2, &second[1]));
    }
}
