//! Losses that are read several steps later, as on a CUDA device: the same run, and nothing lost where it ends early.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use burn::backend::flex::FlexDevice;
use clasp::{
    config,
    device::ResolvedDevice,
    run::RunFolder,
    terminal::Event,
    train::{
        Diverged, Interrupted, Outcome, Start,
        replica::{Objective, Replica, StepPlan},
        setup, train,
    },
};
use safetensors::SafeTensors;

use crate::{
    devices::{batch, objective, replica},
    program::{folder, lines_of},
    reference::{Cpu, norm, relative_error},
    train::assert_same,
};

/// Trains the tiny config into a folder; `tell` hears each step that is read.
fn run(
    at: &Path,
    (dir, read_every): (&str, usize),
    sets: &[&str],
    tell: &mut dyn FnMut(usize),
    is_stopped: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let mut overrides: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    overrides.push(format!("run.dir={}", at.join(dir).display()));
    let config = config::load(&at.join("tiny.toml").display().to_string(), &overrides)?;
    let material = setup::prepare(&config)?;
    let folder = RunFolder::new(&config.run.dir);
    fs::create_dir_all(folder.path())?;
    let start = Start {
        material: &material,
        folder: &folder,
        first: ResolvedDevice::Cpu,
        is_resumed: false,
        features: None,
        read_every,
        is_stopped,
    };
    let tell = &mut |event: &Event| {
        if let Event::Step { entry, .. } = event {
            tell(entry.step);
        }
    };
    train::<Cpu>(start, &[FlexDevice], || Ok(()), tell)
}

/// Twelve batches of two in windows of five, five and two: three steps an epoch, saved within it every second step. The
/// gradients are clipped.
const SETS: [&str; 6] = [
    "train.epochs=3",
    "train.clip_norm=0.5",
    "train.batch_size=2",
    "train.accumulation_steps=5",
    "train.save_every_steps=2",
    "speech.config.mask_time_prob=0.5",
];

#[test]
fn losses_that_are_read_later_make_the_same_run() {
    let folder = folder();
    let at = folder.path();
    let go_on = AtomicBool::new(false);
    for (dir, read_every) in [("at-once", 1), ("later", 2), ("at-the-end", 100)] {
        let mut told = Vec::new();
        run(at, (dir, read_every), &SETS, &mut |step| told.push(step), &go_on).unwrap();
        assert_eq!(told, (1..=9).collect::<Vec<_>>());
        assert_same(&at.join(dir), &at.join("at-once"));
    }
}

#[test]
fn a_run_that_is_stopped_has_the_losses_of_all_its_steps() {
    let folder = folder();
    let at = folder.path();
    let problem = run(at, ("run", 100), &SETS, &mut |_| {}, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(problem.downcast_ref::<Interrupted>().map(|stop| stop.step), Some(1), "{problem}");
    assert_eq!(lines_of(&at.join("run/log.jsonl")).len(), 1);
    assert!(at.join("run/last").is_dir());

    // In the middle: what was taken until then is in the log and in the checkpoint.
    let is_stopped = AtomicBool::new(false);
    let mut tell = |step| is_stopped.store(step >= 2, Ordering::SeqCst);
    let problem = run(at, ("other", 2), &SETS, &mut tell, &is_stopped).unwrap_err();
    let steps = problem.downcast_ref::<Interrupted>().map(|stop| stop.step).unwrap();
    let log = lines_of(&at.join("other/log.jsonl"));
    assert_eq!(log.iter().filter(|entry| entry["event"] == "step").count(), steps);
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(at.join("other/last/state.json")).unwrap()).unwrap();
    assert_eq!(state["step"], steps);
}

/// At this rate the second step's loss is not finite, and neither is any later one.
#[test]
fn the_first_step_that_diverged_is_named_and_nothing_of_it_is_saved() {
    let folder = folder();
    let at = folder.path();
    let sets = ["train.learning_rate=1e30"];
    let problem = run(at, ("run", 100), &sets, &mut |_| {}, &AtomicBool::new(false)).unwrap_err();
    let diverged = problem.downcast_ref::<Diverged>().unwrap();
    assert_eq!((diverged.step, diverged.epoch, diverged.ids.len()), (2, 1, 4));
    assert!(diverged.what.starts_with("the loss term"), "{}", diverged.what);
    assert_eq!(lines_of(&at.join("run/log.jsonl")).len(), 1);
    assert!(!at.join("run/last").exists() && !at.join("run/best").exists());
}

/// Whether the host waits for a step or not, the same is clipped.
#[test]
fn gradients_are_clipped_on_the_device_as_on_the_host() {
    let whole = batch("group-norm");
    // Above the norm, so that nothing is clipped, and below it.
    for limit in [1e6, 0.5, 1e-3] {
        let objective = Objective { clip_norm: Some(limit), ..objective("group-norm", true) };
        let parts = objective.parts(&[whole.clone(), whole.rows(1..whole.len())], 1, |_| None).remove(0);
        let plan = StepPlan { parts, schedule: 1.0 };
        let (mut host, mut device) =
            (replica("group-norm", objective.clone()), replica("group-norm", objective.clone()));
        for _ in 0..2 {
            let expected = host.step(&plan).unwrap();
            let found = device.step_ahead(&plan).unwrap().read();
            assert!((found.norms.total - expected.norms.total).abs() < 1e-4 * expected.norms.total);
            assert_eq!(found.norms.total > limit, limit < 1.0);
        }
        // Adam's moments: its updates hardly tell the size of a gradient.
        let (expected, found) = (moments(&host), moments(&device));
        assert!(found.keys().eq(expected.keys()));
        let largest = expected.values().map(|values| norm(values)).fold(0.0, f64::max);
        for (name, expected) in &expected {
            let error = relative_error(&found[name], expected, 1e-2 * largest);
            assert!(error < 1e-5, "{name} is off by {error:e} where norms above {limit} are clipped");
        }
    }
}

/// The running means of the gradients.
fn moments(replica: &Replica<Cpu>) -> BTreeMap<String, Vec<f32>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimizer.safetensors");
    replica.optimizer().save(&path).unwrap();
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let means = file.tensors().into_iter().filter(|(name, _)| name.ends_with(".exp_avg"));
    let values = |bytes: &[u8]| bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    means.map(|(name, view)| (name, values(view.data()))).collect()
}
