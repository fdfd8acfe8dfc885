//! Reads the JSON Lines of the release, its metadata, and finds the audio files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{LABELS, Microphone, PUBLISHED, SlurpOptions};
use crate::data::manifest::{self, Row};
use crate::data::{DataError, list};
use crate::prepare::reading::{self, Reading};

/// The name of a file without `.jsonl`, and the part that its rows are in.
const FILES: [(&str, &str); 4] = [("train", "train"), ("devel", "dev"), ("test", "test"), (SYNTHETIC, "train")];

const SYNTHETIC: &str = "train_synthetic";

/// A line: a sentence with its recordings. Other keys (entities, tokens) are not needed.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Line {
    pub slurp_id: i64,
    pub sentence: String,
    pub scenario: Option<String>,
    pub action: Option<String>,
    pub intent: Option<String>,
    pub recordings: Vec<Recording>,
}

#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Recording {
    pub file: String,
    pub wer: Option<f64>,
    pub status: Option<String>,
}

impl Line {
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let sentence: Self = serde_json::from_slice(line).map_err(|error| {
            let reason = error.to_string();
            // The position in the file is ours to give.
            let reason = reason.split(" at line ").next().unwrap_or_default();
            format!("not a sentence of SLURP ({reason}, column {}); copy the file again", error.column())
        })?;
        match sentence.recordings.iter().find(|recording| stem(&recording.file).is_none()) {
            Some(recording) => Err(format!("`{}` is no name of a file; copy the file again", recording.file)),
            None => Ok(sentence),
        }
    }

    /// The scenario and the action; `None` if the line lacks one of them.
    pub fn label(&self) -> Option<String> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Some(format!("{}_{}", filled(&self.scenario)?, filled(&self.action)?))
    }
}

/// The name of a file without its extension: the id of a recording.
pub(super) fn stem(file: &str) -> Option<&str> {
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    (!stem.is_empty() && !stem.starts_with('.') && !file.contains(['/', '\\', '\0'])).then_some(stem)
}

/// What is counted of one file.
#[derive(Default)]
struct Counts {
    sentences: usize,
    recordings: usize,
    headset: usize,
    intents: usize,
    unlabelled: usize,
    repeated: usize,
}

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    part_of: HashMap<String, &'static str>,
    /// File, line, sentence and label of each recording.
    places: HashMap<String, (&'static str, usize, String, Option<String>)>,
    labels: BTreeSet<String>,
    problems: Vec<DataError>,
}

/// The utterances, and the part of each by id.
pub(super) fn read(options: &SlurpOptions) -> Result<(Reading, HashMap<String, &'static str>), DataError> {
    let inner = options.root.join("dataset/slurp");
    let folder = if inner.is_dir() { inner } else { options.root.clone() };
    let audio = options.audio.as_deref().map(Audio::new).transpose()?;
    let mut reading = Reading::default();
    let mut found = Found::default();
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    for (name, part) in FILES.into_iter().filter(|(name, _)| options.synthetic || *name != SYNTHETIC) {
        let path = folder.join(format!("{name}.jsonl"));
        if !path.is_file() {
            reading.notes.push(format!("{name}.jsonl is not there: its recordings are left out"));
            continue;
        }
        let key = if name == SYNTHETIC { SYNTHETIC } else { part };
        let file = File { name, part, microphone: options.microphone, audio: audio.as_ref() };
        counts.insert(key, file.read(&path, &mut found)?);
        reading.sources.push(path);
    }
    if reading.sources.is_empty() {
        let reason = "neither train.jsonl, devel.jsonl nor test.jsonl; name the repository or its folder dataset/slurp";
        return Err(DataError::Table { path: folder, reason: reason.to_owned() });
    }
    DataError::check(found.problems)?;
    let mut rows = found.rows;
    rows.sort_by(|left, right| left.id.cmp(&right.id));
    add_speakers(&folder, &mut rows, &mut reading)?;
    if audio.is_none() {
        reading.notes.push("no folder of audio was named: the rows are text only".to_owned());
    }
    notes_on(&counts, &found.labels, &mut reading.notes);
    for (name, counted) in &counts {
        let mut of_file = Map::new();
        of_file.insert("sentences".to_owned(), counted.sentences.into());
        of_file.insert("recordings".to_owned(), counted.recordings.into());
        of_file.insert("headset".to_owned(), counted.headset.into());
        of_file.insert("intent_is_not_scenario_action".to_owned(), counted.intents.into());
        of_file.insert("listed_twice".to_owned(), counted.repeated.into());
        of_file.insert("without_scenario_or_action".to_owned(), counted.unlabelled.into());
        reading.counts.insert((*name).to_owned(), of_file.into());
    }
    reading.counts.insert("labels".to_owned(), found.labels.len().into());
    reading.rows = rows;
    Ok((reading, found.part_of))
}

/// How one file is read.
struct File<'a> {
    name: &'static str,
    part: &'static str,
    microphone: Microphone,
    audio: Option<&'a Audio>,
}

impl File<'_> {
    fn read(&self, path: &Path, found: &mut Found) -> Result<Counts, DataError> {
        let bytes = reading::read(path)?;
        let mut counts = Counts::default();
        for (line, text) in manifest::lines(&bytes) {
            let wrong = |reason| DataError::TableRow { path: path.to_path_buf(), line, reason };
            let sentence = match Line::parse(text) {
                Ok(sentence) => sentence,
                Err(reason) => {
                    found.problems.push(wrong(reason));
                    continue;
                }
            };
            counts.sentences += 1;
            counts.recordings += sentence.recordings.len();
            let label = sentence.label();
            match &label {
                None => counts.unlabelled += 1,
                Some(label) => {
                    counts.intents += usize::from(sentence.intent.as_ref().is_some_and(|intent| intent != label));
                    found.labels.insert(label.clone());
                }
            }
            for recording in &sentence.recordings {
                let id = stem(&recording.file).unwrap_or_default().to_owned();
                counts.headset += usize::from(is_headset(&id));
                match found.places.get(&id) {
                    // The same said twice is no contradiction.
                    Some((name, _, text, other))
                        if *name == self.name && *text == sentence.sentence && *other == label =>
                    {
                        counts.repeated += 1;
                        continue;
                    }
                    Some((name, first, ..)) => {
                        let reason = format!("`{id}` is already in {name}.jsonl, line {first}; remove one of the two");
                        found.problems.push(wrong(reason));
                    }
                    None => {
                        let place = (self.name, line, sentence.sentence.clone(), label.clone());
                        found.places.insert(id.clone(), place);
                    }
                }
                if let (Some(label), true) = (&label, self.is_wanted(&id)) {
                    found.part_of.insert(id.clone(), self.part);
                    found.rows.push(self.row(id, label, &sentence, recording, line));
                }
            }
        }
        Ok(counts)
    }

    fn is_synthetic(&self) -> bool {
        self.name == SYNTHETIC
    }

    fn is_wanted(&self, id: &str) -> bool {
        self.is_synthetic()
            || match self.microphone {
                Microphone::Both => true,
                Microphone::Headset => is_headset(id),
                Microphone::Far => !is_headset(id),
            }
    }

    fn row(&self, id: String, label: &str, sentence: &Line, recording: &Recording, line: usize) -> Row {
        let microphone = match () {
            () if self.is_synthetic() => "synthetic",
            () if is_headset(&id) => "headset",
            () => "far",
        };
        let keys: [(&str, Value); 7] = [
            ("slurp_id", sentence.slurp_id.into()),
            ("scenario", json!(sentence.scenario)),
            ("action", json!(sentence.action)),
            ("intent", json!(sentence.intent)),
            ("microphone", microphone.into()),
            ("recording_wer", json!(recording.wer)),
            ("status", json!(recording.status)),
        ];
        let known = keys.into_iter().filter(|(_, value)| !value.is_null());
        Row {
            id,
            audio: self.audio.map(|audio| audio.find(&recording.file)),
            text: Some(sentence.sentence.clone()),
            label: Some(label.to_owned()),
            group: Some(sentence.slurp_id.to_string()),
            extra: known.map(|(key, value)| (key.to_owned(), value)).collect(),
            line,
            ..Row::default()
        }
    }
}

fn is_headset(id: &str) -> bool {
    id.ends_with("-headset")
}

/// Where audio files may lie.
struct Audio {
    /// Of the archives' layouts, those that are there.
    folders: Vec<PathBuf>,
}

impl Audio {
    fn new(root: &Path) -> Result<Self, DataError> {
        let bases = [root.to_path_buf(), root.join("audio")];
        let folders: Vec<PathBuf> = bases
            .iter()
            .flat_map(|base| [base.join("slurp_real"), base.join("slurp_synth"), base.clone()])
            .filter(|folder| folder.is_dir())
            .collect();
        if folders.is_empty() {
            let reason = "no such folder; name the one with slurp_real and slurp_synth, or with the audio files";
            return Err(DataError::Table { path: root.to_path_buf(), reason: reason.to_owned() });
        }
        Ok(Self { folders })
    }

    /// Where it is, or where it should be.
    fn find(&self, file: &str) -> PathBuf {
        let path = self.folders.iter().map(|folder| folder.join(file)).find(|path| path.is_file());
        path.unwrap_or_else(|| self.folders[0].join(file))
    }
}

/// Who speaks, from `metadata.json` where it is there.
fn add_speakers(folder: &Path, rows: &mut [Row], reading: &mut Reading) -> Result<(), DataError> {
    let path = folder.join("metadata.json");
    if !path.is_file() {
        reading.notes.push("metadata.json is not there: speakers are not known".to_owned());
        return Ok(());
    }
    let speakers =
        speakers(&reading::read(&path)?).map_err(|reason| DataError::Table { path: path.clone(), reason })?;
    for row in rows.iter_mut() {
        row.speaker = speakers.get(&row.id).cloned();
    }
    let unknown = rows.iter().filter(|row| row.speaker.is_none()).count();
    if unknown > 0 {
        reading.notes.push(format!("recordings whose speaker metadata.json does not say: {unknown} of {}", rows.len()));
    }
    let known: BTreeSet<&str> = rows.iter().filter_map(|row| row.speaker.as_deref()).collect();
    reading.counts.insert("speakers".to_owned(), known.len().into());
    reading.sources.push(path);
    Ok(())
}

/// The speaker of each recording: `{"4489": {"recordings": {"audio-1502099775.flac": {"usrid": "FO-460"}}}}`, other
/// keys beside. What is not of this shape is passed over.
pub(super) fn speakers(bytes: &[u8]) -> Result<HashMap<String, String>, String> {
    let metadata: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("not JSON ({error}); copy it again, or remove it"))?;
    let entries = metadata.as_object().into_iter().flat_map(Map::values);
    let recordings = entries.filter_map(|entry| entry.get("recordings")?.as_object()).flatten();
    Ok(recordings
        .filter_map(|(file, facts)| {
            let speaker = facts.get("usrid")?.as_str().filter(|speaker| !speaker.is_empty())?;
            Some((stem(file)?.to_owned(), speaker.to_owned()))
        })
        .collect())
}

fn notes_on(counts: &BTreeMap<&str, Counts>, labels: &BTreeSet<String>, notes: &mut Vec<String>) {
    let unlabelled: usize = counts.values().map(|counts| counts.unlabelled).sum();
    if unlabelled > 0 {
        notes.push(format!("sentences without scenario or action, a known defect, are left out: {unlabelled}"));
    }
    let others: Vec<String> = labels.iter().filter(|label| !LABELS.contains(&label.as_str())).cloned().collect();
    if !others.is_empty() {
        notes.push(format!("labels beside the 60 of devel and test: {}", list(&others)));
    }
    for (part, [sentences, recordings, headset]) in PUBLISHED {
        let Some(found) = counts.get(part) else { continue };
        let recordings =
            if part == "train" && found.recordings + 1 == recordings { found.recordings } else { recordings };
        let items = [
            ("sentences", found.sentences, sentences),
            ("recordings", found.recordings, recordings),
            ("headset recordings", found.headset, headset),
        ];
        notes.extend(reading::difference(part, items));
    }
}
