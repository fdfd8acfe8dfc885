//! The paired tests of two runs as plain text.

use std::fmt::Write as _;

use super::table::Table;
use crate::eval::comparison::Comparison;
use crate::eval::paired::{McNemar, McNemarForm};
use crate::eval::statistics::{FEW_CLUSTERS, Interval};
use crate::units::counted;

/// Both runs' numbers side by side, their differences with intervals and p, and `McNemar`'s test. `second` is the run
/// that is told of, `first` the one that it is compared with.
pub fn render(split: &str, first: &str, second: &str, comparison: &Comparison) -> String {
    let mut text = format!("{split}: {} utterances\na: {second}\nb: {first}\n\n", comparison.utterances);
    let mut table = Table::new(["", "a", "b", "a - b", "p"]);
    let numbers = comparison.second.named().into_iter().zip(comparison.first.named());
    for (((name, second), (_, first)), (_, difference)) in numbers.zip(comparison.difference.named()) {
        table.row([
            name.to_owned(),
            format!("{second:.3}"),
            format!("{first:.3}"),
            difference_words(difference.value, difference.interval),
            p_words(difference.p_value),
        ]);
    }
    let bootstrap = &comparison.bootstrap;
    let over = units_words(bootstrap.cluster.as_deref(), comparison.clusters);
    let _ = writeln!(
        text,
        "{table}in brackets: {:.0}% intervals; paired bootstrap over {over}, {} resamples, seed {}; p two-sided, not \
         corrected for the number of comparisons\n",
        bootstrap.level * 100.0,
        bootstrap.resamples,
        bootstrap.seed
    );
    let McNemar { only_first, only_second, form, p_value } = comparison.mcnemar;
    let form = match form {
        McNemarForm::Exact => "exact",
        McNemarForm::Corrected => "chi-squared with continuity correction",
    };
    let _ = writeln!(
        text,
        "McNemar: {only_second} right only in a, {only_first} only in b, p {} ({form})",
        p_words(p_value)
    );
    if let Some(clusters) = comparison.clusters {
        let _ = writeln!(text, "{}", cluster_note(clusters));
    }
    text
}

/// What the bootstrap draws: `utterances`, or `12 clusters by dialogue`.
pub fn units_words(cluster: Option<&str>, clusters: Option<usize>) -> String {
    match (cluster, clusters) {
        (Some(key), Some(clusters)) => format!("{} by {key}", counted(clusters, "cluster")),
        (Some(key), None) => format!("clusters by {key}"),
        (None, _) => "utterances".to_owned(),
    }
}

/// How intervals over few clusters are made; `None` if there are enough.
pub fn few_clusters_note(clusters: usize) -> Option<String> {
    match clusters {
        0 | 1 => Some("caution: there is only one cluster, so that there are no intervals".to_owned()),
        _ if clusters < FEW_CLUSTERS => Some(format!(
            "caution: there are only {clusters} clusters, so that intervals are t-intervals with {} of freedom over the \
             clusters, and p likewise; where they agree exactly there is no interval",
            if clusters == 2 { "1 degree".to_owned() } else { format!("{} degrees", clusters - 1) }
        )),
        _ => None,
    }
}

/// What a reader of tests over clusters should know.
pub fn cluster_note(clusters: usize) -> String {
    let few = few_clusters_note(clusters).map_or_else(String::new, |note| note + "; ");
    format!("{few}McNemar's test assumes independent utterances and ignores the clusters")
}

/// A difference with its sign and its interval, if it has one.
pub fn difference_words(value: f64, interval: Option<Interval>) -> String {
    interval.map_or_else(|| format!("{value:+.3}"), |[low, high]| format!("{value:+.3} [{low:+.3} {high:+.3}]"))
}

/// A p-value as it is printed: two digits that count, or that it is below 0.001.
pub fn p_words(p_value: f64) -> String {
    if p_value < 0.001 {
        "< 0.001".to_owned()
    } else if p_value < 0.1 {
        format!("{p_value:.3}")
    } else {
        format!("{p_value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::Headline;
    use crate::eval::paired::Difference;
    use crate::eval::report::Bootstrap;

    #[test]
    fn the_numbers_stand_side_by_side() {
        let number = |value: f64| Headline { accuracy: value, ..Headline::default() };
        let difference = Difference { value: 0.25, interval: Some([-0.0125, 0.5]), p_value: 0.0444 };
        let comparison = Comparison {
            pairs: 8,
            utterances: 8,
            clusters: None,
            first: number(0.5),
            second: number(0.75),
            difference: Headline::<()>::default().map(|()| difference),
            mcnemar: McNemar::of(1, 3),
            bootstrap: Bootstrap { resamples: 100, seed: 1, level: 0.95, cluster: None, clusters: None },
        };
        let text = render("dev", "runs/b", "runs/a", &comparison);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["dev: 8 utterances", "a: runs/a", "b: runs/b"]);
        let words: Vec<&str> = lines[5].split_whitespace().collect();
        assert_eq!(words, ["accuracy", "0.750", "0.500", "+0.250", "[-0.013", "+0.500]", "0.044"]);
        assert!(lines[9].starts_with("in brackets: 95% intervals; paired bootstrap over utterances, 100"), "{text}");
        // 2·(1 + 4)/16
        assert_eq!(lines[11], "McNemar: 3 right only in a, 1 only in b, p 0.62 (exact)");
        let bootstrap = Bootstrap { cluster: Some("scene".to_owned()), ..comparison.bootstrap.clone() };
        let text = render("dev", "b", "a", &Comparison { clusters: Some(9), bootstrap, ..comparison });
        assert!(text.contains("bootstrap over 9 clusters by scene, 100"), "{text}");
        assert!(
            text.contains("only 9 clusters, so that intervals are t-intervals with 8 degrees of freedom")
                && text.contains("ignores the clusters"),
            "{text}"
        );
        assert!(cluster_note(10).starts_with("McNemar's test assumes"));
        assert_eq!([0.0002, 0.001, 0.0999, 0.1, 1.0].map(p_words), ["< 0.001", "0.001", "0.100", "0.10", "1.00"]);
    }
}
