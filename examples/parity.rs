//! Holds a full-size export of `scripts/clasp_torch.py` against the program: prints a JSON object of tensor name to the
//! largest difference over the largest expected value, in f32 or in bf16. `scripts/check_base_size.py` calls it.
#![recursion_limit = "256"]
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a tool that a script runs")]

#[path = "../tests/suite/reference.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod reference;

use std::{collections::BTreeMap, path::PathBuf};

use clasp::config::Precision;

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: parity FOLDER [bf16]"));
    let precision = std::env::args().nth(2).map(|word| Precision::from_word(&word).expect("f32 or bf16"));
    let reference = reference::Reference::read(&folder);
    let found = reference.compute(&folder, precision.unwrap_or(Precision::F32));
    let largest = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).fold(0.0_f32, f32::max);
    let errors: BTreeMap<&String, f32> = reference
        .expected
        .iter()
        .map(|(name, expected)| {
            let difference = largest(&mut found[name].iter().zip(expected).map(|(found, expected)| found - expected));
            (name, difference / largest(&mut expected.iter().copied()).max(f32::MIN_POSITIVE))
        })
        .collect();
    println!("{}", serde_json::json!(errors));
}
