//! What is wrong with a config, a manifest, an audio file, a checkpoint or a disk ends in an exit code and a message
//! that names it and says what to do.

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command};

use serde_json::json;

use crate::program::{
    Said, audio, checkpoint, clasp, copy_folder, folder, lines_of, own_config, program, tiny_run, tone, wav,
};
use crate::test_data::skip;

/// Writes rows as a manifest of the folder.
fn manifest(folder: &Path, rows: &[serde_json::Value]) {
    let text: String = rows.iter().flat_map(|row| [row.to_string(), "\n".to_owned()]).collect();
    fs::write(folder.join("rows.jsonl"), text).unwrap();
}

fn train_on_rows(folder: &Path) -> Said {
    clasp(folder, &["train", "--config", "tiny.toml", "--set", "data.train=rows.jsonl"])
}

#[test]
fn every_problem_of_a_config_is_told_at_once() {
    let folder = folder();
    let config = own_config()
        .replace("epochs = 1", "epoch = 1\nbatch_sise = 3\nseed = \"one\"")
        .replace("[run]", "[run]\nworkers = 0")
        .replace("[model.fusion]", "[modle]\nmethod = \"clasp\"\n[model.fusion]");
    fs::write(folder.path().join("tiny.toml"), &config).unwrap();
    let line = |part: &str| config.lines().position(|line| line.starts_with(part)).unwrap() + 1;
    let said = clasp(folder.path(), &["train", "--config", "tiny.toml", "--set", "train.lerning_rate=1"]).bad(
        2,
        &[
            "tiny.toml has 6 problems:",
            &format!("tiny.toml:{}: unknown key `train.epoch`; did you mean `train.epochs`?", line("epoch =")),
            &format!("tiny.toml:{}: unknown key `train.batch_sise`; did you mean `train.batch_size`?", line("batch_s")),
            &format!("tiny.toml:{}: `train.seed` must be a whole number", line("seed")),
            "found \"one\"",
            &format!("tiny.toml:{}: `run.workers` must be a whole number of at least 1, found 0", line("workers")),
            &format!("tiny.toml:{}: unknown key `modle`; did you mean `model`?", line("[modle]")),
            "--set train.lerning_rate=1: unknown key `train.lerning_rate`; did you mean `train.learning_rate`?",
        ],
    );
    // The head, and a line for each.
    assert_eq!(said.message().lines().count(), 7, "{}", said.message());
    assert!(!folder.path().join("run").exists());
}

#[test]
fn what_a_config_names_and_is_not_there() {
    let folder = folder();
    let train = |words: &[&str]| clasp(folder.path(), &[&["train", "--config", "tiny.toml"], words].concat());
    clasp(folder.path(), &["train", "--config", "none.toml"]).bad_line(2, &["\"none.toml\"", "built in: demo.toml"]);
    train(&["--set", "data.train=none.jsonl"])
        .bad_line(3, &["data.train", "none.jsonl: no such file", "check the path"]);
    train(&["--set", "train.epochs"]).bad_line(2, &["--set train.epochs", "as in --set train.epochs=3"]);
    train(&["--set", "run.precision=f16"]).bad_line(2, &["`run.precision` must be one of f32, bf16, found \"f16\""]);
    fs::write(
        folder.path().join("loaded.toml"),
        "[data]\ntrain = \"none.jsonl\"\n[text]\ncheckpoint = \"none\"\n[speech]\ncheckpoint = \"speech\"\n",
    )
    .unwrap();
    let manifest = tiny_run().join("corpus/train.jsonl");
    let manifest = format!("data.train={}", manifest.display());
    let loaded = |words: &[&str]| {
        let words = [&["train", "--config", "loaded.toml", "--set", &manifest], words].concat();
        Said::of(&program(folder.path()).env("HF_HOME", folder.path()).args(words).output().unwrap())
    };
    loaded(&[]).bad_line(2, &["there is no folder", "none", "clasp models fetch NAME"]);
    // A tokenizer is there now; the encoder's own files are not.
    copy_folder(&tiny_run().join("best"), &folder.path().join("none"));
    fs::remove_file(folder.path().join("none/model.safetensors")).unwrap();
    loaded(&[]).bad_line(2, &["text.checkpoint", "none", "model.safetensors"]);
    for (init, part) in [("none-such", "there is no such folder"), ("none/config.json", "it is a file")] {
        let config = format!("[data]\ntrain = \"{}\"\n[train]\ninit = \"{init}\"\n", &manifest["data.train=".len()..]);
        fs::write(folder.path().join("init.toml"), config).unwrap();
        clasp(folder.path(), &["train", "--config", "init.toml"]).bad_line(2, &["train.init", init, part]);
    }
    // Neither is a tokenizer that is damaged.
    for (file, bytes) in [("tokenizer.json", "{"), ("vocab.json", "{}"), ("merges.txt", "one-token\n")] {
        let _ = fs::remove_dir_all(folder.path().join("none"));
        copy_folder(&tiny_run().join("best"), &folder.path().join("none"));
        if file != "tokenizer.json" {
            fs::remove_file(folder.path().join("none/tokenizer.json")).unwrap();
        }
        fs::write(folder.path().join("none").join(file), bytes).unwrap();
        loaded(&[]).bad_line(2, &["text.tokenizer", "none", "is damaged", "copy it again"]);
    }
}

#[test]
fn a_device_that_is_not_there_and_a_size_that_cannot_be() {
    let folder = folder();
    let cuda = Said::of(&program(folder.path()).args(["doctor", "--device", "cuda"]).output().unwrap());
    if cuda.code == Some(0) {
        skip("this machine has a CUDA device");
    } else {
        let parts = ["no CUDA device can be used", "--device cpu"];
        clasp(folder.path(), &["train", "--config", "tiny.toml", "--device", "cuda"]).bad_line(2, &parts);
        clasp(folder.path(), &["predict", "--checkpoint", checkpoint(), "--text", "x", "--device", "cuda:1"])
            .bad_line(2, &parts);
        clasp(folder.path(), &["bench", "--size", "tiny", "--device", "cuda"]).bad_line(2, &parts);
    }
    clasp(folder.path(), &["bench", "--size", "tiny", "--seconds", "0.01"]).bad_line(2, &["160 samples", "400"]);
    clasp(folder.path(), &["bench", "--size", "tiny", "--seconds", "1e12"])
        .bad_line(2, &["--seconds", "hours of audio"]);
    clasp(folder.path(), &["bench", "--size", "tiny", "--threads", "1000000"]).bad(2, &["--threads", "4096"]);
}

#[test]
fn a_manifest_that_cannot_be_used() {
    let folder = folder();
    let at = folder.path();
    let file = audio("test-0001");
    let row = |id: &str| json!({ "id": id, "audio": file, "text": "x", "label": "stop_calm" });
    fs::write(at.join("rows.jsonl"), "\n").unwrap();
    let predict = ["predict", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl"];
    let eval = ["eval", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--output", "scores"];
    let encode = ["encode", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--output", "out.safetensors"];
    for words in [&predict[..], &eval, &encode] {
        clasp(at, words).bad_line(3, &["rows.jsonl: the manifest is empty", "write one JSON object a line"]);
    }
    train_on_rows(at).bad_line(3, &["data.train", "rows.jsonl: the manifest is empty"]);

    manifest(at, &[row("a"), row("b"), row("a")]);
    let parts = ["line 3: the id `a` is already used on line 1", "make ids unique"];
    for words in [&eval[..], &encode] {
        clasp(at, words).bad_line(3, &[&["rows.jsonl, "], &parts[..]].concat());
    }
    train_on_rows(at).bad_line(3, &[&["rows.jsonl, "], &parts[..]].concat());
    let rows = clasp(at, &predict);
    assert_eq!(rows.code, Some(3));
    assert_eq!(rows.rows()[2]["error"], parts.join("; "));

    let mut unknown = row("c");
    unknown["label"] = "jump".into();
    manifest(at, &[row("a"), unknown]);
    let parts = ["utterance `c` (line 2)", "unknown label `jump`", "`start_calm`, `start_urgent`", "correct the label"];
    clasp(at, &eval).bad_line(3, &[&["rows.jsonl: "], &parts[..]].concat());
    assert!(!at.join("scores/report-rows.json").exists());

    manifest(at, &[row("a"), json!({ "id": "silent", "text": "x", "label": "stop_calm" })]);
    clasp(at, &encode).bad_line(3, &["rows.jsonl: ", "utterance `silent` (line 2): no `audio`"]);
    train_on_rows(at).bad_line(3, &["data.train", "utterance `silent` (line 2): no `audio`", "give every utterance"]);
    assert!(!at.join("out.safetensors").exists());

    fs::write(at.join("rows.jsonl"), b"{\"id\": \"a\", \"text\": \"\xe9\"}\n").unwrap();
    clasp(at, &eval).bad_line(3, &["rows.jsonl, line 1: not valid UTF-8 (byte 22", "save the file as UTF-8"]);
    assert!(clasp(at, &predict).bad(3, &[]).rows()[0]["error"].as_str().unwrap().contains("not valid UTF-8"));

    fs::write(at.join("rows.jsonl"), "{\"id\": \"a\", \"text\": 5}\n[1]\n{\"text\": \"b\"}\n").unwrap();
    let said = clasp(at, &eval).bad(
        3,
        &["rows.jsonl, line 1: `text` must be a string, found a number (5)", "line 2: found a list", "line 3: no `id`"],
    );
    assert!(said.message().ends_with("3 problems in all\n"), "{}", said.message());
    clasp(at, &["eval", "--checkpoint", checkpoint(), "--manifest", "."]).bad_line(3, &["this is a folder"]);
}

#[test]
fn an_audio_file_that_cannot_be_used() {
    let folder = folder();
    let at = folder.path();
    let sound = tone(8000);
    let float = |value: f32| [[0.0_f32.to_le_bytes(); 500].concat(), value.to_le_bytes().repeat(500)].concat();
    let claimed = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let mut lying = wav(1, 16, &sound, claimed(&sound));
    // No channel, and a block of no bytes.
    lying[22..24].fill(0);
    lying[32..34].fill(0);
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("empty", Vec::new(), "the audio file is empty (0 bytes)"),
        ("truncated", wav(1, 16, &sound[..9000], 32_000), "truncated: it claims 32000 bytes"),
        ("short", wav(1, 16, &sound[..20], 20), "too short: 10 samples at 16 kHz, at least 400"),
        ("nan", wav(3, 32, &float(f32::NAN), 4000), "not finite (the first at 0.031 s)"),
        ("infinite", wav(3, 32, &float(f32::INFINITY), 4000), "not finite"),
        ("words", b"these are words, and no sound at all".to_vec(), "not an audio file; WAV, FLAC"),
        ("lying", lying, "header is wrong"),
    ];
    let mut rows = Vec::new();
    for (name, bytes, part) in &cases {
        let file = format!("{name}.wav");
        fs::write(at.join(&file), bytes).unwrap();
        let words = ["predict", "--checkpoint", checkpoint(), "--text", "x", "--audio", &file];
        clasp(at, &words).bad(3, &[&format!("error: {file}: "), part]);
        rows.push(json!({ "id": name, "audio": file, "text": "x", "label": "stop_calm" }));
    }
    let words = ["predict", "--checkpoint", checkpoint(), "--text", "x", "--audio", "none.wav"];
    clasp(at, &words).bad(3, &["none.wav: no such file"]);

    manifest(at, &rows);
    let said = clasp(at, &["predict", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl"]).bad(3, &[]);
    let results = said.rows();
    assert_eq!(results.len(), cases.len());
    for (line, (result, (name, _, part))) in (1..).zip(results.iter().zip(&cases)) {
        assert_eq!(result["id"], *name);
        let problem = result["error"].as_str().unwrap();
        assert!(
            problem.starts_with(&format!("utterance `{name}` (line {line}): ")) && problem.contains(part),
            "{problem}"
        );
    }
    let eval = clasp(at, &["eval", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--output", "scores"]);
    eval.bad_line(3, &["rows.jsonl: 7 utterances cannot be scored", "utterance `short` (line 3)"]);
    // A bad file stops a training run before its first step, or at the latest when its turn comes.
    let words = [
        "train",
        "--config",
        "tiny.toml",
        "--set",
        "data.train=rows.jsonl",
        "--set",
        "data.labels=[\"stop_calm\", \"b\"]",
    ];
    let dev = format!("data.dev={}", at.join("rows.jsonl").display());
    clasp(at, &[&words[..], &["--set", &dev]].concat()).bad(3, &["data.train", "utterance `empty` (line 1)"]);
}

#[test]
fn empty_and_very_long_texts_are_no_errors() {
    let folder = folder();
    let long = "word ".repeat(20_000);
    let file = audio("test-0001");
    manifest(
        folder.path(),
        &[json!({ "id": "empty", "audio": file, "text": "" }), json!({ "id": "long", "audio": file, "text": long })],
    );
    let words = ["predict", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl"];
    let said = clasp(folder.path(), &words).good();
    let rows = said.rows();
    assert_eq!((rows[0]["words"].as_u64(), rows[1]["words"].as_u64()), (Some(0), Some(20_000)));
    assert!(rows.iter().all(|row| row["label"].is_string()));
    assert!(said.stderr.contains("1 of 2 utterances have no words"), "{}", said.stderr);
    assert!(said.stderr.contains("1 of 2 utterances had their text cut"), "{}", said.stderr);
    let words = ["encode", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--output", "vectors"];
    let said = clasp(folder.path(), &words).good();
    assert!(said.stderr.contains("1 of 2 utterances have no words"), "{}", said.stderr);
    assert!(said.stderr.contains("1 of 2 utterances had their text cut"), "{}", said.stderr);
}

#[test]
fn audio_without_a_frame_is_named_by_every_command() {
    let folder = folder();
    let at = folder.path();
    let sound = tone(399);
    fs::write(at.join("short.wav"), wav(1, 16, &sound, 798)).unwrap();
    fs::write(at.join("long.wav"), wav(1, 16, &tone(8000), 16_000)).unwrap();
    let row = |file: &str| json!({ "id": "bad", "audio": file, "text": "x", "label": "stop_calm" });
    let mut behind = row("long.wav");
    behind["start"] = 2.into();
    let cases =
        [(row("short.wav"), "short.wav", "399 samples"), (behind, "long.wav", "`start` is 2 s but the audio is only")];
    for (row, file, part) in cases {
        manifest(at, &[row]);
        let words = ["encode", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--output", "vectors"];
        clasp(at, &words).bad_line(3, &["rows.jsonl: ", "utterance `bad` (line 1)", file, part]);
        assert!(!at.join("vectors").exists());
        let dev = format!("data.dev={}", at.join("rows.jsonl").display());
        let words = ["train", "--config", "tiny.toml", "--set", &dev];
        clasp(at, &words).bad_line(3, &["data.dev", "utterance `bad` (line 1)", file, part]);
    }
}

/// A device is written to, and stays one; what cannot be written there fails the command.
#[test]
fn encode_writes_to_what_is_no_plain_file() {
    let folder = folder();
    let at = folder.path();
    let file = audio("test-0001");
    manifest(at, &[json!({ "id": "a", "audio": file, "text": "x" })]);
    let encode = |output: &str| {
        clasp(at, &["encode", "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--output", output])
    };
    encode("plain").good();
    let expected = fs::read(at.join("plain")).unwrap();
    fs::write(at.join("target"), "old").unwrap();
    std::os::unix::fs::symlink("target", at.join("link")).unwrap();
    encode("link").good();
    assert!(at.join("link").is_symlink() && fs::read(at.join("target")).unwrap() == expected);
    let made = |words: &[&str]| std::process::Command::new("mkfifo").args(words).current_dir(at).status();
    assert!(made(&["pipe"]).unwrap().success());
    let pipe = at.join("pipe");
    let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
    encode("pipe").good();
    assert!(reader.join().unwrap() == expected && !at.join("pipe").is_file());
    let device = std::process::Command::new("mknod").args(["full", "c", "1", "7"]).current_dir(at).output();
    if !device.is_ok_and(|made| made.status.success()) {
        skip("only root can make devices");
        return;
    }
    encode("full").bad_line(1, &["cannot write full"]);
    assert!(!at.join("full").is_file() && at.join("full").exists());
}

#[test]
fn encode_refuses_outputs_that_are_not_finite() {
    let folder = folder();
    let at = folder.path();
    copy_folder(&tiny_run().join("best"), &at.join("nan"));
    let path = at.join("nan/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let bias = weights.tensor("classifier.fusion.bias").unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[bias..bias + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(path, bytes).unwrap();
    fs::remove_file(at.join("nan/SHA256SUMS")).unwrap();
    manifest(at, &[json!({ "id": "a", "audio": audio("test-0001"), "text": "x" })]);
    clasp(at, &["encode", "--checkpoint", "nan", "--manifest", "rows.jsonl", "--output", "vectors"])
        .bad_line(3, &["rows.jsonl: utterance `a` (line 1): the model's answer is not finite"]);
    assert!(!at.join("vectors").exists());
}

#[test]
fn a_checkpoint_that_cannot_be_used() {
    let folder = folder();
    let at = folder.path();
    let predict = |path: &str| clasp(at, &["predict", "--checkpoint", path, "--text", "x"]);
    predict("none").bad_line(2, &["none: there is no such folder", "name a checkpoint folder"]);
    predict("tiny.toml").bad_line(2, &["tiny.toml: it is a file", "name a checkpoint folder"]);
    predict(".").bad_line(2, &["no checkpoint folder", "config.json", "no run folder"]);
    let encoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/loading/roberta-bin");
    predict(encoder.to_str().unwrap()).bad_line(2, &["no `format`", "text.checkpoint or speech.checkpoint"]);

    let best = tiny_run().join("best");
    let fresh = || {
        let _ = fs::remove_dir_all(at.join("half"));
        copy_folder(&best, &at.join("half"));
    };
    let cut = |name: &str, share: usize| {
        fresh();
        let bytes = fs::read(best.join(name)).unwrap();
        fs::write(at.join("half").join(name), &bytes[..bytes.len() / share]).unwrap();
    };
    for (name, share) in
        [("model.safetensors", 2), ("model.safetensors", 100), ("config.json", 2), ("tokenizer.json", 2)]
    {
        cut(name, share);
        predict("half").bad_line(2, &[&format!("half/{name} is damaged"), "copy it again"]);
    }
    fresh();
    for name in ["tokenizer.json", "vocab.json", "merges.txt"] {
        fs::remove_file(at.join("half").join(name)).unwrap();
    }
    predict("half").bad_line(2, &["half: it has no tokenizer", "tokenizer.json"]);
    fresh();
    let config = fs::read_to_string(best.join("config.json")).unwrap();
    fs::write(at.join("half/config.json"), config.replace("\"layers\": 1", "\"layers\": 2")).unwrap();
    predict("half").bad_line(2, &["model.safetensors", "missing", "fusion.layers.1."]);
    for (from, into, words) in [
        ("\"classifier_dropout\": 0.1", "\"classifier_dropout\": 5.0", "classifier_dropout = 5"),
        ("\"temperature\": 0.1", "\"temperature\": 0.0", "loss.temperature = 0"),
        ("\"layerdrop\": 0.1", "\"layerdrop\": 1.0", "layerdrop = 1"),
    ] {
        assert!(config.contains(from), "{config}");
        fs::write(at.join("half/config.json"), config.replace(from, into)).unwrap();
        predict("half").bad_line(2, &["half/config.json", words]);
    }
    fresh();
    fs::write(at.join("half/config.json"), config.replace("clasp-1", "clasp-9")).unwrap();
    predict("half").bad_line(2, &["half/config.json: format is \"clasp-9\""]);
    fresh();
    fs::remove_file(at.join("half/model.safetensors")).unwrap();
    predict("half").bad_line(2, &["half/model.safetensors"]);
    fresh();
    // All numbers of the second half are NaN.
    let mut bytes = fs::read(best.join("model.safetensors")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xff);
    fs::write(at.join("half/model.safetensors"), bytes).unwrap();
    predict("half").bad_line(2, &["half/model.safetensors is not as it was saved (SHA-256)"]);
    fs::remove_file(at.join("half/SHA256SUMS")).unwrap();
    predict("half").bad(3, &["the model's answer is not finite"]);
    let dev = tiny_run().join("corpus/dev.jsonl");
    clasp(at, &["eval", "--checkpoint", "half", "--manifest", dev.to_str().unwrap()])
        .bad(3, &["the model's answer is not finite"]);
    let eval = clasp(at, &["eval", "--checkpoint", "half", "--split", "dev"]);
    eval.bad_line(2, &["holds no run: it has no manifest.json", "name the run folder"]);
}

#[test]
fn a_place_that_cannot_be_written() {
    let folder = folder();
    let at = folder.path();
    // Also root cannot write below a file.
    for dir in ["tiny.toml", "tiny.toml/run", "/proc/run"] {
        let set = format!("run.dir={dir}");
        clasp(at, &["train", "--config", "tiny.toml", "--set", &set])
            .bad_line(2, &["cannot write to the run folder", dir, "`--set run.dir=`"]);
    }
    let dev = tiny_run().join("corpus/dev.jsonl");
    let dev = dev.to_str().unwrap();
    let predict = ["predict", "--checkpoint", checkpoint(), "--text", "x", "--output"];
    for output in ["none/out", "tiny.toml/out", "."] {
        clasp(at, &[&predict[..], &[output]].concat()).bad_line(1, &["--output: cannot", output]);
        let said = clasp(at, &["encode", "--checkpoint", checkpoint(), "--manifest", dev, "--output", output]);
        let said = said.bad_line(1, &["--output: cannot write", output]);
        assert!(!said.stderr.contains(".clasp-"), "{}", said.stderr);
    }
    let eval = ["eval", "--checkpoint", checkpoint(), "--manifest", dev, "--output", "tiny.toml/scores"];
    clasp(at, &eval).bad_line(1, &["cannot write to tiny.toml/scores"]);
}

#[test]
fn a_run_folder_that_holds_a_run() {
    let folder = folder();
    let at = folder.path();
    let train = |words: &[&str]| clasp(at, &[&["train", "--config", "tiny.toml"], words].concat());
    let first = train(&[]).good();
    assert!(first.stdout.contains("best epoch 1"), "{}", first.stdout);
    let log = fs::read(at.join("run/log.jsonl")).unwrap();
    // The same config, finished: the result is shown and nothing is trained.
    let again = train(&[]).good();
    assert_eq!((&again.stdout, again.stderr.contains("step 1")), (&first.stdout, false));
    let all = ["--resume", "--overwrite", "--set run.dir="];
    let other = train(&["--set", "train.seed=2"]);
    other.bad_line(2, &[&["train.seed: 1 there, 2 here"], &all[1..]].concat());
    // Something else may differ that changes no number.
    train(&["--set", "run.workers=1", "--set", "train.log_every_steps=3"]).good();
    assert_eq!(fs::read(at.join("run/log.jsonl")).unwrap(), log);

    // Unfinished.
    let path = at.join("run/manifest.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"finished\": true", "\"finished\": false");
    fs::write(&path, text).unwrap();
    train(&[]).bad_line(2, &all);
    train(&["--set", "train.seed=2"]).bad_line(2, &all);
    train(&["--set", "train.seed=2", "--resume"]).bad_line(2, &["train.seed: 1 there, 2 here", "--overwrite"]);
    assert_eq!(fs::read(at.join("run/log.jsonl")).unwrap(), log);
    train(&["--set", "train.seed=2", "--overwrite"]).good();
    assert_ne!(fs::read(at.join("run/log.jsonl")).unwrap(), log);

    // Somebody's own files.
    fs::create_dir_all(at.join("mine/best")).unwrap();
    train(&["--set", "run.dir=mine", "--overwrite"]).bad_line(2, &["holds a `best` but no run", "--set run.dir="]);
    train(&["--resume", "--overwrite"]).bad(2, &["--resume", "--overwrite"]);
}

/// The program where no file may grow over so many KiB: to it a full disk.
fn with_small_files(folder: &Path, kib: u64, words: &[&str]) -> Said {
    let mut command = Command::new("bash");
    // The signal would end the program; ignored, the write fails as on a full disk.
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_clasp")]).args(words).current_dir(folder).process_group(0);
    Said::of(&command.output().unwrap())
}

#[test]
fn a_full_disk_leaves_the_old_checkpoint() {
    let folder = folder();
    let at = folder.path();
    let two = ["train", "--config", "tiny.toml", "--set", "train.epochs=2", "--set", "train.save_every_steps=4"];
    // Killed, as it were, after its first epoch.
    clasp(at, &["train", "--config", "tiny.toml", "--set", "train.save_every_steps=4"]).good();
    for (file, from, to) in
        [("manifest.json", "\"finished\": true", "\"finished\": false"), ("config.toml", "epochs = 1", "epochs = 2")]
    {
        let path = at.join("run").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replace(from, to)).unwrap();
    }
    let weights = fs::read(at.join("run/last/model.safetensors")).unwrap();
    let kib = u64::try_from(weights.len()).unwrap() / 1024 / 2;
    let said = with_small_files(at, kib, &[&two[..], &["--resume"]].concat());
    said.bad_line(1, &["cannot", "run/last", "File too large"]);
    assert_eq!(fs::read(at.join("run/last/model.safetensors")).unwrap(), weights);
    let left: Vec<_> = fs::read_dir(at.join("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".clasp-")), "{left:?}");
    clasp(at, &["predict", "--checkpoint", "run/last", "--text", "x"]).good();
    clasp(at, &[&two[..], &["--resume"]].concat()).good();
    assert_eq!(lines_of(&at.join("run/log.jsonl")).len(), 14);

    // The same for what `encode` and `predict` write.
    let dev = tiny_run().join("corpus/dev.jsonl");
    let dev = dev.to_str().unwrap();
    for words in [
        ["encode", "--checkpoint", checkpoint(), "--manifest", dev, "--output", "out"],
        ["predict", "--checkpoint", checkpoint(), "--manifest", dev, "--output", "out"],
    ] {
        with_small_files(at, 1, &words).bad_line(1, &["out", "File too large"]);
        assert!(!at.join("out").exists());
    }
}
