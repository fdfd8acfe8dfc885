//! Which audio files are the same recording: by their bytes, so that a copy under another name is found.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::data::manifest::Row;
use crate::hash;

/// What the content of each file is known by: a hash where another file has as many bytes, its path where none has.
/// `paths` has the part that each belongs to; where `across` is set, only files of different parts are compared with
/// each other, which reads less.
pub fn known_by<'a>(paths: impl Iterator<Item = (&'a Path, usize)>, across: bool) -> HashMap<PathBuf, String> {
    let mut files: BTreeMap<PathBuf, (Vec<PathBuf>, Vec<usize>)> = BTreeMap::new();
    for (path, part) in paths {
        // Two ways to name a file are one file.
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let (names, parts) = files.entry(real).or_default();
        if !names.iter().any(|name| name == path) {
            names.push(path.to_path_buf());
        }
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let mut by_length: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for real in files.keys() {
        if let Ok(facts) = std::fs::metadata(real)
            && facts.is_file()
        {
            by_length.entry(facts.len()).or_default().push(real.clone());
        }
    }
    let is_worth_hashing = |reals: &[PathBuf]| {
        let mut parts = reals.iter().flat_map(|real| &files[real].1);
        let first = parts.next();
        reals.len() > 1 && (!across || parts.any(|part| Some(part) != first))
    };
    let known: Vec<(PathBuf, String)> = by_length
        .into_par_iter()
        .flat_map_iter(|(_, reals)| {
            let is_hashed = is_worth_hashing(&reals);
            reals.into_iter().map(move |real| {
                let hashed = if is_hashed { hash::of_file(&real).ok().map(|(_, hash)| hash) } else { None };
                let content = hashed.unwrap_or_else(|| real.display().to_string());
                (real, content)
            })
        })
        .collect();
    let named = known.into_iter().flat_map(|(real, content)| {
        files[&real].0.iter().map(|name| (name.clone(), content.clone())).collect::<Vec<_>>()
    });
    named.collect()
}

/// The files of some parts with the part of each.
pub fn paths<'a>(parts: impl Iterator<Item = &'a [Row]>) -> impl Iterator<Item = (&'a Path, usize)> {
    let numbered = parts.enumerate();
    numbered.flat_map(|(part, rows)| rows.iter().filter_map(move |row| Some((row.audio.as_deref()?, part))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_by_the_same_and_little_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, content) in [("a", "one"), ("copy", "one"), ("other", "two"), ("long", "three")] {
            std::fs::write(at(name), content).unwrap();
        }
        std::os::unix::fs::symlink(at("long"), at("link")).unwrap();
        let names = ["a", "copy", "other", "long", "link", "gone"].map(at);
        let found = known_by(names.iter().map(|path| (path.as_path(), 0)), false);
        assert_eq!(found[&names[0]], hash::of_bytes(b"one"));
        assert_eq!(found[&names[0]], found[&names[1]]);
        assert_ne!(found[&names[0]], found[&names[2]]);
        assert_eq!((&found[&names[3]], found.contains_key(&names[5])), (&found[&names[4]], false));
        // Within a part nothing needs to be read.
        let found = known_by(names.iter().map(|path| (path.as_path(), 0)), true);
        assert_ne!(found[&names[0]], found[&names[1]]);
        let found = known_by(names.iter().enumerate().map(|(part, path)| (path.as_path(), part % 2)), true);
        assert_eq!(found[&names[0]], found[&names[1]]);
    }
}
