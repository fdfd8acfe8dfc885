//! Who goes to which part: seeded, stratified by label, whole groups where they must not cross.

use std::collections::{BTreeMap, BTreeSet};

use crate::random::{Random, mix};

/// Whether these are shares of 0 to 1 that sum to 1.
pub fn are_shares(shares: &[f64]) -> bool {
    shares.iter().all(|share| (0.0..=1.0).contains(share)) && (shares.iter().sum::<f64>() - 1.0).abs() <= 1e-6
}

/// What a split looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    /// Its label; empty where there is none.
    pub label: &'a str,
    /// What must stay with it; its own id where nothing must.
    pub group: &'a str,
}

/// The part of every member: its place in `shares`, which sum to 1. Stratified by label.
///
/// `turn` moves on, label by label, which part gets what cannot be divided: right for the equal parts of a cross
/// validation, which would otherwise all begin with the same part.
pub(super) fn stratified(members: &[Member], shares: &[f64], seed: u64, turn: bool) -> Vec<usize> {
    let mut parts = vec![0; members.len()];
    let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        classes.entry(member.label).or_default().push(index);
    }
    let mut first = 0;
    for (place, indices) in classes.values_mut().enumerate() {
        let mut random = Random::new(mix(seed, place as u64));
        random.shuffle(indices);
        let mut indices = indices.iter();
        let count = indices.len();
        for (part, quota) in quotas(count, shares, first).into_iter().enumerate() {
            for index in indices.by_ref().take(quota) {
                parts[*index] = part;
            }
        }
        if turn {
            first = (first + count) % shares.len().max(1);
        }
    }
    parts
}

/// Whole numbers that sum to `count`, each within one of its share: largest remainders first, and among equal ones the
/// part `first`, then those after it.
#[expect(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 rows")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `count`")]
fn quotas(count: usize, shares: &[f64], first: usize) -> Vec<usize> {
    let exact: Vec<f64> = shares.iter().map(|share| share * count as f64).collect();
    // A share that is whole but for rounding errors is whole.
    let mut quotas: Vec<usize> = exact.iter().map(|share| (share + 1e-9).floor() as usize).collect();
    let parts = shares.len();
    let mut order: Vec<usize> = (0..parts).map(|part| (part + first) % parts).collect();
    // Remainders that differ by a rounding error are equal.
    let rest = |part: &usize| ((exact[*part] - quotas[*part] as f64) * 1e9).round() as i64;
    order.sort_by_key(|part| std::cmp::Reverse(rest(part)));
    let open = count.saturating_sub(quotas.iter().sum());
    for part in order.into_iter().filter(|part| shares[*part] > 0.0).cycle().take(open) {
        quotas[part] += 1;
    }
    quotas
}

/// Puts whole groups, largest first, where they bring the labels' counts closest to their shares.
#[expect(clippy::cast_precision_loss, reason = "a table has far fewer than 2^53 rows")]
pub(super) fn grouped(members: &[Member], shares: &[f64], seed: u64) -> Vec<usize> {
    let mut parts = vec![0; members.len()];
    let labels: Vec<&str> = members.iter().map(|member| member.label).collect::<BTreeSet<_>>().into_iter().collect();
    let class = |member: &Member| labels.binary_search(&member.label).unwrap_or_default();
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut totals = vec![0.0; labels.len()];
    for (index, member) in members.iter().enumerate() {
        groups.entry(member.group).or_default().push(index);
        totals[class(member)] += 1.0;
    }
    let mut order: Vec<Vec<usize>> = groups.into_values().collect();
    Random::new(mix(seed, 0)).shuffle(&mut order);
    order.sort_by_key(|indices| std::cmp::Reverse(indices.len()));
    let mut filled = vec![vec![0.0; labels.len()]; shares.len()];
    let mut sizes = vec![0.0; shares.len()];
    for indices in &order {
        let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
        for index in indices {
            *counts.entry(class(&members[*index])).or_default() += 1.0;
        }
        // How much farther from (or nearer to) its target the part would be, as a share of the label and of the part.
        let cost = |part: usize| -> f64 {
            let share = shares[part];
            let per_label: f64 = counts
                .iter()
                .map(|(label, count)| {
                    let target = totals[*label] * share;
                    let before: f64 = filled[part][*label] - target;
                    ((before + count).powi(2) - before.powi(2)) / target.max(1e-9)
                })
                .sum();
            let target = share * members.len() as f64;
            let size = sizes[part] - target;
            per_label + ((size + indices.len() as f64).powi(2) - size.powi(2)) / target
        };
        let best = (0..shares.len())
            .filter(|part| shares[*part] > 0.0)
            .min_by(|left, right| cost(*left).total_cmp(&cost(*right)))
            .unwrap_or(0);
        for (label, count) in &counts {
            filled[best][*label] += count;
        }
        sizes[best] += indices.len() as f64;
        for index in indices {
            parts[*index] = best;
        }
    }
    parts
}

/// Gives all rows that are connected through a shared value the same group: `values` has the values of each row, by
/// kind (two kinds never mix). A group is known by the place of its first row.
pub(super) fn connected(values: &[Vec<(usize, String)>]) -> Vec<usize> {
    let mut root: Vec<usize> = (0..values.len()).collect();
    let find = |root: &mut Vec<usize>, mut at: usize| {
        while root[at] != at {
            root[at] = root[root[at]];
            at = root[at];
        }
        at
    };
    let mut seen: BTreeMap<&(usize, String), usize> = BTreeMap::new();
    for (row, values) in values.iter().enumerate() {
        for value in values {
            let first = *seen.entry(value).or_insert(row);
            let (left, right) = (find(&mut root, first), find(&mut root, row));
            root[left.max(right)] = left.min(right);
        }
    }
    (0..values.len()).map(|row| find(&mut root, row)).collect()
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "small made-up numbers")]
mod tests {
    use super::*;

    #[test]
    fn quotas_sum_and_stay_within_one() {
        for count in 0..200 {
            for shares in [&[0.8, 0.1, 0.1][..], &[0.6, 0.2, 0.2], &[0.9, 0.0, 0.1], &[1.0, 0.0, 0.0], &[0.2; 5]] {
                for first in 0..shares.len() {
                    let quotas = quotas(count, shares, first);
                    assert_eq!(quotas.iter().sum::<usize>(), count);
                    for (quota, share) in quotas.iter().zip(shares) {
                        assert!((*quota as f64 - share * count as f64).abs() < 1.0 - 1e-9);
                    }
                }
            }
        }
        assert_eq!(quotas(7, &[0.2; 5], 3), [1, 1, 1, 2, 2]);
    }

    #[test]
    fn equal_parts_take_turns_at_what_is_left() {
        let labels: Vec<String> = (0..40).map(|n| format!("label{}", n / 4)).collect();
        let members: Vec<Member> = labels.iter().map(|label| Member { label, group: "" }).collect();
        let parts = stratified(&members, &[0.2; 5], 1, true);
        let sizes: Vec<usize> = (0..5).map(|part| parts.iter().filter(|found| **found == part).count()).collect();
        assert_eq!(sizes, [8; 5]);
    }

    #[test]
    fn rows_that_share_any_value_are_one_group() {
        let row = |speaker: &str, text: &str| vec![(0, speaker.to_owned()), (1, text.to_owned())];
        // The last three: one speaker says both texts. "a" the speaker is not "a" the text.
        let rows = [row("a", "x"), row("b", "a"), row("c", "t"), row("d", "u"), row("c", "u")];
        assert_eq!(connected(&rows), [0, 1, 2, 2, 2]);
        assert_eq!(connected(&[Vec::new(), Vec::new()]), [0, 1]);
    }
}
