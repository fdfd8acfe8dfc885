//! What a run records of its split, and its reports repeat: the split's hash, how it was made, and what its parts
//! share. Computed from the manifests themselves, so that a split that nobody checked is reported too.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::content;
use super::overlap::{self, Overlap, OverlapStatus, Piece};
use super::{Declaration, Leaks, SplitFile, split_hash};
use crate::data::manifest::Row;
use crate::hash;

/// A split and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SplitRecord {
    /// The hash of the split: as `split.json` states it, else of the parts that are used.
    pub sha256: String,
    /// The hash of the parts that are used, which need not be all of the split.
    pub used_sha256: String,
    /// The corpus, where `split.json` says it.
    pub corpus: Option<String>,
    /// The protocol, where `split.json` says it.
    pub protocol: Option<String>,
    /// Which fold of how many.
    pub fold: Option<String>,
    pub shared: Vec<Overlap>,
}

/// A part of a run: what it is to it, its manifest and the rows in it.
pub type Used<'a> = (&'a str, &'a Path, &'a [Row]);

impl SplitRecord {
    /// Of the parts that a run uses. Files of as many bytes in different parts are read, to find copies.
    pub fn of(used: &[Used]) -> Self {
        let mut declared = Vec::new();
        // A part that has another name in its folder is known there by that.
        let here = |folder: &Path, stem: &String| {
            let is_it = |(_, path, _): &&Used| {
                path.parent() == Some(folder) && path.file_stem().is_some_and(|name| name == stem.as_str())
            };
            used.iter().find(is_it).map(|(name, ..)| (*name).to_owned()).unwrap_or_default()
        };
        let mut proof = Self::default();
        for folder in folders(used.iter().map(|(_, path, _)| *path)) {
            // A file of another program is none of ours.
            if let Ok(Some(file)) = SplitFile::read(folder) {
                declared.extend(file.shared.into_iter().map(|declaration| {
                    let splits = declaration.splits.each_ref().map(|stem| here(folder, stem));
                    Declaration { splits, ..declaration }
                }));
                let said = |word: String| Some(word).filter(|word| !word.is_empty());
                if proof.sha256.is_empty() {
                    proof.sha256 = file.sha256;
                }
                proof.corpus = proof.corpus.or(said(file.corpus));
                proof.protocol = proof.protocol.or(said(file.protocol));
                proof.fold = proof.fold.or(file.fold);
            }
        }
        let rows: Vec<(&str, &[Row])> = used.iter().map(|(name, _, rows)| (*name, *rows)).collect();
        let parts: Vec<overlap::Part> = rows.iter().map(|&(name, rows)| overlap::Part { name, rows }).collect();
        let contents = content::known_by(content::paths(used.iter().map(|(_, _, rows)| *rows)), true);
        let piece = |row: &Row| Some(Piece::of(row, contents.get(row.audio.as_ref()?)?.clone()));
        proof.used_sha256 = split_hash(&rows);
        if proof.sha256.is_empty() {
            proof.sha256.clone_from(&proof.used_sha256);
        }
        proof.shared = overlap::find(&parts, &declared, &piece, &|_, _| false);
        let files: Vec<(&str, &Path, String)> =
            used.iter().filter_map(|(name, path, _)| Some((*name, *path, hash::of_file(path).ok()?.1))).collect();
        let files: Vec<(&str, &Path, &str)> =
            files.iter().map(|(name, path, sha256)| (*name, *path, sha256.as_str())).collect();
        proof.with_allowances(&files)
    }

    /// With what users allowed for these manifests (name, path, SHA-256), also since the run began, and also what only
    /// `clasp check --decode` can find.
    pub fn with_allowances(mut self, files: &[(&str, &Path, &str)]) -> Self {
        for folder in folders(files.iter().map(|(_, path, _)| *path)) {
            for leak in Leaks::read(folder).unwrap_or_default().allowed {
                let name = |sha256: &String| files.iter().find(|(_, _, found)| found == sha256).map(|(name, ..)| *name);
                let [Some(left), Some(right)] = leak.manifests.each_ref().map(name) else { continue };
                let is_it = |overlap: &Overlap| {
                    let [one, other] = overlap.splits.each_ref().map(String::as_str);
                    overlap.kind == leak.kind && ([one, other] == [left, right] || [other, one] == [left, right])
                };
                let mut is_known = false;
                for overlap in self.shared.iter_mut().filter(|overlap| is_it(overlap)) {
                    is_known |= overlap.status == OverlapStatus::Allowed;
                    if overlap.is_leak() {
                        overlap.status = OverlapStatus::Allowed;
                        is_known = true;
                    }
                }
                if !is_known {
                    self.shared.push(Overlap {
                        kind: leak.kind,
                        splits: [left, right].map(str::to_owned),
                        values: leak.values,
                        rows: [leak.values; 2],
                        examples: Vec::new(),
                        status: OverlapStatus::Allowed,
                    });
                }
            }
        }
        self
    }

    /// The same, of what concerns one part.
    pub fn about(&self, part: &str) -> Self {
        let concerns = |overlap: &&Overlap| overlap.splits.iter().any(|split| split == part);
        Self { shared: self.shared.iter().filter(concerns).cloned().collect(), ..self.clone() }
    }

    /// A sentence for each thing that is shared, leaks as warnings.
    pub fn sentences(&self) -> Vec<String> {
        let sentence = |overlap: &Overlap| {
            let (word, hint) = if overlap.is_leak() { ("warning", "; see `clasp check`") } else { ("note", "") };
            format!("{word}: {}{hint}", overlap.sentence())
        };
        self.shared.iter().map(sentence).collect()
    }
}

fn folders<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<&'a Path> {
    let mut folders: Vec<&Path> = paths.filter_map(Path::parent).collect();
    folders.sort_unstable();
    folders.dedup();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::manifest;
    use crate::splits::{Allowed, Kind};

    #[test]
    fn what_files_declare_and_allow_is_known_by_the_names_of_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = SplitFile {
            corpus: "table".into(),
            protocol: "stratified".into(),
            sha256: "stated".into(),
            shared: vec![Declaration::new(Kind::Speaker, ["train", "dev"], "by label")],
            ..SplitFile::default()
        };
        std::fs::write(at("split.json"), serde_json::to_string(&file).unwrap()).unwrap();
        let row = |id: &str, audio: &str| Row {
            id: id.into(),
            speaker: Some("anna".into()),
            text: Some("hi".into()),
            audio: Some(at(audio)),
            ..Row::default()
        };
        // The recording of one is a copy of the other's, under another name.
        for name in ["a.wav", "b.wav"] {
            std::fs::write(at(name), "sound").unwrap();
        }
        let (train, dev) = ([row("a", "a.wav")], [row("b", "b.wav")]);
        // The run takes the folder's dev part for its test.
        let (train_path, dev_path) = (at("train.jsonl"), at("dev.jsonl"));
        manifest::write(&train_path, &train).unwrap();
        manifest::write(&dev_path, &dev).unwrap();
        let sha256 = |path: &Path| hash::of_file(path).unwrap().1;
        let allow = |kind| Allowed {
            kind,
            splits: ["train".into(), "dev".into()],
            values: 1,
            manifests: [sha256(&train_path), sha256(&dev_path)],
        };
        let leaks = Leaks { format: String::new(), allowed: vec![allow(Kind::Text)] };
        std::fs::write(at("leaks.json"), serde_json::to_string(&leaks).unwrap()).unwrap();
        let proof = || SplitRecord::of(&[("train", &train_path, &train), ("test", &dev_path, &dev)]);
        let found = proof();
        let statuses: Vec<(Kind, &OverlapStatus)> =
            found.shared.iter().map(|overlap| (overlap.kind, &overlap.status)).collect();
        let declared = OverlapStatus::Declared { reason: "by label".into() };
        let expected =
            [(Kind::Speaker, &declared), (Kind::Text, &OverlapStatus::Allowed), (Kind::Audio, &OverlapStatus::Leak)];
        assert_eq!(statuses, expected);
        assert_eq!((found.protocol.as_deref(), found.sha256.as_str()), (Some("stratified"), "stated"));
        assert_eq!(found.used_sha256, split_hash(&[("train", &train[..]), ("test", &dev[..])]));
        assert!(found.sentences()[2].starts_with("warning: train and test share 1 recording"));
        assert_eq!((found.about("test").shared.len(), found.about("dev").shared.len()), (3, 0));
        // What is allowed later is reported later.
        let leaks = Leaks { allowed: vec![allow(Kind::Text), allow(Kind::Audio)], ..leaks };
        std::fs::write(at("leaks.json"), serde_json::to_string(&leaks).unwrap()).unwrap();
        let hashes = [sha256(&train_path), sha256(&dev_path)];
        let later = found.with_allowances(&[("train", &train_path, &hashes[0]), ("test", &dev_path, &hashes[1])]);
        assert_eq!((later.shared.len(), &later.shared[2].status), (3, &OverlapStatus::Allowed));
        // It was allowed for these manifests, and for no others.
        manifest::write(&dev_path, &[dev[0].clone(), Row { id: "c".into(), ..dev[0].clone() }]).unwrap();
        assert!(proof().shared[1..].iter().all(Overlap::is_leak));
        std::fs::write(at("split.json"), "[\"not ours\"]").unwrap();
        assert!(proof().shared[0].is_leak());
    }
}
