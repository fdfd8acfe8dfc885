//! README and docs/ are true: their `sh` blocks run from top to bottom in one empty folder, every other command of the
//! program that they show is one that the command line takes, and every link leads to something that is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Parser as _, error::ErrorKind};
use clasp::cli::Cli;

/// A Markdown file of the repository.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        Self { path, text }
    }

    /// The contents of the code blocks of one language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let mut blocks: Vec<String> = Vec::new();
        let mut open = None;
        for line in self.text.lines() {
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

    /// The text without its code blocks.
    fn prose(&self) -> String {
        self.text.split("```").step_by(2).collect()
    }

    /// The targets of the links, code left out.
    fn links(&self) -> Vec<String> {
        let text: String = self.prose().split('`').step_by(2).collect();
        text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
    }

    /// What `#` may be followed by, as GitHub and mdBook make it of the headings.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose();
        let headings = headings.lines().filter(|line| line.starts_with('#'));
        let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
        let anchor = |line: &str| line.trim_start_matches('#').trim().chars().filter(kept).collect::<String>();
        headings.map(|line| anchor(line).to_lowercase().replace(' ', "-")).collect()
    }
}

/// README, then the pages of docs/ in the order of their summary.
fn pages() -> Vec<Page> {
    let summary = Page::read("docs/SUMMARY.md").links();
    std::iter::once(Page::read("README.md"))
        .chain(summary.iter().map(|page| Page::read(&format!("docs/{page}"))))
        .collect()
}

/// A line of a shell without what a shell would make of it.
fn words(line: &str) -> Vec<&str> {
    line.split(" # ").next().unwrap_or_default().split_whitespace().collect()
}

#[test]
fn the_shell_commands_run() {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_clasp"));
    let path = std::env::join_paths(
        std::iter::once(program.parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    // The demo, but smaller: a file in the current folder is taken before the built-in one.
    let demo = "clasp config show demo --set data.demo.utterances=48 --set train.epochs=1 --resolved > demo.toml\n\
                clasp train --config demo.toml\n";
    let script = demo.to_owned() + &pages().iter().flat_map(|page| page.blocks("sh")).collect::<String>();
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
    let mut count = 0;
    for page in pages() {
        let shown = page.blocks("text").concat().replace("\\\n", " ");
        // Also those within sentences: the odd pieces between backquotes.
        let prose = page.prose();
        let spans: Vec<String> = prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect();
        let lines = shown.lines().map(|line| (line, false)).chain(spans.iter().map(|span| (span.as_str(), true)));
        for (line, may_lack) in lines {
            let words = words(line);
            if words.len() > 1 && words[0].rsplit('/').next() == Some("clasp") {
                if let Err(error) = Cli::try_parse_from(&words) {
                    // A sentence may name a command without its arguments.
                    let lacks = error.kind() == ErrorKind::MissingRequiredArgument;
                    assert!(may_lack && lacks, "{}: {line}: {error}", page.path.display());
                }
                count += 1;
            }
        }
    }
    assert!(count > 20, "only {count} commands found");
}

#[test]
fn every_link_leads_somewhere() {
    let others = ["docs/SUMMARY.md", "CHANGELOG.md", "CONTRIBUTING.md", "benches/RESULTS.md", "benches/PARITY.md"];
    let mut count = 0;
    for page in pages().into_iter().chain(others.map(Page::read)) {
        for link in page.links().iter().filter(|link| !link.contains("://")) {
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let path = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
            assert!(path.exists(), "{}: {link}: no such file", page.path.display());
            if let Some(anchor) = anchor {
                let target = Page { text: fs::read_to_string(&path).unwrap(), path };
                assert!(target.anchors().contains(anchor), "{}: {link}: no such heading", page.path.display());
            }
            count += 1;
        }
    }
    assert!(count > 40, "only {count} links found");
}

/// Paths between backquotes too, but for those that a reader is to make or to fill in.
#[test]
fn every_file_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders =
        ["src/", "crates/", "tests/", "scripts/", "benches/", "examples/", "configs/", "fuzz/", "gpu-check/", "docs/"];
    let mut count = 0;
    for page in pages().into_iter().chain(["CHANGELOG.md", "CONTRIBUTING.md"].map(Page::read)) {
        for span in page.prose().split('`').skip(1).step_by(2) {
            let path = span.split_whitespace().next().unwrap_or_default();
            if folders.iter().any(|folder| path.starts_with(folder)) && !path.contains('<') && !path.contains("gated") {
                assert!(root.join(path).exists(), "{}: {path} is not there", page.path.display());
                count += 1;
            }
        }
    }
    assert!(count > 60, "only {count} files named");
}

#[test]
fn the_summary_has_every_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let names = fs::read_dir(folder).unwrap().map(|entry| PathBuf::from(entry.unwrap().file_name()));
    let pages = names.filter(|name| name.extension().is_some_and(|extension| extension == "md"));
    let pages: BTreeSet<String> =
        pages.map(|name| name.display().to_string()).filter(|name| name != "SUMMARY.md").collect();
    assert_eq!(Page::read("docs/SUMMARY.md").links().into_iter().collect::<BTreeSet<_>>(), pages);
}

#[test]
fn the_order_of_the_modules_is_drawn() {
    let library = Page::read("src/lib.rs");
    let declared: Vec<&str> =
        library.text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let drawn = Page::read("CONTRIBUTING.md").blocks("text").into_iter().find(|block| block.contains(" v\n")).unwrap();
    let drawn: Vec<&str> =
        drawn.lines().filter_map(|line| line.split_once('|')).flat_map(|(names, _)| names.split_whitespace()).collect();
    assert_eq!(drawn, declared);
}

/// A reader's editor and `git diff` show 120 columns; only tables are wider.
#[test]
fn lines_are_short() {
    for page in pages().into_iter().chain(["CHANGELOG.md", "CONTRIBUTING.md"].map(Page::read)) {
        for (number, line) in page.text.lines().enumerate().filter(|(_, line)| !line.starts_with('|')) {
            assert!(line.chars().count() <= 120, "{}:{}: over 120 characters", page.path.display(), number + 1);
        }
    }
    assert!(Page::read("README.md").text.lines().count() <= 150);
}
