//! A run that is moved, continued with more epochs or other places of its data, or killed, through the real binary.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::program::{
    ENCODERS, PERMISSIONS_HOLD, REST, Said, as_user, audio, catches_term, checkpoint, clasp, copy_folder, folder,
    lines_of, program, tiny_run,
};
use crate::train::{LONG, assert_same, stopped};

/// A project as people have it: a config, its data beside it, the run below it.
fn project(at: &Path) -> PathBuf {
    let project = at.join("project");
    copy_folder(&tiny_run().join("corpus"), &project.join("corpus"));
    let data = "[data]\ntrain = \"corpus/train.jsonl\"\ndev = \"corpus/dev.jsonl\"\ntest = \"corpus/test.jsonl\"\n";
    fs::write(project.join("tiny.toml"), format!("{data}{ENCODERS}{REST}")).unwrap();
    project
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

/// Waits until something holds, for a minute at most.
#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_mins(1), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(std::process::Command::new("bash").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn a_moved_folder_is_scored_verified_and_resumed() {
    let folder = folder();
    let at = folder.path();
    let old = project(at);
    clasp(&old, &["train", "--config", "tiny.toml"]).good();
    // Nothing in the run says where it lies, but the one line for those that move the run alone.
    let real = old.canonicalize().unwrap();
    let config = fs::read_to_string(old.join("run/config.toml")).unwrap();
    assert!(
        config.contains("train = \"../corpus/train.jsonl\"") && !config.contains(real.to_str().unwrap()),
        "{config}"
    );
    let manifest = json_of(&old.join("run/manifest.json"));
    let paths: Vec<&str> =
        manifest["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["../corpus/train.jsonl", "../corpus/dev.jsonl", "../corpus/test.jsonl", "best/model.safetensors"]
    );
    let new = at.join("elsewhere");
    fs::rename(&old, &new).unwrap();
    clasp(&new, &["eval", "--checkpoint", "run", "--split", "test"]).good();
    clasp(at, &["eval", "--checkpoint", "elsewhere/run/best", "--split", "dev"]).good();
    let said = clasp(&new, &["verify", "run", "--decode"]).good();
    for part in ["ok       train", "ok       parts", "ok       recordings", "ok       decoded", "ok       test score"] {
        assert!(said.stdout.contains(part), "no {part:?} in {}", said.stdout);
    }
    clasp(&new, &["train", "--config", "tiny.toml", "--resume"]).good();
    clasp(&new, &["train", "--config", "tiny.toml"]).good();
    // By the config that the run keeps, from anywhere.
    let said = clasp(at, &["train", "--config", "elsewhere/run/config.toml", "--resume"]).good();
    assert!(said.stdout.contains("best epoch 1") && !at.join("runs").exists(), "{}", said.stdout);
    // The run alone: its data are where they were.
    fs::create_dir(at.join("alone")).unwrap();
    fs::rename(new.join("run"), at.join("alone/run")).unwrap();
    fs::rename(&new, &old).unwrap();
    for _ in 0..2 {
        clasp(at, &["eval", "--checkpoint", "alone/run", "--split", "test"]).good();
        clasp(at, &["verify", "alone/run"]).good();
    }
}

#[test]
fn an_interrupted_run_goes_on_in_a_moved_folder_and_with_moved_data() {
    let folder = folder();
    let at = folder.path();
    let old = project(at);
    clasp(&old, &[&LONG[..], &["--set", "run.dir=whole"]].concat()).good();
    stopped(&old, &[], 4, "INT").bad(130, &[]);
    let copy = at.join("copy");
    // A copy has other times.
    copy_folder(&old, &copy);
    // The test split need not be there to go on.
    fs::remove_file(copy.join("corpus/test.jsonl")).unwrap();
    clasp(&copy, &[&LONG[..], &["--resume", "--set", "data.test="]].concat()).good();
    assert_same(&copy.join("run"), &old.join("whole"));

    // The data alone, which nobody finds.
    fs::rename(old.join("corpus"), at.join("data")).unwrap();
    clasp(&old, &[&LONG[..], &["--resume"]].concat()).bad_line(3, &["data.train: there is no file", "data.dev: there"]);
    let data = |folder: &str| ["train", "dev", "test"].map(|split| format!("data.{split}={folder}/{split}.jsonl"));
    let resume = |folder: &str| {
        let sets = data(folder);
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        clasp(&old, &[&LONG[..], &["--resume"], &sets].concat())
    };
    // Other data of the same name.
    copy_folder(&at.join("data"), &at.join("other"));
    let rows = fs::read_to_string(at.join("other/dev.jsonl")).unwrap();
    fs::write(at.join("other/dev.jsonl"), rows.lines().rev().map(|row| row.to_owned() + "\n").collect::<String>())
        .unwrap();
    let said = resume("../other").bad_line(2, &["data.dev: ", "dev.jsonl", "go on with what it was started with"]);
    assert!(!said.message().contains("--resume"), "{}", said.message());
    resume("../data").good();
    assert_same(&old.join("run"), &old.join("whole"));
    // It knows its data from now on.
    clasp(&old, &["eval", "--checkpoint", "run", "--split", "test"]).good();
    clasp(&old, &["verify", "run"]).good();
}

#[test]
fn a_run_goes_on_with_more_epochs_as_if_it_had_had_them_from_the_beginning() {
    let folder = folder();
    let at = folder.path();
    let project = project(at);
    let train = |more: &[&str]| clasp(&project, &[&["train", "--config", "tiny.toml", "--quiet"], more].concat());
    train(&["--set", "train.epochs=4", "--set", "run.dir=whole"]).good();
    train(&["--set", "train.epochs=2"]).good();
    // Without --resume it is another config.
    train(&["--set", "train.epochs=4"]).bad_line(2, &["train.epochs: 2 there, 4 here", "--resume"]);
    let said = train(&["--set", "train.epochs=4", "--resume"]).good();
    assert_same(&project.join("run"), &project.join("whole"));
    assert!(said.stdout.contains("run folder"), "{}", said.stdout);
    let manifest = json_of(&project.join("run/manifest.json"));
    assert_eq!((&manifest["finished"], &manifest["result"]["epochs"]), (&json!(true), &json!(4)));
    let best = manifest["files"].as_array().unwrap().iter().filter(|file| file["role"] == "best weights");
    assert_eq!(best.count(), 1);
    // It is the run of four epochs from now on; what is done is not taken back.
    train(&["--set", "train.epochs=4"]).good();
    train(&["--set", "train.epochs=3", "--resume"]).bad_line(2, &["train.epochs: 4 there, 3 here, and 4 are done"]);
    clasp(&project, &["verify", "run"]).good();

    // The score of the test split, asked for later: no training, and what was scored stays.
    clasp(&project, &["eval", "--checkpoint", "run", "--split", "dev"]).good();
    let log = fs::read(project.join("run/log.jsonl")).unwrap();
    let scored = ["--set", "train.epochs=4", "--set", "run.test_at_end=true"];
    train(&scored).bad_line(2, &["run.test_at_end: false there, true here"]);
    for _ in 0..2 {
        let said = train(&[&scored[..], &["--resume"]].concat()).good();
        assert!(said.stdout.contains("test: 16 examples"), "{}", said.stdout);
    }
    assert!(project.join("run/report-dev.json").is_file());
    assert_eq!(fs::read(project.join("run/log.jsonl")).unwrap(), log);
    assert_eq!(json_of(&project.join("run/manifest.json"))["test_uses"].as_array().unwrap().len(), 1);

    // An interrupted run, and more epochs than it was begun with.
    clasp(&project, &[&LONG[..], &["--set", "run.dir=long"]].concat()).good();
    fs::remove_dir_all(project.join("run")).unwrap();
    stopped(&project, &["--set", "train.epochs=8"], 4, "INT").bad(130, &[]);
    clasp(&project, &[&LONG[..], &["--resume"]].concat()).good();
    assert_same(&project.join("run"), &project.join("long"));
}

#[test]
fn more_epochs_change_a_schedule_only_where_that_is_accepted() {
    let folder = folder();
    let at = folder.path();
    let linear = ["train", "--config", "tiny.toml", "--quiet", "--set", "train.schedule=linear"];
    clasp(at, &linear).good();
    let more = [&linear[..], &["--resume", "--set", "train.epochs=2"]].concat();
    clasp(at, &more).bad_line(2, &["train.epochs: 1 there, 2 here", "train.schedule = \"linear\"", "--new-schedule"]);
    let log = lines_of(&at.join("run/log.jsonl"));
    clasp(at, &[&more[..], &["--new-schedule"]].concat()).good();
    let after = lines_of(&at.join("run/log.jsonl"));
    assert_eq!(after[..log.len()], log[..]);
    // Seven of twelve steps are left of what falls to zero over them (`get_linear_schedule_with_warmup`).
    let rate = |step: u32| {
        let entry = after.iter().find(|entry| entry["event"] == "step" && entry["step"] == json!(step)).unwrap();
        entry["learning_rate"].as_f64().unwrap()
    };
    for step in [7, 12] {
        assert!((rate(step) - 1e-3 * (1.0 - f64::from(step - 1) / 12.0)).abs() < 1e-12, "{}", rate(step));
    }
    clasp(at, &[&linear[..], &["--new-schedule"]].concat()).bad(2, &["--resume"]);
}

#[test]
fn a_recording_that_was_replaced_is_noticed() {
    let folder = folder();
    let at = folder.path();
    let project = project(at);
    stopped(&project, &[], 4, "INT").bad(130, &[]);
    let recording = project.join("corpus/audio/train-0001.wav");
    let whole = fs::read(&recording).unwrap();
    let mut other = whole.clone();
    *other.last_mut().unwrap() ^= 1;
    let resume = || clasp(&project, &[&LONG[..], &["--resume"]].concat());
    fs::write(&recording, &other).unwrap();
    resume().bad_line(2, &["other data", "train: the recording audio/train-0001.wav has changed", "--overwrite"]);
    // The same bytes at another time.
    fs::write(&recording, &whole).unwrap();
    resume().good();
    clasp(&project, &["verify", "run"]).good();
    // Neither size nor time tell: `verify` reads all.
    let time = fs::metadata(&recording).unwrap().modified().unwrap();
    fs::write(&recording, &other).unwrap();
    fs::File::options().append(true).open(&recording).unwrap().set_modified(time).unwrap();
    clasp(&project, &["verify", "run"]).bad_line(3, &["recordings: 1 of ", "audio/train-0001.wav has changed"]);
    fs::write(&recording, "no sound").unwrap();
    let said = clasp(&project, &["verify", "run", "--decode", "--json"]);
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    let decoded = found["checks"].as_array().unwrap().iter().find(|check| check["what"] == "decoded").unwrap();
    assert!(decoded["ok"] == false && decoded["text"].as_str().unwrap().contains("train-0001"), "{decoded}");
    // What is not there is told as that, and not as other parts.
    fs::remove_file(project.join("corpus/dev.jsonl")).unwrap();
    let said = clasp(&project, &["verify", "run"]).bad(3, &[]);
    assert!(said.stdout.contains("parts            not known: the manifest of dev cannot be read"), "{}", said.stdout);
}

#[test]
fn all_that_is_missing_is_told_at_once() {
    let folder = folder();
    let at = folder.path();
    let sets = ["data.train=n1", "data.dev=n2", "data.test=n3"];
    let sets: Vec<&str> = sets.iter().flat_map(|&set| ["--set", set]).collect();
    let parts = ["data.train: there is no file", "/n1; data.dev: there is no file", "/n2; data.test: ", "/n3"];
    let said = clasp(at, &[&["train", "--config", "tiny.toml"], &sets[..]].concat()).bad_line(3, &parts);
    assert!(!said.message().contains("checkpoint"), "{}", said.message());
    let encoders = "[text]\ncheckpoint = \"no-text\"\n[speech]\ncheckpoint = \"no-speech\"\n";
    fs::write(at.join("loaded.toml"), format!("[data]\ntrain = \"n1\"\n{encoders}[run]\ndir = \"run\"\n")).unwrap();
    clasp(at, &["train", "--config", "loaded.toml", "--device", "cpu"]).bad_line(
        2,
        &["data.train: there is no file", "`text.checkpoint`", "no-text", "`speech.checkpoint`", "no-speech"],
    );
}

/// As a program before these records left it: absolute paths, a key less, no folder, no hashes of recordings.
#[test]
fn a_run_of_an_older_program_goes_on() {
    let folder = folder();
    let at = folder.path();
    stopped(at, &[], 4, "INT").bad(130, &[]);
    let resolved = clasp(at, &["config", "show", "run/config.toml", "--resolved"]).good().stdout;
    let lacking: Vec<&str> =
        resolved.lines().filter(|line| !line.starts_with("label_smoothing") && !line.starts_with("workers")).collect();
    assert_eq!(lacking.len() + 2, resolved.lines().count());
    fs::write(at.join("run/config.toml"), lacking.join("\n") + "\n").unwrap();
    let path = at.join("run/manifest.json");
    let mut manifest = json_of(&path);
    manifest.as_object_mut().unwrap().remove("folder");
    for file in manifest["files"].as_array_mut().unwrap() {
        let absolute = at.join("run").join(file["path"].as_str().unwrap()).canonicalize().unwrap();
        file["path"] = json!(absolute);
    }
    write_json(&path, &manifest);
    fs::remove_file(at.join("run/recordings-sha256.jsonl")).unwrap();
    let said = clasp(at, &["verify", "run"]).good();
    assert!(said.stdout.contains("recordings       not known: the program that trained"), "{}", said.stdout);
    clasp(at, &["eval", "--checkpoint", "run", "--split", "dev"]).good();
    // A key that it lacks is its default, and no other value.
    let resume = [&LONG[..], &["--resume"]].concat();
    clasp(at, &[&resume[..], &["--set", "loss.label_smoothing=0.5"]].concat()).bad_line(2, &["loss.label_smoothing: "]);
    clasp(at, &resume).good();
    assert!(at.join("run/recordings-sha256.jsonl").is_file());
}

#[test]
fn a_run_that_cannot_be_written_is_verified() {
    let folder = folder();
    let at = folder.path();
    let project = project(at);
    clasp(&project, &["train", "--config", "tiny.toml", "--set", "run.test_at_end=true"]).good();
    let manifest = fs::read(project.join("run/manifest.json")).unwrap();
    for path in [at.to_owned(), project.clone(), project.join("run"), project.join("run/best")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
    }
    if let Some(mut command) = as_user(PERMISSIONS_HOLD, env!("CARGO_BIN_EXE_clasp")) {
        command.args(["verify", "run"]).current_dir(&project).env("HOME", "/nonexistent");
        let said = Said::of(&command.output().unwrap()).good();
        assert!(said.stderr.contains("note: this use of the test split is not counted: "), "{}", said.stderr);
        assert!(said.stdout.contains("ok       test score"), "{}", said.stdout);
        assert_eq!(fs::read(project.join("run/manifest.json")).unwrap(), manifest);
    }
    for path in [at.to_owned(), project.clone(), project.join("run"), project.join("run/best")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The names in a folder that say that something is unfinished.
fn unfinished(at: &Path) -> Vec<String> {
    let names = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".clasp-")).collect()
}

#[test]
fn what_a_killed_prediction_left_is_removed() {
    let folder = folder();
    let at = folder.path();
    let row = json!({ "id": "one", "audio": audio("test-0001"), "text": "go on" }).to_string();
    fs::write(at.join("rows.jsonl"), &row).unwrap();
    // It waits for its manifest, or for the words of a command, with its output begun.
    let words = ["predict", "--checkpoint", checkpoint(), "--manifest", "-", "--output", "out.jsonl"];
    let waiting = || {
        let child = program(at).args(words).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("no output is begun", || !unfinished(at).is_empty());
        child
    };
    let mut child = waiting();
    assert!(catches_term(&child));
    // To wait closes standard input, and an empty manifest may be told first.
    let input = child.stdin.take();
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(input);
    assert_eq!(unfinished(at), [""; 0]);
    for (command, output) in [("predict", "out.jsonl"), ("encode", "out.safetensors")] {
        let mut child = waiting();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(unfinished(at).len(), 1);
        // One that is at work is left alone.
        let left = unfinished(at);
        let mut other = program(at).args(words).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the old output is not removed", || unfinished(at).len() == 1 && unfinished(at) != left);
        clasp(at, &[command, "--checkpoint", checkpoint(), "--manifest", "rows.jsonl", "--output", output]).good();
        assert_eq!(unfinished(at).len(), 1);
        other.stdin.take().unwrap().write_all(row.as_bytes()).unwrap();
        assert_eq!(other.wait().unwrap().code(), Some(0));
        assert_eq!(unfinished(at), [""; 0]);
        assert!(at.join(output).is_file());
    }
}

#[test]
fn a_run_that_is_stopped_before_it_begins_is_interrupted() {
    let folder = folder();
    let at = folder.path();
    // It waits for its data.
    assert!(std::process::Command::new("mkfifo").arg(at.join("train.jsonl")).status().unwrap().success());
    let config = fs::read_to_string(at.join("tiny.toml")).unwrap();
    let piped = config.lines().map(|line| if line.starts_with("train = ") { "train = 'train.jsonl'" } else { line });
    fs::write(at.join("pipe.toml"), piped.collect::<Vec<_>>().join("\n")).unwrap();
    for name in ["TERM", "INT"] {
        let child = program(at)
            .args(["train", "--config", "pipe.toml"])
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("SIGTERM is not caught", || catches_term(&child));
        signal(&child, name);
        let said = Said::of(&child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(130), "{name}: {}", said.stderr);
        assert!(!at.join("run/manifest.json").exists());
    }
}

#[test]
fn what_is_stopped_as_it_starts_is_interrupted() {
    let folder = folder();
    let at = folder.path();
    copy_folder(tiny_run(), &at.join("run"));
    // Long enough to be stopped: one scores, the other computes.
    for words in [&["verify", "run"][..], &["bench", "--size", "tiny", "--steps", "10000"]] {
        let child = program(at).args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("SIGTERM is not caught", || catches_term(&child));
        signal(&child, "TERM");
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130), "{words:?}");
    }
}

/// What `nohup` starts goes on when the terminal closes; what was started without it is interrupted.
#[test]
fn the_end_of_the_terminal_stops_only_what_was_started_without_nohup() {
    let folder = folder();
    let at = folder.path();
    let words = ["predict", "--checkpoint", checkpoint(), "--manifest", "-", "--output", "out.jsonl"];
    for (start, code) in [("trap '' HUP; exec \"$@\"", 0), ("exec \"$@\"", 130)] {
        let mut child = std::process::Command::new("bash")
            .args(["-c", start, "bash"])
            .arg(program(at).get_program())
            .args(words)
            .current_dir(at)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("no output is begun", || !unfinished(at).is_empty());
        signal(&child, "HUP");
        let row = json!({ "id": "one", "audio": audio("test-0001"), "text": "go on" }).to_string();
        // Nobody reads it any more where the program has ended.
        let _ = child.stdin.take().unwrap().write_all(row.as_bytes());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{start}");
    }
}

#[test]
fn a_use_of_test_by_a_process_that_was_killed_is_counted_once() {
    let folder = folder();
    let at = folder.path();
    copy_folder(tiny_run(), &at.join("run"));
    let path = at.join("run/manifest.json");
    let uses = || json_of(&path)["test_uses"].as_array().unwrap().clone();
    let eval = ["eval", "--checkpoint", "run", "--split", "test"];
    clasp(at, &eval).good();
    let before = uses();
    assert!(before.last().unwrap().get("process").is_none(), "{before:?}");
    // As it is while a process is at work, or was killed; Linux gives no process a number above 2^22.
    let killed = || {
        let mut manifest = json_of(&path);
        manifest["test_uses"].as_array_mut().unwrap().last_mut().unwrap()["process"] = json!(4_194_305);
        write_json(&path, &manifest);
    };
    killed();
    clasp(at, &eval).good();
    assert_eq!(uses(), before);
    killed();
    clasp(at, &[&eval[..], &["--batch-size", "2"]].concat()).good();
    assert_eq!(uses().len(), before.len() + 1);
    // On another machine, over a folder that both share, it may be at work.
    let mut manifest = json_of(&path);
    let last = manifest["test_uses"].as_array_mut().unwrap().last_mut().unwrap();
    (last["process"], last["host"]) = (json!(4_194_305), json!("another machine"));
    write_json(&path, &manifest);
    clasp(at, &[&eval[..], &["--batch-size", "2"]].concat()).good();
    assert_eq!(uses().len(), before.len() + 2);
}

#[test]
fn a_pipe_is_answered_while_its_sender_waits() {
    let folder = folder();
    let at = folder.path();
    let words = ["predict", "--checkpoint", checkpoint(), "--manifest", "-"];
    let mut child = program(at).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut sender = child.stdin.take().unwrap();
    let (answers, receiver) = mpsc::channel();
    let output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).for_each(|line| answers.send(line).unwrap());
    });
    let mut number = 0;
    // One, some of which the last is not whole yet, its end with another, more than a batch.
    for (sent, answered) in [("+", 1), ("+++?", 3), ("!+", 2), ("+++++++++++++", 13)] {
        let mut text = String::new();
        for kind in sent.chars() {
            number += 1;
            text += match kind {
                '!' => "\"word\"}\n".to_owned(),
                '?' => format!("{{\"id\": \"{number}\", \"text\": "),
                _ => format!("{{\"id\": \"{number}\", \"text\": \"word\"}}\n"),
            }
            .as_str();
        }
        sender.write_all(text.as_bytes()).unwrap();
        sender.flush().unwrap();
        for _ in 0..answered {
            let line = receiver.recv_timeout(Duration::from_mins(1)).expect("no answer while the sender waits");
            let row: Value = serde_json::from_str(&line).unwrap();
            assert!(row["label"].is_string(), "{row}");
        }
        assert!(receiver.recv_timeout(Duration::from_millis(200)).is_err(), "an answer too many");
    }
    // The last line has no end.
    sender.write_all(b"{\"id\": \"last\", \"text\": \"word\"}").unwrap();
    drop(sender);
    assert!(receiver.recv_timeout(Duration::from_mins(1)).unwrap().contains("\"last\""));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    reader.join().unwrap();
}

#[test]
fn a_log_that_is_gone_is_told_of() {
    let folder = folder();
    let at = folder.path();
    stopped(at, &[], 8, "INT").bad(130, &[]);
    fs::remove_file(at.join("run/log.jsonl")).unwrap();
    let mut words = [&LONG[..], &["--resume"]].concat();
    words.retain(|&word| word != "--quiet");
    let said = clasp(at, &words).good();
    assert!(said.stderr.contains("warning: ") && said.stderr.contains("log.jsonl lacks"), "{}", said.stderr);
}
