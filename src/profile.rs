//! Where the time of a step goes, and how much is computed in it. Off unless `clasp bench --profile` asks for it: it waits
//! for the device before and after each part.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use burn::tensor::backend::Backend;

/// The parts of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Inputs to the device.
    Data,
    /// The convolutions that turn samples into frames.
    FeatureEncoder,
    /// All of the speech encoder behind them.
    SpeechLayers,
    TextLayers,
    /// Projections, reconstruction, fusion and classifiers.
    Fusion,
    /// All terms of the loss.
    Losses,
    /// From the loss to the gradients.
    Backward,
    /// From the gradients to new parameters.
    Optimizer,
}

impl Stage {
    /// All of them, in the order of a step.
    pub const ALL: [Self; 8] = [
        Self::Data,
        Self::FeatureEncoder,
        Self::SpeechLayers,
        Self::TextLayers,
        Self::Fusion,
        Self::Losses,
        Self::Backward,
        Self::Optimizer,
    ];

    /// Its name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::FeatureEncoder => "feature_encoder",
            Self::SpeechLayers => "speech_layers",
            Self::TextLayers => "text_layers",
            Self::Fusion => "fusion",
            Self::Losses => "losses",
            Self::Backward => "backward",
            Self::Optimizer => "optimizer",
        }
    }
}

/// What one part took.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub part: Stage,
    /// Seconds by the clock.
    pub seconds: f64,
    /// Floating-point operations of its matrix products and convolutions, a multiplication and an addition being two.
    /// Only of forward passes: those of the backward are not counted.
    pub operations: f64,
}

const COUNT: usize = Stage::ALL.len();

static IS_ON: AtomicBool = AtomicBool::new(false);
static NANOSECONDS: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];
static OPERATIONS: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];
/// The number of the part that is being computed.
static CURRENT: AtomicUsize = AtomicUsize::new(0);
/// Of the first wait for a device that had failed.
static FAILURE: Mutex<Option<String>> = Mutex::new(None);

/// Begins to measure, from nothing.
pub fn start() {
    for counter in NANOSECONDS.iter().chain(&OPERATIONS) {
        counter.store(0, Ordering::Relaxed);
    }
    IS_ON.store(true, Ordering::Relaxed);
}

/// Ends it: what each part took since [`start`].
///
/// # Errors
/// The device failed meanwhile; waiting for it tells that once.
#[expect(clippy::cast_precision_loss, reason = "numbers that are shown")]
pub fn stop() -> Result<[Spent; COUNT], String> {
    IS_ON.store(false, Ordering::Relaxed);
    if let Some(problem) = FAILURE.lock().ok().and_then(|mut failure| failure.take()) {
        return Err(problem);
    }
    Ok(Stage::ALL.map(|part| Spent {
        part,
        seconds: NANOSECONDS[part as usize].load(Ordering::Relaxed) as f64 / 1e9,
        operations: OPERATIONS[part as usize].load(Ordering::Relaxed) as f64,
    }))
}

/// Waits for a device.
fn wait<B: Backend>(device: &B::Device) {
    if let (Err(problem), Ok(mut failure)) = (B::sync(device), FAILURE.lock()) {
        failure.get_or_insert(problem.to_string());
    }
}

/// Does a part's work, and measures it where that is asked for. Parts do not lie within each other.
pub fn time<B: Backend, T>(part: Stage, device: &B::Device, work: impl FnOnce() -> T) -> T {
    if !IS_ON.load(Ordering::Relaxed) {
        return work();
    }
    wait::<B>(device);
    CURRENT.store(part as usize, Ordering::Relaxed);
    let started = Instant::now();
    let result = work();
    wait::<B>(device);
    let spent = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    NANOSECONDS[part as usize].fetch_add(spent, Ordering::Relaxed);
    result
}

/// Counts the operations of a product of matrices: twice the product of these.
pub fn count(factors: &[usize]) {
    if IS_ON.load(Ordering::Relaxed) {
        let products = factors.iter().fold(1_u64, |product, &factor| product.saturating_mul(factor as u64));
        OPERATIONS[CURRENT.load(Ordering::Relaxed)].fetch_add(products.saturating_mul(2), Ordering::Relaxed);
    }
}
