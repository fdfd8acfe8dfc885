//! The table as CSV: a line for each system on each corpus, with every number.

use anyhow::Context as _;

use super::result::{Cell, Results};
use crate::eval::statistics::Interval;

/// A line for each system on each corpus, with every number.
pub(super) fn csv(results: &Results) -> anyhow::Result<Vec<u8>> {
    let mut head: Vec<String> = ["corpus", "system", "method", "ablation", "runs"].map(str::to_owned).to_vec();
    let metrics = ["accuracy", "balanced_accuracy", "weighted_f1", "macro_f1"];
    let columns = [
        "mean",
        "deviation",
        "pooled",
        "low",
        "high",
        "difference",
        "difference_low",
        "difference_high",
        "p",
        "p_holm",
    ];
    head.extend(metrics.iter().flat_map(|metric| columns.map(|column| format!("{metric}_{column}"))));
    let rest = [
        "mcnemar_only_reference",
        "mcnemar_only_system",
        "mcnemar_form",
        "mcnemar_p",
        "mcnemar_p_holm",
        "parameters",
        "seconds",
        "peak_memory_bytes",
        "device_memory_bytes",
        "most_test_uses",
        "run_names",
    ];
    head.extend(rest.map(str::to_owned));
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(&head)?;
    for corpus in &results.corpora {
        for cell in &corpus.systems {
            writer.write_record(csv_row(&corpus.name, cell))?;
        }
    }
    writer.into_inner().context("the table as CSV")
}

fn csv_row(corpus: &str, cell: &Cell) -> Vec<String> {
    let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let bounds = |interval: Option<Interval>| [0, 1].map(|bound| optional(interval.map(|interval| interval[bound])));
    let mut row = vec![corpus.to_owned(), cell.system.clone(), cell.method.clone(), cell.ablation.clone()];
    row.push(cell.runs.len().to_string());
    let against = cell.against.as_ref();
    let deviation = cell.deviation.map(|deviation| deviation.map(Some)).unwrap_or_default();
    let difference = against.map(|against| against.comparison.difference.map(Some)).unwrap_or_default();
    let corrected = against.map(|against| against.p_holm.map(Some)).unwrap_or_default();
    let values = cell.mean.zip(deviation).zip(cell.pooled).zip(difference).zip(corrected);
    for (_, &((((mean, deviation), pooled), difference), corrected)) in values.named() {
        row.extend([mean.to_string(), optional(deviation), pooled.value.to_string()]);
        row.extend(bounds(pooled.interval));
        let [low, high] = bounds(difference.and_then(|difference| difference.interval));
        row.extend([
            optional(difference.map(|difference| difference.value)),
            low,
            high,
            optional(difference.map(|difference| difference.p_value)),
            optional(corrected),
        ]);
    }
    let word = |value: Option<String>| value.unwrap_or_default();
    let mcnemar = against.map(|against| against.comparison.mcnemar);
    row.extend([
        word(mcnemar.map(|test| test.only_first.to_string())),
        word(mcnemar.map(|test| test.only_second.to_string())),
        word(mcnemar.map(|test| test.form.word().to_owned())),
        optional(mcnemar.map(|test| test.p_value)),
        optional(against.map(|against| against.mcnemar_p_holm)),
        word(cell.parameters.map(|count| count.to_string())),
        optional(cell.seconds),
        word(cell.peak_memory_bytes.map(|bytes| bytes.to_string())),
        word(cell.device_memory_bytes.map(|bytes| bytes.to_string())),
        cell.runs.iter().map(|run| run.test_uses).max().unwrap_or_default().to_string(),
        cell.runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(" "),
    ]);
    row
}
