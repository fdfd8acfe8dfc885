//! The flags of `clasp prepare`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use encoding_rs::Encoding;

use super::LeakKind;
use crate::data::audio::Channel;
use crate::prepare::idiom::DEFAULT_GAP;

/// `clasp prepare`
#[derive(Debug, Args)]
pub struct PrepareArguments {
    /// The kind of corpus
    #[command(subcommand)]
    pub corpus: PrepareCorpus,
}

/// The corpora.
#[derive(Debug, Subcommand)]
pub enum PrepareCorpus {
    /// Any CSV, TSV or JSON Lines file with audio, text and label columns, or an audio folder with metadata.csv
    Table(PrepareTableArguments),
    /// IEMOCAP as released: four emotions, in folds
    Iemocap(PrepareIemocapArguments),
    /// SLURP as released: an utterance a recording, the official splits
    Slurp(PrepareSlurpArguments),
    /// LibriSpeech as released: a manifest a subset, without labels
    Librispeech(PrepareLibriSpeechArguments),
    /// MIST, rebuilt: LibriSpeech utterances that hold one idiom of a list
    Mist(PrepareMistArguments),
    /// MAGPIE: idioms in written text, without audio
    Magpie(PrepareMagpieArguments),
}

/// Where the manifests go, and what happens to the audio.
#[derive(Debug, Args)]
pub struct PrepareOutput {
    /// Folder for the manifests and split.json
    #[arg(long, alias = "out", value_name = "FOLDER")]
    pub output: PathBuf,
    /// Write every recording as 16 kHz mono WAV into the folder audio beside the manifests, once
    ///
    /// A second call finds what the first has written, also after an interruption.
    #[arg(long)]
    pub convert: bool,
    /// Leave out utterances whose audio is missing or, with --convert, cannot be read; they are listed
    #[arg(long)]
    pub skip_bad: bool,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

/// `clasp prepare table`
#[derive(Debug, Args)]
pub struct PrepareTableArguments {
    /// The table; or a folder with metadata.csv in it, or in its folders train, validation and test
    ///
    /// May be given more than once, with a --split for each.
    #[arg(long, required = true, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// The split that the rows of an --input are in, where each split has a table
    #[arg(long, value_name = "NAME", conflicts_with_all = ["split_column", "groups", "folds"])]
    pub split: Vec<String>,
    /// Its format; default: by the ending of its name
    #[arg(long)]
    pub format: Option<TableFormat>,
    /// What stands between fields, a character or tab; default: as its first line has it
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub delimiter: Option<char>,
    /// Its encoding by name, as windows-1252 or utf-16le; default: UTF-8
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    pub encoding: Option<&'static Encoding>,
    /// Column of the audio paths; "" where there is none [default: audio or `file_name`]
    #[arg(long, alias = "audio", value_name = "COLUMN")]
    pub audio_column: Option<String>,
    /// Column of the texts; "" where there is none [default: text, transcription or sentence]
    #[arg(long, alias = "text", value_name = "COLUMN")]
    pub text_column: Option<String>,
    /// Column of the labels; "" where there is none [default: label]
    #[arg(long, alias = "label", value_name = "COLUMN")]
    pub label_column: Option<String>,
    /// Column of the ids; default: the names of the audio files
    #[arg(long, alias = "id", value_name = "COLUMN")]
    pub id_column: Option<String>,
    /// Column of the speakers
    #[arg(long, alias = "speaker", value_name = "COLUMN")]
    pub speaker_column: Option<String>,
    /// Column that says which split a row is in, where the table has its own
    #[arg(long, value_name = "COLUMN", conflicts_with_all = ["groups", "folds"])]
    pub split_column: Option<String>,
    /// Channel that is read of every recording: 0, 1, ... or mean; default: the table's column channel, else the mean
    #[arg(long, value_name = "CHANNEL", value_parser = channel)]
    pub channel: Option<Channel>,
    /// Folder that the audio paths are relative to; default: the table's
    #[arg(long, value_name = "FOLDER")]
    pub audio_root: Option<PathBuf>,
    /// Shares of train, dev and test
    #[arg(long, value_name = "TRAIN,DEV,TEST", default_value = "0.8,0.1,0.1", value_delimiter = ',', num_args = 1)]
    pub fractions: Vec<f64>,
    /// Make this many folds instead of one split: each part is test once, and the next one dev
    #[arg(long, value_name = "N", conflicts_with = "fractions", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(3..=100))]
    pub folds: Option<usize>,
    /// Seed of the split
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Columns whose values are never divided over two splits, as the speaker's; rows that share any value stay together
    #[arg(long, alias = "group-by", value_name = "COLUMN,...", value_delimiter = ',')]
    pub groups: Vec<String>,
    /// What the splits are meant to share, as when every speaker says the same sentences: written into split.json
    #[arg(long, value_enum, value_name = "KIND,...", value_delimiter = ',')]
    pub declare_shared: Vec<LeakKind>,
    /// Where to
    #[command(flatten)]
    pub to: PrepareOutput,
}

fn channel(given: &str) -> Result<Channel, String> {
    Channel::parse(given).ok_or_else(|| "the number of a channel, from 0, or the word mean".to_owned())
}

fn delimiter(given: &str) -> Result<char, String> {
    let mut letters = given.chars();
    match (given, letters.next(), letters.next()) {
        ("tab" | "\\t", ..) => Ok('\t'),
        (_, Some(letter), None) if !matches!(letter, '"' | '\\' | '\r' | '\n') => Ok(letter),
        _ => Err("one character, as ; or |, or the word tab".to_owned()),
    }
}

fn encoding(given: &str) -> Result<&'static Encoding, String> {
    let hint = "no encoding is known by this name; there are utf-8, utf-16le, windows-1252, iso-8859-2, macintosh, \
                shift_jis, gb18030 and the others of the Encoding Standard";
    Encoding::for_label(given.as_bytes()).ok_or_else(|| hint.to_owned())
}

/// The formats of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// Comma-separated, with a header
    Csv,
    /// Tab-separated, with a header
    Tsv,
    /// JSON Lines
    Jsonl,
}

/// `clasp prepare iemocap`
#[derive(Debug, Args)]
pub struct PrepareIemocapArguments {
    /// The folder `IEMOCAP_full_release`, or one that holds it
    #[arg(long, value_name = "FOLDER")]
    pub root: PathBuf,
    /// How utterances become folds
    #[arg(long)]
    pub protocol: IemocapProtocol,
    /// Where to
    #[command(flatten)]
    pub to: PrepareOutput,
}

/// The protocols of IEMOCAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IemocapProtocol {
    /// Five folds: one session is test and dev, as published; scores are those of the epoch that is best on test
    Kang2022,
    /// Five folds: one session is test, the next one dev
    Strict,
    /// Ten folds: one speaker is test, the other one of the session dev
    Speaker10,
}

/// `clasp prepare slurp`
#[derive(Debug, Args)]
pub struct PrepareSlurpArguments {
    /// The folder of the repository, or the one with train.jsonl, devel.jsonl and test.jsonl
    #[arg(long, value_name = "FOLDER")]
    pub root: PathBuf,
    /// The folder with `slurp_real` (and `slurp_synth`); without it the manifests have texts only
    #[arg(long, value_name = "FOLDER")]
    pub audio: Option<PathBuf>,
    /// Add the synthetic recordings to train
    #[arg(long)]
    pub synthetic: bool,
    /// Which microphones
    #[arg(long, default_value = "both")]
    pub microphone: Microphone,
    /// Where to
    #[command(flatten)]
    pub to: PrepareOutput,
}

/// The microphones of SLURP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Microphone {
    /// Every recording
    Both,
    /// Close-talk recordings only
    Headset,
    /// Far-field recordings only
    Far,
}

/// `clasp prepare librispeech`
#[derive(Debug, Args)]
pub struct PrepareLibriSpeechArguments {
    /// The folder LibriSpeech, or one that holds it
    #[arg(long, value_name = "FOLDER")]
    pub root: PathBuf,
    /// Subsets, as train-clean-100; default: all that are there
    #[arg(long, alias = "subset", value_name = "NAME,...", value_delimiter = ',')]
    pub subsets: Vec<String>,
    /// Write the transcripts in lower case; they are published in upper case
    #[arg(long)]
    pub lowercase: bool,
    /// Where to
    #[command(flatten)]
    pub to: PrepareOutput,
}

/// `clasp prepare mist`
#[derive(Debug, Args)]
pub struct PrepareMistArguments {
    /// The folder LibriSpeech, or one that holds it
    #[arg(long, value_name = "FOLDER")]
    pub librispeech: PathBuf,
    /// Subsets of it
    #[arg(long, alias = "subset", value_name = "NAME,...", value_delimiter = ',', default_value = "train-clean-100")]
    pub subsets: Vec<String>,
    /// The idioms: one a line, or a table with a column `idiom`
    #[arg(long, value_name = "FILE")]
    pub idioms: PathBuf,
    /// Labels by id: a table with the columns `id` and `label` (figurative or literal)
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Words that may stand between those of an idiom
    #[arg(long, value_name = "N", default_value_t = DEFAULT_GAP)]
    pub gap: usize,
    /// Shares of train, dev and test
    #[arg(long, value_name = "TRAIN,DEV,TEST", default_value = "0.8,0.1,0.1", value_delimiter = ',', num_args = 1)]
    pub fractions: Vec<f64>,
    /// What the parts must not share
    #[arg(long, value_enum, default_value = "stratified")]
    pub protocol: MistProtocol,
    /// Seed of the split
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where to
    #[command(flatten)]
    pub to: PrepareOutput,
}

/// The splits of MIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MistProtocol {
    /// By label alone
    Stratified,
    /// No idiom is in two parts
    IdiomDisjoint,
}

/// `clasp prepare magpie`
#[derive(Debug, Args)]
pub struct PrepareMagpieArguments {
    /// MAGPIE's JSON Lines files, or a TSV (also packed with gzip); may be given more than once
    #[arg(long, required = true, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// Leave out what annotators agreed on less
    #[arg(long, value_name = "SHARE")]
    pub min_confidence: Option<f64>,
    /// Seed of the split, where the files have none
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where to
    #[command(flatten)]
    pub to: PrepareOutput,
}
