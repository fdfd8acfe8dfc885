//! Configs through the real binary: what is printed, where, and with which exit code.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn clasp(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clasp")).args(words).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn built_in_configs_are_listed_shown_and_copied() {
    let folder = tempfile::tempdir().unwrap();
    let list = clasp(folder.path(), &["config", "list"]);
    assert!(list.status.success() && list.stderr.is_empty());
    for name in ["demo.toml", "iemocap4.toml", "slurp.toml", "mist.toml"] {
        assert!(text(&list.stdout).contains(name));
        let shown = clasp(folder.path(), &["config", "show", name]);
        let resolved = clasp(folder.path(), &["config", "show", name, "--resolved"]);
        assert!(shown.status.success() && resolved.status.success(), "{}", text(&resolved.stderr));
        let copied = clasp(folder.path(), &["config", "copy", name]);
        assert_eq!(text(&copied.stdout).trim(), name);
        assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), shown.stdout);
    }
    let again = clasp(folder.path(), &["config", "copy", "demo"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        text(&again.stderr),
        "error: demo.toml exists already; name another file, or pass --force to replace it\n"
    );
}

#[test]
fn the_list_has_a_line_for_each_config_and_plan() {
    let folder = tempfile::tempdir().unwrap();
    let list = text(&clasp(folder.path(), &["config", "list"]).stdout);
    let files = |folder: &str| {
        let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    };
    assert_eq!(list.lines().count(), files("configs") + files("configs/plans"));
    assert!(list.starts_with("demo.toml          The demo: a synthetic corpus"), "{list}");
    assert!(list.contains("\nplans/table8.toml  Table 8 of the paper"), "{list}");
}

#[test]
fn a_copy_overwrites_only_with_force() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |words: &[&str]| clasp(folder.path(), &[&["config", "copy", "mist", "."], words].concat());
    let path = folder.path().join("mist.toml");
    assert!(copy(&[]).status.success());
    std::fs::write(&path, "# mine").unwrap();
    assert_eq!(copy(&[]).status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine");
    assert!(copy(&["--force"]).status.success());
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("# The paper's setting on MIST"));
}

#[test]
fn a_config_is_shown_as_written_with_changes_or_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let show = |words: &[&str]| text(&clasp(folder.path(), &[&["config", "show"], words].concat()).stdout);
    assert!(show(&["demo"]).starts_with("# The demo"));
    assert!(show(&["demo", "--set", "train.epochs=7"]).contains("\nepochs = 7\n"));
    assert!(show(&["demo", "--resolved"]).starts_with("[data]\n"));
    assert!(show(&["--defaults"]).contains("# Every key"));
}

#[test]
fn a_file_wins_over_a_built_in_config_and_its_problems_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("demo.toml"), "[data.demo]\n[train]\nepoch = 3\nbatch_size = 0\n").unwrap();
    let shown = clasp(folder.path(), &["config", "show", "demo.toml", "--resolved", "--set", "train.init=a"]);
    assert_eq!(shown.status.code(), Some(2));
    assert!(shown.stdout.is_empty());
    assert_eq!(
        text(&shown.stderr),
        "error: demo.toml has 2 problems:\n  demo.toml:3: unknown key `train.epoch`; did you mean `train.epochs`?\n  \
         demo.toml:4: `train.batch_size` must be a whole number of at least 1, found 0\n"
    );
}

#[test]
fn what_is_wrong_is_one_line_with_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("syntax.toml"), "[train]\nepochs = \n").unwrap();
    std::fs::write(folder.path().join("bytes.toml"), [0xff, 0x00]).unwrap();
    for (words, part) in [
        (&["config", "show", "iemocap", "--resolved"][..], "built in: demo.toml, iemocap4.toml"),
        (&["config", "show", "syntax.toml", "--resolved"], "syntax.toml:2:"),
        (&["config", "show", "bytes.toml"], "UTF-8"),
        (&["config", "show", "."], "it is a folder"),
        (&["config", "copy", "demo", "no/such/folder/x.toml"], "cannot write the config no/such/folder/x.toml"),
    ] {
        let output = clasp(folder.path(), words);
        let message = text(&output.stderr);
        assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
        assert!(message.starts_with("error: ") && message.contains(part), "{message}");
    }
}

#[test]
fn a_resolved_config_is_a_config() {
    let folder = tempfile::tempdir().unwrap();
    let resolved = clasp(folder.path(), &["config", "show", "demo", "--resolved"]);
    std::fs::create_dir(folder.path().join("other")).unwrap();
    std::fs::write(folder.path().join("other/config.toml"), &resolved.stdout).unwrap();
    let again = clasp(folder.path(), &["config", "show", "other/config.toml", "--resolved"]);
    assert_eq!(text(&again.stdout), text(&resolved.stdout));
}

#[test]
fn completions_are_printed_and_a_closed_pipe_is_success() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(text(&clasp(folder.path(), &["completions", shell]).stdout).contains("clasp"));
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_clasp"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn version_and_help_are_there_and_wrong_flags_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    assert!(text(&clasp(folder.path(), &["--version"]).stdout).starts_with("clasp 0."));
    assert!(text(&clasp(folder.path(), &["--help"]).stdout).contains("130  interrupted"));
    for words in [&["trian"][..], &["train", "--confg", "x"], &[], &["completions", "tcsh"]] {
        assert_eq!(clasp(folder.path(), words).status.code(), Some(2), "{words:?}");
    }
}
