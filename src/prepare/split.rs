//! Who goes to train, dev and test: seeded, stratified by label, whole groups where they must not cross.

use std::collections::{BTreeMap, BTreeSet};

use crate::data::DataError;
use crate::random::{Random, mix};

use super::table::{Item, SPLITS, TableOptions};

/// The split of every item: its place in [`SPLITS`].
pub(super) fn split(items: &[Item], options: &TableOptions) -> Result<Vec<usize>, DataError> {
    let mut splits = vec![0; items.len()];
    if options.group_by.is_some() {
        split_groups(items, options, &mut splits);
    } else {
        let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            classes.entry(item.row.label.as_deref().unwrap_or_default()).or_default().push(index);
        }
        for (place, members) in classes.values_mut().enumerate() {
            let mut random = Random::new(mix(options.seed, place as u64));
            random.shuffle(members);
            let mut members = members.iter();
            for (split, quota) in quotas(members.len(), options.fractions).into_iter().enumerate() {
                for index in members.by_ref().take(quota) {
                    splits[*index] = split;
                }
            }
        }
    }
    for (place, name) in SPLITS.iter().enumerate() {
        if options.fractions[place] > 0.0 && !splits.contains(&place) {
            return Err(DataError::Table {
                path: options.input.clone(),
                reason: format!(
                    "{} utterances leave {name} empty at a share of {}; give {name} a larger share, or 0",
                    items.len(),
                    options.fractions[place]
                ),
            });
        }
    }
    Ok(splits)
}

/// Whole numbers that sum to `count`, each within one of its share (largest remainders first; train wins ties).
#[expect(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 rows")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `count`")]
fn quotas(count: usize, fractions: [f64; 3]) -> [usize; 3] {
    let exact = fractions.map(|fraction| fraction * count as f64);
    // A share that is whole but for rounding errors is whole.
    let mut quotas = exact.map(|share| (share + 1e-9).floor() as usize);
    let mut order = [0, 1, 2];
    order.sort_by(|left: &usize, right: &usize| {
        let rest = |place: usize| exact[place] - quotas[place] as f64;
        rest(*right).total_cmp(&rest(*left))
    });
    let open = count.saturating_sub(quotas.iter().sum());
    for place in order.into_iter().filter(|place| fractions[*place] > 0.0).cycle().take(open) {
        quotas[place] += 1;
    }
    quotas
}

/// Puts whole groups, largest first, where they bring the labels' counts closest to their shares.
#[expect(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 rows")]
fn split_groups(items: &[Item], options: &TableOptions, splits: &mut [usize]) {
    let labels: Vec<&str> = {
        let names: BTreeSet<&str> = items.iter().map(|item| item.row.label.as_deref().unwrap_or_default()).collect();
        names.into_iter().collect()
    };
    let class = |item: &Item| labels.binary_search(&item.row.label.as_deref().unwrap_or_default()).unwrap_or_default();
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut totals = vec![0.0; labels.len()];
    for (index, item) in items.iter().enumerate() {
        groups.entry(item.group.as_str()).or_default().push(index);
        totals[class(item)] += 1.0;
    }
    let mut order: Vec<Vec<usize>> = groups.into_values().collect();
    Random::new(mix(options.seed, 0)).shuffle(&mut order);
    order.sort_by_key(|members| std::cmp::Reverse(members.len()));
    let mut filled = vec![vec![0.0; labels.len()]; SPLITS.len()];
    for members in &order {
        let mut counts = vec![0.0; labels.len()];
        for index in members {
            counts[class(&items[*index])] += 1.0;
        }
        // How much farther from (or nearer to) its target the split would be, as a share of the label and of the split.
        let cost = |split: usize| -> f64 {
            let share = options.fractions[split];
            let per_label: f64 = (0..labels.len())
                .map(|label| {
                    let target = totals[label] * share;
                    let before: f64 = filled[split][label] - target;
                    ((before + counts[label]).powi(2) - before.powi(2)) / target.max(1e-9)
                })
                .sum();
            let size: f64 = filled[split].iter().sum::<f64>() - share * items.len() as f64;
            per_label + ((size + members.len() as f64).powi(2) - size.powi(2)) / (share * items.len() as f64)
        };
        let best = (0..SPLITS.len())
            .filter(|split| options.fractions[*split] > 0.0)
            .min_by(|left, right| cost(*left).total_cmp(&cost(*right)))
            .unwrap_or(0);
        for (label, count) in counts.iter().enumerate() {
            filled[best][label] += count;
        }
        for index in members {
            splits[*index] = best;
        }
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small made-up numbers")]
mod tests {
    use super::*;

    #[test]
    fn quotas_sum_and_stay_within_one() {
        for count in 0..200 {
            for fractions in [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.9, 0.0, 0.1], [1.0, 0.0, 0.0]] {
                let quotas = quotas(count, fractions);
                assert_eq!(quotas.iter().sum::<usize>(), count);
                for (quota, fraction) in quotas.iter().zip(fractions) {
                    assert!((*quota as f64 - fraction * count as f64).abs() < 1.0 - 1e-9);
                }
            }
        }
    }
}
