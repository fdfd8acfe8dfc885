//! Tells the program from which commit, with which compiler and on which Burn it was built. Never fails: where there is
//! no git, no checkout or no answer, the program does not know.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Some(version) =
        std::env::var_os("RUSTC").and_then(|compiler| output(Command::new(compiler).arg("--version")))
    {
        println!("cargo:rustc-env=CLASP_RUST={version}");
    }
    println!("cargo:rerun-if-changed=Cargo.lock");
    if let Some(version) = burn_version() {
        println!("cargo:rustc-env=CLASP_BURN={version}");
    }
    if let Some(state) = git_state() {
        println!("cargo:rustc-env=CLASP_GIT={state}");
    }
}

/// The version of Burn, as the lock file has it.
fn burn_version() -> Option<String> {
    let lock = std::fs::read_to_string("Cargo.lock").ok()?;
    let (_, rest) = lock.split_once("name = \"burn\"\nversion = \"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// The commit, with `-dirty` where tracked files differ from it.
fn git_state() -> Option<String> {
    // A folder that merely lies in somebody's checkout, as an unpacked archive may, has no state of its own.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::var_os("CARGO_MANIFEST_DIR")?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // What changes the state: another commit, and an edit of what the program is built from. Not the index: every
    // `git add` would build the program anew.
    let head = git(&["rev-parse", "--symbolic-full-name", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "packed-refs", head.as_str()] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).is_file()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for name in ["src", "crates", "configs", "Cargo.toml", "Cargo.lock"] {
        if Path::new(name).exists() {
            println!("cargo:rerun-if-changed={name}");
        }
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"]);
    Some(if changes.is_some_and(|changes| !changes.is_empty()) { format!("{commit}-dirty") } else { commit })
}

fn git(arguments: &[&str]) -> Option<String> {
    // Without the lock that `git status` takes to refresh its index: somebody may be at work in the checkout.
    output(Command::new("git").env("GIT_OPTIONAL_LOCKS", "0").args(arguments))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
