//! `clasp bench --profile`: the share of each part in the time, and how fast the device computes against how fast it
//! multiplies matrices.

use serde_json::{Value, json};

use clasp::{
    cli::Job,
    profile::{Part, Spent},
};

/// What [`Spent`] says over some steps, as an object: `share` of each part, `operations` of a step (a multiplication and
/// an addition are two; of a training step those of the backward are twice the forward's, and none in the frozen feature
/// encoder), `operations_per_second`, and these over `matrix_rate`.
pub fn object(spent: &[Spent], job: Job, steps: f64, median: f64, matrix_rate: f64) -> Value {
    let seconds: f64 = spent.iter().map(|part| part.seconds).sum();
    let share = spent.iter().map(|part| (part.part.name().to_owned(), json!(part.seconds / seconds))).collect();
    let times = |part: Part| if job == Job::Predict || part == Part::FeatureEncoder { 1.0 } else { 3.0 };
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
