//! The command line: the tree of commands and flags, and their help. No logic; `commands` does the work.
//!
//! The shell completions are made from this tree too.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{Device, Devices, Precision};
use crate::splits::Kind;

mod prepare;

pub use prepare::*;

/// More threads than any machine has use for.
const MOST_THREADS: u64 = 4096;

const AFTER_HELP: &str = "\
Exit codes:
  0    success
  1    the run failed (disk, memory, network)
  2    a missing or malformed flag, config or checkpoint
  3    a missing or malformed manifest, text or audio, or a failed check
  4    training diverged
  130  interrupted, after a checkpoint

Metrics:
  accuracy           share of right predictions (often called WA)
  balanced accuracy  mean over the labels of their recall (often called UA)
  weighted F1        mean over the labels of their F1, weighted by how often each label is true: the headline number
  macro F1           plain mean over the labels of their F1

Results go to standard output, messages to standard error. First steps: clasp train --config demo.toml";

/// Train, evaluate and run classifiers over a spoken utterance and its text
///
/// CLASP: Cross-modal Alignment Using Pre-trained Unimodal Models (Findings of ACL 2024). Not the retrieval model of
/// the same name (Contrastive Language-Speech Pretraining).
#[derive(Debug, Parser)]
#[command(name = "clasp", version, after_long_help = AFTER_HELP, max_term_width = 120)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model as a config says; without a config, the demo
    Train(TrainArguments),
    /// Score a checkpoint on a manifest or on a split of its run
    Eval(EvalArguments),
    /// Predict the label of one utterance, or of every row of a manifest
    Predict(PredictArguments),
    /// Write the vectors and logits of every row of a manifest to a safetensors file
    Encode(EncodeArguments),
    /// Train and score many systems as a plan says, and compare them
    Compare(CompareArguments),
    /// Turn a corpus into manifests
    Prepare(PrepareArguments),
    /// Tell whether manifests can be trusted: what is in them, and what they share
    Check(CheckArguments),
    /// Fetch encoders and checkpoints into the Hugging Face cache, and list what it has
    Models(ModelsArguments),
    /// Show the epochs of a run so far, also while it is at work
    Log(LogArguments),
    /// Compute a run's hashes and test score again, and tell what differs
    Verify(VerifyArguments),
    /// List, show and copy the built-in configs and plans
    Config(ConfigArguments),
    /// Time a training step and a prediction
    Bench(BenchArguments),
    /// Tell what this machine has, and whether a config would run on it
    Doctor(DoctorArguments),
    /// Measure the memory of a training step (used by `doctor`)
    #[command(hide = true)]
    MeasureStep(MeasureArguments),
    /// Print a shell's completion script
    Completions(CompletionsArguments),
}

/// `clasp train`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct TrainArguments {
    /// A config file, else the name of a built-in config (see `clasp config list`)
    #[arg(long, value_name = "FILE", default_value = "demo.toml")]
    pub config: String,
    /// Set a key of the config, as in train.epochs=3; may be given more than once
    ///
    /// The value is TOML; what is not TOML is taken as a string. Paths are relative to what they are relative to in the
    /// config file. An empty value unsets a path: text.checkpoint=
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Go on with the run in the run folder, from its last checkpoint; begin where there is none yet
    ///
    /// `train.epochs` may be another, also where the run is finished, and so may `run.test_at_end`. Data and weights may
    /// lie elsewhere by now: their content decides.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Go on with another train.epochs although the learning rate of train.schedule depends on it: what is left of
    /// training follows the new schedule
    #[arg(long, requires = "resume")]
    pub new_schedule: bool,
    /// Remove the run that is in the run folder, and begin anew
    #[arg(long)]
    pub overwrite: bool,
    /// auto, cpu, cuda, cuda:N, or several that share each batch, as cuda:0,1; wins over run.device
    #[arg(long)]
    pub device: Option<Devices>,
    /// Print only errors
    #[arg(long, short)]
    pub quiet: bool,
    /// Print every step and epoch, as the log has them, and the result as lines of JSON; the table goes to stderr
    #[arg(long)]
    pub json: bool,
}

/// Flags that supply a missing modality.
#[derive(Debug, Args)]
pub struct MissingModality {
    /// Command that turns speech into text where a row has none: gets a WAV's path, prints one line of text
    #[arg(long, value_name = "COMMAND")]
    pub asr: Option<String>,
    /// Command that turns text into speech where a row has none: gets the text, prints a WAV
    #[arg(long, value_name = "COMMAND")]
    pub tts: Option<String>,
}

/// `clasp eval`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("data").required(true).args(["manifest", "split"]), after_long_help = AFTER_HELP)]
pub struct EvalArguments {
    /// A checkpoint folder, a run folder (its best checkpoint), or a model of the cache (see `clasp models list`)
    #[arg(long, value_name = "FOLDER")]
    pub checkpoint: PathBuf,
    /// The manifest to score
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// The split of the run to score: train, dev or test
    #[arg(long)]
    pub split: Option<Split>,
    /// Folder for predictions and report; default: the run folder
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Also score by this key of the manifest (label, words or any other); may be given more than once
    #[arg(long, value_name = "KEY")]
    pub by: Vec<String>,
    /// Draw the rows with the same value of this key together (recordings of a sentence, a dialogue) for the intervals
    #[arg(long, value_name = "KEY")]
    pub cluster: Option<String>,
    /// What to do about utterances whose label the model does not know
    #[arg(long, value_enum, default_value = "refuse", value_name = "HOW")]
    pub unknown_labels: UnknownLabelPolicy,
    /// Score nothing, but test the run's saved predictions of the split against those of this other run
    #[arg(long, value_name = "RUN", requires = "split", conflicts_with_all = ["manifest", "output", "by", "asr", "tts"])]
    pub against: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// Utterances a batch; changes no result
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one())]
    pub batch_size: u32,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Where a modality is missing
    #[command(flatten)]
    pub missing: MissingModality,
}

/// What to do about labels that the model does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownLabelPolicy {
    /// Score nothing, and name them
    Refuse,
    /// Count every answer to them as wrong
    Wrong,
    /// Leave these utterances out
    Drop,
}

/// The splits of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Split {
    /// The training data
    Train,
    /// What picks the best epoch
    Dev,
    /// What is scored in the end
    Test,
}

/// `clasp predict`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).multiple(true).args(["audio", "text", "manifest"]))]
pub struct PredictArguments {
    /// A checkpoint folder, a run folder (its best checkpoint), or a model of the cache (see `clasp models list`)
    #[arg(long, value_name = "FOLDER")]
    pub checkpoint: PathBuf,
    /// An audio file
    #[arg(long, value_name = "FILE", conflicts_with = "manifest")]
    pub audio: Option<PathBuf>,
    /// What is said in it
    #[arg(long, conflicts_with = "manifest", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// A manifest (JSON Lines), or - for standard input; a bad row does not stop the others (exit code 3)
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// File for the predictions (JSON Lines, in input order); default: standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// Utterances a batch; changes no result
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one())]
    pub batch_size: u32,
    /// Print JSON also for a single utterance on a terminal
    #[arg(long)]
    pub json: bool,
    /// Where a modality is missing
    #[command(flatten)]
    pub missing: MissingModality,
}

/// `clasp encode`
#[derive(Debug, Args)]
pub struct EncodeArguments {
    /// A checkpoint folder, a run folder (its best checkpoint), or a model of the cache (see `clasp models list`)
    #[arg(long, value_name = "FOLDER")]
    pub checkpoint: PathBuf,
    /// The manifest; a bad row is an error
    #[arg(long, value_name = "FILE")]
    pub manifest: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// Utterances a batch; changes no result
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one())]
    pub batch_size: u32,
    /// Also write the vectors of every layer of the encoders: `text_layers` and `speech_layers`
    #[arg(long)]
    pub layers: bool,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

/// `clasp compare`
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// A plan, else the name of a built-in plan: demo, table4, table8, table9, grid (see `clasp config list`)
    #[arg(value_name = "PLAN")]
    pub plan: String,
    /// Print the runs, where they stand and how long they may take, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Set a key of the configs of all runs, as in train.epochs=3; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Runs at a time; wins over the plan's
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub jobs: Option<u32>,
    /// auto, cpu, cuda or cuda:N, or several of these over which the runs are spread, as in cuda:0,cuda:1
    #[arg(long, value_name = "DEVICE", value_delimiter = ',')]
    pub device: Vec<Device>,
    /// Print the table (or with --dry-run the runs) as JSON
    #[arg(long)]
    pub json: bool,
    /// Print only errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// `clasp check`
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Manifests; or folders, for the manifests or folds in them
    #[arg(required = true, value_name = "MANIFEST")]
    pub manifests: Vec<PathBuf>,
    /// Read every sample of the audio: finds what is damaged, silent or clipped, and the same samples in two formats
    #[arg(long)]
    pub decode: bool,
    /// Allow that manifests share what nobody declared; later reports on them say so; may be given more than once
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub allow_leak: Vec<LeakKind>,
    /// Longer audio is cut in training
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub max_seconds: f64,
    /// Print everything as JSON
    #[arg(long)]
    pub json: bool,
}

/// What two manifests can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LeakKind {
    /// Speakers
    Speaker,
    /// Transcripts
    Text,
    /// Recordings
    Audio,
}

impl LeakKind {
    /// As splits know it.
    pub fn kind(self) -> Kind {
        match self {
            Self::Speaker => Kind::Speaker,
            Self::Text => Kind::Text,
            Self::Audio => Kind::Audio,
        }
    }
}

/// `clasp models`
#[derive(Debug, Args)]
pub struct ModelsArguments {
    /// What to do
    #[command(subcommand)]
    pub action: ModelsAction,
}

/// What `clasp models` can do.
#[derive(Debug, Subcommand)]
pub enum ModelsAction {
    /// Fetch a model and print its folder; what the cache has is not fetched again
    ///
    /// `HF_HOME` or `HF_HUB_CACHE` say where the cache is, `HF_ENDPOINT` where the hub is. `HF_TOKEN` is the access
    /// token; `HF_HUB_OFFLINE=1` forbids network access.
    Fetch(ModelsFetchArguments),
    /// List the models of the cache
    List(ModelsListArguments),
}

/// `clasp models fetch`
#[derive(Debug, Args)]
pub struct ModelsFetchArguments {
    /// A short name (roberta-base, wav2vec2-base) or a hub id (facebook/wav2vec2-base)
    pub name: String,
    /// Branch, tag or commit; default: main. A config then names the model as NAME@REVISION
    #[arg(long)]
    pub revision: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `clasp models list`
#[derive(Debug, Args)]
pub struct ModelsListArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `clasp log`
#[derive(Debug, Args)]
pub struct LogArguments {
    /// The run folder
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Print every entry as JSON
    #[arg(long)]
    pub json: bool,
}

/// `clasp verify`
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The run folder
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// Utterances a batch; changes no result
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one())]
    pub batch_size: u32,
    /// Also decode every recording
    #[arg(long)]
    pub decode: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `clasp config`
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// What to do
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What `clasp config` can do.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// List the built-in configs and plans
    List(ConfigListArguments),
    /// Print a config, or every key with its default
    Show(ConfigShowArguments),
    /// Copy a config to a file of your own
    Copy(ConfigCopyArguments),
}

/// `clasp config list`
#[derive(Debug, Args)]
pub struct ConfigListArguments {
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
}

/// `clasp config show`
#[derive(Debug, Args)]
pub struct ConfigShowArguments {
    /// A config file, else the name of a built-in config or plan
    #[arg(required_unless_present = "defaults")]
    pub name: Option<String>,
    /// Set a key of the config, as in train.epochs=3, and print the resolved config
    #[arg(long, value_name = "KEY=VALUE", requires = "name")]
    pub set: Vec<String>,
    /// Print what the program will use: every key, every default filled in, paths absolute
    #[arg(long, requires = "name")]
    pub resolved: bool,
    /// Print every key with its default and what it is for
    #[arg(long, conflicts_with = "name")]
    pub defaults: bool,
    /// Print it as JSON, without comments
    #[arg(long)]
    pub json: bool,
}

/// `clasp config copy`
#[derive(Debug, Args)]
pub struct ConfigCopyArguments {
    /// The name of a built-in config or plan, or a file
    pub name: String,
    /// A file or folder; default: a file of that name in the current folder
    pub to: Option<PathBuf>,
    /// Replace the file if there is one
    #[arg(long)]
    pub force: bool,
}

/// `clasp bench`
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// The model's size; base is the paper's
    #[arg(long, default_value = "base")]
    pub size: Size,
    /// Utterances a batch
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one())]
    pub batch_size: u32,
    /// Seconds of audio of each utterance
    #[arg(long, default_value_t = 4.5)]
    pub seconds: f64,
    /// Tokens of each text
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..))]
    pub tokens: u32,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// f32 or bf16 (which the CPU emulates)
    #[arg(long, default_value = "f32", value_parser = precision)]
    pub precision: Precision,
    /// Timed steps
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one())]
    pub steps: u32,
    /// Steps before the timed ones
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub warmup: u32,
    /// Threads of the CPU; 0: as many as there are cores
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(..=MOST_THREADS))]
    pub threads: usize,
    /// Time only one of the two jobs
    #[arg(long)]
    pub only: Option<Job>,
    /// JSON list of [tokens, samples]: time an epoch over these instead of one batch
    #[arg(long, value_name = "FILE")]
    pub lengths: Option<PathBuf>,
    /// Train with the features of the frozen convolutions from a cache in the system's temporary folder, which the steps
    /// before the timed ones fill
    #[arg(long)]
    pub feature_cache: bool,
    /// Also how the time is shared out, and how fast the device multiplies matrices; a step then takes a little longer
    #[arg(long)]
    pub profile: bool,
}

/// The sizes of `clasp bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// Width 48, group norm
    Tiny,
    /// Width 48, layer norm before the layers
    TinyLarge,
    /// RoBERTa base and wav2vec 2.0 base: the paper's
    Base,
    /// RoBERTa large and wav2vec 2.0 large
    Large,
}

/// The jobs of `clasp bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Job {
    /// A training step
    Train,
    /// A prediction
    Predict,
}

/// `clasp doctor`
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Also check this config: encoders, data, run folder
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: Device,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Do not take steps of training to measure their memory, which lasts up to two minutes
    #[arg(long)]
    pub no_measure: bool,
}

/// `clasp measure-step`
#[derive(Debug, Args)]
pub struct MeasureArguments {
    /// A config file, else the name of a built-in config
    #[arg(long, value_name = "FILE")]
    pub config: String,
    /// Utterances a batch on a device
    #[arg(long, value_name = "N")]
    pub batch: usize,
    /// A folder for what is written meanwhile, which the caller removes
    #[arg(long, value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// `clasp completions`
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell
    pub shell: Shell,
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

fn precision(word: &str) -> Result<Precision, String> {
    Precision::from_word(word).ok_or_else(|| format!("expected one of {}", Precision::WORDS.join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("clasp").chain(words.iter().copied()))
    }

    #[test]
    fn the_tree_is_sound_and_every_flag_has_help() {
        Cli::command().debug_assert();
        let mut commands = vec![Cli::command()];
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn the_demo_is_the_default() {
        let Command::Train(arguments) = parse(&["train"]).unwrap().command else { panic!("train") };
        assert_eq!((arguments.config.as_str(), arguments.device.clone()), ("demo.toml", None));
        let words = ["train", "--set", "a=b=c", "--set", "d=e", "--device", "cuda:1"];
        let Command::Train(arguments) = parse(&words).unwrap().command else { panic!("train") };
        assert_eq!(
            (arguments.set.as_slice(), arguments.device.clone()),
            (&["a=b=c".into(), "d=e".into()][..], Some(Device::Cuda(1).into()))
        );
    }

    #[test]
    fn flags_that_exclude_or_need_each_other() {
        for words in [
            &["eval", "--checkpoint", "x"][..],
            &["eval", "--checkpoint", "x", "--split", "dev", "--manifest", "m"],
            &["eval", "--checkpoint", "x", "--split", "devel"],
            &["eval", "--checkpoint", "x", "--manifest", "m", "--against", "y"],
            &["eval", "--checkpoint", "x", "--split", "dev", "--against", "y", "--output", "o"],
            &["predict", "--checkpoint", "x"],
            &["predict", "--checkpoint", "x", "--manifest", "-", "--text", "a"],
            &["predict", "--checkpoint", "x", "--text", "a", "--batch-size", "0"],
            &["train", "--resume", "--overwrite"],
            &["train", "--device", "gpu"],
            &["config", "show"],
            &["config", "show", "demo", "--defaults"],
            &["bench", "--precision", "f16"],
            &["bench", "--size", "huge"],
        ] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words:?}");
        }
        for words in [
            &["predict", "--checkpoint", "x", "--manifest", "-"][..],
            &["predict", "--checkpoint", "x", "--text", "--yes--", "--audio", "f.wav"],
            &["prepare", "table", "--input", "t.csv", "--output", "o", "--fractions", "0.7,0.2,0.1"],
            &["config", "show", "--defaults"],
            &["bench", "--size", "tiny-large", "--only", "train"],
        ] {
            parse(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        }
    }

    #[test]
    fn the_help_tells_the_exit_codes_and_the_metrics() {
        let help = Cli::command().render_long_help().to_string();
        for part in ["130  interrupted", "training diverged", "mean over the labels of their recall (often called UA)"]
        {
            assert!(help.contains(part), "{help}");
        }
    }
}
