//! `clasp train`: config, data, model, training, the test report.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    cli::{TrainArguments, UnknownLabelPolicy},
    config::{
        self, Config, ConfigError, DataSource, EncoderSource, Precision, Problem, Schedule, TokenizerSource, locate,
        table as key_table,
    },
    data::{
        features::FeatureStore,
        manifest::{self, Row},
    },
    device::{self, ResolvedDevice, SharedTask},
    error::{self, Problems},
    eval::Report,
    files::WEIGHTS,
    keys::Preset,
    ops::TrainOps,
    run::{
        Comparison, Decision, Existing, Lock, RunError, RunFolder,
        log::Entry,
        provenance::{HashedFile, Provenance, Session},
        recordings::{self, Recording},
    },
    splits::record::{SplitRecord, Used},
    terminal::{Event, Progress, table},
    train::{
        Outcome, Start,
        setup::{self, Material},
        state::State,
        step_result::read_every,
        train,
    },
};

/// Runs `clasp train`.
///
/// # Errors
/// Whatever stops the run.
pub fn run(arguments: &TrainArguments) -> anyhow::Result<u8> {
    let stop = Stop::listen()?;
    Training::new(arguments)?.run(&stop)
}

/// What the command line asks for, and where.
struct Training<'a> {
    arguments: &'a TrainArguments,
    config: Config,
    devices: Vec<ResolvedDevice>,
    folder: RunFolder,
    progress: Progress,
}

impl<'a> Training<'a> {
    fn new(arguments: &'a TrainArguments) -> anyhow::Result<Self> {
        let mut config = config::load(&arguments.config, &arguments.set)?;
        if let Some(devices) = &arguments.device {
            config.run.device = devices.clone();
        }
        // Before configs are compared: the stored one names the checkpoint, not the run that it is of.
        config.train.init = config.train.init.map(|path| checkpoint_folder(&path));
        let devices = device::choose_all(&config.run.device)?;
        check_share(&config, devices.len())?;
        let folder = RunFolder::new(&config.run.dir);
        Ok(Self { arguments, config, devices, folder, progress: Progress::stderr(arguments.quiet) })
    }

    fn run(mut self, stop: &Stop) -> anyhow::Result<u8> {
        // What must be left alone is known before anything is read or made.
        if let Decision::Show(result) = self.decide(&self.config, false)? {
            return show(&self.folder, &result, self.arguments.json);
        }
        let lock = self.folder.open()?;
        // Again: what a killed process left is put right by now, and a checkpoint may have come back.
        let is_resumed = match self.decide(&self.config, false)? {
            Decision::Show(result) => return show(&self.folder, &result, self.arguments.json),
            decision => decision == Decision::Resume,
        };
        if !is_resumed {
            check_sources(&self.config, &self.folder)?;
        }
        let features = feature_store(&self.config)?;
        let material = setup::prepare(&self.config)?;
        let test_rows = material.splits.test.as_deref().and_then(|path| manifest::read(path).ok());
        let known = if is_resumed { recordings::read(&self.folder.recordings())? } else { None };
        let inputs = Inputs::of(&material, test_rows.as_deref(), known.as_deref())?;
        if is_resumed {
            self.decide(&material.config, true)?;
            inputs.check(&self.folder, known.as_deref())?;
        }
        self.tell_start(&material, &inputs.split, is_resumed);
        let (outcome, manifest) = self.train(&lock, &material, inputs, features.as_ref(), is_resumed, stop)?;
        self.finish(&lock, &material, &outcome, manifest)
    }

    /// What is to be done with the run folder, if this were the config. One that `is_settled` has no key left open.
    fn decide(&self, config: &Config, is_settled: bool) -> Result<Decision, RunError> {
        let existing = Existing { resume: self.arguments.resume, overwrite: self.arguments.overwrite };
        let allowed = Allowed { resume: existing.resume, new_schedule: self.arguments.new_schedule };
        self.folder.decide(existing, |stored| compare(stored, config, is_settled, allowed))
    }

    fn tell_start(&mut self, material: &Material, split: &SplitRecord, is_resumed: bool) {
        let sentences = start_sentences(material, &self.devices, &self.folder, is_resumed);
        sentences.iter().chain(&split.sentences()).for_each(|line| self.progress.handle(&Event::Message(line)));
    }

    /// Trains, and returns the manifest of the run, which is at its end but for the test.
    fn train(
        &mut self,
        lock: &Lock,
        material: &Material,
        inputs: Inputs,
        features: Option<&Arc<FeatureStore>>,
        is_resumed: bool,
        stop: &Stop,
    ) -> anyhow::Result<(Outcome, Provenance)> {
        let folder = &self.folder;
        let session = Session::start(&device::names(&self.devices), rayon::current_num_threads());
        let (config, seed) = (material.config.to_stored_toml(), material.config.train.seed);
        let Inputs { files, recordings, split } = inputs;
        let mut stored: Option<Provenance> = None;
        let begin = || {
            stop.is_training.store(true, Ordering::SeqCst);
            let mut manifest = if is_resumed {
                folder.begin_again(lock, &config, files, session, trains(folder, &material.config))?
            } else {
                folder.begin(lock, &config, seed, files, session)?
            };
            recordings::write(&folder.recordings(), &recordings)?;
            manifest.split = Some(split);
            manifest.save(&folder.manifest())?;
            stored = Some(manifest);
            Ok(())
        };
        let work = TrainTask {
            material,
            folder,
            first: self.devices[0],
            is_resumed,
            features,
            is_stopped: &stop.is_stopped,
            is_json: self.arguments.json,
            begin: Box::new(begin),
            progress: &mut self.progress,
        };
        let trained = device::dispatch_all(&self.devices, work);
        // What is trained is saved: a signal may end the program at once.
        stop.is_training.store(false, Ordering::SeqCst);
        if let (true, Some(manifest)) = (trained.is_err(), &mut stored) {
            manifest.end_session();
            folder.take_over_uses(manifest);
            // What went wrong in training is told; that the manifest could not be written is not worth more.
            let _ = manifest.save(&folder.manifest());
        }
        Ok((trained?, stored.context("the run was not begun")?))
    }

    /// Scores the test split where the config asks for it, marks the run as finished and shows what it came to.
    fn finish(
        &self,
        lock: &Lock,
        material: &Material,
        outcome: &Outcome,
        mut manifest: Provenance,
    ) -> anyhow::Result<u8> {
        let report = self.test_at_end(material, &mut manifest)?;
        let mut result = json!({
            "best_epoch": outcome.best.map(|best| best.epoch),
            "dev_weighted_f1": outcome.best.and_then(|best| best.weighted_f1),
            "epochs": outcome.epochs,
            "steps": outcome.steps,
        });
        if let Some(report) = &report {
            result["test"] = json!(report.fusion.headline.map(|estimate| estimate.value));
        }
        self.folder.finish(lock, &mut manifest, result.clone())?;
        show(&self.folder, &result, self.arguments.json)
    }

    fn test_at_end(&self, material: &Material, manifest: &mut Provenance) -> anyhow::Result<Option<Report>> {
        let (true, Some(test)) = (material.config.run.test_at_end, &material.splits.test) else { return Ok(None) };
        let folder = &self.folder;
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
            unknown_labels: UnknownLabelPolicy::Refuse,
            supply: None,
            data_split: manifest.split.clone(),
            is_quiet: self.arguments.quiet,
        };
        let report = eval::score(&scoring, self.devices[0]);
        manifest.end_test_use();
        if report.is_err() {
            manifest.save(&folder.manifest())?;
        }
        Ok(Some(report?))
    }
}

/// What Ctrl-C and SIGTERM do. While it trains, a run saves a checkpoint first; the second one, and one at any other
/// time, ends the program at once.
struct Stop {
    is_training: Arc<AtomicBool>,
    is_stopped: Arc<AtomicBool>,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        let stop = Self { is_training: Arc::default(), is_stopped: Arc::default() };
        let (is_training, is_stopped) = (Arc::clone(&stop.is_training), Arc::clone(&stop.is_stopped));
        super::listen(move || {
            if !is_training.load(Ordering::SeqCst) || is_stopped.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(error::INTERRUPTED));
            }
        })?;
        Ok(stop)
    }
}

/// What a run is made from, as it is now.
struct Inputs {
    files: Vec<HashedFile>,
    recordings: Vec<Recording>,
    split: SplitRecord,
}

impl Inputs {
    /// Of the splits and the files that a config names. The test manifest is read for this alone; where it is not there
    /// yet, or is malformed, only scoring it will need it. Recordings that are `known` are read only where their size
    /// or time is another.
    fn of(material: &Material, test: Option<&[Row]>, known: Option<&[Recording]>) -> anyhow::Result<Self> {
        let rows = |name: &str| match name {
            "train" => Some(material.train.rows()),
            "dev" => material.dev.as_ref().map(|dev| dev.rows()),
            _ => test,
        };
        let parts: Vec<Used> =
            material.splits.named().filter_map(|(name, path)| Some((name, path, rows(name)?))).collect();
        let listens = material.config.model.method.reads().speech();
        let mut recordings = if listens { recordings::of(&parts, known)? } else { Vec::new() };
        // Those of the test split need not be there.
        recordings::keep(known.unwrap_or_default(), &mut recordings);
        Ok(Self { files: hashed_files(material)?, recordings, split: SplitRecord::of(&parts) })
    }

    /// A run goes on only with the data and weights that it was started with.
    fn check(&self, folder: &RunFolder, known: Option<&[Recording]>) -> Result<(), RunError> {
        let stored = folder.load_manifest()?.files;
        let is_other = |file: &&HashedFile| stored.iter().any(|old| old.role == file.role && old.sha256 != file.sha256);
        let files = self.files.iter().filter(is_other);
        let mut changed: Vec<String> =
            files.map(|file| format!("{}: {} has changed", file.role, file.path.display())).collect();
        changed.extend(recordings::changed(known.unwrap_or_default(), &self.recordings));
        if changed.is_empty() {
            return Ok(());
        }
        let path = folder.path().to_owned();
        Err(RunError::OtherConfig { path, what: "an unfinished run", is_resumed: true, differences: Problems(changed) })
    }
}

/// Whether a resume has steps to take, so that the weights change.
fn trains(folder: &RunFolder, config: &Config) -> bool {
    let Ok(state) = State::load(&folder.last()) else { return true };
    let is_patient = config.train.patience.0.is_none_or(|patience| state.epochs_without_better < patience);
    state.epochs < config.train.epochs && is_patient
}

struct TrainTask<'a> {
    material: &'a Material,
    folder: &'a RunFolder,
    first: ResolvedDevice,
    is_resumed: bool,
    features: Option<&'a Arc<FeatureStore>>,
    is_stopped: &'a AtomicBool,
    /// Whether steps and epochs go to standard output.
    is_json: bool,
    /// Makes the run folder that of this run; called when the weights are loaded.
    begin: Box<dyn FnOnce() -> anyhow::Result<()> + 'a>,
    progress: &'a mut Progress,
}

impl SharedTask for TrainTask<'_> {
    type Output = anyhow::Result<Outcome>;

    fn run<B: TrainOps>(self, devices: &[B::Device]) -> Self::Output {
        let Self { material, folder, first, is_resumed, features, is_stopped, is_json, begin, progress } = self;
        let read_every = read_every(first);
        let start = Start { material, folder, first, is_resumed, features, read_every, is_stopped };
        train::<B>(start, devices, begin, &mut |event| {
            progress.handle(event);
            if is_json {
                print_event(event);
            }
        })
    }
}

/// A step or epoch as the log has it. Who does not listen does not stop the training.
fn print_event(event: &Event) {
    let entry = match *event {
        Event::Step { entry, .. } => Entry::Step(entry.clone()),
        Event::Epoch(entry) => Entry::Epoch(Box::new(entry.clone())),
        _ => return,
    };
    let _ = write_output(&format!("{}\n", json!(entry)));
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

/// What is said before the first step.
fn start_sentences(
    material: &Material,
    chosen: &[ResolvedDevice],
    folder: &RunFolder,
    is_resumed: bool,
) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut say = |line: &str| sentences.push(line.to_owned());
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
    if material.config.run.precision == Precision::Bf16 && chosen[0] == ResolvedDevice::Cpu {
        say("note: the CPU emulates bf16: the numbers are those of bf16, but it is slower than f32");
    }
    if material.config.train.accumulation_steps > 1 && contrasts {
        say("note: train.accumulation_steps does not enlarge the contrastive terms' negatives: they stay in a batch");
    }
    sentences
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
            files.push(HashedFile::of(role, &locate::encoder(key, folder)?.weights)?);
        }
    }
    if let Some(folder) = &config.train.init {
        files.push(HashedFile::of("initial weights", &folder.join(WEIGHTS))?);
    }
    if let TokenizerSource::Folder(folder) = &config.text.tokenizer {
        files.push(HashedFile::of("tokenizer", locate::tokenizer(folder)?.first())?);
    }
    Ok(files)
}

/// Keys that the encoders settle where a config does not state them.
const SETTLED: [&str; 4] = ["model.", "text.pooling", "speech.pooling", "data.max_tokens"];

/// What may differ from the stored config beside the keys that change no number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// What `--resume` may change: the number of epochs, whether and on what the test is scored.
    pub resume: bool,
    /// `--new-schedule`
    pub new_schedule: bool,
}

/// How a config stands to the stored one of its run folder, in the keys that matter to the result. One that is not
/// settled yet may leave open what the stored one states; what the stored one lacks, as that of an older program, is its
/// default. Paths that differ are the same where they lead to the same content.
pub fn compare(stored: &str, new: &Config, is_settled: bool, allowed: Allowed) -> Comparison {
    let folder = RunFolder::new(&new.run.dir);
    let written = values(stored);
    // A config of a newer program is compared as it is written.
    let before = config::parse_stored(&folder, stored).ok();
    let old = before.as_ref().map_or_else(|| written.clone(), |config| values(&config.to_toml()));
    let now = values(&new.to_toml());
    let keys: BTreeSet<&String> = old.keys().chain(now.keys()).collect();
    let mut comparison = Comparison::default();
    for key in keys.into_iter().map(String::as_str) {
        let (old, now) = (old.get(key), now.get(key));
        let known = key_table::find(key);
        if old == now || known.is_some_and(|key| key.is_free_on_resume) {
            continue;
        }
        if now.is_none() && !is_settled && SETTLED.iter().any(|settled| key.starts_with(settled)) {
            continue;
        }
        if let (None, Some(known), false) = (old, known, written.contains_key(key)) {
            let is_default = match known.preset {
                Preset::Value(value) => now.map(String::as_str) == Some(&config::render::literal(&value())),
                // Where the user states it, the config that is not settled has told so.
                Preset::Depends(_) => is_settled,
            };
            if is_default {
                continue;
            }
        }
        let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "not set".into());
        let mut difference = format!("{key}: {} there, {} here", shown(old), shown(now));
        match key {
            "run.test_at_end" if allowed.resume => {
                comparison.asks_for_more |= new.run.test_at_end && !folder.report("test").is_file();
                continue;
            }
            "data.test" if allowed.resume && (old.is_none() || now.is_none()) => continue,
            "train.epochs" if allowed.resume => {
                let done = State::load(&folder.last()).map_or(0, |state| state.epochs);
                let more = before.as_ref().is_some_and(|before| new.train.epochs > before.train.epochs);
                if new.train.epochs < done {
                    let _ = write!(difference, ", and {done} are done");
                } else if new.train.schedule == Schedule::Constant || allowed.new_schedule {
                    comparison.asks_for_more |= more;
                    continue;
                } else {
                    let _ = write!(
                        difference,
                        ", which changes the learning rate of train.schedule = \"{}\": accept that with --new-schedule",
                        new.train.schedule
                    );
                }
            }
            _ if old.is_some() && is_same_content(key, new, before.as_ref(), &folder) => continue,
            _ => {}
        }
        comparison.differences.push(difference);
    }
    comparison
}

/// Whether a path leads to what the run was made from, by its hash.
fn is_same_content(key: &str, new: &Config, old: Option<&Config>, folder: &RunFolder) -> bool {
    let values = new.values();
    let Some(path) = values.get(key).and_then(Value::as_str).map(Path::new) else { return false };
    let Ok(manifest) = folder.load_manifest() else { return false };
    let is_stored = |role: &str, file: &Path| {
        let stored = manifest.files.iter().find(|file| file.role == role);
        stored.zip(HashedFile::of(role, file).ok()).is_some_and(|(stored, now)| stored.sha256 == now.sha256)
    };
    match key {
        "data.train" => is_stored("train", path),
        "data.dev" => is_stored("dev", path),
        "data.test" => is_stored("test", path),
        "text.checkpoint" | "speech.checkpoint" => {
            let (key, role) = match key {
                "text.checkpoint" => ("text.checkpoint", "text weights"),
                _ => ("speech.checkpoint", "speech weights"),
            };
            locate::encoder(key, path).is_ok_and(|files| is_stored(role, &files.weights))
        }
        "train.init" => is_stored("initial weights", &path.join(WEIGHTS)),
        "text.tokenizer" if manifest.files.iter().any(|file| file.role == "tokenizer") => {
            locate::tokenizer(path).is_ok_and(|files| is_stored("tokenizer", files.first()))
        }
        // Older programs did not hash it: most often it is the encoder's own.
        "text.tokenizer" => {
            let is_own = |config: &Config| {
                let values = config.values();
                values.get("text.tokenizer") == values.get("text.checkpoint")
            };
            old.is_some_and(is_own) && is_own(new) && is_same_content("text.checkpoint", new, old, folder)
        }
        _ => false,
    }
}

/// Every key of a config with its value as it is written.
fn values(toml: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
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

/// Prints what a finished run came to: the table, or a line of JSON and the table on standard error.
fn show(folder: &RunFolder, result: &Value, is_json: bool) -> anyhow::Result<u8> {
    let mut text = String::new();
    if folder.report("test").is_file() {
        text.push_str(&table::render(&Report::load(&folder.report("test"))?));
        text.push('\n');
    }
    let score =
        result["dev_weighted_f1"].as_f64().map_or(String::new(), |score| format!(", dev weighted F1 {score:.4}"));
    let _ = writeln!(text, "best epoch {}{score}; run folder {}", result["best_epoch"], folder.path().display());
    if is_json {
        Progress::lines(std::io::stderr()).handle(&Event::Message(text.trim_end()));
        let mut line = json!({ "event": "result", "run": folder.path() });
        if let (Some(line), Some(result)) = (line.as_object_mut(), result.as_object()) {
            line.extend(result.clone());
        }
        text = format!("{line}\n");
    }
    write_output(&text)?;
    Ok(error::SUCCESS)
}
