//! What a run records of its split, and its reports repeat: the split's hash, how it was made, and what its parts
//! share. Computed from the manifests themselves, so that a split that nobody checked is told of too.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::Row;
use super::overlap::{self, Overlap, Piece};
use super::split::{Declaration, Leaks, SplitFile, split_hash};

/// A split and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// The hash of the split.
    pub sha256: String,
    /// The corpus, where `split.json` says it.
    pub corpus: Option<String>,
    /// The protocol, where `split.json` says it.
    pub protocol: Option<String>,
    /// Which fold of how many.
    pub fold: Option<String>,
    /// What the parts share.
    pub shared: Vec<Overlap>,
}

/// A part of a run: what it is to it, its manifest and the rows in it.
pub type Used<'a> = (&'a str, &'a Path, &'a [Row]);

impl Proof {
    /// Of the parts that a run uses.
    #[must_use]
    pub fn of(used: &[Used]) -> Self {
        let mut declared = Vec::new();
        let mut allowed = Vec::new();
        let mut folders: Vec<&Path> = used.iter().filter_map(|(_, path, _)| path.parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        // A part that has another name in its folder is known there by that.
        let here = |folder: &Path, stem: &String| {
            let is_it = |(_, path, _): &&Used| {
                path.parent() == Some(folder) && path.file_stem().is_some_and(|name| name == stem.as_str())
            };
            used.iter().find(is_it).map(|(name, ..)| (*name).to_owned()).unwrap_or_default()
        };
        let mut proof = Self::default();
        for folder in folders {
            // A file of another program is none of ours.
            if let Ok(Some(file)) = SplitFile::read(folder) {
                declared.extend(file.shared.into_iter().map(|declaration| {
                    let splits = declaration.splits.each_ref().map(|stem| here(folder, stem));
                    Declaration { splits, ..declaration }
                }));
                let said = |word: String| Some(word).filter(|word| !word.is_empty());
                proof.corpus = proof.corpus.or(said(file.corpus));
                proof.protocol = proof.protocol.or(said(file.protocol));
                proof.fold = proof.fold.or(file.fold);
            }
            for leak in Leaks::read(folder).unwrap_or_default().allowed {
                allowed.push((leak.kind, leak.splits.each_ref().map(|stem| here(folder, stem))));
            }
        }
        let rows: Vec<(&str, &[Row])> = used.iter().map(|(name, _, rows)| (*name, *rows)).collect();
        let parts: Vec<overlap::Part> = rows.iter().map(|&(name, rows)| overlap::Part { name, rows }).collect();
        let is_allowed = |kind, [left, right]: [&str; 2]| {
            allowed.iter().any(|(found, splits)| {
                let is_pair = |one: &str, other: &str| splits[0] == one && splits[1] == other;
                *found == kind && (is_pair(left, right) || is_pair(right, left))
            })
        };
        proof.sha256 = split_hash(&rows);
        proof.shared = overlap::find(&parts, &declared, &Piece::by_path, &is_allowed);
        proof
    }

    /// The same, of what concerns one part.
    #[must_use]
    pub fn about(&self, part: &str) -> Self {
        let concerns = |overlap: &&Overlap| overlap.splits.iter().any(|split| split == part);
        Self { shared: self.shared.iter().filter(concerns).cloned().collect(), ..self.clone() }
    }

    /// A sentence for each thing that is shared, leaks as warnings.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let sentence = |overlap: &Overlap| {
            let (word, hint) = if overlap.is_leak() { ("warning", "; see `clasp check`") } else { ("note", "") };
            format!("{word}: {}{hint}", overlap.sentence())
        };
        self.shared.iter().map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::overlap::Standing;
    use crate::data::split::{Allowed, Kind};

    #[test]
    fn what_files_declare_and_allow_is_known_by_the_names_of_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let file = SplitFile {
            corpus: "table".into(),
            protocol: "stratified".into(),
            shared: vec![Declaration::new(Kind::Speaker, ["train", "dev"], "by label")],
            ..SplitFile::default()
        };
        std::fs::write(at("split.json"), serde_json::to_string(&file).unwrap()).unwrap();
        let allowed = Allowed { kind: Kind::Text, splits: ["dev".into(), "train".into()], values: 1 };
        let leaks = Leaks { format: String::new(), allowed: vec![allowed] };
        std::fs::write(at("leaks.json"), serde_json::to_string(&leaks).unwrap()).unwrap();
        let row = |id: &str, audio: &str| Row {
            id: id.into(),
            speaker: Some("anna".into()),
            text: Some("hi".into()),
            audio: Some(at(audio)),
            ..Row::default()
        };
        let (train, dev) = ([row("a", "a.wav")], [row("b", "a.wav")]);
        // The run takes the folder's dev part for its test.
        let (train_path, dev_path) = (at("train.jsonl"), at("dev.jsonl"));
        let proof = Proof::of(&[("train", &train_path, &train), ("test", &dev_path, &dev)]);
        let found: Vec<(Kind, &Standing)> =
            proof.shared.iter().map(|overlap| (overlap.kind, &overlap.standing)).collect();
        let declared = Standing::Declared { reason: "by label".into() };
        let expected = [(Kind::Speaker, &declared), (Kind::Text, &Standing::Allowed), (Kind::Audio, &Standing::Leak)];
        assert_eq!(found, expected);
        assert_eq!((proof.protocol.as_deref(), proof.sha256.len()), (Some("stratified"), 64));
        assert!(proof.sentences()[2].starts_with("warning: train and test share 1 recording"));
        assert_eq!((proof.about("test").shared.len(), proof.about("dev").shared.len()), (3, 0));
        std::fs::write(at("split.json"), "[\"not ours\"]").unwrap();
        let proof = Proof::of(&[("train", &train_path, &train), ("test", &dev_path, &dev)]);
        assert_eq!(proof.shared[0].standing, Standing::Leak);
    }
}
