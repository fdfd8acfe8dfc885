//! Whether manifests can be trusted: what is in them, what is wrong with their audio, and what their parts share that
//! nobody declared.
//!
//! Manifests are compared with each other, but for those of different folds of one corpus, which share by design: where
//! folders are given.

mod facts;
mod published;
mod sound;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use facts::{Bin, Facts, Spread, Without};

use crate::data::manifest::{self, Row};
use crate::data::names::look_alikes;
use crate::data::{DataError, FileProblem};
use crate::error::LISTED;
use crate::hash;
use crate::prepare::folder::{files_in, folders_in, is_manifest, replace};
use crate::splits::overlap::{self, Overlap};
use crate::splits::{self, Allowed, Kind, LEAKS_FILE, LEAKS_FORMAT, Leaks, PARTS, SplitFile};
use sound::Sounds;

/// A label this many times as frequent as another is imbalance.
const IMBALANCE: usize = 10;

/// What to look at.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Whether every sample is read: only so is silent, clipped and damaged audio found.
    pub decode: bool,
    /// Kinds of leaks that are allowed.
    pub allowed: Vec<Kind>,
    /// Audio longer than this is cut in training.
    pub max_seconds: f64,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Whether there is no error among the findings.
    pub ok: bool,
    /// What is in each manifest.
    pub manifests: Vec<Facts>,
    /// The splits that the manifests belong to.
    pub splits: Vec<SplitFacts>,
    pub shared: Vec<Overlap>,
    /// What is wrong, errors first.
    pub findings: Vec<Finding>,
    /// Where allowed leaks were written down.
    pub leaks_files: Vec<PathBuf>,
}

/// A folder that `clasp prepare` made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitFacts {
    pub folder: PathBuf,
    pub corpus: String,
    pub protocol: String,
    /// Which fold of how many.
    pub fold: Option<String>,
    /// The hash of the split as its `split.json` states it.
    pub sha256: String,
    /// Whether the manifests still are this split; `None` if not all of them were given.
    pub is_unchanged: Option<bool>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training would fail, or its scores could not be trusted.
    Error,
    /// Probably not what was meant.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// What was looked at: `audio`, `label`, `leak`, ...
    pub check: &'static str,
    /// The manifest, by its name in the report; `None` if it is about several.
    pub manifest: Option<String>,
    /// How many utterances or values it is about.
    pub count: usize,
    /// What it is and what to do.
    pub text: String,
    /// The first of them.
    pub examples: Vec<String>,
}

impl Finding {
    fn new(severity: Severity, check: &'static str, part: &Part, examples: &[String], text: &str) -> Self {
        Self {
            severity,
            check,
            manifest: Some(part.name.clone()),
            count: examples.len(),
            text: text.to_owned(),
            examples: examples.iter().take(LISTED).cloned().collect(),
        }
    }

    fn about_all(severity: Severity, check: &'static str, text: String) -> Self {
        Self { severity, check, manifest: None, count: 1, text, examples: Vec::new() }
    }
}

/// A manifest in memory.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    folder: PathBuf,
    /// The file's name without its ending: the part of its split.
    stem: String,
    /// Its name in the report: the stem, with its folder, or its path, where two have the same.
    name: String,
    /// The SHA-256 of the file.
    sha256: String,
    /// Whether a folder was given, and not this file.
    is_of_folder: bool,
    rows: Vec<Row>,
}

/// Checks manifests; a folder stands for the manifests in it, or for its folds. `progress` receives how many files are read.
///
/// # Errors
///
/// A manifest that is missing or malformed (all are reported); an allowed leak that cannot be written down.
pub fn check(
    inputs: &[PathBuf],
    options: &CheckOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Outcome, DataError> {
    let parts = read(inputs)?;
    let folders: BTreeSet<&Path> = parts.iter().map(|part| part.folder.as_path()).collect();
    let mut states = BTreeMap::new();
    let mut findings = Vec::new();
    for folder in folders {
        match SplitFile::read(folder) {
            Ok(state) => states.extend(state.map(|state| (folder.to_path_buf(), state))),
            // Then it declares nothing: another program may have put it there.
            Err(problem) => findings.push(Finding::about_all(Severity::Warning, "split", problem.to_string())),
        }
    }
    let sounds = Sounds::read(parts.iter().flat_map(|part| &part.rows), options.decode, progress);
    for part in &parts {
        findings.extend(labels(part, &parts));
        findings.extend(texts(part));
        findings.extend(sounds.findings(part, options));
    }
    let labels = parts.iter().flat_map(|part| &part.rows).filter_map(|row| row.label.as_ref());
    for sentence in look_alikes(labels) {
        findings.push(Finding::about_all(Severity::Warning, "label", sentence));
    }
    let splits = splits(&parts, &states, &mut findings);
    let shared = shared(&parts, &states, &sounds, options);
    for overlap in &shared {
        let severity = if overlap.is_leak() { Severity::Error } else { Severity::Note };
        let mut text = overlap.sentence();
        if overlap.is_leak() {
            let word = overlap.kind.word();
            let _ = write!(
                text,
                "; split anew (clasp prepare table --groups ..., or --declare-shared {word} where that is meant), or \
                 --allow-leak {word}"
            );
        }
        findings.push(Finding {
            severity,
            check: if overlap.is_leak() { "leak" } else { "shared" },
            manifest: None,
            count: overlap.values,
            text,
            examples: overlap.examples.clone(),
        });
    }
    findings.extend(ids_in_two(&parts, &states, options));
    if !options.decode && parts.iter().any(|part| part.rows.iter().any(|row| row.audio.is_some())) {
        let text = "only headers of the audio were read; --decode reads every sample, and finds what is damaged, \
                    silent or clipped";
        findings.push(Finding::about_all(Severity::Note, "audio", text.to_owned()));
    }
    findings.sort_by_key(|finding| finding.severity);
    let leaks_files = write_allowed(&parts, &shared)?;
    Ok(Outcome {
        ok: findings.iter().all(|finding| finding.severity != Severity::Error),
        manifests: parts.iter().map(|part| Facts::of(&part.name, &part.path, &part.rows, &sounds)).collect(),
        splits,
        shared,
        findings,
        leaks_files,
    })
}

fn read(inputs: &[PathBuf]) -> Result<Vec<Part>, DataError> {
    let mut paths: Vec<(PathBuf, bool)> = Vec::new();
    let mut problems = Vec::new();
    for input in inputs {
        match manifests_of(input) {
            Ok(found) => paths.extend(found.into_iter().map(|path| (path, input.is_dir()))),
            Err(problem) => problems.push(problem),
        }
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, is_of_folder) in paths {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if !seen.insert(real.clone()) {
            continue;
        }
        match manifest::read(&path) {
            Ok(rows) => {
                let folder = real.parent().unwrap_or(Path::new("/")).to_path_buf();
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let (_, sha256) = hash::of_file(&path).map_err(|error| DataError::file(&path, &error))?;
                parts.push(Part { name: stem.clone(), path, folder, stem, sha256, is_of_folder, rows });
            }
            Err(problem) => problems.push(problem),
        }
    }
    DataError::check(problems)?;
    // The shortest names that tell all apart.
    let longer: [fn(&Part) -> String; 2] = [
        |part| format!("{}/{}", part.folder.file_name().unwrap_or_default().to_string_lossy(), part.stem),
        |part| part.path.display().to_string(),
    ];
    for name in longer {
        let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        for part in &mut parts {
            if names.iter().filter(|other| **other == part.name).count() > 1 {
                part.name = name(part);
            }
        }
    }
    Ok(parts)
}

/// A file as it is; of a folder its manifests, else those of the folders in it.
fn manifests_of(input: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !input.is_dir() {
        return Ok(vec![input.to_path_buf()]);
    }
    let in_folder = |folder: &Path| -> Result<Vec<PathBuf>, DataError> {
        let mut found: Vec<PathBuf> = files_in(folder)?.into_iter().filter(|path| is_manifest(path)).collect();
        // In the order in which they are used.
        let place = |path: &PathBuf| {
            let stem = path.file_stem().unwrap_or_default();
            PARTS.iter().position(|name| stem == *name).unwrap_or(PARTS.len())
        };
        found.sort_by_key(place);
        Ok(found)
    };
    let mut found = in_folder(input)?;
    if found.is_empty() {
        for folder in folders_in(input)? {
            found.extend(in_folder(&folder)?);
        }
    }
    if found.is_empty() {
        let problem = FileProblem::Other("no manifest (.jsonl) is in this folder or one below it".to_owned());
        return Err(DataError::File { path: input.to_path_buf(), problem });
    }
    Ok(found)
}

fn ids<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<String> {
    rows.into_iter().map(|row| row.id.clone()).collect()
}

fn labels(part: &Part, parts: &[Part]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |severity, examples: &[String], text: &str| {
        if !examples.is_empty() {
            found.push(Finding::new(severity, "label", part, examples, text));
        }
    };
    let counts = facts::labels(&part.rows);
    let without = ids(part.rows.iter().filter(|row| row.label.is_none()));
    if without.len() == part.rows.len() {
        add(Severity::Note, &without, "no utterance has a label: neither trained on nor scored");
        return found;
    }
    add(Severity::Error, &without, "utterances without a label, which training and scoring need");
    let train = parts.iter().find(|other| other.stem == "train" && other.folder == part.folder);
    if let Some(train) = train.filter(|train| train.path != part.path) {
        let known = facts::labels(&train.rows);
        let unknown: Vec<String> = counts
            .iter()
            .filter(|(label, _)| !known.contains_key(*label))
            .map(|(label, count)| format!("`{label}` {count}"))
            .collect();
        let text = "labels that train does not have, with their counts: they cannot be learnt; name all labels in \
                    data.labels, or score without them (eval --unknown-labels)";
        add(Severity::Warning, &unknown, text);
    }
    if part.stem == "train" || parts.len() == 1 {
        let largest = counts.iter().max_by_key(|(_, count)| **count);
        let smallest = counts.iter().min_by_key(|(_, count)| **count);
        if let (Some((large, most)), Some((small, fewest))) = (largest, smallest)
            && *most > IMBALANCE * *fewest
        {
            let text = format!(
                "`{large}` is there {most} times, `{small}` only {fewest}: macro F1 and balanced accuracy tell more \
                 than accuracy, and loss.class_weights can help"
            );
            add(Severity::Warning, std::slice::from_ref(small), &text);
        }
        if counts.len() == 1 {
            let text = "all utterances have the same label, and training needs at least two";
            add(Severity::Warning, &ids(part.rows.iter().take(1)), text);
        }
    }
    found
}

fn texts(part: &Part) -> Vec<Finding> {
    let mut found = Vec::new();
    let empty = ids(part.rows.iter().filter(|row| row.text.as_ref().is_some_and(|text| text.trim().is_empty())));
    if !empty.is_empty() {
        found.push(Finding::new(Severity::Warning, "text", part, &empty, "texts are empty"));
    }
    for (key, lacks) in [
        ("text", part.rows.iter().filter(|row| row.text.is_none()).collect::<Vec<_>>()),
        ("audio", part.rows.iter().filter(|row| row.audio.is_none()).collect()),
    ] {
        if !lacks.is_empty() {
            let text = format!("no `{key}`: only a method that does not read it can use these utterances");
            found.push(Finding::new(Severity::Note, key, part, &ids(lacks), &text));
        }
    }
    found
}

/// Whether the manifests of each folder still are the split that its `split.json` states, and how its counts compare
/// to what is published.
fn splits(parts: &[Part], states: &BTreeMap<PathBuf, SplitFile>, findings: &mut Vec<Finding>) -> Vec<SplitFacts> {
    let mut splits = Vec::new();
    for (folder, state) in states {
        let inside: Vec<&Part> = parts.iter().filter(|part| part.folder == *folder).collect();
        let are_all = state.utterances.keys().all(|name| inside.iter().any(|part| part.stem == *name));
        let found: Vec<(&str, &[Row])> = inside
            .iter()
            .filter(|part| state.utterances.contains_key(&part.stem))
            .map(|part| (part.stem.as_str(), part.rows.as_slice()))
            .collect();
        let is_unchanged = (are_all && !state.sha256.is_empty()).then(|| splits::split_hash(&found) == state.sha256);
        if is_unchanged == Some(false) {
            let text = format!(
                "{}: the manifests are not the split that split.json states: utterances were added, removed or moved \
                 since; what it declares may no longer hold",
                folder.display()
            );
            findings.push(Finding::about_all(Severity::Warning, "split", text));
        }
        if are_all {
            let differences = published::differences(state, &found);
            findings.extend(differences.into_iter().map(|text| {
                Finding::about_all(Severity::Warning, "published", format!("{}: {text}", folder.display()))
            }));
        }
        splits.push(SplitFacts {
            folder: folder.clone(),
            corpus: state.corpus.clone(),
            protocol: state.protocol.clone(),
            fold: state.fold.clone(),
            sha256: state.sha256.clone(),
            is_unchanged,
        });
    }
    splits
}

fn shared(
    parts: &[Part],
    states: &BTreeMap<PathBuf, SplitFile>,
    sounds: &Sounds,
    options: &CheckOptions,
) -> Vec<Overlap> {
    let mut declared = Vec::new();
    for (folder, state) in states {
        let name = |stem: &String| {
            let part = parts.iter().find(|part| part.folder == *folder && part.stem == *stem);
            part.map_or_else(String::new, |part| part.name.clone())
        };
        declared.extend(state.shared.iter().map(|declaration| splits::Declaration {
            splits: declaration.splits.each_ref().map(name),
            ..declaration.clone()
        }));
    }
    let members: Vec<overlap::Part> =
        parts.iter().map(|part| overlap::Part { name: &part.name, rows: &part.rows }).collect();
    let is_allowed = |kind, _: [&str; 2]| options.allowed.contains(&kind);
    let mut found = overlap::find(&members, &declared, &|row| sounds.piece(row), &is_allowed);
    found.retain(|overlap| {
        let of = |name: &String| parts.iter().find(|part| part.name == *name);
        let [Some(left), Some(right)] = overlap.splits.each_ref().map(of) else { return true };
        !are_folds(left, right, states)
    });
    found
}

/// Whether these are of two folds of one corpus, which share by design. Where single manifests of them were named,
/// they are to be compared with each other.
fn are_folds(left: &Part, right: &Part, states: &BTreeMap<PathBuf, SplitFile>) -> bool {
    let (Some(one), Some(other)) = (states.get(&left.folder), states.get(&right.folder)) else { return false };
    left.is_of_folder
        && right.is_of_folder
        && left.folder != right.folder
        && left.folder.parent() == right.folder.parent()
        && one.fold.is_some()
        && other.fold.is_some()
        && (&one.corpus, &one.protocol) == (&other.corpus, &other.protocol)
}

/// An id is in one part only, unless the recordings of two parts are declared to be the same.
fn ids_in_two(parts: &[Part], states: &BTreeMap<PathBuf, SplitFile>, options: &CheckOptions) -> Vec<Finding> {
    let mut found = Vec::new();
    for (place, left) in parts.iter().enumerate() {
        let ids: BTreeSet<&str> = left.rows.iter().map(|row| row.id.as_str()).collect();
        for right in &parts[place + 1..] {
            let both: Vec<String> =
                right.rows.iter().map(|row| &row.id).filter(|id| ids.contains(id.as_str())).cloned().collect();
            let pair = [&left.stem, &right.stem];
            let is_declared = left.folder == right.folder
                && states.get(&left.folder).is_some_and(|state| {
                    state.shared.iter().any(|declaration| {
                        let splits = &declaration.splits;
                        declaration.kind == Kind::Audio
                            && declaration.only.is_none()
                            && (pair == [&splits[0], &splits[1]] || pair == [&splits[1], &splits[0]])
                    })
                });
            if both.is_empty() || is_declared || are_folds(left, right, states) {
                continue;
            }
            let is_allowed = options.allowed.iter().any(|kind| [Kind::Audio, Kind::Text].contains(kind));
            let severity = if is_allowed { Severity::Note } else { Severity::Error };
            let text = format!("the same ids as in {}: an utterance belongs to one part", left.name);
            found.push(Finding::new(severity, "id", right, &both, &text));
        }
    }
    found
}

/// Writes allowed leaks beside the manifests, for the reports of later runs.
fn write_allowed(parts: &[Part], shared: &[Overlap]) -> Result<Vec<PathBuf>, DataError> {
    let mut by_folder: BTreeMap<&Path, Vec<Allowed>> = BTreeMap::new();
    for overlap in shared.iter().filter(|overlap| overlap.status == overlap::OverlapStatus::Allowed) {
        let named: Vec<&Part> =
            overlap.splits.iter().filter_map(|name| parts.iter().find(|part| part.name == *name)).collect();
        let &[left, right] = named.as_slice() else { continue };
        let folders: BTreeSet<&Path> = named.iter().map(|part| part.folder.as_path()).collect();
        for folder in folders {
            let allowed = Allowed {
                kind: overlap.kind,
                splits: [&left.stem, &right.stem].map(String::clone),
                values: overlap.values,
                manifests: [&left.sha256, &right.sha256].map(String::clone),
            };
            by_folder.entry(folder).or_default().push(allowed);
        }
    }
    let mut written = Vec::new();
    for (folder, allowed) in by_folder {
        let mut leaks = Leaks::read(folder)?;
        LEAKS_FORMAT.clone_into(&mut leaks.format);
        leaks.allowed.retain(|old| !allowed.iter().any(|new| new.kind == old.kind && new.manifests == old.manifests));
        leaks.allowed.extend(allowed);
        let path = folder.join(LEAKS_FILE);
        let text = serde_json::to_string_pretty(&leaks).map_err(|error| DataError::write(&path, &error.into()))?;
        replace(&path, (text + "\n").as_bytes())?;
        written.push(path);
    }
    Ok(written)
}
