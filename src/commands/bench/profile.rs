//! `clasp bench --profile`: the share of each part in the time, and how fast the device computes against how fast it
//! multiplies matrices.

use std::time::Instant;

use burn::tensor::Tensor;
use serde_json::{Value, json};

use clasp::{
    choices::Precision,
    cli::Job,
    nn::{Init, Linear},
    ops::Ops,
    profile::{Spent, Stage},
};

/// How often a product is measured.
const ROUNDS: usize = 9;

/// What [`Spent`] says over some steps, as an object: `share` of each part, `operations` of a step (a multiplication and
/// an addition are two; of a training step those of the backward are twice the forward's, and none in the frozen feature
/// encoder), `operations_per_second`, and these over `matrix_rate`.
pub fn object(spent: &[Spent], job: Job, steps: f64, median: f64, matrix_rate: f64) -> Value {
    let seconds: f64 = spent.iter().map(|part| part.seconds).sum();
    let share = spent.iter().map(|part| (part.part.name().to_owned(), json!(part.seconds / seconds))).collect();
    let times = |part: Stage| if job == Job::Predict || part == Stage::FeatureEncoder { 1.0 } else { 3.0 };
    let operations = spent.iter().map(|part| part.operations * times(part.part)).sum::<f64>() / steps;
    let rate = operations / median;
    json!({
        "share": Value::Object(share),
        "operations": operations,
        "operations_per_second": rate,
        "matrix_operations_per_second": matrix_rate,
        "of_matrix_rate": rate / matrix_rate,
    })
}

/// Floating-point operations a second of a device in a product of [rows, inner] and [inner, columns]: the median of a few
/// rounds, with nothing else running.
///
/// # Errors
/// The device failed.
#[expect(clippy::cast_precision_loss, reason = "a number that is shown")]
pub fn matrix_rate<B: Ops>(
    [rows, inner, columns]: [usize; 3],
    precision: Precision,
    device: &B::Device,
) -> Result<f64, String> {
    let map = Linear::<B>::uniform(inner, columns, &mut Init::fresh(1, device));
    let x: Tensor<B, 2> = Init::<B>::fresh(2, device).uniform([rows, inner], -1.0, 1.0).val();
    let mut seconds: Vec<f64> = (0..ROUNDS + 2)
        .map(|_| {
            let started = Instant::now();
            let y = map.forward_in(x.clone(), precision);
            B::sync(device).map_err(|problem| problem.to_string())?;
            drop(y);
            Ok(started.elapsed().as_secs_f64())
        })
        .collect::<Result<_, String>>()?;
    // The first ones warm up.
    seconds.drain(..2);
    seconds.sort_by(f64::total_cmp);
    Ok(2.0 * (rows * inner * columns) as f64 / seconds[ROUNDS / 2])
}
