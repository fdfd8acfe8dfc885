//! `clasp log` and `clasp verify` through the real binary, and the event file of a run.

use std::{fs, process::Stdio, thread::sleep, time::Duration};

use serde_json::{Value, json};

use crate::program::{clasp, copy_folder, demo_config, folder, lines_of, program, tiny_run};

#[test]
fn a_log_is_shown_and_its_events_are_whole() {
    let run = tiny_run();
    let at = run.parent().unwrap();
    let said = clasp(at, &["log", "run"]).good();
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert!(lines[0].starts_with("epoch") && lines[1].contains("best so far"), "{}", said.stdout);
    assert!(lines.last().unwrap().starts_with("finished: {\"best_epoch\":1"), "{}", said.stdout);
    let said = clasp(at, &["log", "run", "--json"]).good();
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["finished"], json!(true));
    assert_eq!(found["entries"].as_array().unwrap(), &lines_of(&run.join("log.jsonl")));
    // A record a line of the log, and the one that names the version: their lengths lead from one to the next.
    let events = fs::read(run.join("events.out.tfevents.clasp")).unwrap();
    let (mut place, mut records) = (0, 0);
    while place < events.len() {
        let length = u64::from_le_bytes(events[place..place + 8].try_into().unwrap());
        place += usize::try_from(length).unwrap() + 16;
        records += 1;
    }
    assert_eq!((place, records), (events.len(), lines_of(&run.join("log.jsonl")).len() + 1));
    clasp(at, &["log", "nowhere"]).bad_line(2, &["nowhere", "holds no run"]);
}

#[test]
fn a_stopped_run_says_where_it_is_and_resumes_its_events() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("tiny.toml"), demo_config()).unwrap();
    let train = |more: &[&str]| {
        let words = ["train", "--config", "tiny.toml", "--set", "train.save_every_steps=2", "--set", "train.epochs=2"];
        clasp(at, &[&words, more].concat())
    };
    train(&[]).good();
    let whole = fs::read(at.join("run/events.out.tfevents.clasp")).unwrap().len();
    // As if it had been killed behind its first epoch: the log and the events know more than the checkpoint.
    let manifest = at.join("run/manifest.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    state["finished"] = json!(false);
    fs::write(&manifest, state.to_string()).unwrap();
    let said = clasp(at, &["log", "run"]).good();
    assert!(said.stdout.contains("stopped: go on with --resume"), "{}", said.stdout);
    train(&["--resume"]).good();
    assert_eq!(fs::read(at.join("run/events.out.tfevents.clasp")).unwrap().len(), whole);
}

#[test]
fn what_differs_is_told() {
    let folder = folder();
    let at = folder.path();
    copy_folder(tiny_run().parent().unwrap(), at);
    // The copy's manifest names the copy's data.
    let said = clasp(at, &["verify", "run"]).good();
    for part in ["ok       train", "ok       parts", "ok       test score", "as in the report"] {
        assert!(said.stdout.contains(part), "no {part:?} in {}", said.stdout);
    }
    let uses = || {
        let manifest: Value = serde_json::from_slice(&fs::read(at.join("run/manifest.json")).unwrap()).unwrap();
        manifest["test_uses"].as_array().unwrap().len()
    };
    let before = uses();
    // A report that says more than the model can.
    let path = at.join("run/report-test.json");
    let mut report: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    report["fusion"]["accuracy"]["value"] = json!(0.987);
    fs::write(&path, report.to_string()).unwrap();
    let said = clasp(at, &["verify", "run", "--json"]);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["ok"], json!(false));
    said.bad_line(3, &["a check failed", "test score: accuracy 0.987000 in the report"]);
    assert_eq!(uses(), before + 1);
    // Data that was changed since.
    let manifest = at.join("run/manifest.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    for file in state["files"].as_array_mut().unwrap() {
        if file["role"] == "train" {
            assert_eq!(file["path"], "corpus/train.jsonl");
            let rows = fs::read_to_string(at.join("run/corpus/train.jsonl")).unwrap();
            let path = at.join("other.jsonl");
            fs::write(&path, rows.replace("train-0001", "train-x001")).unwrap();
            file["path"] = json!(path);
        }
    }
    fs::write(&manifest, state.to_string()).unwrap();
    let said = clasp(at, &["verify", "run"]).bad(3, &["train: ", "other.jsonl has changed"]);
    assert!(said.stdout.contains("DIFFERS  parts"), "{}", said.stdout);
    clasp(at, &["verify", "tiny.toml"]).bad(2, &["holds no run"]);
}

/// 2,000 steps with evaluation and saving: what the process holds in memory in the last 200 is what it held in the
/// first 200, within 5%.
#[test]
fn two_thousand_steps_do_not_grow_the_memory() {
    let folder = folder();
    let at = folder.path();
    fs::write(at.join("tiny.toml"), demo_config()).unwrap();
    // Six steps an epoch, and a line more in the log for its end.
    let words = "train --config tiny.toml --quiet --set train.epochs=334 --set train.save_every_steps=50";
    let mut child = program(at).args(words.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let resident = || -> Option<f64> {
        let status = fs::read_to_string(&status).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
    };
    let mut seen: Vec<(usize, f64)> = Vec::new();
    let code = loop {
        if let Some(code) = child.try_wait().unwrap() {
            break code;
        }
        let lines = fs::read(at.join("run/log.jsonl")).map_or(0, |log| log.split(|byte| *byte == b'\n').count() - 1);
        seen.extend(resident().map(|kib| (lines, kib)));
        sleep(Duration::from_millis(30));
    };
    assert!(code.success());
    let steps = |lines: usize| lines / 7 * 6;
    let mean = |wanted: &dyn Fn(usize) -> bool| {
        let found: Vec<f64> = seen.iter().filter(|(lines, _)| wanted(steps(*lines))).map(|(_, kib)| *kib).collect();
        assert!(found.len() > 5, "{seen:?}");
        found.iter().sum::<f64>() / f64::from(u32::try_from(found.len()).unwrap())
    };
    // The first few steps still fill what is kept.
    let (first, last) = (mean(&|step| (20..=200).contains(&step)), mean(&|step| step > 1_800));
    assert!((last / first - 1.0).abs() < 0.05, "{first} KiB in the first steps, {last} KiB in the last");
}
