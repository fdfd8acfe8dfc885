//! `clasp train`: config, data, model, training, the test report.

use std::{
    fmt::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{eval, write_output};
use clasp::{
    checkpoint::folder::checkpoint_folder,
    cli::TrainArguments,
    config::{
        self, Config, ConfigError, DataSource, EncoderSource, Precision, Problem, TokenizerSource, table as key_table,
    },
    data::{features::FeatureStore, manifest},
    device::{self, SharedTask},
    error,
    eval::Report,
    ops::TrainOps,
    run::{
        Decision, Existing, RunError, RunFolder,
        provenance::{HashedFile, Provenance, Session},
    },
    splits::record::{SplitRecord, Used},
    terminal::{Event, Progress, table},
    train::{
        Outcome, Start,
        setup::{self, Material},
        step_result::read_every,
        train,
    },
};

/// Runs `clasp train`.
///
/// # Errors
/// Whatever stops the run.
pub fn run(arguments: &TrainArguments) -> anyhow::Result<u8> {
    let mut config = config::load(&arguments.config, &arguments.set)?;
    if let Some(devices) = &arguments.device {
        config.run.device = devices.clone();
    }
    // Before configs are compared: the stored one names the checkpoint, not the run that it is of.
    config.train.init = config.train.init.map(|path| checkpoint_folder(&path));
    let chosen = device::choose_all(&config.run.device)?;
    check_share(&config, chosen.len())?;
    let folder = RunFolder::new(&config.run.dir);
    let existing = Existing { resume: arguments.resume, overwrite: arguments.overwrite };
    // What must be left alone is known before anything is read or made.
    let decision = folder.decide(existing, |stored| differences(stored, &config, false))?;
    if let Decision::Show(result) = decision {
        return show(&folder, &result);
    }
    let lock = folder.open()?;
    // Again: what a killed process left is put right by now, and a checkpoint may have come back.
    let decision = folder.decide(existing, |stored| differences(stored, &config, false))?;
    if let Decision::Show(result) = decision {
        return show(&folder, &result);
    }
    let is_resumed = decision == Decision::Resume;
    if !is_resumed {
        check_sources(&config, &folder)?;
    }
    let mut progress = Progress::stderr(arguments.quiet);
    let features = feature_store(&config)?;
    let material = setup::prepare(&config)?;
    let files = hashed_files(&material)?;
    if is_resumed {
        folder.decide(existing, |stored| differences(stored, &material.config, true))?;
        check_files(&folder, &files)?;
    }
    let split = split_of(&material);
    tell_start(&mut progress, &material, &chosen, &folder, is_resumed);
    split.sentences().iter().for_each(|sentence| progress.handle(&Event::Message(sentence)));
    let session = Session::start(&device::names(&chosen), rayon::current_num_threads());
    let mut stored: Option<Provenance> = None;
    let begin = || {
        let mut manifest = if is_resumed {
            folder.begin_again(&lock, session)?
        } else {
            folder.begin(&lock, &material.config.to_toml(), material.config.train.seed, files, session)?
        };
        manifest.split = Some(split);
        manifest.save(&folder.manifest())?;
        stored = Some(manifest);
        Ok(())
    };
    let is_stopped = stop_flag()?;
    let work = TrainTask {
        material: &material,
        folder: &folder,
        first: chosen[0],
        is_resumed,
        features: features.as_ref(),
        is_stopped: &is_stopped,
        begin: Box::new(begin),
        progress: &mut progress,
    };
    let trained = device::dispatch_all(&chosen, work);
    if let (true, Some(manifest)) = (trained.is_err(), &mut stored) {
        manifest.end_session();
        folder.take_over_uses(manifest);
        // What went wrong in training is told; that the manifest could not be written is not worth more.
        let _ = manifest.save(&folder.manifest());
    }
    let outcome = trained?;
    let mut manifest = stored.context("the run was not begun")?;
    let report = test_at_end(&material, &folder, chosen[0], &mut manifest, arguments.quiet)?;
    let mut result = json!({
        "best_epoch": outcome.best.map(|best| best.epoch),
        "dev_weighted_f1": outcome.best.and_then(|best| best.weighted_f1),
        "epochs": outcome.epochs,
        "steps": outcome.steps,
    });
    if let Some(report) = &report {
        result["test"] = json!(report.fusion.headline.map(|estimate| estimate.value));
    }
    let best = HashedFile::of("best weights", &folder.best().join("model.safetensors"))?;
    // Within the folder, which may be moved.
    manifest.files.push(HashedFile { path: Path::new("best").join("model.safetensors"), ..best });
    folder.finish(&lock, &mut manifest, result.clone())?;
    show(&folder, &result)
}

/// Set by Ctrl-C and SIGTERM; the second one ends the program at once.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(error::INTERRUPTED));
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(flag)
}

struct TrainTask<'a> {
    material: &'a Material,
    folder: &'a RunFolder,
    first: device::ResolvedDevice,
    is_resumed: bool,
    features: Option<&'a Arc<FeatureStore>>,
    is_stopped: &'a AtomicBool,
    /// Makes the run folder that of this run; called when the weights are loaded.
    begin: Box<dyn FnOnce() -> anyhow::Result<()> + 'a>,
    progress: &'a mut Progress,
}

impl SharedTask for TrainTask<'_> {
    type Output = anyhow::Result<Outcome>;

    fn run<B: TrainOps>(self, devices: &[B::Device]) -> Self::Output {
        let Self { material, folder, first, is_resumed, features, is_stopped, begin, progress } = self;
        let read_every = read_every(first);
        let start = Start { material, folder, first, is_resumed, features, read_every, is_stopped };
        train::<B>(start, devices, begin, &mut |event| progress.handle(event))
    }
}

/// What a run reads must be no file that it writes, and what it starts from not of the run that it replaces.
fn check_sources(config: &Config, folder: &RunFolder) -> Result<(), ConfigError> {
    let mut sources: Vec<(&str, &Path)> = config.train.init.iter().map(|init| ("train.init", init.as_path())).collect();
    for (key, source) in [("text.checkpoint", &config.text.source), ("speech.checkpoint", &config.speech.source)] {
        if let EncoderSource::Checkpoint { folder, .. } = source {
            sources.push((key, folder));
        }
    }
    if let TokenizerSource::Folder(folder) = &config.text.tokenizer {
        sources.push(("text.tokenizer", folder));
    }
    if let DataSource::Manifests { train, dev, test } = &config.data.source {
        let splits = [("data.train", Some(train)), ("data.dev", dev.as_ref()), ("data.test", test.as_ref())];
        sources.extend(splits.into_iter().filter_map(|(key, path)| Some((key, path?.as_path()))));
    }
    let is_own = |path: &Path| folder.writes_real(path);
    let problem = |(key, path): (&str, &Path)| {
        Problem::conflict(key, format!("{} is of the run to be replaced: choose another `run.dir`", path.display()))
    };
    let problems: Vec<Problem> = sources.into_iter().filter(|(_, path)| is_own(path)).map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::invalid("config", problems)) }
}

/// Opens the folder that keeps the features of speech, if the config names one.
fn feature_store(config: &Config) -> Result<Option<Arc<FeatureStore>>, ConfigError> {
    let Some(cache) = &config.speech.feature_cache else { return Ok(None) };
    let refused = |words| ConfigError::invalid("config", vec![Problem::conflict("speech.feature_cache", words)]);
    if RunFolder::new(&config.run.dir).writes(&cache.folder) {
        let words = format!("{} is of the run's own files: name another folder", cache.folder.display());
        return Err(refused(words));
    }
    FeatureStore::open(&cache.folder, cache.precision, cache.bytes())
        .map(Some)
        .map_err(|problem| refused(format!("cannot be used: {problem}")))
}

/// Every device needs an utterance of a batch.
fn check_share(config: &Config, devices: usize) -> Result<(), ConfigError> {
    if config.train.batch_size >= devices {
        return Ok(());
    }
    let words =
        format!("is {}, too few for {devices} devices: raise it, or name fewer devices", config.train.batch_size);
    Err(ConfigError::invalid("config", vec![Problem::conflict("train.batch_size", words)]))
}

fn tell_start(
    progress: &mut Progress,
    material: &Material,
    chosen: &[device::ResolvedDevice],
    folder: &RunFolder,
    is_resumed: bool,
) {
    let mut say = |line: &str| progress.handle(&Event::Message(line));
    let dev = material.dev.as_ref().map_or(0, |dev| dev.len());
    let verb = if is_resumed { "continuing" } else { "training" };
    say(&format!(
        "{verb} {} on {} with {} and {dev} dev utterances, {} labels; run folder {}",
        material.config.model.method,
        device::names(chosen),
        material.train.len(),
        material.labels.len(),
        folder.path().display()
    ));
    material.warnings.iter().for_each(|warning| say(&format!("note: {warning}")));
    if material.dev.is_none() {
        say("note: there is no data.dev: the last epoch is taken as the best");
    }
    let contrasts = material.model.contrasted_size() > 0;
    if chosen.len() > 1 {
        let seen =
            if material.config.train.gather_negatives { "the whole batch" } else { "a device's own part of the batch" };
        let contrastive = if contrasts {
            format!("; the contrastive terms see {seen} (train.gather_negatives)")
        } else {
            String::new()
        };
        say(&format!("note: each batch is shared by {} devices{contrastive}", chosen.len()));
    }
    if material.config.run.precision == Precision::Bf16 && chosen[0] == device::ResolvedDevice::Cpu {
        say("note: the CPU emulates bf16: the numbers are those of bf16, but it is slower than f32");
    }
    if material.config.train.accumulation_steps > 1 && contrasts {
        say("note: train.accumulation_steps does not enlarge the contrastive terms' negatives: they stay in a batch");
    }
}

/// The split, and what its parts share. The test manifest is read for that alone; where it is not there yet, or is
/// malformed, only scoring it will need it.
fn split_of(material: &Material) -> SplitRecord {
    let test = material.splits.test.as_deref().and_then(|path| manifest::read(path).ok());
    let rows = |name: &str| match name {
        "train" => Some(material.train.rows()),
        "dev" => material.dev.as_ref().map(|dev| dev.rows()),
        _ => test.as_deref(),
    };
    let used: Vec<Used> = material.splits.named().filter_map(|(name, path)| Some((name, path, rows(name)?))).collect();
    SplitRecord::of(&used)
}

/// The files that a run depends on, with their SHA-256.
fn hashed_files(material: &Material) -> anyhow::Result<Vec<HashedFile>> {
    let mut files = Vec::new();
    for (split, path) in material.splits.named() {
        if path.exists() {
            files.push(HashedFile::of(split, path)?);
        }
        let protocol = path.with_file_name("split.json");
        if split == "train" && protocol.exists() {
            files.push(HashedFile::of("split", &protocol)?);
        }
    }
    let config = &material.config;
    for (role, key, source) in [
        ("text weights", "text.checkpoint", &config.text.source),
        ("speech weights", "speech.checkpoint", &config.speech.source),
    ] {
        if let EncoderSource::Checkpoint { folder, .. } = source {
            files.push(HashedFile::of(role, &config::locate::encoder(key, folder)?.weights)?);
        }
    }
    if let Some(folder) = &config.train.init {
        files.push(HashedFile::of("initial weights", &folder.join("model.safetensors"))?);
    }
    Ok(files)
}

/// A run goes on only with the data and weights that it was started with.
fn check_files(folder: &RunFolder, files: &[HashedFile]) -> anyhow::Result<()> {
    let stored = folder.load_manifest()?.files;
    let changed: Vec<String> = files
        .iter()
        .filter(|file| !stored.iter().any(|other| other.role == file.role && other.sha256 == file.sha256))
        .map(|file| format!("{}: {} has changed", file.role, file.path.display()))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let differences = clasp::error::Problems(changed);
    Err(RunError::OtherConfig { path: folder.path().into(), what: "an unfinished run", differences }.into())
}

/// Keys that the encoders settle where a config does not state them.
const SETTLED: [&str; 4] = ["model.", "text.pooling", "speech.pooling", "data.max_tokens"];

/// The keys in which two configs differ, of those that matter to the result. A new config that is not settled yet may
/// leave open what the stored one states.
pub fn differences(stored: &str, new: &Config, is_settled: bool) -> Vec<String> {
    let stored = values(stored);
    let new = values(&new.to_toml());
    let keys: std::collections::BTreeSet<&String> = stored.keys().chain(new.keys()).collect();
    let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "not set".into());
    keys.into_iter()
        .filter(|key| {
            !key_table::find(key).is_some_and(|key| key.is_free_on_resume) && stored.get(*key) != new.get(*key)
        })
        .filter(|key| is_settled || new.contains_key(*key) || !SETTLED.iter().any(|settled| key.starts_with(settled)))
        .map(|key| format!("{key}: {} there, {} here", shown(stored.get(key)), shown(new.get(key))))
        .collect()
}

/// Every key of a config with its value as it is written.
fn values(toml: &str) -> std::collections::BTreeMap<String, String> {
    let mut values = std::collections::BTreeMap::new();
    let table = toml.parse::<toml::Table>().unwrap_or_default();
    let mut open: Vec<(String, toml::Value)> = table.into_iter().collect();
    while let Some((key, value)) = open.pop() {
        match value {
            toml::Value::Table(table) => {
                open.extend(table.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            value => {
                values.insert(key, value.to_string());
            }
        }
    }
    values
}

fn test_at_end(
    material: &Material,
    folder: &RunFolder,
    chosen: device::ResolvedDevice,
    manifest: &mut Provenance,
    is_quiet: bool,
) -> anyhow::Result<Option<Report>> {
    let (true, Some(test)) = (material.config.run.test_at_end, &material.splits.test) else { return Ok(None) };
    folder.take_over_uses(manifest);
    manifest.count_test_use();
    manifest.save(&folder.manifest())?;
    let scoring = eval::Scoring {
        checkpoint: &folder.best(),
        manifest: test,
        split: "test",
        output: Some(folder),
        keys: &[],
        cluster: None,
        test_uses: Some(manifest.test_uses.len()),
        batch_size: material.config.train.batch_size,
        batch_seconds: material.config.train.batch_seconds.0,
        supply: None,
        data_split: manifest.split.clone(),
        is_quiet,
    };
    Ok(Some(eval::score(&scoring, chosen)?))
}

/// Prints what a finished run came to.
fn show(folder: &RunFolder, result: &Value) -> anyhow::Result<u8> {
    let mut text = String::new();
    if folder.report("test").is_file() {
        text.push_str(&table::render(&Report::load(&folder.report("test"))?));
        text.push('\n');
    }
    let score =
        result["dev_weighted_f1"].as_f64().map_or(String::new(), |score| format!(", dev weighted F1 {score:.4}"));
    let _ = writeln!(text, "best epoch {}{score}; run folder {}", result["best_epoch"], folder.path().display());
    write_output(&text)?;
    Ok(error::SUCCESS)
}
