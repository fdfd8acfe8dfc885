//! What the README tells to type works: its `sh` blocks run from top to bottom in one empty folder, and every other
//! command of the program that it shows is one that the command line takes.

use std::process::Command;

use clap::Parser as _;
use clasp::cli::Cli;

const README: &str = include_str!("../../README.md");

/// The contents of the code blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut open = None;
    for line in README.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(name), None) => {
                open = Some(name);
                if name == language {
                    blocks.push(String::new());
                }
            }
            (Some(_), Some(_)) => open = None,
            (None, Some(name)) if name == language => {
                let block = blocks.last_mut().unwrap();
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

/// A line of a shell without what a shell would make of it.
fn words(line: &str) -> Vec<&str> {
    line.split(" # ").next().unwrap_or_default().split_whitespace().collect()
}

#[test]
fn the_shell_commands_run() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_clasp"));
    let path = std::env::join_paths(
        std::iter::once(program.parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    // The README's demo, but smaller.
    let demo = "clasp train --config demo.toml --set data.demo.utterances=48 --set train.epochs=1\n";
    let script = demo.to_owned() + &blocks("sh").concat();
    let output = Command::new("bash")
        .args(["-exuo", "pipefail", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path.unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in ["runs/mine/report-test.json", "scores/report-dev.json", "predictions.jsonl", "vectors.safetensors"] {
        assert!(folder.path().join(file).is_file(), "no {file}");
    }
}

#[test]
fn the_other_commands_are_known() {
    let shown = blocks("text").concat().replace("\\\n", " ");
    // Also those within sentences: the odd pieces between backquotes.
    let prose: String = README.split("```").step_by(2).collect();
    let spans: Vec<String> = prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect();
    let mut count = 0;
    for line in shown.lines().chain(spans.iter().map(String::as_str)) {
        let words = words(line);
        if words.len() > 1 && words[0].rsplit('/').next() == Some("clasp") {
            Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            count += 1;
        }
    }
    assert!(count > 5, "only {count} commands found");
}
