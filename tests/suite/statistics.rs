//! The statistics against scikit-learn, `SciPy` and statsmodels on random tables (`scripts/check_statistics.py` writes
//! them), and how often an interval holds the truth.

use std::fmt::Debug;

use clasp::{
    eval::{
        Confusion, Headline,
        paired::{holm, mcnemar_corrected, mcnemar_exact, paired_bootstrap},
        statistics::bootstrap,
    },
    random::{Random, mix},
};
use serde::{Deserialize, de::DeserializeOwned};

fn rows<Row: DeserializeOwned>(name: &str) -> Vec<Row> {
    let path = format!("{}/tests/fixtures/statistics/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64, place: impl Debug) {
    let margin = 1e-9 * expected.abs().max(1e-3);
    assert!((found - expected).abs() <= margin, "{place:?}: {found} for {expected}");
}

#[derive(Deserialize)]
struct Scores {
    labels: usize,
    truth: Vec<usize>,
    predicted: Vec<usize>,
    confusion: Vec<Vec<u64>>,
    headline: [f64; 4],
    precision: Vec<f64>,
    recall: Vec<f64>,
    f1: Vec<f64>,
    support: Vec<u64>,
}

#[test]
fn scores_are_those_of_scikit_learn_on_random_tables() {
    let tables: Vec<Scores> = rows("scores");
    assert_eq!(tables.len(), 40);
    for (place, table) in tables.into_iter().enumerate() {
        let pairs: Vec<(usize, usize)> = table.truth.into_iter().zip(table.predicted).collect();
        let confusion = Confusion::from_pairs(table.labels, &pairs).unwrap();
        assert_eq!(confusion.rows().map(<[u64]>::to_vec).collect::<Vec<_>>(), table.confusion);
        for ((name, &found), expected) in confusion.headline().named().into_iter().zip(table.headline) {
            close(found, expected, (place, name));
        }
        for (class, score) in confusion.classes().into_iter().enumerate() {
            close(score.precision, table.precision[class], (place, class, "precision"));
            close(score.recall, table.recall[class], (place, class, "recall"));
            close(score.f1, table.f1[class], (place, class, "F1"));
            assert_eq!(score.support, table.support[class]);
        }
    }
}

#[derive(Deserialize)]
struct Discordant {
    only_first: u64,
    only_second: u64,
    exact: f64,
    corrected: f64,
}

#[test]
fn both_forms_of_mcnemar_are_those_of_statsmodels() {
    let pairs: Vec<Discordant> = rows("discordant");
    assert_eq!(pairs.len(), 68);
    for pair in pairs {
        let counts = (pair.only_first, pair.only_second);
        close(mcnemar_exact(counts.0, counts.1), pair.exact, counts);
        close(mcnemar_corrected(counts.0, counts.1), pair.corrected, counts);
    }
}

#[derive(Deserialize)]
struct Corrected {
    p_values: Vec<f64>,
    corrected: Vec<f64>,
}

#[test]
fn holm_is_that_of_statsmodels() {
    for family in rows::<Corrected>("holm") {
        for (place, (found, expected)) in holm(&family.p_values).into_iter().zip(family.corrected).enumerate() {
            close(found, expected, (place, &family.p_values));
        }
    }
}

#[derive(Deserialize)]
struct Intervals {
    labels: usize,
    truth: Vec<usize>,
    first: Vec<usize>,
    second: Vec<usize>,
    of_first: [[f64; 2]; 4],
    of_second: [[f64; 2]; 4],
    difference: [[f64; 2]; 4],
}

/// Both sides draw 10,000 resamples: their bounds differ by chance, with a standard error of some 0.002.
#[test]
fn bootstrap_intervals_are_those_of_scipy() {
    let assert_near = |found: &Headline<Option<[f64; 2]>>, expected: [[f64; 2]; 4]| {
        for ((name, found), expected) in found.named().into_iter().zip(expected) {
            for (found, expected) in found.unwrap().iter().zip(expected) {
                assert!((found - expected).abs() < 0.008, "{name}: {found} for {expected}");
            }
        }
    };
    for table in rows::<Intervals>("intervals") {
        let outcomes: Vec<(usize, usize, usize)> = (table.truth.iter().zip(&table.first).zip(&table.second))
            .map(|((&truth, &first), &second)| (truth, first, second))
            .collect();
        let first: Vec<(usize, usize)> = outcomes.iter().map(|&(truth, first, _)| (truth, first)).collect();
        let second: Vec<(usize, usize)> = outcomes.iter().map(|&(truth, _, second)| (truth, second)).collect();
        assert_near(&bootstrap(table.labels, &first, None, 10_000, 1).unwrap(), table.of_first);
        assert_near(&bootstrap(table.labels, &second, None, 10_000, 1).unwrap(), table.of_second);
        let difference = paired_bootstrap(table.labels, &outcomes, None, 10_000, 1).unwrap();
        assert_near(&difference.map(|difference| difference.interval), table.difference);
    }
}

const DRAWS: u64 = 1_000;

/// In how many of a thousand simulated samples the interval holds the number of the whole population, in percent.
fn coverage(
    cells: &[(usize, usize, usize)],
    examples: usize,
    truth: [f64; 4],
    intervals: impl Fn(&[(usize, usize, usize)], u64) -> Headline<[f64; 2]>,
) -> [f64; 4] {
    let mut held = [0_u32; 4];
    for draw in 0..DRAWS {
        let random = &mut Random::new(mix(20, draw));
        let sample: Vec<(usize, usize, usize)> = (0..examples).map(|_| cells[random.below(cells.len())]).collect();
        let found = intervals(&sample, draw);
        for ((held, (_, &[low, high])), truth) in held.iter_mut().zip(found.named()).zip(truth) {
            *held += u32::from(low <= truth && truth <= high);
        }
    }
    held.map(|held| f64::from(held) / 10.0)
}

/// A population of four uneven classes: (truth, first's prediction, second's prediction).
fn population() -> Vec<(usize, usize, usize)> {
    let random = &mut Random::new(3);
    let answer = |random: &mut Random, truth, right| if random.uniform() < right { truth } else { random.below(4) };
    (0..20_000)
        .map(|_| {
            let truth = [0, 0, 0, 1, 1, 2, 2, 3][random.below(8)];
            let first = answer(random, truth, 0.6);
            // The second system mostly says what the first does.
            let second = if random.uniform() < 0.8 { first } else { answer(random, truth, 0.8) };
            (truth, first, second)
        })
        .collect()
}

fn numbers(pairs: &[(usize, usize)]) -> [f64; 4] {
    Confusion::from_pairs(4, pairs).unwrap().headline().named().map(|(_, &number)| number)
}

/// The standard error of a coverage of 95% in a thousand draws is 0.7%.
#[test]
fn an_interval_holds_the_truth_in_95_percent_of_a_thousand_draws() {
    let cells = population();
    let of_first: Vec<(usize, usize)> = cells.iter().map(|&(truth, first, _)| (truth, first)).collect();
    let found = coverage(&cells, 800, numbers(&of_first), |sample, seed| {
        let pairs: Vec<(usize, usize)> = sample.iter().map(|&(truth, first, _)| (truth, first)).collect();
        bootstrap(4, &pairs, None, 2_000, seed).unwrap().map(Option::unwrap)
    });
    assert!(found.iter().all(|percent| (percent - 95.0).abs() <= 1.5), "{found:?}");
}

#[test]
fn an_interval_of_a_difference_holds_the_truth_in_95_percent_of_a_thousand_draws() {
    let cells = population();
    let of = |pick: fn(&(usize, usize, usize)) -> (usize, usize)| numbers(&cells.iter().map(pick).collect::<Vec<_>>());
    let (first, second) = (of(|cell| (cell.0, cell.1)), of(|cell| (cell.0, cell.2)));
    let truth = std::array::from_fn(|place| second[place] - first[place]);
    let found = coverage(&cells, 800, truth, |sample, seed| {
        paired_bootstrap(4, sample, None, 2_000, seed).unwrap().map(|difference| difference.interval.unwrap())
    });
    assert!(found.iter().all(|percent| (percent - 95.0).abs() <= 1.5), "{found:?}");
}
