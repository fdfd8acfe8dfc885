//! Products of matrices with any strides, in f32: the library's on any machine, our own where it is AVX-512 or AVX2.
//!
//! Ours packs the left operand once, a piece of the inner axis after another, and gives each task some columns of the
//! right one, which it packs where its core's cache holds them (K. Goto and R. van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008). The sums are cut into the same pieces whatever the number of threads,
//! so that results do not depend on it.

#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(test)]
mod tests;

/// A matrix in memory: where it begins, and how far its next row and next column are.
#[derive(Clone, Copy)]
pub struct Matrix {
    start: *const f32,
    row: usize,
    column: usize,
}

// SAFETY: it is a place in memory that outlives the parallel loop that uses it, and is only read.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// `slice` from an element on, with the distance of its rows and columns.
    pub fn new(slice: &[f32], row: usize, column: usize) -> Self {
        Self { start: slice.as_ptr(), row, column }
    }

    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }
}

/// A place that is written; tasks of a parallel loop write different parts of it.
#[derive(Clone, Copy)]
pub struct Target {
    start: *mut f32,
    row: usize,
}

// SAFETY: every task writes elements that no other task touches.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    pub fn new(slice: &mut [f32], row: usize) -> Self {
        Self { start: slice.as_mut_ptr(), row }
    }

    /// The place `elements` further on.
    ///
    /// # Safety
    /// It must lie within the slice.
    pub unsafe fn at(self, elements: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { start: unsafe { self.start.add(elements) }, ..self }
    }
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub enum Base<'a> {
    /// Nothing: what stands in the target before is not read.
    Zero,
    /// What stands in the target.
    Existing,
    /// A row, the same for all rows.
    Row(&'a [f32]),
}

/// `target = base + left right`, of [rows, inner] and [inner, columns].
///
/// # Safety
/// All three must lie within their slices for these sizes, and nobody else may touch the target.
pub unsafe fn multiply(
    size: (usize, usize, usize),
    target: Target,
    base: Base<'_>,
    left: Matrix,
    right: Matrix,
    is_parallel: bool,
) {
    let (rows, _, columns) = size;
    if rows == 0 || columns == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let (Some(kernel), true) = (kernel::best(), is_worth_packing(size)) {
        // SAFETY: the caller's promise.
        unsafe { blocks::multiply(kernel, size, target, base, left, right, is_parallel) };
        return;
    }
    if let Base::Row(values) = base {
        for row in 0..rows {
            // SAFETY: the caller's promise.
            unsafe { std::slice::from_raw_parts_mut(target.start.add(row * target.row), columns) }
                .copy_from_slice(values);
        }
    }
    // SAFETY: the caller's promise.
    unsafe { library(size, target, !matches!(base, Base::Zero), left, right, is_parallel) };
}

/// Whether packing pays: not for products that are tiny, nor where a packed row is used for few columns.
#[cfg(target_arch = "x86_64")]
fn is_worth_packing((rows, inner, columns): (usize, usize, usize)) -> bool {
    const TINY: usize = 1 << 17;
    const NARROW: usize = 64;
    rows * inner * columns > TINY && rows.min(columns) > NARROW / 4 && (columns > NARROW || rows < NARROW)
}

/// `target = left right`, or that added to the target.
///
/// # Safety
/// As [`multiply`].
#[expect(clippy::cast_possible_wrap, reason = "strides are far below the limit")]
unsafe fn library(
    (rows, inner, columns): (usize, usize, usize),
    target: Target,
    is_added: bool,
    left: Matrix,
    right: Matrix,
    is_parallel: bool,
) {
    let parallelism = if is_parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            target.start,
            1,
            target.row as isize,
            is_added,
            left.start,
            left.column as isize,
            left.row as isize,
            right.start,
            right.column as isize,
            right.row as isize,
            1.0_f32,
            1.0_f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}
