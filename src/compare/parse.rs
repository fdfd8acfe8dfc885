//! A plan's file to a [`Plan`] without runs, and all that is wrong with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::plan::{Corpus, MADE_UP, Plan, System};
use super::reader::{At, Reader, Section};
use crate::config::{Ablation, Fault, KeyOrigin, Method, Problem};
use crate::run::unfit;

const KEYS: &[&str] = &[
    "dir",
    "runs",
    "config",
    "methods",
    "ablations",
    "reference",
    "seeds",
    "set",
    "cluster",
    "jobs",
    "devices",
    "system",
    "corpus",
];
const SYSTEM_KEYS: &[&str] = &["name", "method", "ablation", "seeds", "set"];
const CORPUS_KEYS: &[&str] = &["name", "config", "data", "folds", "set", "cluster"];

/// Keys of a config that the plan decides, with what decides them.
const DECIDED: [(&str, &str); 6] = [
    ("model.method", "`methods`, or `method` of a [[system]]"),
    ("model.ablation", "`ablations`, or `ablation` of a [[system]]"),
    ("train.seed", "`seeds`"),
    ("run.dir", "`dir` (or `runs`) and the names of the runs"),
    ("run.device", "`devices`"),
    ("run.test_at_end", "the plan: every run is scored on test once, at its end"),
];

/// Keys that would give systems of one corpus other data.
const DATA: [&str; 5] = ["data.train", "data.dev", "data.test", "data.demo", "data.labels"];

/// What stands for the number in a pattern of folders.
const FOLD: &str = "{fold}";

/// A plan's text and what its paths depend on.
pub(super) struct Parsed<'a> {
    pub text: &'a str,
    /// The same as a table.
    pub table: &'a DeTable<'a>,
    pub folder: &'a Path,
    /// Tables and run folders are relative to it.
    pub current_folder: &'a Path,
    pub name: &'a str,
}

/// The plan of a file, and all that is wrong with it and with further assignments for all runs.
pub(super) fn plan(file: &Parsed, overrides: &[String]) -> (Plan, Vec<Problem>) {
    let mut parser =
        Parser { reader: Reader::new(file.text), folder: file.folder, name: file.name, overrides, file: file.table };
    let plan = parser.plan(file.current_folder);
    (plan, parser.reader.problems)
}

/// Reads the file into a [`Plan`] without runs.
struct Parser<'a> {
    reader: Reader<'a>,
    folder: &'a Path,
    name: &'a str,
    overrides: &'a [String],
    file: &'a DeTable<'a>,
}

impl<'a> Parser<'a> {
    fn plan(&mut self, current_folder: &Path) -> Plan {
        let top = Section::of_file(self.file);
        self.reader.allow(top, KEYS);
        for assignment in self.overrides {
            if let Err(reason) = check_assignment(assignment, &[]) {
                let place = Some(KeyOrigin::Flag(assignment.clone()));
                self.reader.problems.push(Problem { place, key: key_of(assignment), fault: reason });
            }
        }
        let mut folder = |key: &str| {
            let stated = self.reader.string(top, key)?;
            let path = current_folder.join(&stated.value);
            if let Some(reason) = unfit(&stated.value, &path) {
                self.reader.conflict(stated.place, key, reason);
            }
            Some(path)
        };
        let dir = folder("dir").unwrap_or_else(|| current_folder.join("runs").join(self.name));
        let runs_dir = folder("runs").unwrap_or_else(|| dir.clone());
        let devices = self.reader.parsed(top, "devices", "a list of devices: auto, cpu, cuda, cuda:N");
        let devices = devices.map_or_else(Vec::new, |devices| devices.value);
        let jobs = self.reader.count(top, "jobs").map_or(devices.len().max(1), |jobs| jobs.value);
        let seeds = self.reader.seeds(top, "seeds").map_or_else(|| vec![1], |seeds| seeds.value);
        let systems = self.systems(top, &seeds);
        let corpora = self.corpora(top);
        let reference = self.reference(top, &systems);
        Plan { name: self.name.to_owned(), dir, runs_dir, jobs, devices, reference, systems, corpora, runs: Vec::new() }
    }

    fn systems(&mut self, top: Section<'a>, seeds: &[u64]) -> Vec<System> {
        let mut systems = Vec::new();
        let seeds = || seeds.to_vec();
        let methods = self.reader.choices(top, "methods", Method::WORDS);
        for method in methods.iter().flat_map(|methods| &methods.value).filter_map(|word| Method::from_word(word)) {
            let (name, place) = (method.word().to_owned(), methods.as_ref().map(|methods| methods.place.clone()));
            systems.push(System { name, method, ablation: Ablation::None, seeds: seeds(), set: Vec::new(), place });
        }
        let ablations = self.reader.choices(top, "ablations", Ablation::WORDS);
        for ablation in ablations.iter().flat_map(|found| &found.value).filter_map(|word| Ablation::from_word(word)) {
            let place = ablations.as_ref().map(|ablations| ablations.place.clone());
            let name = name_of(Method::Clasp, ablation);
            systems.push(System { name, method: Method::Clasp, ablation, seeds: seeds(), set: Vec::new(), place });
        }
        for section in self.reader.sections(self.file, "system") {
            self.reader.allow(section, SYSTEM_KEYS);
            let method = self.reader.choice(section, "method", Method::WORDS).and_then(Method::from_word);
            let ablation = self.reader.choice(section, "ablation", Ablation::WORDS).and_then(Ablation::from_word);
            let (method, ablation) = (method.unwrap_or(Method::Clasp), ablation.unwrap_or(Ablation::None));
            let name = self.reader.string(section, "name");
            let place = name.as_ref().map_or_else(|| self.reader.place_of(section), |name| name.place.clone());
            let name = name.map_or_else(|| name_of(method, ablation), |name| name.value);
            self.check_name(&name, &place, "system.name", &[]);
            let own = self.reader.seeds(section, "seeds").map_or_else(seeds, |seeds| seeds.value);
            let set = self.set(section, &DATA);
            systems.push(System { name, method, ablation, seeds: own, set, place: Some(place) });
        }
        if systems.is_empty() {
            let name = name_of(Method::Clasp, Ablation::None);
            let (method, ablation) = (Method::Clasp, Ablation::None);
            systems.push(System { name, method, ablation, seeds: seeds(), set: Vec::new(), place: None });
        }
        self.check_different(systems.iter().map(|system| (&system.name, system.place.as_ref())), "system");
        systems
    }

    fn corpora(&mut self, top: Section<'a>) -> Vec<Corpus> {
        let config = self.reader.string(top, "config");
        let set = self.set(top, &[]);
        let cluster = self.reader.string(top, "cluster").map(|key| key.value);
        let mut corpora = Vec::new();
        for section in self.reader.sections(self.file, "corpus") {
            self.reader.allow(section, CORPUS_KEYS);
            let own = self.reader.string(section, "config").or_else(|| config.clone());
            let place = self.reader.place_of(section);
            let own = self.config(own, &place, "corpus.config");
            let name = self.reader.string(section, "name");
            let place = name.as_ref().map_or(place, |name| name.place.clone());
            let name = name.map_or_else(|| stem(&own), |name| name.value);
            self.check_name(&name, &place, "corpus.name", &[MADE_UP]);
            let folds = self.reader.count(section, "folds");
            let data = self.reader.string_or_strings(section, "data");
            let data = self.folders(data, folds, &place);
            let set = [set.clone(), self.set(section, &[])].concat();
            let cluster = self.reader.string(section, "cluster").map(|key| key.value).or_else(|| cluster.clone());
            let folds = data.len().max(1);
            corpora.push(Corpus { name, folds, cluster, synthetic: None, config: own, data, set, place: Some(place) });
        }
        if corpora.is_empty() {
            let place = config.as_ref().map(|config| config.place.clone());
            let config = self.config(config, &KeyOrigin::Line(1), "config");
            let name = stem(&config);
            corpora.push(Corpus { name, folds: 1, cluster, synthetic: None, config, data: Vec::new(), set, place });
        }
        self.check_different(corpora.iter().map(|corpus| (&corpus.name, corpus.place.as_ref())), "corpus");
        corpora
    }

    /// A config's path or name: relative to the plan where there is such a file.
    fn config(&mut self, found: Option<At<String>>, place: &KeyOrigin, key: &str) -> String {
        let Some(found) = found else {
            let hint = "the config that the runs are made from: a file, or the name of a built-in one".to_owned();
            self.reader.complain(place.clone(), key, Fault::Missing { hint });
            return String::new();
        };
        let path = self.folder.join(&found.value);
        if path.is_file() { path.to_string_lossy().into_owned() } else { found.value }
    }

    /// The folder of each fold.
    fn folders(&mut self, data: Option<At<Vec<String>>>, folds: Option<At<usize>>, corpus: &KeyOrigin) -> Vec<PathBuf> {
        let key = "corpus.folds";
        let Some(data) = data else {
            if let Some(folds) = folds {
                self.reader.conflict(
                    folds.place,
                    key,
                    "is set, but `data` is not: give a folder with {fold} in its name",
                );
            }
            return Vec::new();
        };
        let names = match (data.value.as_slice(), folds) {
            ([pattern], Some(folds)) if pattern.contains(FOLD) => {
                (1..=folds.value).map(|fold| pattern.replace(FOLD, &fold.to_string())).collect()
            }
            ([pattern], None) if pattern.contains(FOLD) => {
                let hint = format!("how many folders `data` = {pattern:?} stands for");
                self.reader.complain(corpus.clone(), key, Fault::Missing { hint });
                Vec::new()
            }
            (_, Some(folds)) if folds.value != data.value.len() => {
                let reason = format!("is {}, but `data` names {} folder(s)", folds.value, data.value.len());
                self.reader.conflict(folds.place, key, reason);
                data.value.clone()
            }
            _ => data.value.clone(),
        };
        names.into_iter().map(|name| self.folder.join(name)).collect()
    }

    fn reference(&mut self, top: Section<'a>, systems: &[System]) -> Option<String> {
        let known = |name: &str| systems.iter().any(|system| system.name == name);
        let Some(found) = self.reader.string(top, "reference") else {
            return Some(Method::Clasp.word().to_owned()).filter(|name| known(name));
        };
        if !known(&found.value) {
            let names: Vec<&str> = systems.iter().map(|system| system.name.as_str()).collect();
            let reason = format!("is {:?}, which is none of the systems: {}", found.value, names.join(", "));
            self.reader.conflict(found.place, "reference", reason);
        }
        Some(found.value)
    }

    /// The assignments of a section, without those that the plan decides and those of `refused`.
    fn set(&mut self, section: Section<'a>, refused: &[&str]) -> Vec<String> {
        let Some(found) = self.reader.strings(section, "set") else { return Vec::new() };
        for assignment in &found.value {
            if let Err(fault) = check_assignment(assignment, refused) {
                let key = if matches!(fault, Fault::Assignment) { assignment.clone() } else { key_of(assignment) };
                self.reader.complain(found.place.clone(), &key, fault);
            }
        }
        found.value
    }

    fn check_name(&mut self, name: &str, place: &KeyOrigin, key: &str, refused: &[&str]) {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.+".contains(letter);
        if !name.chars().all(is_plain) || name.starts_with(['.', '-']) {
            let reason = format!("is {name:?}: it names a folder, so that only letters, digits, - _ . + may be in it");
            self.reader.conflict(place.clone(), key, reason);
        } else if refused.contains(&name) {
            self.reader.conflict(place.clone(), key, format!("cannot be {name:?}: the folder of that name is taken"));
        }
    }

    fn check_different<'s>(&mut self, named: impl Iterator<Item = (&'s String, Option<&'s KeyOrigin>)>, key: &str) {
        let mut known = BTreeSet::new();
        for (name, place) in named {
            if !known.insert(name) {
                let place = place.cloned().unwrap_or(KeyOrigin::Line(1));
                self.reader.conflict(place, key, format!("{name:?} is there twice: give one of them another `name`"));
            }
        }
    }
}

/// The name of a system that has no other.
fn name_of(method: Method, ablation: Ablation) -> String {
    match (method, ablation) {
        (_, Ablation::None) => method.word().to_owned(),
        (Method::Clasp, _) => ablation.word().to_owned(),
        _ => format!("{method}-{ablation}"),
    }
}

/// A config's name without folder and ending.
fn stem(config: &str) -> String {
    Path::new(config).file_stem().map_or_else(|| "corpus".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

fn key_of(assignment: &str) -> String {
    assignment.split('=').next().unwrap_or_default().trim().to_owned()
}

fn check_assignment(assignment: &str, refused: &[&str]) -> Result<(), Fault> {
    let key = key_of(assignment);
    if !assignment.contains('=') || key.is_empty() {
        return Err(Fault::Assignment);
    }
    let is_of = |section: &str| key == section || key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
    if let Some((_, decider)) = DECIDED.iter().find(|(decided, _)| is_of(decided)) {
        return Err(Fault::Conflict { reason: format!("cannot be set here: it is decided by {decider}") });
    }
    if refused.iter().any(|refused| is_of(refused)) {
        let reason = "cannot be set for one system: all are compared on the same data".to_owned();
        return Err(Fault::Conflict { reason });
    }
    Ok(())
}
