//! The synthetic corpus behind `demo.toml`: sentences from a small grammar and sounds from a small synthesiser, written
//! as manifests and WAVs that every other command can read. No file and no network is needed to make it.
//!
//! The words carry one bit (`grammar::Meaning`), the pitch register of the sound another (`synthesiser::Register`), and
//! the four labels are their combinations. Every sentence is spoken once in either register within its split, so a
//! classifier of the text alone cannot exceed one half; the sound knows nothing of the sentence, so neither can one of
//! the speech alone. Only both together can reach one.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::data::SAMPLE_RATE;
use crate::hash::{self, hexadecimal};
use crate::random::{Random, mix};
use crate::splits::PARTS;
use grammar::{Meaning, draw_sentence};
use synthesiser::{Register, Speaker, speak};

pub mod grammar;
pub mod synthesiser;

/// The labels: meaning times register (calm is the low one), sorted.
pub const LABELS: [&str; 4] = ["start_calm", "start_urgent", "stop_calm", "stop_urgent"];

/// Of the layout of the folder and of `corpus.json`.
const FORMAT: u32 = 1;
/// All that the content depends on besides the options. A corpus remembers the digest, so that one of an older program
/// is made again and nobody has to remember to raise a number.
const SOURCES: [&str; 4] = [
    include_str!("mod.rs"),
    include_str!("grammar.rs"),
    include_str!("synthesiser.rs"),
    include_str!("../../crates/ops/src/random.rs"),
];
/// Written last: where it is there and matches, the corpus is whole.
const RECORD_FILE: &str = "corpus.json";
const LOCK_FILE: &str = "corpus.lock";
const AUDIO_FOLDER: &str = "audio";
/// So that each label is in each split.
const LEAST_UTTERANCES: usize = 24;
/// Fewer make an accuracy too uncertain to show anything; kept up as long as that leaves half for training.
const WANTED_TEST_UTTERANCES: usize = 200;
/// A grammar that has run dry repeats itself rather than searching for ever.
const TRIES_FOR_A_NEW_SENTENCE: usize = 200;

/// Streams of `mix`, one for each thing that is drawn.
const SPEAKER_STREAM: u64 = 1;
const SENTENCE_STREAM: u64 = 2;
const ORDER_STREAM: u64 = 3;
const UTTERANCE_STREAM: u64 = 4;

/// What the corpus is made from: the same options give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoOptions {
    /// Utterances in all splits together, 24 at least.
    pub utterances: usize,
    /// Seed of sentences, voices and sounds.
    pub seed: u64,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { utterances: 1200, seed: 1 }
    }
}

/// Where a whole corpus lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoCorpus {
    /// Manifest of the training split: two thirds, or less where the test split needs them.
    pub train: PathBuf,
    /// Manifest of the development split: a sixth.
    pub dev: PathBuf,
    /// Manifest of the test split: a sixth, but 200 where that leaves half for training.
    pub test: PathBuf,
    /// False where the folder held this very corpus already.
    pub is_new: bool,
}

/// Why there is no demo corpus.
#[derive(Debug, Error)]
pub enum DemoError {
    /// Too few utterances to split.
    #[error("{utterances} utterances are too few for the demo corpus: ask for {least} or more")]
    TooFew {
        utterances: usize,
        /// The least that will do.
        least: usize,
    },
    /// The file system said no.
    #[error("the demo corpus: cannot {action} {}: {reason}; check the rights and the free space there", path.display())]
    File { action: &'static str, path: PathBuf, reason: io::Error },
    /// A sound or a record that does not fit its format.
    #[error("the demo corpus: cannot encode {}: {reason}", path.display())]
    Encoding {
        /// The file that was to be written.
        path: PathBuf,
        reason: String,
    },
}

/// One line of a manifest.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    audio: String,
    text: &'a str,
    label: &'static str,
    speaker: &'a str,
    duration: f64,
}

/// The content of `corpus.json`.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// SHA-256 of the source that made the corpus.
    generator: String,
    options: DemoOptions,
    /// SHA-256 of each manifest, in the order train, dev, test.
    manifests: [String; 3],
    /// SHA-256 over the SHA-256 of each WAV, in the order of the manifests.
    audio: String,
}

/// One of the three splits. No two share a speaker.
struct Split {
    name: &'static str,
    utterances: usize,
    speakers: std::ops::Range<u64>,
}

/// What an utterance will be, before it is spoken.
struct Utterance {
    id: String,
    text: String,
    meaning: Meaning,
    register: Register,
    speaker: u64,
    seed: u64,
}

/// Makes the corpus in `folder`: `train.jsonl`, `dev.jsonl`, `test.jsonl`, `audio/<id>.wav` (16 kHz, mono, 16 bit) and
/// `corpus.json`. A corpus of the same options that is whole is kept; anything else is made again.
///
/// Several processes may ask for the same corpus at once: one makes it, the others wait. Other files are left alone.
///
/// # Errors
/// Fewer than 24 utterances, or a folder that cannot be written.
pub fn write_corpus(folder: &Path, options: &DemoOptions) -> Result<DemoCorpus, DemoError> {
    if options.utterances < LEAST_UTTERANCES {
        return Err(DemoError::TooFew { utterances: options.utterances, least: LEAST_UTTERANCES });
    }
    // Looked at before the lock, so that a whole corpus may lie in a folder that cannot be written.
    if is_whole(folder, options) {
        return Ok(corpus_in(folder, false));
    }
    let audio_folder = folder.join(AUDIO_FOLDER);
    fs::create_dir_all(&audio_folder).map_err(|reason| file_error("create", &audio_folder, reason))?;
    let _lock = lock(folder)?;
    if is_whole(folder, options) {
        return Ok(corpus_in(folder, false));
    }
    let record_path = folder.join(RECORD_FILE);
    match fs::remove_file(&record_path) {
        Err(reason) if reason.kind() != io::ErrorKind::NotFound => {
            return Err(file_error("remove", &record_path, reason));
        }
        _ => {}
    }
    write_files(folder, options)?;
    Ok(corpus_in(folder, true))
}

fn write_files(folder: &Path, options: &DemoOptions) -> Result<(), DemoError> {
    let mut audio = Sha256::new();
    let mut manifests = Vec::new();
    for (split, utterances) in draw_utterances(options) {
        let spoken: Vec<(Vec<u8>, String)> = utterances
            .par_iter()
            .map(|utterance| write_utterance(folder, options, utterance))
            .collect::<Result<_, _>>()?;
        let mut manifest = Vec::new();
        for (digest, line) in spoken {
            audio.update(digest);
            manifest.extend_from_slice(line.as_bytes());
            manifest.push(b'\n');
        }
        replace(&manifest_path(folder, split.name), &manifest)?;
        manifests.push(hash::of_bytes(&manifest));
    }
    let record_path = folder.join(RECORD_FILE);
    let encoding = |reason: String| DemoError::Encoding { path: record_path.clone(), reason };
    let manifests = manifests.try_into().map_err(|_| encoding("not three manifests".to_owned()))?;
    let audio = hexadecimal(&audio.finalize());
    let record = Record { format: FORMAT, generator: generator_digest(), options: options.clone(), manifests, audio };
    let mut text = serde_json::to_string_pretty(&record).map_err(|error| encoding(error.to_string()))?;
    text.push('\n');
    replace(&record_path, text.as_bytes())
}

/// Speaks one utterance into its WAV; returns the WAV's digest and the manifest's line.
fn write_utterance(
    folder: &Path,
    options: &DemoOptions,
    utterance: &Utterance,
) -> Result<(Vec<u8>, String), DemoError> {
    let audio = audio_path(&utterance.id);
    let path = folder.join(&audio);
    let speaker = Speaker::new(mix(mix(options.seed, SPEAKER_STREAM), utterance.speaker));
    let samples = speak(utterance.seed, &speaker, utterance.register);
    let encoding = |reason: String| DemoError::Encoding { path: path.clone(), reason };
    let wav = encode_wav(&samples).map_err(|error| encoding(error.to_string()))?;
    let row = Row {
        id: &utterance.id,
        audio,
        text: &utterance.text,
        label: label(utterance.meaning, utterance.register),
        speaker: &format!("speaker-{:02}", utterance.speaker + 1),
        duration: duration_seconds(samples.len()),
    };
    let line = serde_json::to_string(&row).map_err(|error| encoding(error.to_string()))?;
    replace(&path, &wav)?;
    Ok((Sha256::digest(&wav).to_vec(), line))
}

/// The label of a combination.
pub fn label(meaning: Meaning, register: Register) -> &'static str {
    match (meaning, register) {
        (Meaning::Start, Register::Low) => LABELS[0],
        (Meaning::Start, Register::High) => LABELS[1],
        (Meaning::Stop, Register::Low) => LABELS[2],
        (Meaning::Stop, Register::High) => LABELS[3],
    }
}

fn splits(utterances: usize) -> [Split; 3] {
    let sixth = utterances / 6;
    let test = sixth.max(WANTED_TEST_UTTERANCES.min(utterances / 2 - sixth));
    [
        Split { name: "train", utterances: utterances - sixth - test, speakers: 0..8 },
        Split { name: "dev", utterances: sixth, speakers: 8..10 },
        Split { name: "test", utterances: test, speakers: 10..12 },
    ]
}

/// Plans every utterance. They are drawn in fours with one speaker: two sentences that differ in the cue alone, each in
/// both registers. So labels are balanced, and within a split neither the rest of the sentence nor the speaker tells
/// the meaning, and neither the sentence nor the speaker tells the register.
fn draw_utterances(options: &DemoOptions) -> Vec<(Split, Vec<Utterance>)> {
    let mut sentences = Random::new(mix(options.seed, SENTENCE_STREAM));
    let mut order = Random::new(mix(options.seed, ORDER_STREAM));
    let mut used = HashSet::new();
    let mut drawn = 0;
    let mut planned = Vec::new();
    for split in splits(options.utterances) {
        let mut utterances = Vec::with_capacity(split.utterances + 4);
        for speaker in split.speakers.clone().cycle().take(split.utterances.div_ceil(4)) {
            for (meaning, text) in Meaning::ALL.into_iter().zip(draw_new_pair(&mut sentences, &mut used)) {
                for register in Register::ALL {
                    let seed = mix(mix(options.seed, UTTERANCE_STREAM), drawn);
                    drawn += 1;
                    utterances.push(Utterance {
                        id: String::new(),
                        text: text.clone(),
                        meaning,
                        register,
                        speaker,
                        seed,
                    });
                }
            }
        }
        utterances.truncate(split.utterances);
        order.shuffle(&mut utterances);
        for (index, utterance) in utterances.iter_mut().enumerate() {
            utterance.id = utterance_id(split.name, index);
        }
        planned.push((split, utterances));
    }
    planned
}

/// Two sentences, one of each meaning, that differ in the cue alone and were not drawn before, so long as the grammar
/// has such.
fn draw_new_pair(random: &mut Random, used: &mut HashSet<[String; 2]>) -> [String; 2] {
    let mut draw = || {
        // The same draws for both meanings: the same opening, thing, place and time.
        let seed = random.next_u64();
        Meaning::ALL.map(|meaning| draw_sentence(&mut Random::new(seed), meaning))
    };
    let mut pair = draw();
    for _ in 0..TRIES_FOR_A_NEW_SENTENCE {
        if used.insert(pair.clone()) {
            break;
        }
        pair = draw();
    }
    pair
}

fn utterance_id(split: &str, index: usize) -> String {
    format!("{split}-{:04}", index + 1)
}

fn corpus_in(folder: &Path, is_new: bool) -> DemoCorpus {
    let [train, dev, test] = PARTS.map(|name| manifest_path(folder, name));
    DemoCorpus { train, dev, test, is_new }
}

fn manifest_path(folder: &Path, split: &str) -> PathBuf {
    folder.join(format!("{split}.jsonl"))
}

/// Where the WAV of an utterance lies, relative to the manifests.
fn audio_path(id: &str) -> String {
    format!("{AUDIO_FOLDER}/{id}.wav")
}

/// Whether the folder holds the corpus of these options, to the last bit of the last WAV. What cannot be read is not
/// whole: making it again then says what is wrong.
fn is_whole(folder: &Path, options: &DemoOptions) -> bool {
    let Some(record) = read_record(folder) else { return false };
    if record.format != FORMAT || record.generator != generator_digest() || record.options != *options {
        return false;
    }
    let mut wavs = Vec::new();
    for (split, digest) in splits(options.utterances).iter().zip(&record.manifests) {
        let Ok(manifest) = fs::read(manifest_path(folder, split.name)) else { return false };
        if hash::of_bytes(&manifest) != *digest {
            return false;
        }
        wavs.extend((0..split.utterances).map(|index| audio_path(&utterance_id(split.name, index))));
    }
    let digests: Option<Vec<Vec<u8>>> =
        wavs.par_iter().map(|wav| Some(Sha256::digest(fs::read(folder.join(wav)).ok()?).to_vec())).collect();
    digests.is_some_and(|digests| hash::of_bytes(&digests.concat()) == record.audio)
}

fn read_record(folder: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(folder.join(RECORD_FILE)).ok()?).ok()
}

/// Holds off every other process that makes a corpus here, until the file is dropped.
fn lock(folder: &Path) -> Result<File, DemoError> {
    let path = folder.join(LOCK_FILE);
    let file = File::create(&path).map_err(|reason| file_error("create", &path, reason))?;
    match file.lock() {
        // Some network file systems have no locks; then only processes at the same time are at risk.
        Err(reason) if reason.kind() != io::ErrorKind::Unsupported => Err(file_error("lock", &path, reason)),
        _ => Ok(file),
    }
}

/// Writes a file under a temporary name, then renames it: it is whole or not there.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), DemoError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".partial");
    fs::write(&temporary, bytes).map_err(|reason| file_error("write", path, reason))?;
    fs::rename(&temporary, path).map_err(|reason| file_error("write", path, reason))
}

fn encode_wav(samples: &[i16]) -> Result<Vec<u8>, hound::Error> {
    let specification = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut wav, specification)?;
    for sample in samples {
        writer.write_sample(*sample)?;
    }
    writer.finalize()?;
    Ok(wav.into_inner())
}

#[expect(clippy::cast_precision_loss, reason = "counts of samples are far below 2^53")]
fn duration_seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}

fn generator_digest() -> String {
    hash::of_bytes(SOURCES.concat().as_bytes())
}

fn file_error(action: &'static str, path: &Path, reason: io::Error) -> DemoError {
    DemoError::File { action, path: path.to_owned(), reason }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "counts of samples and of utterances are far below 2^53")]
mod tests;
