//! What the tests of the losses share: two matrices given by a formula, so that every expected value can be worked out
//! elsewhere, and comparisons.

use burn::{
    backend::{Autodiff, Flex, flex::FlexDevice},
    tensor::{Tensor, TensorData, backend::AutodiffBackend},
};

/// The backend of the tests.
pub(crate) type Train = Autodiff<Flex>;

/// Values in f32 of sums of some ten terms.
pub(crate) const VALUE_TOLERANCE: f64 = 1e-6;
/// Gradients in f32: a similarity of 30 in an exponent has an error of 30 ulp.
pub(crate) const GRADIENT_TOLERANCE: f64 = 2e-5;

/// `speech[i][j] = sin(1 + 6 i + j)` of four rows; with 6 columns the matrix A of docs/model.md.
pub(crate) fn speech(columns: usize) -> Tensor<Train, 2> {
    matrix(4, columns, |i, j| (1.0 + 6.0 * i + j).sin())
}

/// `text[i][j] = cos(2 + 12 i + j)` of four rows; with 6 columns the matrix T of docs/model.md.
pub(crate) fn text(columns: usize) -> Tensor<Train, 2> {
    matrix(4, columns, |i, j| (2.0 + 12.0 * i + j).cos())
}

/// A matrix with gradients by a formula of row and column.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small numbers; the model is f32")]
pub(crate) fn matrix(rows: usize, columns: usize, value: impl Fn(f64, f64) -> f64) -> Tensor<Train, 2> {
    let values: Vec<f32> =
        (0..rows * columns).map(|at| value((at / columns) as f64, (at % columns) as f64) as f32).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &FlexDevice).require_grad()
}

/// The rows of a matrix in another order.
pub(crate) fn reordered(matrix: &Tensor<Train, 2>, order: &[i64]) -> Tensor<Train, 2> {
    matrix.clone().select(0, Tensor::from_data(order, &FlexDevice))
}

/// The elements in row-major order.
pub(crate) fn values<const D: usize>(tensor: Tensor<Train, D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().to_vec().unwrap()
}

/// The one element of a loss.
pub(crate) fn value(loss: Tensor<Train, 1>) -> f64 {
    let values = values(loss);
    assert_eq!(values.len(), 1);
    values[0]
}

/// The gradients of a loss by some matrices, each in row-major order; nothing if no path leads to a matrix.
pub(crate) fn gradients<const N: usize>(loss: &Tensor<Train, 1>, of: [&Tensor<Train, 2>; N]) -> [Option<Vec<f64>>; N] {
    let gradients = loss.backward();
    of.map(|matrix| {
        let gradient: Tensor<<Train as AutodiffBackend>::InnerBackend, 2> = matrix.grad(&gradients)?;
        Some(gradient.into_data().convert::<f64>().to_vec().unwrap())
    })
}

/// The one value is within `tolerance` of the other, relative to what is expected or to 1.
pub(crate) fn assert_close(found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error < tolerance, "{found} should be {expected}");
}

/// `found` begins with `expected`, within `tolerance` of its largest element.
pub(crate) fn assert_begins_with(found: &[f64], expected: &[f64], tolerance: f64) {
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert!(found.len() >= expected.len());
    for (found, wanted) in found.iter().zip(expected) {
        assert!((found - wanted).abs() < tolerance * largest, "{found} should be {wanted} in {expected:?}");
    }
}

/// The loss and its gradients by these matrices are finite.
pub(crate) fn assert_finite<const N: usize>(loss: &Tensor<Train, 1>, of: [&Tensor<Train, 2>; N]) {
    assert!(value(loss.clone()).is_finite());
    for gradient in gradients(loss, of).into_iter().flatten() {
        assert!(gradient.iter().all(|element| element.is_finite()), "{gradient:?}");
    }
}

/// Pairs of matrices that break careless formulas: identical rows and modalities, zeros, ±1e4, tiny values, one row.
pub(crate) fn awkward_pairs(columns: usize) -> Vec<(&'static str, Tensor<Train, 2>, Tensor<Train, 2>)> {
    let constant = |value: f64| matrix(4, columns, move |_, _| value);
    let large = |shift: f64| matrix(4, columns, move |i, j| if (i + j + shift) % 2.0 == 0.0 { 1e4 } else { -1e4 });
    vec![
        ("identical rows", constant(0.7), constant(0.7)),
        ("identical matrices", speech(columns), speech(columns)),
        ("zeros", constant(0.0), constant(0.0)),
        ("zeros against values", constant(0.0), text(columns)),
        ("one zero row", matrix(4, columns, |i, j| i * (1.0 + j)), text(columns)),
        ("below the floor", constant(1e-15), text(columns)),
        ("large", large(0.0), large(1.0)),
        ("large against small", large(0.0), text(columns)),
        (
            "one row",
            speech(columns).narrow(0, 0, 1).detach().require_grad(),
            matrix(1, columns, |_, j| (2.0 + j).cos()),
        ),
    ]
}
