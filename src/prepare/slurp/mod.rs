//! `clasp prepare slurp`: SLURP (Bastianelli et al., SLURP: A Spoken Language Understanding Resource Package, EMNLP
//! 2020; github.com/pswietojanski/slurp, audio on Zenodo 4274930), one utterance for each recording.
//!
//! The label is the scenario and the action, as the official scorer has it: the key `intent` is not always the two
//! joined. Recordings of one sentence share its text.

mod read;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::audio::{AudioOptions, settle};
use super::folder::{Corpus, Fold};
use super::reading;
use crate::data::DataError;
use crate::data::manifest::Row;
use crate::splits::{Declaration, Kind, PARTS};

/// The labels of `devel.jsonl` and `test.jsonl`; also the intents of MASSIVE, which translates SLURP.
pub const LABELS: [&str; 60] = [
    "alarm_query",
    "alarm_remove",
    "alarm_set",
    "audio_volume_down",
    "audio_volume_mute",
    "audio_volume_other",
    "audio_volume_up",
    "calendar_query",
    "calendar_remove",
    "calendar_set",
    "cooking_query",
    "cooking_recipe",
    "datetime_convert",
    "datetime_query",
    "email_addcontact",
    "email_query",
    "email_querycontact",
    "email_sendemail",
    "general_greet",
    "general_joke",
    "general_quirky",
    "iot_cleaning",
    "iot_coffee",
    "iot_hue_lightchange",
    "iot_hue_lightdim",
    "iot_hue_lightoff",
    "iot_hue_lighton",
    "iot_hue_lightup",
    "iot_wemo_off",
    "iot_wemo_on",
    "lists_createoradd",
    "lists_query",
    "lists_remove",
    "music_dislikeness",
    "music_likeness",
    "music_query",
    "music_settings",
    "news_query",
    "play_audiobook",
    "play_game",
    "play_music",
    "play_podcasts",
    "play_radio",
    "qa_currency",
    "qa_definition",
    "qa_factoid",
    "qa_maths",
    "qa_stock",
    "recommendation_events",
    "recommendation_locations",
    "recommendation_movies",
    "social_post",
    "social_query",
    "takeaway_order",
    "takeaway_query",
    "transport_query",
    "transport_taxi",
    "transport_ticket",
    "transport_traffic",
    "weather_query",
];

/// Sentences, recordings and headset recordings of each part, as published. Sources give one recording more or less
/// for train.
pub const PUBLISHED: [(&str, [usize; 3]); 3] =
    [("train", [11_514, 50_628, 24_209]), ("dev", [2_033, 8_690, 4_173]), ("test", [2_974, 13_078, 6_281])];

/// Which recordings of a sentence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Microphone {
    /// All of them.
    #[default]
    Both,
    /// Those close to the mouth (`-headset`).
    Headset,
    /// Those from afar.
    Far,
}

impl Microphone {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Both, Self::Headset, Self::Far];

    /// The word in files and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Headset => "headset",
            Self::Far => "far",
        }
    }
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlurpOptions {
    /// The repository, or its folder `dataset/slurp`.
    pub root: PathBuf,
    /// The folder with `slurp_real` and `slurp_synth`, or with the files themselves; without it there is text only.
    pub audio: Option<PathBuf>,
    /// Whether the synthetic recordings are added to train.
    pub synthetic: bool,
    pub microphone: Microphone,
}

/// Reads the release in its own parts.
///
/// # Errors
///
/// None of the files is there; lines are malformed; a recording occurs twice; audio cannot be used.
pub fn prepare(
    options: &SlurpOptions,
    audio: &AudioOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Corpus, DataError> {
    let (reading, part_of) = read::read(options)?;
    let (rows, skipped) = settle(reading.rows, audio, progress)?;
    let members = |name: &str| -> Vec<Row> {
        rows.iter().filter(|row| part_of.get(&row.id).is_some_and(|part| *part == name)).cloned().collect()
    };
    let mut fold = Fold::new(PARTS.map(|name| (name, members(name))));
    let filled: Vec<&str> =
        fold.parts.iter().filter(|(_, rows)| !rows.is_empty()).map(|(name, _)| name.as_str()).collect();
    let mut shared =
        Declaration::every_pair(Kind::Text, &filled, "the official split has sentences in more than one part");
    shared.extend(Declaration::every_pair(Kind::Speaker, &filled, "the official split is not by speaker"));
    fold.shared = shared;
    Ok(Corpus {
        name: "slurp",
        protocol: "official".to_owned(),
        options: reading::json(options, &options.root)?,
        sources: reading.sources,
        folds: vec![fold],
        counts: reading.counts,
        notes: reading.notes,
        skipped,
    })
}
