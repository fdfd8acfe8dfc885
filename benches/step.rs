//! `cargo bench --bench step -- [FLAGS OF clasp bench]`: a step of training and a prediction at the base model's sizes, and
//! where their time goes. `benches/compare.sh` does the same beside the reference.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // Cargo adds a flag of its own.
    let flags = std::env::args().skip(1).filter(|flag| flag != "--bench");
    let status = Command::new(env!("CARGO_BIN_EXE_clasp"))
        .args(["bench", "--size", "base", "--steps", "5", "--profile"])
        .args(flags)
        .status();
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
