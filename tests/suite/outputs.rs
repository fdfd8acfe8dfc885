//! What a command writes is never what it reads, whichever links lead there; every refused file keeps its bytes.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::program::{audio, clasp, clasp_with_input, copy_folder, demo_config, folder, own_config, program, tiny_run};

/// A folder with a copy of the shared run, and a manifest of one row with a recording of its own.
fn inputs() -> tempfile::TempDir {
    let folder = folder();
    let at = folder.path();
    copy_folder(tiny_run(), &at.join("run"));
    fs::copy(audio("test-0001"), at.join("one.wav")).unwrap();
    fs::write(at.join("rows.jsonl"), r#"{"id": "one", "audio": "one.wav", "text": "go on", "label": "start_calm"}"#)
        .unwrap();
    folder
}

/// Names that lead to a file: its own, one with dots, a symbolic link, a hard link.
fn names_of(at: &Path, file: &str) -> Vec<PathBuf> {
    let (soft, hard) = (at.join("soft"), at.join("hard"));
    for link in [&soft, &hard] {
        let _ = fs::remove_file(link);
    }
    symlink(at.join(file), &soft).unwrap();
    fs::hard_link(at.join(file), &hard).unwrap();
    vec![PathBuf::from(file), at.join("run/..").join(file), soft, hard]
}

#[test]
fn predictions_and_vectors_replace_nothing_that_is_read() {
    let folder = inputs();
    let at = folder.path();
    for (file, what) in [
        ("rows.jsonl", "is the manifest, and would be replaced; name another"),
        ("one.wav", "is the audio of utterance `one`"),
        ("run/best/model.safetensors", "is a file of the checkpoint"),
        ("run/best/tokenizer.json", "is a file of the checkpoint"),
        ("run/manifest.json", "is a file of the run"),
        ("run/log.jsonl", "is a file of the run"),
    ] {
        let before = fs::read(at.join(file)).unwrap();
        for output in names_of(at, file) {
            let output = output.to_str().unwrap();
            for command in ["predict", "encode"] {
                let words = [command, "--checkpoint", "run", "--manifest", "rows.jsonl", "--output", output];
                clasp(at, &words).bad_line(2, &["--output: ", output, what]);
                assert!(fs::read(at.join(file)).unwrap() == before, "{command} --output {output}");
            }
        }
    }
    let predict = ["predict", "--checkpoint", "run", "--output", "one.wav", "--audio"];
    clasp(at, &[&predict[..], &["./one.wav"]].concat()).bad_line(2, &["is the file of --audio"]);
    // What the run keeps of its splits, be it there or not.
    let predict = ["predict", "--checkpoint", "run/best", "--manifest", "rows.jsonl", "--output"];
    clasp(at, &[&predict[..], &["run/predictions-dev.jsonl"]].concat()).bad_line(2, &["is a file of the run"]);
    // Another file is written, and written again.
    for _ in 0..2 {
        clasp(at, &[&predict[..], &["run/mine.jsonl"]].concat()).good();
    }
}

#[test]
fn predictions_are_not_appended_to_their_own_manifest() {
    let folder = inputs();
    let at = folder.path();
    let rows = fs::read(at.join("rows.jsonl")).unwrap();
    let appended = fs::File::options().append(true).open(at.join("rows.jsonl")).unwrap();
    let predict = ["predict", "--checkpoint", "run", "--manifest"];
    let status = program(at).args(predict).arg("rows.jsonl").stdout(appended).status().unwrap();
    assert_eq!(status.code(), Some(2));
    assert_eq!(fs::read(at.join("rows.jsonl")).unwrap(), rows);
    let words = [&predict[..], &["-", "--output", "standard-input"]].concat();
    clasp_with_input(at, &words, b"{\"id\": \"x\", \"text\": \"y\"}")
        .bad_line(2, &["is the manifest on standard input"]);
}

#[test]
fn scores_replace_neither_their_manifest_nor_another_runs() {
    let folder = inputs();
    let at = folder.path();
    fs::create_dir(at.join("scores")).unwrap();
    let rows = fs::read(at.join("rows.jsonl")).unwrap();
    let eval = ["eval", "--checkpoint", "run", "--manifest", "rows.jsonl", "--output"];
    for (link, name) in [("soft", "predictions-rows.jsonl"), ("hard", "report-rows.json")] {
        let path = at.join("scores").join(name);
        if link == "soft" { symlink("../rows.jsonl", &path) } else { fs::hard_link(at.join("rows.jsonl"), &path) }
            .unwrap();
        clasp(at, &[&eval[..], &["scores"]].concat()).bad_line(2, &["--output: scores/", name, "is the manifest"]);
        assert_eq!(fs::read(at.join("rows.jsonl")).unwrap(), rows);
        fs::remove_file(path).unwrap();
    }
    // Scores of data that is not the run's, which would stand for its own.
    fs::rename(at.join("rows.jsonl"), at.join("test.jsonl")).unwrap();
    let report = fs::read(at.join("run/report-test.json")).unwrap();
    let eval = ["eval", "--checkpoint", "run", "--manifest", "test.jsonl", "--output"];
    clasp(at, &[&eval[..], &["run"]].concat()).bad_line(2, &["--output: run", "keeps the scores of its own splits"]);
    assert_eq!(fs::read(at.join("run/report-test.json")).unwrap(), report);
    clasp(at, &[&eval[..], &["scores"]].concat()).good();
}

#[test]
fn a_config_is_not_copied_onto_itself_nor_onto_that_of_a_run() {
    let folder = inputs();
    let at = folder.path();
    for path in names_of(at, "tiny.toml") {
        let words = ["config", "copy", "tiny.toml", path.to_str().unwrap(), "--force"];
        clasp(at, &words).bad_line(2, &["is the config itself"]);
    }
    assert_eq!(fs::read_to_string(at.join("tiny.toml")).unwrap(), own_config());
    clasp(at, &["config", "copy", "tiny.toml", "run/config.toml", "--force"]).bad_line(2, &["is a file of a run"]);
    clasp(at, &["config", "copy", "tiny.toml", "other.toml", "--force"]).good();
}

#[test]
fn a_run_has_a_folder_of_its_own() {
    let folder = folder();
    let at = folder.path();
    symlink("/", at.join("root")).unwrap();
    for (dir, reason) in [
        ("", "is empty: name a folder"),
        ("/", "is the root of the file system"),
        ("//", "is the root of the file system"),
        ("root", "is the root of the file system"),
        ("/tmp/..", "is the root of the file system"),
    ] {
        let set = format!("run.dir={dir}");
        clasp(at, &["train", "--config", "tiny.toml", "--set", &set]).bad_line(2, &["`run.dir`", reason]);
        fs::write(at.join("plan.toml"), format!("config = 'tiny.toml'\ndir = '{dir}'\n[[system]]\nmethod = 'text'\n"))
            .unwrap();
        let reason = if dir.is_empty() { "a string that is not empty" } else { reason };
        clasp(at, &["compare", "plan.toml", "--dry-run"]).bad_line(2, &["`dir`", reason]);
    }
    assert!(!at.join("runs").exists());
    // A manifest that the run would replace.
    fs::write(at.join("tiny.toml"), demo_config()).unwrap();
    copy_folder(tiny_run(), &at.join("run"));
    fs::rename(at.join("run/corpus/train.jsonl"), at.join("run/corpus/predictions-train.jsonl")).unwrap();
    copy_folder(&at.join("run/corpus"), &at.join("data"));
    fs::write(at.join("mine.toml"), own_config()).unwrap();
    let train = ["train", "--config", "mine.toml", "--set", "run.dir=data", "--set"];
    let words = [&train[..], &["data.train=data/predictions-train.jsonl"]].concat();
    clasp(at, &words).bad_line(2, &["`data.train`", "is of the run to be replaced", "run.dir"]);
    assert!(at.join("data/predictions-train.jsonl").is_file());
}
