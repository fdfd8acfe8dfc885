//! Terms over the statistics of a batch: the central moment discrepancy and the difference loss of MISA (Hazarika et
//! al. 2020). Both are functions of matrices [examples, size] of two or more examples.

use burn::tensor::{Tensor, backend::Backend};

/// The highest moment that is compared.
const MOMENTS: usize = 5;
/// Under the root of a distance: its derivative is infinite where the distance is zero.
const SQUARE_EPSILON: f64 = 1e-12;
/// Added to the norm of a row before it divides the row.
const NORM_EPSILON: f64 = 1e-6;

/// The distance of the means and of the central moments 2 to 5, each over the batch: two [batch, size] -> [1].
pub fn central_moment_discrepancy<B: Backend>(first: Tensor<B, 2>, second: Tensor<B, 2>) -> Tensor<B, 1> {
    let distance = |apart: Tensor<B, 2>| (apart.square().sum() + SQUARE_EPSILON).sqrt();
    let means = [first.clone().mean_dim(0), second.clone().mean_dim(0)];
    let centred = [first - means[0].clone(), second - means[1].clone()];
    let [first_mean, second_mean] = means;
    let mut sum = distance(first_mean - second_mean);
    let mut powers = centred.clone();
    for _ in 2..=MOMENTS {
        powers = [powers[0].clone() * centred[0].clone(), powers[1].clone() * centred[1].clone()];
        sum = sum + distance(powers[0].clone().mean_dim(0) - powers[1].clone().mean_dim(0));
    }
    sum
}

/// The mean square of the correlations of the features of two matrices, [batch, size] each -> [1]. Rows are centred and
/// divided by their norms, which count as constants.
pub fn difference<B: Backend>(first: Tensor<B, 2>, second: Tensor<B, 2>) -> Tensor<B, 1> {
    let scaled = |x: Tensor<B, 2>| {
        let centred = x.clone() - x.mean_dim(0);
        let norms = centred.clone().detach().square().sum_dim(1).sqrt() + NORM_EPSILON;
        centred / norms
    };
    scaled(first).transpose().matmul(scaled(second)).square().mean()
}

#[cfg(test)]
mod tests {
    use burn::backend::flex::FlexDevice;

    use super::{super::fixtures, *};

    type Matrix = Tensor<fixtures::Train, 2>;

    /// `sin(1 + 6 i + j)` and `cos(2 + 12 i + j)`, 4 x 6: the matrices of docs/model.md.
    fn matrices() -> [Matrix; 2] {
        let matrix = |value: &dyn Fn(f32, f32) -> f32| {
            let rows = [0.0, 1.0, 2.0, 3.0].map(|row| [0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(|column| value(row, column)));
            Matrix::from_floats(rows, &FlexDevice)
        };
        [
            matrix(&|row, column| (1.0 + 6.0 * row + column).sin()),
            matrix(&|row, column| (2.0 + 12.0 * row + column).cos()),
        ]
    }

    fn one(term: Tensor<fixtures::Train, 1>) -> Vec<f64> {
        fixtures::values(term)
    }

    /// Worked out in plain Python, before and after an element-wise sigmoid.
    #[test]
    fn values_are_those_of_the_formulas() {
        let [first, second] = matrices();
        let bounded = matrices().map(burn::tensor::activation::sigmoid);
        let [bounded_first, bounded_second] = bounded;
        for (found, expected) in [
            (central_moment_discrepancy(first.clone(), second.clone()), 3.500_528),
            (central_moment_discrepancy(bounded_first.clone(), bounded_second.clone()), 0.667_395),
            (difference(first, second), 0.373_528),
            (difference(bounded_first, bounded_second), 0.371_819),
        ] {
            fixtures::assert_close(&one(found), &[expected], 2e-6);
        }
    }

    /// Means 1 apart in one feature, and all central moments alike: 1 and four times almost nothing.
    #[test]
    fn a_shift_moves_the_means_alone() {
        let rows = |shift: f32| Matrix::from_floats([[shift, 0.5], [1.0 + shift, 0.5]], &FlexDevice);
        let term = central_moment_discrepancy(rows(0.0), rows(1.0));
        fixtures::assert_close(&one(term), &[1.0], 1e-5);
    }

    /// Two examples, centred to (1, 0) and (-1, 0), with themselves: the one correlation is 2, of four places.
    #[test]
    fn a_difference_by_hand() {
        let rows = || Matrix::from_floats([[2.0, 0.3], [0.0, 0.3]], &FlexDevice);
        fixtures::assert_close(&one(difference(rows(), rows())), &[1.0], 1e-5);
    }
}
