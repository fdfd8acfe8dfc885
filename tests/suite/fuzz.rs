//! What the fuzz targets check, checked without a fuzzer: on the corpus, which holds every case that was ever found, and
//! on some thousands of damaged copies of it.

use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../../fuzz/bodies.rs"]
mod bodies;
#[path = "../../fuzz/damage.rs"]
mod damage;

/// Every case takes milliseconds. One that takes much longer has made the program believe a number that is too large.
const LONGEST: Duration = Duration::from_secs(5);

fn check(target: &str, rounds: usize, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "{paths:?}");
    let cases: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    damage::each(&cases, rounds, |bytes| {
        let begun = Instant::now();
        body(bytes);
        assert!(begun.elapsed() < LONGEST, "it took {:?}", begun.elapsed());
    });
}

#[test]
fn manifests() {
    check("manifest", 500, bodies::manifest);
}

#[test]
fn audio() {
    check("audio", 100, bodies::audio);
}

#[test]
fn tensors() {
    check("tensors", 300, bodies::tensors);
}
