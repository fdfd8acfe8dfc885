//! Training on several devices: two replicas on the CPU take the same path as CUDA devices do.

use std::{collections::BTreeMap, fs, path::Path};

use burn::backend::flex::FlexDevice;
use clasp::{
    checkpoint::{self, parameters},
    config::{ClassWeights, Precision},
    data::batch::Batch,
    loss::class_weights,
    train::{
        gradients::GradientWindow,
        group::{Group, Member},
        optimizer::{Optimizer, OptimizerConfig},
        replica::{MicroBatch, Objective, Replica, StepPlan},
        step_result::StepResult,
    },
};

use crate::{
    program::{clasp, folder, lines_of, program},
    reference::{Cpu, Reference, Train, relative_error, values},
    updates::weights,
};

type Gradients = BTreeMap<String, Vec<f32>>;

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name)
}

/// The reference's inputs as the data path gives them.
pub fn batch(name: &str) -> Batch {
    let Reference { inputs, labels, .. } = Reference::read(&fixture(name));
    Batch {
        indices: (0..labels.len()).collect(),
        ids: labels.iter().map(ToString::to_string).collect(),
        tokens: inputs.tokens,
        token_lengths: inputs.text_lengths.valid().to_vec(),
        waveforms: inputs.waveforms,
        sample_lengths: inputs.speech_lengths.valid().to_vec(),
        features: Vec::new(),
        labels: labels.into_iter().map(Some).collect(),
    }
}

/// With unlike class weights and smoothing, so that a mean over the wrong number shows.
pub fn objective(name: &str, gather_negatives: bool) -> Objective {
    let config = checkpoint::CheckpointConfig::read(&fixture(name)).unwrap();
    let labels = config.labels.len();
    let counts: Vec<usize> = (1..=labels).collect();
    Objective {
        labels,
        label_weights: class_weights(ClassWeights::Inverse, &counts),
        gather_negatives,
        hidden_size: config.architecture.hidden_size,
        clip_norm: Some(0.5),
        precision: Precision::F32,
        loss: clasp::loss::LossConfig { label_smoothing: 0.1, semantic: 0.3, modality: 0.2, ..config.loss },
    }
}

pub fn replica(name: &str, objective: Objective) -> Replica<Cpu> {
    let loaded = checkpoint::load::<Cpu>(&fixture(name), &FlexDevice).unwrap();
    let optimizer = Optimizer::<Train>::new(OptimizerConfig {
        decoupled: true,
        weight_decay: 0.1,
        learning_rate: 1e-3,
        encoder_learning_rate: 5e-4,
        layer_decay: 1.0,
        text_layers: 2,
        speech_layers: 2,
        speech_norm_is_last: false,
    });
    Replica::new(parameters::trainable(loaded.model), optimizer, objective, &FlexDevice)
}

fn plain(replica: &Replica<Cpu>, mut window: GradientWindow<Cpu>) -> Gradients {
    let shapes = parameters::shapes(replica.model()).into_iter();
    shapes.filter_map(|(name, shape)| Some((name.clone(), values(window.take(&name)?.into_data(&shape))))).collect()
}

/// What one device makes of a window of batches, without dropout.
fn alone(name: &str, objective: &Objective, batches: &[Batch]) -> (Gradients, StepResult) {
    let replica = replica(name, objective.clone());
    let parts = objective.parts(batches, 1, |_| None).remove(0);
    let (window, _, stepped) = replica.gradients(&parts).unwrap();
    (plain(&replica, window), stepped)
}

/// Does something on each of `count` devices, and gives the results in their order.
fn together<T: Send>(
    name: &str,
    objective: &Objective,
    parts: &[Vec<MicroBatch>],
    work: impl Fn(&mut Replica<Cpu>, &[MicroBatch]) -> T + Sync,
) -> Vec<T> {
    let group = Group::new(parts.len());
    std::thread::scope(|scope| {
        let device = |(rank, own): (usize, &Vec<MicroBatch>)| {
            let (group, own, work) = (group.clone(), own.clone(), &work);
            scope.spawn(move || {
                let mut replica = replica(name, objective.clone());
                replica.join(Member::join(rank, parts.len(), group).unwrap());
                work(&mut replica, &own)
            })
        };
        let threads: Vec<_> = parts.iter().enumerate().map(device).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn assert_near(what: &str, (found, stepped): &(Gradients, StepResult), (expected, whole): &(Gradients, StepResult)) {
    assert!(found.keys().eq(expected.keys()), "{what}");
    for (parameter, expected) in expected {
        // Small gradients are sums that cancel: they are held against a hundredth of the whole.
        let error = relative_error(&found[parameter], expected, 1e-2 * whole.norms.total);
        assert!(error < 1e-5, "{what}: {parameter} is off by {error:e}");
    }
    for ((name, found), (_, expected)) in stepped.losses.0.iter().zip(&whole.losses.0) {
        let error = (found - expected).abs();
        assert!(error < 1e-5 * expected.abs().max(0.1), "{what}: {name} is {found} and should be {expected}");
    }
    assert!((stepped.norms.total - whole.norms.total).abs() < 1e-5 * whole.norms.total, "{what}");
    assert!(stepped.norms.groups.keys().eq(whole.norms.groups.keys()), "{what}");
}

#[test]
fn several_devices_are_one() {
    for name in ["group-norm", "layer-norm", "adapters"] {
        let whole = batch(name);
        let size = whole.len();
        let window = [whole.clone(), whole.rows(1..size)];
        let gathered = objective(name, true);
        // One batch on two devices; two batches, the second not to be halved; fewer examples than devices.
        let few = [whole.rows(0..2)];
        for (batches, count) in [(&window[..1], 2), (&window[..], 2), (&few[..], 3)] {
            let expected = alone(name, &gathered, batches);
            let parts = gathered.parts(batches, count, |_| None);
            assert_eq!(parts.iter().map(|parts| parts[0].batch.len()).sum::<usize>(), batches[0].len());
            let found = together(name, &gathered, &parts, |replica, parts| {
                let (window, _, stepped) = replica.gradients(parts).unwrap();
                (plain(replica, window), stepped)
            });
            for each in &found {
                assert_near(&format!("{name} on {count} devices"), each, &expected);
                assert_eq!(each.1, found[0].1, "{name}: the devices disagree");
            }
        }
        // Each device contrasts its own half: to one device these are two batches.
        let own = objective(name, false);
        let half = size.div_ceil(2);
        let expected = alone(name, &own, &[whole.rows(0..half), whole.rows(half..size)]);
        let parts = own.parts(&window[..1], 2, |_| None);
        let found = together(name, &own, &parts, |replica, parts| {
            let (window, _, stepped) = replica.gradients(parts).unwrap();
            (plain(replica, window), stepped)
        });
        assert_near(&format!("{name}, own negatives"), &found[0], &expected);
        let semantic = |stepped: &StepResult| stepped.losses.0[4].1;
        let of_all = alone(name, &gathered, &window[..1]);
        assert!((semantic(&found[0].1) - semantic(&of_all.1)).abs() > 1e-2, "{name}: both see the same negatives");
    }
    // With dropout, and with updates: the copies stay the same to the bit.
    let objective = objective("group-norm", true);
    let whole = batch("group-norm");
    let parts = objective.parts(&[whole], 2, |batch| Some((7, batch as u64)));
    let copies = together("group-norm", &objective, &parts, |replica, parts| {
        for _ in 0..3 {
            replica.step(&StepPlan { parts: parts.to_vec(), schedule: 1.0 }).unwrap();
        }
        weights(replica.model())
    });
    assert!(copies[0] == copies[1], "the copies differ");
}

/// No dropout, no masking, no layer drop: then the devices' own randomness has no part in it.
const STILL: [&str; 11] = [
    "train",
    "--config",
    "tiny.toml",
    "--set",
    "model.dropout=0",
    "--set",
    "speech.config.mask_time_prob=0",
    "--set",
    "speech.config.layerdrop=0",
    "--set",
    "train.epochs=3",
];

#[test]
fn a_run_on_two_devices_is_one_on_one() {
    let folder = folder();
    let at = folder.path();
    let train = |more: &[&str]| clasp(at, &[&STILL[..], more].concat());
    train(&["--set", "run.dir=one", "--device", "cpu"]).good();
    let said = train(&["--set", "run.dir=two", "--device", "cpu,cpu"]).good();
    for words in ["on cpu and cpu with", "shared by 2 devices", "the contrastive terms see the whole batch"] {
        assert!(said.stderr.contains(words), "{}", said.stderr);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(at.join("two/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["sessions"][0]["device"], "cpu and cpu");
    let (one, two) = (lines_of(&at.join("one/log.jsonl")), lines_of(&at.join("two/log.jsonl")));
    assert_eq!(one.len(), two.len());
    for (one, two) in one.iter().zip(&two).filter(|(one, _)| one["event"] == "step") {
        for term in ["total", "task_fusion", "semantic", "modality", "reconstruction", "kl"] {
            let (expected, found) = (one["loss"][term].as_f64().unwrap(), two["loss"][term].as_f64().unwrap());
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(0.1), "{term}: {found} for {expected}");
        }
    }
    // More than two are added up in one order, whoever comes first.
    let weights = ["three", "three-again"].map(|run| {
        train(&["--set", &format!("run.dir={run}"), "--device", "cpu,cpu,cpu"]).good();
        fs::read(at.join(run).join("last/model.safetensors")).unwrap()
    });
    assert!(weights[0] == weights[1], "three devices gave two results");
    // Stopped in the middle, and continued: the same to the bit.
    let stop = ["--set", "run.dir=stopped", "--set", "train.save_every_steps=2", "--device", "cpu,cpu"];
    let mut child = program(at).args(STILL).args(stop).stderr(std::process::Stdio::null()).spawn().unwrap();
    while !at.join("stopped/last").is_dir() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    train(&[&stop[..], &["--resume"]].concat()).good();
    for file in ["last/model.safetensors", "best/model.safetensors", "last/state.json"] {
        let read = |run: &str| fs::read(at.join(run).join(file)).unwrap();
        assert!(read("two") == read("stopped"), "{file} differs");
    }
}

#[test]
fn devices_that_cannot_work_together_are_refused() {
    let folder = folder();
    let at = folder.path();
    let train = |more: &[&str]| clasp(at, &[&STILL[..], more].concat());
    train(&["--device", "cpu,cpu,cpu", "--set", "train.batch_size=2"])
        .bad(2, &["train.batch_size", "too few for 3 devices"]);
    train(&["--device", "cpu,cuda:0"]).bad(2, &["each named once, as in cuda:0,1"]);
    train(&["--set", "run.device=cuda:1,1"]).bad(2, &["run.device", "cuda:0,1"]);
    clasp(at, &["predict", "--checkpoint", "x", "--text", "x", "--device", "cpu,cpu"])
        .bad(2, &["several devices work together only in training"]);
    assert!(!at.join("run").exists());
}
