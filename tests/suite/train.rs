//! Training through the real binary: what is in a run folder, and that stopping, killing and continuing change nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::program::{
    ENCODERS, REST, Said, clasp, copy_folder, demo_config, folder, keys, lines_of, program, tiny_run,
};

const TERMS: [&str; 7] = ["task_text", "task_speech", "task_fusion", "semantic", "modality", "reconstruction", "kl"];
const METRICS: [&str; 4] = ["accuracy", "balanced_accuracy", "weighted_f1", "macro_f1"];

/// The bytes of every tensor of a checkpoint folder.
fn tensors(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The log without what a clock says.
fn timeless(path: &Path) -> Vec<Value> {
    let mut entries = lines_of(path);
    for entry in &mut entries {
        let entry = entry.as_object_mut().unwrap();
        entry.remove("examples_per_second");
        entry.remove("seconds");
        entry.remove("data_wait");
        entry.remove("resident_memory");
    }
    entries
}

#[test]
fn a_run_folder_has_all_that_it_should() {
    let run = tiny_run();
    let found = names(run);
    let expected = [
        "best",
        "config.toml",
        "corpus",
        "last",
        "log.jsonl",
        "manifest.json",
        "predictions-test.jsonl",
        "report-test.json",
    ];
    for name in expected {
        assert!(found.iter().any(|found| found == name), "no {name}");
    }
    let checkpoint = [
        "SHA256SUMS",
        "config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ];
    assert_eq!(names(&run.join("best")), checkpoint);
    let mut last = checkpoint.to_vec();
    last.extend(["optimizer.safetensors", "state.json"]);
    last.sort_unstable();
    assert_eq!(names(&run.join("last")), last);
    for name in ["best", "last", "."] {
        clasp(run, &["predict", "--checkpoint", name, "--text", "x"]).good();
    }
    let config = json(&run.join("best/config.json"));
    for key in [
        "format",
        "method",
        "labels",
        "hidden_size",
        "text_pooling",
        "speech_pooling",
        "classifier_dropout",
        "fusion",
        "loss",
        "text_encoder",
        "speech_encoder",
        "max_tokens",
        "max_seconds",
    ] {
        assert!(!config[key].is_null(), "config.json has no {key}");
    }
    for key in [
        "kind",
        "split_heads",
        "hidden_size",
        "layers",
        "attention_heads",
        "feed_forward",
        "dropout",
        "slot_embeddings",
    ] {
        assert!(!config["fusion"][key].is_null(), "config.json has no fusion.{key}");
    }
    // What it keeps is the resolved config, but for where it lies.
    let resolved = clasp(run, &["config", "show", "config.toml", "--resolved"]).good().stdout;
    let place = format!("dir = \"{}\"\n", run.display());
    assert!(resolved.contains(&place), "{resolved}");
    assert_eq!(resolved.replace(&place, ""), fs::read_to_string(run.join("config.toml")).unwrap());
}

#[test]
fn the_log_has_the_steps_and_the_epochs() {
    let log = lines_of(&tiny_run().join("log.jsonl"));
    assert_eq!(log.len(), 7);
    for (step, entry) in (1..).zip(&log[..6]) {
        assert_eq!(
            keys(entry),
            [
                "event",
                "epoch",
                "step",
                "loss",
                "learning_rate",
                "gradient_norm",
                "examples_per_second",
                "gradient_norms"
            ]
        );
        assert_eq!(entry["event"], "step");
        assert_eq!((entry["epoch"].as_u64(), entry["step"].as_u64()), (Some(1), Some(step)));
        assert_eq!(keys(&entry["loss"]), [&["total"], &TERMS[..]].concat());
        // The paper's weights.
        let weights = [1.0, 1.0, 1.0, 0.01, 0.01, 0.01, 0.05];
        let sum: f64 =
            TERMS.iter().zip(weights).map(|(term, weight)| entry["loss"][term].as_f64().unwrap() * weight).sum();
        assert!((sum - entry["loss"]["total"].as_f64().unwrap()).abs() < 1e-4, "{entry}");
        assert_eq!(entry["learning_rate"].as_f64(), Some(1e-3));
        let norms = &entry["gradient_norms"];
        let parts = ["classifier", "fusion", "projection", "reconstruction", "speech_encoder", "text_encoder"];
        assert_eq!(keys(norms), parts);
        let squares: f64 = parts.iter().map(|part| norms[part].as_f64().unwrap().powi(2)).sum();
        let norm = entry["gradient_norm"].as_f64().unwrap();
        assert!(norm > 0.0 && (squares.sqrt() - norm).abs() < 1e-9 * norm, "{entry}");
    }
    let epoch = &log[6];
    assert_eq!(keys(epoch)[..5], ["event", "epoch", "step", "train", "dev"]);
    assert_eq!(epoch["event"], "epoch");
    assert_eq!(epoch["step"].as_u64(), Some(6));
    assert!((0.0..1.0).contains(&epoch["data_wait"].as_f64().unwrap()), "{epoch}");
    let resident = epoch["resident_memory"].as_u64().unwrap();
    assert!((1 << 22..1 << 33).contains(&resident) && epoch.get("device_memory").is_none(), "{epoch}");
    // Six steps of four examples: the epoch's mean is that of its steps.
    let mean: f64 = log[..6].iter().map(|entry| entry["loss"]["total"].as_f64().unwrap()).sum::<f64>() / 6.0;
    assert!((epoch["train"]["loss"]["total"].as_f64().unwrap() - mean).abs() < 1e-9);
    for metric in METRICS {
        for system in [&epoch["dev"], &epoch["dev"]["text_only"], &epoch["dev"]["speech_only"]] {
            assert!((0.0..=1.0).contains(&system[metric].as_f64().unwrap()), "{metric}");
        }
    }
}

#[test]
fn the_manifest_and_the_report_fit_the_run() {
    let run = tiny_run();
    let manifest = json(&run.join("manifest.json"));
    assert_eq!((manifest["seed"].as_u64(), manifest["finished"].as_bool()), (Some(1), Some(true)));
    for (file, split) in manifest["files"].as_array().unwrap().iter().zip(["train", "dev", "test"]) {
        assert_eq!(file["role"], split);
        let digest = Sha256::digest(fs::read(run.join(format!("corpus/{split}.jsonl"))).unwrap());
        let digest: String = digest
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|digit| char::from_digit(u32::from(digit), 16))
            .collect();
        assert_eq!(file["sha256"], digest);
    }
    let session = &manifest["sessions"][0];
    assert_eq!(session["program"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(session["device"], "cpu");
    assert!(session["ended"].is_string() && session["program"]["burn"].is_string());

    let test = lines_of(&run.join("corpus/test.jsonl"));
    let predictions = lines_of(&run.join("predictions-test.jsonl"));
    assert_eq!((test.len(), predictions.len()), (16, 16));
    let mut right = 0;
    for (row, prediction) in test.iter().zip(&predictions) {
        assert_eq!(
            (&row["id"], &row["label"], &row["speaker"]),
            (&prediction["id"], &prediction["truth"], &prediction["speaker"])
        );
        right += u32::from(row["label"] == prediction["label"]);
    }
    let report = json(&run.join("report-test.json"));
    assert_eq!(report["examples"].as_u64(), Some(16));
    let accuracy = report["fusion"]["accuracy"]["value"].as_f64().unwrap();
    assert!((accuracy - f64::from(right) / 16.0).abs() < 1e-9);
}

#[test]
fn without_dev_the_last_epoch_is_the_best() {
    let folder = folder();
    let at = folder.path();
    let train = tiny_run().join("corpus/train.jsonl");
    let config = format!("[data]\ntrain = \"{}\"\n{ENCODERS}{REST}", train.display());
    fs::write(at.join("tiny.toml"), config).unwrap();
    // What there is nothing of to resume begins.
    let said = clasp(at, &["train", "--config", "tiny.toml", "--set", "train.epochs=2", "--resume"]).good();
    assert!(said.stdout.contains("best epoch 2; run folder"), "{}", said.stdout);
    assert!(said.stderr.contains("there is no data.dev: the last epoch is taken as the best"), "{}", said.stderr);
    let log = lines_of(&at.join("run/log.jsonl"));
    let epochs: Vec<&Value> = log.iter().filter(|entry| entry["event"] == "epoch").collect();
    assert!(epochs.len() == 2 && epochs.iter().all(|epoch| epoch["dev"].is_null()));
    assert_eq!(tensors(&at.join("run/best")), tensors(&at.join("run/last")));
    // A finished run is shown again.
    let again = clasp(at, &["train", "--config", "tiny.toml", "--set", "train.epochs=2", "--resume"]).good();
    assert_eq!(again.stdout, said.stdout);
    assert_eq!(lines_of(&at.join("run/log.jsonl")), log);
    clasp(at, &["eval", "--checkpoint", "run", "--split", "test"]).bad(2, &["data.test", "is not set in this run"]);
}

#[test]
fn patience_ends_a_run_that_gets_no_better() {
    let folder = folder();
    // No weight moves at this rate, so that no epoch is better than the first.
    let words = ["train.epochs=9", "train.patience=2", "train.learning_rate=1e-30", "train.log_every_steps=4"];
    let words: Vec<&str> = words.iter().flat_map(|&word| ["--set", word]).collect();
    let said = clasp(folder.path(), &[&["train", "--config", "tiny.toml"], &words[..]].concat()).good();
    assert!(said.stdout.contains("best epoch 1, "), "{}", said.stdout);
    let log = lines_of(&folder.path().join("run/log.jsonl"));
    let epochs: Vec<u64> =
        log.iter().filter(|entry| entry["event"] == "epoch").map(|entry| entry["epoch"].as_u64().unwrap()).collect();
    assert_eq!(epochs, [1, 2, 3]);
    let steps: Vec<u64> =
        log.iter().filter(|entry| entry["event"] == "step").map(|entry| entry["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [4, 8, 12, 16]);
}

/// Twelve batches of two in windows of five, five and two: three steps an epoch. Dropout and `SpecAugment` are on.
pub const LONG: [&str; 12] = [
    "train",
    "--config",
    "tiny.toml",
    "--set",
    "train.epochs=12",
    "--set",
    "train.batch_size=2",
    "--set",
    "train.accumulation_steps=5",
    "--set",
    "speech.config.mask_time_prob=0.5",
    "--quiet",
];

/// What [`LONG`] comes to when it is left alone.
fn alone() -> &'static Path {
    static RUN: OnceLock<std::path::PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let folder = folder();
        clasp(folder.path(), &LONG).good();
        let kept = tiny_run().with_file_name("alone");
        let _ = fs::remove_dir_all(&kept);
        copy_folder(&folder.path().join("run"), &kept);
        kept
    })
}

/// The head of a safetensors file, whose keys have no order, and its data.
fn parts(path: &Path) -> (Value, Vec<u8>) {
    let mut head = fs::read(path).unwrap();
    let length = usize::try_from(u64::from_le_bytes(head[..8].try_into().unwrap())).unwrap();
    let data = head.split_off(8 + length);
    (serde_json::from_slice(&head[8..]).unwrap(), data)
}

/// The lengths of the records for TensorBoard, which have a number for each scalar.
fn records(run: &Path) -> Vec<u64> {
    let bytes = fs::read(run.join("events.out.tfevents.clasp")).unwrap();
    let (mut rest, mut lengths) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap());
        lengths.push(length);
        rest = &rest[usize::try_from(length).unwrap() + 16..];
    }
    lengths
}

/// Two runs have the same log, weights, moments and state.
pub fn assert_same(run: &Path, other: &Path) {
    assert_eq!(records(run), records(other));
    assert_eq!(timeless(&run.join("log.jsonl")), timeless(&other.join("log.jsonl")));
    let optimizer = "last/optimizer.safetensors";
    assert!(parts(&run.join(optimizer)) == parts(&other.join(optimizer)), "{optimizer} differs");
    for name in ["best/model.safetensors", "last/model.safetensors", "last/state.json"] {
        assert!(fs::read(run.join(name)).unwrap() == fs::read(other.join(name)).unwrap(), "{name} differs");
    }
}

/// Starts [`LONG`] with further flags, and sends it a signal when the log has as many steps.
pub fn stopped(folder: &Path, flags: &[&str], steps: usize, signal: &str) -> Said {
    let child = program(folder).args(LONG).args(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let log = folder.join("run/log.jsonl");
    let started = Instant::now();
    while !fs::read_to_string(&log).is_ok_and(|text| text.matches("\"event\":\"step\"").count() >= steps) {
        assert!(started.elapsed() < Duration::from_mins(1), "no steps are logged");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = std::process::Command::new("bash").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
    assert!(sent.unwrap().success());
    Said::of(&child.wait_with_output().unwrap())
}

/// A state without the key is of a run whose frozen encoders had dropout: it draws what the other does not.
#[test]
fn a_run_whose_frozen_encoders_had_dropout_goes_on_with_it() {
    let folder = folder();
    let at = folder.path();
    let frozen = ["--set", "text.freeze=true", "--set", "speech.freeze=true"];
    stopped(at, &frozen, 5, "INT").bad_line(130, &["interrupted at step"]);
    copy_folder(&at.join("run"), &at.join("old"));
    let path = at.join("old/last/state.json");
    let mut state = json(&path);
    assert_eq!(state.as_object_mut().unwrap().remove("frozen_in_evaluation"), Some(true.into()));
    fs::write(&path, state.to_string()).unwrap();
    fs::remove_file(at.join("old/last/SHA256SUMS")).unwrap();
    for run in ["run", "old"] {
        let dir = format!("run.dir={run}");
        clasp(at, &[&LONG[..], &frozen, &["--resume", "--set", &dir]].concat()).good();
    }
    assert_eq!(json(&path)["frozen_in_evaluation"], false);
    let weights = |run: &str| fs::read(at.join(run).join("last/model.safetensors")).unwrap();
    assert!(weights("run") != weights("old"), "nothing was drawn");
}

#[test]
fn an_interrupted_run_goes_on_as_if_nothing_had_been() {
    let folder = folder();
    let at = folder.path();
    let said = stopped(at, &[], 5, "INT").bad_line(130, &["interrupted at step", "run/last is written", "--resume"]);
    let step = json(&at.join("run/last/state.json"))["step"].as_u64().unwrap();
    assert!(said.message().contains(&format!("step {step};")) && (5..36).contains(&step), "{}", said.message());
    assert_eq!(json(&at.join("run/manifest.json"))["finished"], false);
    clasp(at, &["predict", "--checkpoint", "run/last", "--text", "x"]).good();
    clasp(at, &[&LONG[..], &["--resume", "--set", "train.clip_norm=1"]].concat()).bad_line(
        2,
        &["train.clip_norm: 0.0 there, 1.0 here", "what it was started with", "--overwrite", "--set run.dir="],
    );
    clasp(at, &[&LONG[..], &["--resume"]].concat()).good();
    assert_same(&at.join("run"), alone());
    assert_eq!(json(&at.join("run/manifest.json"))["sessions"].as_array().unwrap().len(), 2);
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_been() {
    let folder = folder();
    let at = folder.path();
    let every = ["--set", "train.save_every_steps=4"];
    // Before there is a checkpoint: from the beginning.
    stopped(at, &every, 1, "KILL");
    let said = stopped(at, &[&every[..], &["--resume"]].concat(), 8, "KILL");
    assert_eq!((said.code, said.stderr.as_str()), (None, ""));
    let step = json(&at.join("run/last/state.json"))["step"].as_u64().unwrap();
    assert!(step >= 6 && (step.is_multiple_of(3) || step.is_multiple_of(4)), "{step}");
    clasp(at, &[&LONG[..], &every, &["--resume"]].concat()).good();
    assert_same(&at.join("run"), alone());
    assert!(names(&at.join("run")).iter().all(|name| !name.starts_with(".clasp-")));
}

/// Killed while it saves, and while it scores dev: what is seen in the folder says which.
#[test]
fn a_run_killed_while_it_saves_or_scores_goes_on_as_if_nothing_had_been() {
    let folder = folder();
    let at = folder.path();
    let run = at.join("run");
    let is_saving = || names(&run).iter().any(|name| name.starts_with(".clasp-temporary-last"));
    let steps = || fs::read_to_string(run.join("log.jsonl")).unwrap_or_default();
    // The last step of an epoch is logged, its score is not.
    let is_scoring = |epoch: usize| {
        let text = steps();
        text.matches("\"event\":\"step\"").count() == 3 * epoch && text.matches("\"event\":\"epoch\"").count() < epoch
    };
    let conditions: [(&str, &dyn Fn() -> bool); 3] =
        [("scores", &|| is_scoring(2)), ("saves", &is_saving), ("scores again", &|| is_scoring(9))];
    let mut hits = 0;
    for (what, holds) in conditions {
        let mut child =
            program(at).args(LONG).arg("--resume").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if run.is_dir() && holds() {
                child.kill().unwrap();
                hits += usize::from(child.wait().unwrap().code().is_none());
                break;
            }
        }
        assert!(run.join("last").is_dir(), "killed while it {what}, and no checkpoint is left");
    }
    assert!(hits > 0, "every run was over before it could be killed");
    clasp(at, &[&LONG[..], &["--resume"]].concat()).good();
    assert_same(&run, alone());
}

/// The optimiser's file is larger than what the disk seems to take, the weights' is not.
#[test]
fn a_disk_that_is_full_fails_the_run_and_takes_no_checkpoint_away() {
    let folder = folder();
    let at = folder.path();
    stopped(at, &[], 8, "INT");
    let read = |name: &str| fs::read(at.join("run/last").join(name)).unwrap();
    let files = ["model.safetensors", "optimizer.safetensors", "state.json"];
    let before = files.map(read);
    assert!(before[0].len() < 100 << 10 && before[1].len() > 101 << 10, "choose another limit");
    let words = [&LONG[..], &["--resume"]].concat().join(" ");
    let limited = format!("trap '' XFSZ; ulimit -f 100; exec {} {words}", env!("CARGO_BIN_EXE_clasp"));
    let output = std::process::Command::new("bash").args(["-c", &limited]).current_dir(at).output().unwrap();
    Said::of(&output)
        .bad_line(1, &["cannot save", "run/last", "what was there before is kept", "optimizer.safetensors"]);
    assert!(before == files.map(read), "the checkpoint changed");
    assert!(names(&at.join("run")).iter().all(|name| !name.starts_with(".clasp-")));
    clasp(at, &[&LONG[..], &["--resume"]].concat()).good();
    assert_same(&at.join("run"), alone());
}

/// The newest checkpoint is not where it should be: nothing of the run may be removed for that.
#[test]
fn a_run_whose_newest_checkpoint_is_gone_is_left_alone() {
    let folder = folder();
    let at = folder.path();
    stopped(at, &[], 8, "INT");
    let run = at.join("run");
    let before = (fs::read(run.join("log.jsonl")).unwrap(), tensors(&run.join("best")));
    fs::rename(run.join("last"), at.join("elsewhere")).unwrap();
    let resume = || clasp(at, &[&LONG[..], &["--resume"]].concat());
    resume().bad_line(2, &["its `last` is gone", "--overwrite", "--set train.init="]);
    assert!(before == (fs::read(run.join("log.jsonl")).unwrap(), tensors(&run.join("best"))));
    // As a kill leaves it where the file system cannot exchange folders: it is put back.
    fs::rename(at.join("elsewhere"), run.join(".clasp-moved-last")).unwrap();
    fs::rename(run.join("best"), at.join("best")).unwrap();
    resume().bad_line(2, &["the run cannot go on", "the checkpoint of its best epoch", "is gone"]);
    fs::rename(at.join("best"), run.join("best")).unwrap();
    resume().good();
    assert_same(&run, alone());
}

#[test]
fn a_damaged_checkpoint_is_refused_and_nothing_is_changed() {
    let folder = folder();
    let at = folder.path();
    stopped(at, &[], 8, "INT");
    let last = at.join("run/last");
    let log = fs::read(at.join("run/log.jsonl")).unwrap();
    for name in ["model.safetensors", "optimizer.safetensors", "state.json", "config.json"] {
        let whole = fs::read(last.join(name)).unwrap();
        let resume = |parts: &[&str]| {
            let said = clasp(at, &[&LONG[..], &["--resume"]].concat()).bad_line(2, parts);
            for words in ["the run cannot go on from", "--overwrite", "--set train.init=", "run/best"] {
                assert!(said.message().contains(words), "{}", said.message());
            }
        };
        fs::write(last.join(name), &whole[..whole.len() / 2]).unwrap();
        resume(&[name]);
        fs::remove_file(last.join(name)).unwrap();
        resume(&[name]);
        for place in [whole.len() / 2, whole.len() - 3] {
            let mut flipped = whole.clone();
            flipped[place] ^= 1;
            fs::write(last.join(name), flipped).unwrap();
            resume(&[name]);
        }
        fs::write(last.join(name), whole).unwrap();
    }
    let state = fs::read_to_string(last.join("state.json")).unwrap();
    fs::write(last.join("state.json"), state.replace("clasp-state-1", "clasp-state-7")).unwrap();
    clasp(at, &[&LONG[..], &["--resume"]].concat()).bad_line(2, &["state.json", "clasp-state-7", "clasp-state-1"]);
    fs::write(last.join("state.json"), state).unwrap();
    // So is the one that `best/` holds, which nothing could make again.
    let best = at.join("run/best/model.safetensors");
    let whole = fs::read(&best).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [Some(flipped), None] {
        damaged.map_or_else(|| fs::remove_file(&best), |bytes| fs::write(&best, bytes)).unwrap();
        let said = clasp(at, &[&LONG[..], &["--resume"]].concat()).bad_line(2, &["run/best/model.safetensors"]);
        assert!(said.message().contains("the run has lost its best epoch; put back"), "{}", said.message());
    }
    fs::write(&best, whole).unwrap();
    assert_eq!(fs::read(at.join("run/log.jsonl")).unwrap(), log);
    // A log that is gone is told, and the run goes on.
    copy_folder(&at.join("run"), &at.join("whole"));
    fs::remove_file(at.join("run/log.jsonl")).unwrap();
    let loudly: Vec<&str> = LONG.into_iter().filter(|word| *word != "--quiet").chain(["--resume"]).collect();
    let said = clasp(at, &loudly).good();
    assert!(said.stderr.contains("log.jsonl is missing: a new log starts after step"), "{}", said.stderr);
    fs::remove_dir_all(at.join("run")).unwrap();
    fs::rename(at.join("whole"), at.join("run")).unwrap();
    let said = clasp(at, &loudly).good();
    assert!(!said.stderr.contains("is gone"), "{}", said.stderr);
    assert_same(&at.join("run"), alone());
}

#[test]
fn a_run_in_bf16_keeps_f32_weights_and_goes_on_in_bf16_alone() {
    let folder = folder();
    let at = folder.path();
    let flags = ["--set", "run.precision=bf16"];
    stopped(at, &flags, 5, "INT").bad(130, &[]);
    clasp(at, &[&LONG[..], &["--resume"]].concat())
        .bad_line(2, &["run.precision: \"bf16\" there, \"f32\" here", "what it was started with", "--overwrite"]);
    clasp(at, &[&LONG[..], &flags, &["--resume"]].concat()).good();
    let mut words = [&LONG[..], &flags, &["--set", "run.dir=alone"]].concat();
    words.retain(|&word| word != "--quiet");
    let said = clasp(at, &words).good();
    assert!(said.stderr.contains("note: the CPU emulates bf16"), "{}", said.stderr);
    let run = at.join("run");
    assert_same(&run, &at.join("alone"));
    for name in ["best/model.safetensors", "last/model.safetensors", "last/optimizer.safetensors"] {
        let bytes = fs::read(run.join(name)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert!(file.len() > 50 && file.iter().all(|(_, view)| view.dtype() == Dtype::F32), "{name}");
    }
    // The numbers are others than those of f32, from the first step on, and not by much.
    let loss = |run: &Path| lines_of(&run.join("log.jsonl"))[0]["loss"]["total"].as_f64().unwrap();
    let (single, rounded) = (loss(alone()), loss(&run));
    assert!((1e-7..2e-2).contains(&((single - rounded) / single).abs()), "{single} and {rounded}");
    // Epochs are scored in f32, as `eval` does it: the best one's score comes out again.
    let entries = lines_of(&run.join("log.jsonl"));
    let best = entries.iter().rfind(|entry| entry["is_best"] == true).unwrap();
    let said = clasp(at, &["eval", "--checkpoint", "run", "--split", "dev", "--json"]).good();
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let score = report["fusion"]["weighted_f1"]["value"].as_f64().unwrap();
    assert!((score - best["dev"]["weighted_f1"].as_f64().unwrap()).abs() < 1e-9, "{score}: {best}");
}

/// As in f32 (`.ci/run`): either modality alone can be right in half the cases, both together in all.
#[test]
fn the_demo_in_bf16_is_learned_as_in_f32() {
    let folder = folder();
    let words = ["train", "--config", "demo", "--device", "cpu", "--set", "run.precision=bf16", "--quiet"];
    clasp(folder.path(), &words).good();
    let report = json(&folder.path().join("runs/demo/report-test.json"));
    let accuracy = |system: &str| report[system]["accuracy"]["value"].as_f64().unwrap();
    let [text, speech, fusion] = ["text_only", "speech_only", "fusion"].map(accuracy);
    assert!(text <= 0.6 && speech <= 0.6 && fusion >= 0.95, "text {text}, speech {speech}, fusion {fusion}");
}

#[test]
fn one_thread_or_two_give_the_same_bits() {
    let folder = folder();
    let run = |threads: &str| {
        let set = format!("run.dir={threads}");
        let mut command = program(folder.path());
        command.args(["train", "--config", "tiny.toml", "--set", &set]).env("RAYON_NUM_THREADS", threads);
        Said::of(&command.output().unwrap()).good();
        folder.path().join(threads)
    };
    assert_same(&run("1"), &run("2"));
}

#[test]
fn a_run_starts_from_a_checkpoint_and_frozen_parts_stay() {
    let folder = folder();
    let at = folder.path();
    let best = tiny_run().join("best");
    let train = tiny_run().join("corpus/train.jsonl");
    let config = format!(
        "[data]\ntrain = \"{}\"\n[train]\ninit = \"{}\"\nepochs = 1\nlearning_rate = 1e-2\n[run]\ndir = \"run\"\n",
        train.display(),
        best.display()
    );
    fs::write(at.join("init.toml"), config).unwrap();
    let before = tensors(&best);
    // The tensors whose name begins so stay, and all others change.
    let cases: [(&[&str], &[&str]); 3] = [
        (&["text.freeze=true", "speech.freeze=true"], &["text_encoder.", "speech_encoder."]),
        (
            &["text.freeze_layers=1", "speech.freeze_feature_encoder=true"],
            &["text_encoder.encoder.layer.0.", "speech_encoder.feature_extractor."],
        ),
        (&["speech.freeze_layers=1", "text.freeze=true"], &["speech_encoder.encoder.layers.0.", "text_encoder."]),
    ];
    for (sets, frozen) in cases {
        let sets: Vec<&str> = sets.iter().flat_map(|&set| ["--set", set]).collect();
        clasp(at, &[&["train", "--config", "init.toml", "--overwrite"], &sets[..]].concat()).good();
        let after = tensors(&at.join("run/last"));
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        let mut counts = [0, 0];
        for (name, bytes) in &after {
            let is_frozen = frozen.iter().any(|start| name.starts_with(start));
            if is_frozen {
                assert!(bytes == &before[name], "{sets:?}: {name} changed");
            }
            counts[usize::from(is_frozen)] += usize::from(bytes != &before[name]);
        }
        assert!(counts[0] > 15 && counts[1] == 0, "{sets:?}: {counts:?}");
        assert!(after["classifier.fusion.weight"] != before["classifier.fusion.weight"]);
    }
    for (set, key) in [
        ("model.fusion.layers=3", "model.fusion.layers"),
        ("model.hidden_size=32", "model.hidden_size"),
        ("text.pooling=mean", "text.pooling"),
        ("text.config.hidden_size=32", "text.config.hidden_size"),
        ("data.labels=[\"a\", \"b\"]", "data.labels"),
    ] {
        let words = ["train", "--config", "init.toml", "--set", set, "--set", "run.dir=other"];
        clasp(at, &words).bad_line(2, &[key, "train.init"]);
    }
    // An encoder that the config names as well is not read.
    let words = ["train", "--config", "init.toml", "--overwrite", "--set", "text.checkpoint=no-such-folder"];
    let said = clasp(at, &words).good();
    assert!(said.stderr.contains("note: text.checkpoint is not read: train.init decides"), "{}", said.stderr);
}

#[test]
fn a_run_is_replaced_only_by_one_that_can_begin() {
    let folder = folder();
    let at = folder.path();
    copy_folder(tiny_run(), &at.join("run"));
    let before = tensors(&at.join("run/best"));
    let train = |words: &[&str]| clasp(at, &[&["train", "--config", "tiny.toml", "--overwrite"], words].concat());
    fs::write(
        at.join("init.toml"),
        format!("[data]\ntrain = \"{}\"\n[run]\ndir = \"run\"\n", tiny_run().join("corpus/train.jsonl").display()),
    )
    .unwrap();
    for init in ["run", "run/best", "../{name}/run/last"] {
        let name = at.file_name().unwrap().to_string_lossy();
        let init = format!("train.init={}", init.replace("{name}", &name));
        clasp(at, &["train", "--config", "init.toml", "--overwrite", "--set", &init])
            .bad_line(2, &["`train.init`", "is of the run to be replaced", "run.dir"]);
    }
    // Weights that do not fit are known before anything is removed.
    copy_folder(&tiny_run().join("best"), &at.join("damaged"));
    let weights = fs::read(at.join("damaged/model.safetensors")).unwrap();
    fs::write(at.join("damaged/model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let init = |dir| ["train", "--config", "init.toml", "--set", "train.init=damaged", "--set", dir];
    clasp(at, &[&init("run.dir=run")[..], &["--overwrite"]].concat()).bad_line(2, &["train.init", "damaged"]);
    train(&["--set", "data.train=no-such.jsonl"]).bad_line(3, &["data.train", "no-such.jsonl"]);
    assert_eq!(tensors(&at.join("run/best")), before);
    assert_eq!(json(&at.join("run/manifest.json"))["finished"], true);
    // And leave nothing behind that would stand in the way once they are mended.
    clasp(at, &init("run.dir=new")).bad_line(2, &["train.init", "damaged"]);
    fs::write(at.join("damaged/model.safetensors"), weights).unwrap();
    clasp(at, &[&init("run.dir=new")[..], &["--set", "train.epochs=1"]].concat()).good();
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let folder = folder();
    let said = clasp(folder.path(), &["train", "--config", "tiny.toml", "--set", "train.learning_rate=1e30"]);
    let said = said.bad_line(
        4,
        &["training diverged at step 2 (epoch 1)", "the loss term", "is not finite", "train-00", "train.learning_rate"],
    );
    assert_eq!(said.message().matches("train-00").count(), 4, "{}", said.message());
    // The log ends before.
    assert_eq!(lines_of(&folder.path().join("run/log.jsonl")).len(), 1);
    assert_eq!(json(&folder.path().join("run/manifest.json"))["finished"], false);
}

#[test]
fn a_finished_run_is_left_alone_and_needs_no_data_to_be_shown() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("tiny.toml"), demo_config()).unwrap();
    copy_folder(tiny_run(), &at.join("run"));
    let corpus = || fs::read(at.join("run/corpus/train.jsonl")).unwrap();
    let before = corpus();
    let train = ["train", "--config", "tiny.toml", "--set", "run.test_at_end=true"];
    clasp(at, &[&train[..], &["--set", "data.demo.utterances=60"]].concat())
        .bad_line(2, &["data.demo.utterances: 48 there, 60 here", "--resume", "--overwrite", "--set run.dir="]);
    assert!(corpus() == before, "the corpus of another run was changed");
    fs::remove_dir_all(at.join("run/corpus")).unwrap();
    for flags in [&[][..], &["--resume"]] {
        let said = clasp(at, &[&train[..], flags].concat()).good();
        assert!(said.stdout.contains("test: 16 examples"), "{}", said.stdout);
    }
    assert!(!at.join("run/corpus").exists());
}

#[test]
fn a_run_goes_on_with_the_data_that_it_was_started_with_and_no_other() {
    let folder = folder();
    let at = folder.path();
    copy_folder(&tiny_run().join("corpus"), &at.join("corpus"));
    let data = ["--set", "data.train=corpus/train.jsonl", "--set", "data.dev=corpus/dev.jsonl"];
    stopped(at, &data, 4, "INT").bad(130, &[]);
    let path = at.join("corpus/train.jsonl");
    let rows = fs::read_to_string(&path).unwrap();
    fs::write(&path, rows.replace("\"start_calm\"", "\"zz_calm\"")).unwrap();
    let resume = [&LONG[..], &data, &["--resume"]].concat();
    // The labels differ too: the manifest of dev has those of before.
    clasp(at, &resume).bad(3, &["start_calm"]);
    fs::write(&path, rows.lines().rev().map(|row| row.to_owned() + "\n").collect::<String>()).unwrap();
    clasp(at, &resume).bad_line(2, &["other data", "train:", "train.jsonl has changed", "--overwrite"]);
    fs::write(&path, &rows).unwrap();
    clasp(at, &resume).good();
}

#[test]
fn what_would_fail_at_the_end_fails_at_the_start() {
    let folder = folder();
    let at = folder.path();
    let rows = fs::read_to_string(tiny_run().join("corpus/test.jsonl")).unwrap();
    fs::write(at.join("test.jsonl"), rows.replace("stop_urgent", "other").replace("\"audio/", "\"nowhere/")).unwrap();
    let train = ["train", "--config", "tiny.toml", "--set", "run.test_at_end=true", "--set", "data.test=test.jsonl"];
    clasp(at, &train).bad(3, &["data.test", "other"]);
    assert!(!at.join("run/log.jsonl").exists());
}
