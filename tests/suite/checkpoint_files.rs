//! The files of a checkpoint folder beside its weights, through the real binary: what they say is done by every command,
//! or refused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::program::{clasp, copy_folder, tiny_run, tone, wav};

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
