//! `clasp prepare iemocap`: the four-class set of IEMOCAP (Busso et al., IEMOCAP: Interactive emotional dyadic motion
//! capture database, 2008) under one of three protocols.
//!
//! The set is the one of most published results: angry, sad, neutral, and happy together with excited. Layout and
//! counts are those of the full release; the counts were taken from public lists of its utterances.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::audio::{AudioOptions, settle};
use super::folder::{Corpus, Fold};
use super::reading;
use crate::data::DataError;
use crate::data::manifest::Row;
use crate::splits::{Condition, Declaration, Kind, PARTS};

pub use read::read;

/// The sessions; each has its own pair of actors.
pub const SESSIONS: u8 = 5;

/// The classes, in the order of [`PUBLISHED`].
pub const CLASSES: [&str; 4] = ["neutral", "happy", "angry", "sad"];

/// Utterances of the four classes in sessions 1 to 5, as published.
pub const PUBLISHED: [[usize; 4]; 5] =
    [[384, 278, 229, 194], [362, 327, 137, 197], [320, 286, 240, 305], [258, 303, 327, 143], [384, 442, 170, 245]];

/// Utterances of the four classes by who talks, as published.
pub const PUBLISHED_SPEAKERS: [(&str, usize); 10] = [
    ("Ses01F", 528),
    ("Ses01M", 557),
    ("Ses02F", 481),
    ("Ses02M", 542),
    ("Ses03F", 522),
    ("Ses03M", 629),
    ("Ses04F", 528),
    ("Ses04M", 503),
    ("Ses05F", 590),
    ("Ses05M", 651),
];

/// Every code of the label files and how often it occurs, as published: 10,039 utterances in all.
pub const PUBLISHED_CODES: [(&str, usize); 11] = [
    ("ang", 1103),
    ("dis", 2),
    ("exc", 1041),
    ("fea", 40),
    ("fru", 1849),
    ("hap", 595),
    ("neu", 1708),
    ("oth", 3),
    ("sad", 1084),
    ("sur", 107),
    ("xxx", 2507),
];

/// Who is trained on, who is selected on, who is tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Five folds: one session is held out, and serves as dev and as test (Kang et al. 2022, as published).
    Kang2022,
    /// Five folds: one session is held out, the next one is dev, the other three are train.
    Strict,
    /// Ten folds: one speaker is held out, the other one of the session is dev, the other sessions are train.
    Speaker10,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Kang2022, Self::Strict, Self::Speaker10];

    /// The word in files and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kang2022 => "kang2022",
            Self::Strict => "strict",
            Self::Speaker10 => "speaker10",
        }
    }
}

/// What to read and how to split it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IemocapOptions {
    /// `IEMOCAP_full_release`, or a folder that holds it.
    pub root: PathBuf,
    pub protocol: Protocol,
}

/// Reads the release and splits it.
///
/// # Errors
///
/// What [`read`] finds wrong with the release; audio that cannot be used.
pub fn prepare(
    options: &IemocapOptions,
    audio: &AudioOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Corpus, DataError> {
    let mut reading = read(&options.root)?;
    let (rows, skipped) = settle(reading.rows, audio, progress)?;
    read::count(&rows, &mut reading.counts);
    if options.protocol == Protocol::Speaker10 {
        reading.notes.push(
            "dev and test are the two sides of the same dialogues: what the one says the other answers".to_owned(),
        );
    }
    Ok(Corpus {
        name: "iemocap",
        protocol: options.protocol.word().to_owned(),
        options: reading::json(options, &options.root)?,
        sources: reading.sources,
        folds: folds(&rows, options.protocol),
        counts: reading.counts,
        notes: reading.notes,
        skipped,
    })
}

fn folds(rows: &[Row], protocol: Protocol) -> Vec<Fold> {
    let sessions = 1..=SESSIONS;
    match protocol {
        Protocol::Kang2022 => sessions
            .map(|test| {
                let held_out = select(rows, |row| session(row) == test);
                let train = select(rows, |row| session(row) != test);
                let mut fold = fold(train, held_out.clone(), held_out);
                let reason = "the held-out session serves as dev and test, as published: the epoch is selected on it";
                fold.shared.extend(Kind::ALL.map(|kind| Declaration::new(kind, ["dev", "test"], reason)));
                fold
            })
            .collect(),
        Protocol::Strict => sessions
            .map(|test| {
                let dev = test % SESSIONS + 1;
                fold(
                    select(rows, |row| ![dev, test].contains(&session(row))),
                    select(rows, |row| session(row) == dev),
                    select(rows, |row| session(row) == test),
                )
            })
            .collect(),
        Protocol::Speaker10 => PUBLISHED_SPEAKERS
            .iter()
            .map(|(speaker, _)| {
                let is_test = |row: &Row| row.speaker.as_deref() == Some(*speaker);
                // `Ses01` of `Ses01F`.
                let is_near = |row: &Row| row.speaker.as_deref().is_some_and(|other| other[..5] == speaker[..5]);
                fold(
                    select(rows, |row| !is_near(row)),
                    select(rows, |row| is_near(row) && !is_test(row)),
                    select(rows, is_test),
                )
            })
            .collect(),
    }
}

fn fold(train: Vec<Row>, dev: Vec<Row>, test: Vec<Row>) -> Fold {
    let mut fold = Fold::new([("train", train), ("dev", dev), ("test", test)]);
    let scripted = Condition::Rows { key: "style".to_owned(), value: "scripted".to_owned() };
    let limits = [
        (scripted, "the scripted dialogues are played by every pair of actors"),
        (Condition::Words { words: 7 }, "everyday replies such as `Yeah.`"),
    ];
    for (condition, reason) in limits {
        let pairs = Declaration::every_pair(Kind::Text, &PARTS, reason);
        fold.shared.extend(pairs.into_iter().map(|pair| pair.only(condition.clone())));
    }
    fold
}

fn select(rows: &[Row], is_wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
    rows.iter().filter(|row| is_wanted(row)).cloned().collect()
}

fn session(row: &Row) -> u8 {
    row.extra.get("session").and_then(Value::as_u64).and_then(|number| u8::try_from(number).ok()).unwrap_or_default()
}

/// Where the counts are not the published ones.
fn differences(rows: &[Row], codes: &BTreeMap<String, usize>) -> Vec<String> {
    let found = |counts: &BTreeMap<String, usize>, name: &str| counts.get(name).copied().unwrap_or_default();
    let name = |row: &Row| format!("Session{} {}", session(row), row.label.as_deref().unwrap_or_default());
    let names: Vec<String> = rows.iter().map(name).collect();
    let by_class = reading::tally(names.iter().map(String::as_str));
    let expected: Vec<(String, usize)> = PUBLISHED
        .iter()
        .enumerate()
        .flat_map(|(i, counts)| {
            CLASSES.iter().zip(counts).map(move |(class, count)| (format!("Session{} {class}", i + 1), *count))
        })
        .collect();
    let speakers = reading::tally(rows.iter().filter_map(|row| row.speaker.as_deref()));
    let total = expected.iter().map(|(_, count)| count).sum();
    [
        reading::difference("utterances of the four classes", [("all", rows.len(), total)]),
        reading::difference(
            "utterances by session and class",
            expected.iter().map(|(name, count)| (name.as_str(), found(&by_class, name), *count)),
        ),
        reading::difference(
            "utterances by speaker",
            PUBLISHED_SPEAKERS.iter().map(|(name, count)| (*name, found(&speakers, name), *count)),
        ),
        reading::difference(
            "utterances by label code",
            PUBLISHED_CODES.iter().map(|(name, count)| (*name, found(codes, name), *count)),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
