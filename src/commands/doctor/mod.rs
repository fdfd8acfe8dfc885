//! `clasp doctor`: what this machine has, and whether a config would run on it; all problems at once.

pub mod measure;
mod memory;

use std::{fmt::Write as _, path::Path};

use serde_json::{Value, json};

use super::write_output;
use clasp::{
    checkpoint::folder::checkpoint_folder,
    checkpoint::{CheckpointConfig, published::read_config},
    cli::DoctorArguments,
    config::{self, Config, ConfigError, DataSource, EncoderSource, Problem, TokenizerSource, locate},
    data::{manifest, text::Tokenizer},
    device,
    encoder::{RobertaConfig, SpeechEncoderConfig},
    error, exit,
    memory::{available, shown},
    method::Reads,
    run::{RunFolder, State, provenance::GIT},
    train::setup,
};

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    /// What was found, or what is wrong and what to do.
    text: String,
    /// The exit code that a problem gives; `None` if all is well.
    code: Option<u8>,
    /// An object of further fields for `--json`; null where there are none.
    numbers: Value,
}

/// Runs `clasp doctor`.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(arguments: &DoctorArguments) -> anyhow::Result<u8> {
    let mut findings = machine(arguments);
    if let Some(name) = &arguments.config {
        match config::load(name, &[]) {
            Ok(config) => {
                findings.push(good("config", format!("{name} is well-formed")));
                let found = check(&config);
                let is_sound = found.iter().all(|finding| finding.code.is_none());
                findings.extend(found);
                findings.push(if arguments.no_measure {
                    memory::skipped()
                } else {
                    memory::check(name, &config, is_sound)
                });
            }
            Err(problem) => findings.push(bad("config", &problem.into())),
        }
    }
    let code = findings.iter().filter_map(|finding| finding.code).max().unwrap_or(error::SUCCESS);
    let text = if arguments.json {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| {
                let mut row = json!({ "check": finding.what, "ok": finding.code.is_none(), "text": finding.text });
                if let (Some(row), Some(numbers)) = (row.as_object_mut(), finding.numbers.as_object()) {
                    row.extend(numbers.clone());
                }
                row
            })
            .collect();
        format!("{:#}\n", json!({ "ok": code == error::SUCCESS, "checks": rows }))
    } else {
        findings.iter().fold(String::new(), |mut text, finding| {
            let mark = if finding.code.is_none() { "ok     " } else { "problem" };
            let _ = writeln!(text, "{mark}  {:<16} {}", finding.what, finding.text);
            text
        })
    };
    write_output(&text)?;
    Ok(code)
}

fn good(what: &'static str, text: String) -> Finding {
    Finding { what, text, code: None, numbers: Value::Null }
}

fn bad(what: &'static str, problem: &anyhow::Error) -> Finding {
    Finding { what, text: format!("{problem:#}"), code: Some(exit::exit_code(problem)), numbers: Value::Null }
}

fn either(what: &'static str, result: anyhow::Result<String>) -> Finding {
    match result {
        Ok(text) => good(what, text),
        Err(problem) => bad(what, &problem),
    }
}

fn machine(arguments: &DoctorArguments) -> Vec<Finding> {
    let version = env!("CARGO_PKG_VERSION");
    let git = GIT.map_or(String::new(), |git| format!(" ({git})"));
    let cuda = match device::cuda_devices() {
        Ok(count) => format!("{count} device(s)"),
        Err(reason) => format!("not used: {reason}"),
    };
    let memory = available().map_or("unknown".into(), |bytes| format!("{} available", shown(bytes)));
    vec![
        good("program", format!("clasp {version}{git}")),
        good("cpu", format!("{} threads, {}", rayon::current_num_threads(), instructions())),
        good("memory", memory),
        good("cuda", cuda),
        either(
            "device",
            device::choose(arguments.device)
                .map(|chosen| format!("{} means {chosen} here", arguments.device))
                .map_err(anyhow::Error::from),
        ),
    ]
}

/// What the fast forms can use.
fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if std::is_x86_feature_detected!("avx2") {
            return "AVX2";
        }
    }
    std::env::consts::ARCH
}

/// Everything that a run of this config would need.
fn check(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        either(
            "config device",
            device::choose_all(&config.run.device).map(|chosen| device::names(&chosen)).map_err(anyhow::Error::from),
        ),
        either("run folder", run_folder(config)),
        either("text encoder", text_encoder(config)),
        either("speech encoder", speech_encoder(config)),
        either("tokenizer", tokenizer(config)),
    ];
    if let Some(cache) = &config.speech.feature_cache {
        findings.push(either("feature cache", feature_cache(&cache.folder)));
    }
    if let Some(folder) = &config.train.init {
        let read =
            CheckpointConfig::read(&checkpoint_folder(folder)).map(|found| format!("{} labels", found.labels.len()));
        findings.push(either("train.init", read.map_err(anyhow::Error::from)));
    }
    match &config.data.source {
        DataSource::Demo { folder, .. } => {
            findings.push(good("data", format!("made by the program in {}", folder.display())));
        }
        DataSource::Manifests { train, dev, test } => {
            let splits = [("data.train", Some(train)), ("data.dev", dev.as_ref()), ("data.test", test.as_ref())];
            for (key, path) in splits {
                if let Some(path) = path {
                    findings.push(either(key, manifest_of(path, config.model.method.reads())));
                }
            }
            let is_read = |finding: &Finding| finding.what.starts_with("data.") || finding.what == "train.init";
            if findings.iter().all(|finding| finding.code.is_none() || !is_read(finding)) {
                findings.push(either("labels", labels(config)));
            }
        }
    }
    findings
}

fn manifest_of(path: &Path, reads: Reads) -> anyhow::Result<String> {
    let rows = manifest::read(path)?;
    manifest::require(&rows, reads.text(), reads.speech(), true)?;
    let missing: Vec<String> = rows
        .iter()
        .filter(|_| reads.speech())
        .filter_map(|row| row.audio.as_deref())
        .filter(|audio| !audio.is_file())
        .map(|audio| audio.display().to_string())
        .collect();
    if !missing.is_empty() {
        let failures = clasp::error::Problems(missing.iter().map(|path| format!("no file {path}")).collect());
        return Err(clasp::data::DataError::Unscored { path: path.into(), failures }.into());
    }
    Ok(format!("{}: {} utterances", path.display(), rows.len()))
}

fn labels(config: &Config) -> anyhow::Result<String> {
    let mut config = config.clone();
    config.train.init = config.train.init.map(|path| checkpoint_folder(&path));
    let (count, warnings) = setup::check_all_labels(&config)?;
    let warnings = warnings.iter().map(|warning| format!("; warning: {warning}"));
    Ok(std::iter::once(format!("{count} labels")).chain(warnings).collect())
}

fn run_folder(config: &Config) -> anyhow::Result<String> {
    let folder = RunFolder::new(&config.run.dir);
    let path = config.run.dir.display();
    Ok(match folder.state()? {
        State::Empty => format!("{path} is free"),
        State::Unfinished { can_resume: true } => format!("{path} holds a run to --resume"),
        State::Unfinished { can_resume: false } => format!("{path} holds a run without a checkpoint"),
        State::Finished(_) => format!("{path} holds a finished run"),
        State::Foreign(name) => format!("{path} holds a `{name}` that is no run's: choose another run.dir"),
    })
}

/// Whether the folder is there or can be made; nothing is written to find out.
fn feature_cache(folder: &Path) -> anyhow::Result<String> {
    match folder.ancestors().find(|path| path.exists()) {
        Some(path) if !path.is_dir() => {
            let words = format!("{} cannot be a folder: {} is a file", folder.display(), path.display());
            Err(ConfigError::invalid("config", vec![Problem::conflict("speech.feature_cache", words)]).into())
        }
        Some(path) if path == folder => Ok(format!("{} is there", folder.display())),
        _ => Ok(format!("{} will be made", folder.display())),
    }
}

fn text_encoder(config: &Config) -> anyhow::Result<String> {
    match &config.text.source {
        EncoderSource::Checkpoint { folder, .. } => {
            let files = locate::encoder("text.checkpoint", folder)?;
            let encoder = RobertaConfig::from_json(&read_config(folder)?)?;
            Ok(format!("{}: {} layers of {}", files.weights.display(), encoder.num_hidden_layers, encoder.hidden_size))
        }
        EncoderSource::Fresh { .. } => Ok("fresh weights".into()),
        EncoderSource::Initial { .. } => Ok("from train.init".into()),
        EncoderSource::Absent => Ok(not_read(config)),
    }
}

fn speech_encoder(config: &Config) -> anyhow::Result<String> {
    match &config.speech.source {
        EncoderSource::Checkpoint { folder, .. } => {
            let files = locate::encoder("speech.checkpoint", folder)?;
            let encoder = SpeechEncoderConfig::from_json(&read_config(folder)?)?;
            let (weights, layers, width) = (files.weights.display(), encoder.layers(), encoder.hidden_size());
            Ok(format!("{weights}: {layers} layers of {width}{}", encoder.randomness()))
        }
        EncoderSource::Fresh { .. } => Ok("fresh weights".into()),
        EncoderSource::Initial { .. } => Ok("from train.init".into()),
        EncoderSource::Absent => Ok(not_read(config)),
    }
}

fn tokenizer(config: &Config) -> anyhow::Result<String> {
    match &config.text.tokenizer {
        TokenizerSource::Folder(folder) => {
            locate::tokenizer(folder)?;
            Ok(format!("{}: {} entries", folder.display(), Tokenizer::load(folder)?.vocab_size()))
        }
        TokenizerSource::Train { vocab_size } => {
            Ok(format!("trained on the training text, up to {vocab_size} entries"))
        }
        TokenizerSource::Initial => Ok("from train.init".into()),
        TokenizerSource::Absent => Ok(not_read(config)),
    }
}

fn not_read(config: &Config) -> String {
    format!("not needed: {} does not read it", config.model.method)
}
