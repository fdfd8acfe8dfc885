//! `cargo bench --bench epoch -- [LENGTHS]`: an epoch of training over utterances of real lengths at the base model's
//! sizes, without and with the feature cache. LENGTHS is a JSON list of [tokens, samples]; without it
//! `lengths-64.json` of the folder `CLASP_TEST_DATA` is taken.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

#[expect(clippy::print_stderr, reason = "what a benchmark says is for people")]
fn main() -> ExitCode {
    // Cargo adds a flag of its own.
    let given = std::env::args().skip(1).find(|argument| argument != "--bench").map(PathBuf::from);
    let data = || std::env::var_os("CLASP_TEST_DATA").map(|folder| Path::new(&folder).join("lengths-64.json"));
    let Some(lengths) = given.or_else(data) else {
        eprintln!("name a file of lengths (cargo bench --bench epoch -- FILE), or set CLASP_TEST_DATA");
        return ExitCode::FAILURE;
    };
    for more in [&[][..], &["--feature-cache"]] {
        let status = Command::new(env!("CARGO_BIN_EXE_clasp"))
            .args(["bench", "--size", "base", "--only", "train", "--warmup", "1", "--steps", "1", "--lengths"])
            .arg(&lengths)
            .args(more)
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
