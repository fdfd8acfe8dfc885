//! Tests that cannot run everywhere: samples of public corpora, and one line for each test that is skipped. Unit tests
//! of the library include this file too.

use std::{
    env,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
};

/// A file or folder in the folder that `CLASP_TEST_DATA` names; none, with the test listed as skipped, if it is not there.
pub fn test_data(name: &str) -> Option<PathBuf> {
    in_folder("CLASP_TEST_DATA", name)
}

/// The same of `CLASP_TEST_MODELS`, which `scripts/real_weights.py` makes.
#[allow(dead_code, reason = "unit tests need no real weights")]
pub fn test_model(name: &str) -> Option<PathBuf> {
    in_folder("CLASP_TEST_MODELS", name)
}

fn in_folder(variable: &str, name: &str) -> Option<PathBuf> {
    let Some(folder) = env::var_os(variable) else {
        skip(&format!("set {variable}"));
        return None;
    };
    let path = Path::new(&folder).join(name);
    if !path.exists() {
        skip(&format!("{variable} has no {name}"));
        return None;
    }
    Some(path)
}

/// Says that the running test, or the rest of it, is skipped; also in the file that `CLASP_SKIPPED_TESTS` names, because
/// cargo shows nothing of a test that passes.
#[allow(clippy::print_stdout, reason = "what a skipped test says")]
pub fn skip(reason: &str) {
    let line = format!("skipped: {}: {reason}\n", thread::current().name().unwrap_or("a test"));
    print!("{line}");
    if let Some(path) = env::var_os("CLASP_SKIPPED_TESTS") {
        // In one write, so that lines of several tests do not mix.
        File::options().append(true).create(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}
