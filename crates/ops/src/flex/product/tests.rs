//! Products against loops over their definition in double precision, for every instruction set that the machine has.

use super::*;
use crate::random::Random;

#[expect(clippy::cast_possible_truncation, reason = "products are of single precision")]
fn normal(elements: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..elements).map(|_| random.normal() as f32).collect()
}

/// How the operands lie in memory.
#[derive(Clone, Copy, Debug)]
struct Layout {
    is_left_transposed: bool,
    is_right_transposed: bool,
}

/// A way to multiply.
type Multiply = unsafe fn((usize, usize, usize), Target, Base<'_>, Matrix, Matrix, bool);

#[cfg(target_arch = "x86_64")]
unsafe fn wide(
    size: (usize, usize, usize),
    target: Target,
    base: Base<'_>,
    left: Matrix,
    right: Matrix,
    is_parallel: bool,
) {
    // SAFETY: the caller has asked for the instructions.
    unsafe { blocks::multiply(&kernel::avx512::KERNEL, size, target, base, left, right, is_parallel) };
}

#[cfg(target_arch = "x86_64")]
unsafe fn middle(
    size: (usize, usize, usize),
    target: Target,
    base: Base<'_>,
    left: Matrix,
    right: Matrix,
    is_parallel: bool,
) {
    // SAFETY: the caller has asked for the instructions.
    unsafe { blocks::multiply(&kernel::avx2::KERNEL, size, target, base, left, right, is_parallel) };
}

/// All ways that this machine has; the last is the one that the model takes.
fn ways() -> Vec<(&'static str, Multiply)> {
    let mut ways: Vec<(&'static str, Multiply)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            ways.push(("AVX-512", wide));
        }
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            ways.push(("AVX2", middle));
        }
    }
    ways.push(("chosen", multiply));
    ways
}

/// Multiplies into the middle of a larger matrix, and compares all of it.
fn check((name, way): (&str, Multiply), (rows, inner, columns): (usize, usize, usize), layout: Layout, parallel: bool) {
    const MARGIN: usize = 3;
    let (left, right) = (normal(rows * inner, 1), normal(inner * columns, 2));
    let (bias, before) = (normal(columns, 3), normal((rows + 2) * (columns + MARGIN), 4));
    let matrix = |values: &[f32], rows: usize, columns: usize, is_transposed: bool| {
        if is_transposed { Matrix::new(values, rows, 1).transposed() } else { Matrix::new(values, columns, 1) }
    };
    let at = |values: &[f32], (row, column): (usize, usize), rows: usize, columns: usize, is_transposed: bool| {
        f64::from(if is_transposed { values[column * rows + row] } else { values[row * columns + column] })
    };
    for (kind, base) in [("zero", Base::Zero), ("existing", Base::Existing), ("row", Base::Row(&bias))] {
        let mut found = before.clone();
        let width = columns + MARGIN;
        let sizes = (rows, inner, columns);
        let operands = (
            matrix(&left, rows, inner, layout.is_left_transposed),
            matrix(&right, inner, columns, layout.is_right_transposed),
        );
        // SAFETY: the target begins in the second row and ends in the last but one.
        unsafe { way(sizes, Target::new(&mut found[width..], width), base, operands.0, operands.1, parallel) };
        for (index, (found, before)) in found.iter().zip(&before).enumerate() {
            let (row, column) = (index / width, index % width);
            let is_inside = (1..=rows).contains(&row) && column < columns;
            if !is_inside {
                assert_eq!(
                    found.to_bits(),
                    before.to_bits(),
                    "{name} {sizes:?} {layout:?} {kind}: wrote outside, at {row}, {column}"
                );
                continue;
            }
            let start = match base {
                Base::Zero => 0.0,
                Base::Existing => f64::from(*before),
                Base::Row(bias) => f64::from(bias[column]),
            };
            let products = (0..inner).map(|step| {
                at(&left, (row - 1, step), rows, inner, layout.is_left_transposed)
                    * at(&right, (step, column), inner, columns, layout.is_right_transposed)
            });
            let (mut sum, mut size) = (start, start.abs());
            for product in products {
                sum += product;
                size += product.abs();
            }
            let off = (f64::from(*found) - sum).abs();
            assert!(
                off <= 1e-6 * size.max(1.0),
                "{name} {sizes:?} {layout:?} {kind}: {found} for {sum} at {row}, {column}"
            );
        }
    }
}

/// Sizes around tiles (14 or 6 rows, 32 or 16 columns), vectors, tasks (96) and pieces of the inner axis (768).
#[test]
fn a_product_is_the_sum_of_products_for_any_size_and_layout() {
    let sizes = [
        (1, 1, 1),
        (14, 16, 32),
        (6, 8, 16),
        (15, 17, 33),
        (5, 7, 31),
        (29, 40, 65),
        (3, 769, 2),
        (40, 1600, 37),
        (97, 20, 130),
        (130, 20, 97),
        (20, 33, 200),
        (200, 33, 20),
    ];
    for way in ways() {
        for size in sizes {
            for (is_left_transposed, is_right_transposed) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                check(way, size, Layout { is_left_transposed, is_right_transposed }, false);
            }
        }
        let layout = Layout { is_left_transposed: false, is_right_transposed: true };
        check(way, (150, 90, 140), layout, true);
        check(way, (300, 70, 50), layout, true);
    }
}

/// Rows that overlap, as the windows of a convolution do.
#[test]
fn rows_of_the_left_operand_may_overlap() {
    let (rows, stride, inner, columns) = (50, 6, 9, 40);
    let (left, right) = (normal((rows - 1) * stride + inner, 1), normal(inner * columns, 2));
    for (name, way) in ways() {
        let mut found = vec![0.0; rows * columns];
        let operands = (Matrix::new(&left, stride, 1), Matrix::new(&right, columns, 1));
        let target = Target::new(&mut found, columns);
        // SAFETY: the last row ends with the operand.
        unsafe { way((rows, inner, columns), target, Base::Zero, operands.0, operands.1, false) };
        for (index, found) in found.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let product =
                |step: usize| f64::from(left[row * stride + step]) * f64::from(right[step * columns + column]);
            let expected: f64 = (0..inner).map(product).sum();
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{name}: {found} for {expected}");
        }
    }
}

#[test]
fn a_product_has_the_same_bits_with_any_number_of_threads() {
    let (rows, inner, columns) = (180, 900, 210);
    let (left, right) = (normal(rows * inner, 1), normal(inner * columns, 2));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut found = vec![0.0; rows * columns];
            let operands = (Matrix::new(&left, inner, 1), Matrix::new(&right, columns, 1));
            let target = Target::new(&mut found, columns);
            // SAFETY: the operands and the target have these sizes.
            unsafe { multiply((rows, inner, columns), target, Base::Zero, operands.0, operands.1, true) };
            found
        })
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}
