//! Little memory, few threads and a small stack (`ulimit`): what fits is done, and what does not is one line and exit
//! code 1, whatever it was needed for.

use std::{fs, path::Path, process::Command};

use crate::program::{LIMITS_HOLD, Said, as_user, checkpoint, own_config, tiny_run};

/// The program under a limit.
fn limited(folder: &Path, limit: &str, words: &[&str]) -> Command {
    limited_by(Command::new("bash"), folder, limit, words)
}

fn limited_by(mut bash: Command, folder: &Path, limit: &str, words: &[&str]) -> Command {
    let script = format!("ulimit {limit}; exec \"$@\"");
    bash.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_clasp")]).args(words).current_dir(folder);
    bash
}

/// Commands that read, compute and write, each on the tiny checkpoint or config.
fn commands() -> [Vec<String>; 5] {
    let dev = tiny_run().join("corpus/dev.jsonl").display().to_string();
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    [
        own(&["predict", "--checkpoint", checkpoint(), "--manifest", &dev, "--device", "cpu"]),
        own(&["encode", "--checkpoint", checkpoint(), "--manifest", &dev, "--output", "vectors", "--device", "cpu"]),
        own(&["check", "--decode", &dev]),
        own(&["train", "--config", "tiny.toml", "--overwrite"]),
        own(&["doctor", "--config", "tiny.toml"]),
    ]
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tiny.toml"), own_config()).unwrap();
    folder
}

#[test]
fn a_small_stack_is_enough() {
    let folder = folder();
    for limit in ["-s 256", "-s 128"] {
        for words in commands() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Said::of(&limited(folder.path(), limit, &words).output().unwrap()).good();
        }
    }
}

#[test]
fn a_lack_of_threads_is_told_as_that() {
    let folder = folder();
    for limit in ["-u 1", "-u 2", "-u 3"] {
        for words in commands() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let Some(bash) = as_user(LIMITS_HOLD, "bash") else { return };
            let said = Said::of(&limited_by(bash, folder.path(), limit, &words).output().unwrap());
            if said.code != Some(0) {
                // One of its own, or the one that hears of Ctrl-C.
                said.bad_line(1, &["thread", "ulimit -u"]);
            }
        }
    }
}

#[test]
fn a_lack_of_memory_is_told_as_that() {
    let folder = folder();
    // Below this the system cannot even start the program.
    let starts = |kibibytes: &usize| {
        let limit = format!("-v {kibibytes}");
        limited(folder.path(), &limit, &["--version"]).output().unwrap().status.success()
    };
    let least = (40_000..400_000).step_by(4_000).find(starts).unwrap();
    let mut failed = 0;
    for kibibytes in (least..least + 60_000).step_by(5_000) {
        for words in commands() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let limit = format!("-v {kibibytes}");
            let said = Said::of(&limited(folder.path(), &limit, &words).output().unwrap());
            if said.code == Some(0) {
                continue;
            }
            failed += 1;
            assert_eq!(said.code, Some(1), "{limit} {words:?}: {}{}", said.stdout, said.stderr);
            let is_told = ["memory", "cannot start a thread", "cannot listen for Ctrl-C"]
                .iter()
                .any(|cause| said.message().contains(cause) || said.stdout.contains(cause));
            assert!(
                is_told && !said.stderr.contains("check the disk"),
                "{limit} {words:?}: {}{}",
                said.stdout,
                said.stderr
            );
            assert!(said.message().lines().count() <= 1, "{limit} {words:?}: {}", said.stderr);
        }
    }
    assert!(failed > 3, "only {failed} runs had too little");
}
