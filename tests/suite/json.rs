//! `--json` of the commands that machines read as events or lists.

use std::fs;

use serde_json::{Value, json};

use crate::{
    labels::corpus,
    program::{clasp, lines_of},
};

#[test]
fn training_prints_its_log_and_the_result() {
    let folder = corpus(&["on", "off"], &["on", "off"], &["off"]);
    let at = folder.path();
    let words = ["train", "--config", "c.toml", "--json", "--set", "train.epochs=2", "--set", "run.test_at_end=true"];
    let said = clasp(at, &words).good();
    let mut events = said.rows();
    let result = events.pop().unwrap();
    assert_eq!(events, lines_of(&at.join("run/log.jsonl")));
    assert_eq!((&result["event"], &result["epochs"]), (&json!("result"), &json!(2)));
    assert_eq!(result["run"], json!(at.join("run").canonicalize().unwrap()));
    assert!(result["test"]["accuracy"].is_number(), "{result}");
    // The table is for people.
    assert!(said.stderr.contains("accuracy") && said.stderr.contains("best epoch "), "{}", said.stderr);
    // A finished run is shown: its result alone.
    assert_eq!(clasp(at, &words).good().rows(), [result]);
    assert!(clasp(at, &[&words[..], &["--overwrite", "--quiet"]].concat()).good().rows().len() > 1);
}

#[test]
fn encoding_and_configs_say_what_there_is() {
    let folder = corpus(&["on", "off"], &["on"], &["off"]);
    let at = folder.path();
    clasp(at, &["train", "--config", "c.toml"]).good();
    let words = ["encode", "--checkpoint", "run", "--manifest", "train.jsonl", "--output", "v.safetensors", "--json"];
    let written: Value = serde_json::from_str(&clasp(at, &words).good().stdout).unwrap();
    assert_eq!((&written["output"], &written["examples"]), (&json!("v.safetensors"), &json!(4)));
    // The header of the file: eight bytes of its length, then JSON.
    let bytes = fs::read(at.join("v.safetensors")).unwrap();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let shapes = written["tensors"].as_object().unwrap();
    assert!(shapes.len() + 1 == header.as_object().unwrap().len() && !shapes.is_empty());
    for (name, shape) in shapes {
        assert_eq!(&header[name]["shape"], shape, "{name}");
    }
    let parsed = |words: &[&str]| -> Value { serde_json::from_str(&clasp(at, words).good().stdout).unwrap() };
    let list = parsed(&["config", "list", "--json"]);
    let has =
        |name: &str, kind: &str| list.as_array().unwrap().iter().any(|row| row["name"] == name && row["kind"] == kind);
    assert!(has("demo.toml", "config") && has("plans/table8.toml", "plan"), "{list}");
    assert_eq!(parsed(&["config", "show", "c.toml", "--json"])["text"]["vocab_size"], 280);
    let resolved = parsed(&["config", "show", "c.toml", "--json", "--set", "train.epochs=7"]);
    assert_eq!((&resolved["train"]["epochs"], &resolved["train"]["batch_size"]), (&json!(7), &json!(4)));
    assert_eq!(parsed(&["config", "show", "--defaults", "--json"])["train"]["epochs"], 25);
    fs::write(at.join("bad.toml"), "[data\n").unwrap();
    clasp(at, &["config", "show", "bad.toml", "--json"]).bad(2, &["bad.toml:1:"]);
}
