//! The terms of a loss, whatever they are called, and their weighted sum.

use burn::tensor::{Tensor, backend::Backend};

/// One term, [1].
#[derive(Clone, Debug)]
pub struct Term<B: Backend> {
    name: &'static str,
    weight: f64,
    value: Tensor<B, 1>,
    /// Whether it compares different examples.
    is_contrast: bool,
}

impl<B: Backend> Term<B> {
    /// A mean over the examples.
    pub fn mean(name: &'static str, weight: f64, value: Tensor<B, 1>) -> Self {
        Self { name, weight, value, is_contrast: false }
    }

    /// A term that compares different examples, and so depends on which of them share a batch.
    pub fn contrast(name: &'static str, weight: f64, value: Tensor<B, 1>) -> Self {
        Self { name, weight, value, is_contrast: true }
    }
}

/// Every term of a loss, unweighted, and their weighted sum; each [1].
#[derive(Clone, Debug)]
pub struct Terms<B: Backend> {
    /// The weighted sum. It can be negative.
    pub total: Tensor<B, 1>,
    /// The terms by name.
    pub named: Vec<(&'static str, Tensor<B, 1>)>,
    /// The part of the sum that compares different examples.
    contrast: Option<Tensor<B, 1>>,
}

impl<B: Backend> Terms<B> {
    /// A sum that was made elsewhere, with the part of it that compares different examples.
    pub fn new(total: Tensor<B, 1>, named: Vec<(&'static str, Tensor<B, 1>)>, contrast: Tensor<B, 1>) -> Self {
        Self { total, named, contrast: Some(contrast) }
    }

    /// The weighted sum of one term or more.
    pub fn sum(first: Term<B>, others: impl IntoIterator<Item = Term<B>>) -> Self {
        let mut terms = Self { total: first.value.clone() * first.weight, named: Vec::new(), contrast: None };
        terms.named.push((first.name, first.value));
        for Term { name, weight, value, is_contrast } in others {
            let weighted = value.clone() * weight;
            if is_contrast {
                terms.contrast = Some(match terms.contrast {
                    Some(sum) => sum + weighted.clone(),
                    None => weighted.clone(),
                });
            }
            terms.total = terms.total + weighted;
            terms.named.push((name, value));
        }
        terms
    }

    /// What is minimised of a part of the examples: its means count by `share`, the terms that compare examples by
    /// `contrast`, which is larger where they are those of more examples than the part has.
    pub fn objective(&self, share: f64, contrast: f64) -> Tensor<B, 1> {
        let total = self.total.clone() * share;
        match &self.contrast {
            Some(sum) if contrast > share => total + sum.clone() * (contrast - share),
            _ => total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    fn one(value: f32) -> Tensor<fixtures::Train, 1> {
        Tensor::from_floats([value], &burn::backend::flex::FlexDevice)
    }

    /// 3 + 0.5 * 4 + 2 * 5 = 15; a quarter of it, and with the contrast counted by a half another quarter of 10.
    #[test]
    fn contrasts_count_by_a_share_of_their_own() {
        let others = [Term::mean("second", 0.5, one(4.0)), Term::contrast("third", 2.0, one(5.0))];
        let terms = Terms::sum(Term::mean("first", 1.0, one(3.0)), others);
        fixtures::assert_close(&fixtures::values(terms.total.clone()), &[15.0], 1e-6);
        assert_eq!(terms.named.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["first", "second", "third"]);
        for (share, contrast, expected) in [(1.0, 1.0, 15.0), (0.25, 0.25, 3.75), (0.25, 0.5, 6.25)] {
            fixtures::assert_close(&fixtures::values(terms.objective(share, contrast)), &[expected], 1e-6);
        }
    }
}
