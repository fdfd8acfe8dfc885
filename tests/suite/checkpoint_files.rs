//! The files of a checkpoint folder beside its weights, through the real binary: what they say is done by every command,
//! or refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::program::{PERMISSIONS_HOLD, Said, as_user, clasp, copy_folder, program, tiny_run, tone, wav};

/// A copy of the tiny checkpoint.
fn checkpoint(folder: &Path) -> PathBuf {
    let checkpoint = folder.join("checkpoint");
    copy_folder(&tiny_run().join("best"), &checkpoint);
    checkpoint
}

/// A tensor of a file that `encode` wrote.
fn tensor(path: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

/// What transformers' feature extractor does: (x - mean) / sqrt(variance + 1e-7), and nothing with `do_normalize: false`.
#[test]
fn a_waveform_is_normalised_or_not_as_the_checkpoint_says() {
    let folder = tempfile::tempdir().unwrap();
    // Quiet, so that the norms of the convolutions do not hide the difference.
    let quiet = |pair: &[u8]| (i16::from_le_bytes([pair[0], pair[1]]) / 100).to_le_bytes();
    let bytes: Vec<u8> = tone(8_000).chunks_exact(2).flat_map(quiet).collect();
    fs::write(folder.path().join("plain.wav"), wav(1, 16, &bytes, 16_000)).unwrap();
    let samples: Vec<f64> =
        bytes.chunks_exact(2).map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect();
    let count = 8_000.0;
    let mean = samples.iter().sum::<f64>() / count;
    let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / count;
    #[expect(clippy::cast_possible_truncation, reason = "samples of a WAV")]
    let normalised: Vec<u8> =
        samples.iter().flat_map(|sample| (((sample - mean) / (variance + 1e-7).sqrt()) as f32).to_le_bytes()).collect();
    fs::write(folder.path().join("normalised.wav"), wav(3, 32, &normalised, 32_000)).unwrap();
    let checkpoint = checkpoint(folder.path());
    let speech = |name: &str| {
        let row = json!({"id": "a", "audio": format!("{name}.wav"), "text": "we could go now"});
        write_json(&folder.path().join("rows.jsonl"), &row);
        let words = ["--checkpoint", "checkpoint", "--manifest", "rows.jsonl", "--output", "out.safetensors"];
        clasp(folder.path(), &[&["encode", "--device", "cpu"], &words[..]].concat()).good();
        tensor(&folder.path().join("out.safetensors"), "speech")
    };
    let expected = speech("plain");
    fs::remove_file(checkpoint.join("SHA256SUMS")).unwrap();
    let own =
        json!({"do_normalize": false, "sampling_rate": 16_000, "feature_size": 1, "return_attention_mask": false});
    write_json(&checkpoint.join("preprocessor_config.json"), &own);
    let off = |found: &[f32]| {
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
        let difference = square(&mut found.iter().zip(&expected).map(|(found, expected)| found - expected));
        difference / square(&mut expected.iter().copied())
    };
    assert!(off(&speech("normalised")) < 1e-5);
    assert!(off(&speech("plain")) > 1e-3);
    // What is trained from it says the same.
    let row = |id: &str, label: &str| json!({"id": id, "audio": "plain.wav", "text": "go", "label": label}).to_string();
    let labels: Value = serde_json::from_str(&fs::read_to_string(checkpoint.join("config.json")).unwrap()).unwrap();
    let rows: Vec<String> = labels["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| row(label.as_str().unwrap(), label.as_str().unwrap()))
        .collect();
    fs::write(folder.path().join("train.jsonl"), rows.join("\n")).unwrap();
    let config = "[data]\ntrain = \"train.jsonl\"\n[train]\ninit = \"checkpoint\"\nepochs = 1\n[run]\ndir = \"run\"\n";
    fs::write(folder.path().join("x.toml"), config).unwrap();
    clasp(folder.path(), &["train", "--config", "x.toml", "--device", "cpu"]).good();
    let written = fs::read_to_string(folder.path().join("run/best/preprocessor_config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), own);
    // Another rate is not resampled to, but refused.
    write_json(&checkpoint.join("preprocessor_config.json"), &json!({"sampling_rate": 8000}));
    let refused = ["preprocessor_config.json", "sampling_rate = 8000", "16000"];
    clasp(folder.path(), &["predict", "--checkpoint", "checkpoint", "--text", "go"]).bad_line(2, &refused);
    clasp(folder.path(), &["train", "--config", "x.toml", "--overwrite"]).bad_line(2, &refused);
}

const PREDICT: [&str; 6] = ["predict", "--checkpoint", "checkpoint", "--text", "we could go now", "--json"];

#[test]
fn a_checkpoint_states_the_hashes_of_its_files() {
    for part in ["best", "last"] {
        let mut command = Command::new("sha256sum");
        command.args(["--check", "--strict", "SHA256SUMS"]).current_dir(tiny_run().join(part));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let files = fs::read_dir(tiny_run().join(part)).unwrap().count() - 1;
        assert_eq!(
            String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.ends_with(": OK")).count(),
            files
        );
    }
}

#[test]
fn one_other_bit_in_a_checkpoint_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path());
    let manifest = tiny_run().join("corpus/dev.jsonl");
    let manifest = manifest.to_str().unwrap();
    let encode = ["encode", "--checkpoint", "checkpoint", "--manifest", manifest, "--output", "out.safetensors"];
    let eval = ["eval", "--checkpoint", "checkpoint", "--manifest", manifest, "--output", "scores"];
    clasp(folder.path(), &PREDICT).good();
    for name in ["model.safetensors", "config.json", "tokenizer.json", "merges.txt", "preprocessor_config.json"] {
        let path = checkpoint.join(name);
        let whole = fs::read(&path).unwrap();
        for place in [whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[place] ^= 1;
            fs::write(&path, flipped).unwrap();
            clasp(folder.path(), &PREDICT).bad_line(2, &[name]);
        }
        // Sound, but another one.
        let other = [&whole[..], b"\n"].concat();
        fs::write(&path, other).unwrap();
        if name != "model.safetensors" {
            for words in [&PREDICT[..], &encode, &eval] {
                clasp(folder.path(), words).bad_line(2, &[name, "is not as it was saved", "SHA256SUMS"]);
            }
        }
        fs::write(&path, whole).unwrap();
    }
    clasp(folder.path(), &eval).good();
    let last = fs::metadata(checkpoint.join("model.safetensors")).unwrap().len() - 2;
    let mut weights = fs::read(checkpoint.join("model.safetensors")).unwrap();
    weights[usize::try_from(last).unwrap()] ^= 1;
    fs::write(checkpoint.join("model.safetensors"), weights).unwrap();
    for words in [&PREDICT[..], &encode, &eval] {
        clasp(folder.path(), words).bad_line(2, &["model.safetensors is not as it was saved (SHA-256)"]);
    }
    let config = format!("[data]\ntrain = \"{manifest}\"\n[train]\ninit = \"checkpoint\"\n[run]\ndir = \"run\"\n");
    fs::write(folder.path().join("x.toml"), config).unwrap();
    clasp(folder.path(), &["train", "--config", "x.toml"]).bad_line(2, &["train.init", "is not as it was saved"]);
    // A line that is no hash, and a folder of an older version.
    let sums = fs::read_to_string(checkpoint.join("SHA256SUMS")).unwrap();
    fs::write(checkpoint.join("SHA256SUMS"), format!("{sums}{}  ../other\n", "0".repeat(64))).unwrap();
    clasp(folder.path(), &PREDICT).bad_line(2, &["SHA256SUMS is damaged"]);
    fs::remove_file(checkpoint.join("SHA256SUMS")).unwrap();
    clasp(folder.path(), &PREDICT).good();
}

#[test]
fn verify_checks_the_checkpoints_and_works_on_a_run_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    copy_folder(tiny_run(), &run);
    let verify = |mut command: Command| {
        command
            .args(["verify", "run", "--device", "cpu"])
            .current_dir(folder.path())
            .env("CLASP_CACHE", "/nonexistent")
            .env("HOME", "/nonexistent");
        Said::of(&command.output().unwrap())
    };
    let said = verify(program(folder.path())).good();
    for part in ["best", "last"] {
        let start = format!("ok       {part} ");
        let is_it = |line: &str| line.starts_with(&start) && line.contains("files as they were saved");
        assert!(said.stdout.lines().any(is_it), "{}", said.stdout);
    }
    for path in [folder.path(), &run] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
    }
    if let Some(command) = as_user(PERMISSIONS_HOLD, env!("CARGO_BIN_EXE_clasp")) {
        let before = fs::read(run.join("manifest.json")).unwrap();
        let said = verify(command).good();
        assert!(said.stderr.contains("this use of the test split is not counted"), "{}", said.stderr);
        assert_eq!(fs::read(run.join("manifest.json")).unwrap(), before);
    }
    for path in [folder.path(), &run] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = run.join("last/optimizer.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
    let said = verify(program(folder.path())).bad(3, &["last: ", "optimizer.safetensors is not as it was saved"]);
    assert!(said.stdout.lines().any(|line| line.starts_with("DIFFERS  last")), "{}", said.stdout);
}

#[test]
fn only_regular_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path());
    for name in [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "SHA256SUMS",
    ] {
        let path = checkpoint.join(name);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let begun = Instant::now();
        clasp(folder.path(), &PREDICT).bad_line(2, &[name, "a pipe, not a regular file"]);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        clasp(folder.path(), &PREDICT).bad_line(2, &[name, "a device, not a regular file"]);
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", begun.elapsed());
        fs::remove_file(&path).unwrap();
        // As long as a disk, and nothing of it written.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        clasp(folder.path(), &PREDICT).bad_line(2, &[name]);
        fs::write(&path, whole).unwrap();
    }
    clasp(folder.path(), &PREDICT).good();
}

#[test]
fn a_config_of_a_million_layers_is_held_against_the_weights_first() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(folder.path());
    fs::remove_file(checkpoint.join("SHA256SUMS")).unwrap();
    let config: Value = serde_json::from_str(&fs::read_to_string(checkpoint.join("config.json")).unwrap()).unwrap();
    for (table, key) in
        [("fusion", "layers"), ("text_encoder", "num_hidden_layers"), ("speech_encoder", "num_hidden_layers")]
    {
        let mut config = config.clone();
        config[table][key] = json!(999_999);
        write_json(&checkpoint.join("config.json"), &config);
        // Four gigabytes of addresses: a million layers take eleven of memory.
        let command = "ulimit -v 4000000; exec \"$@\"";
        let mut limited = Command::new("sh");
        limited.args(["-c", command, "sh", env!("CARGO_BIN_EXE_clasp")]).args(PREDICT).current_dir(folder.path());
        let parts = ["model.safetensors", "asks for 999999 layers", "tensors in all"];
        Said::of(&limited.output().unwrap()).bad_line(2, &parts);
    }
}
