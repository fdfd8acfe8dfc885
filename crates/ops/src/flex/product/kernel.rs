//! The inner loops of a product for an instruction set: a tile of the result held in registers, and the packing of
//! operands into the order in which the tile reads them.
//!
//! Vectors are read out of slices and arrays and not through pointers, whose debug assertions would be in the loops.

use std::arch::x86_64::{
    __m256, __m512, _MM_HINT_T0, _mm_prefetch, _mm256_add_ps, _mm256_fmadd_ps, _mm256_permute2f128_ps, _mm256_set1_ps,
    _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_fmadd_ps, _mm512_set1_ps, _mm512_shuffle_f32x4, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd,
    _mm512_unpacklo_ps,
};

use super::{Base, Matrix};

/// Steps that a tile asks for its operands ahead.
const AHEAD: usize = 8;

/// The same for packing, in vectors of a line or in steps.
const FAR: usize = 16;

/// The loops of an instruction set. A packed panel of the left operand has [`Kernel::lanes`] numbers for each step along
/// the inner axis, of which the first [`Kernel::rows`] are rows of the tile at most; a panel of the right operand has
/// twice the lanes.
pub struct Kernel {
    /// Numbers in a vector.
    pub lanes: usize,
    /// Most rows of a tile.
    pub rows: usize,
    /// Adds the product of two packed panels, `(rows, columns)` of it, to a place whose rows are `stride` apart.
    ///
    /// # Safety
    /// The instruction set is there; the rows and columns lie within what the caller may write.
    pub tile: unsafe fn(Panels<'_>, Base<'_>, *mut f32, usize),
    /// Writes as many lines as lanes, of `inner` numbers each, next to each other, `width` numbers from one step to the
    /// next; zeros for lines that are not there.
    ///
    /// # Safety
    /// The instruction set is there; the lines lie within what the caller may read.
    pub pack: unsafe fn(Lines, usize, &mut [f32], usize),
}

/// Two packed panels, and how many rows and columns of their product are wanted.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    pub left: &'a [f32],
    pub right: &'a [f32],
    pub rows: usize,
    pub columns: usize,
}

/// Lines of a matrix, that are rows of the left or columns of the right operand.
#[derive(Clone, Copy)]
pub struct Lines {
    pub start: *const f32,
    /// From one line to the next.
    pub line: usize,
    /// From one number of a line to the next.
    pub step: usize,
    pub count: usize,
}

impl Lines {
    /// Of a matrix the rows from `first` on, each from its number `step` on.
    pub fn rows(matrix: Matrix, first: usize, step: usize, count: usize) -> Self {
        let start = matrix.start.wrapping_add(first * matrix.row + step * matrix.column);
        Self { start, line: matrix.row, step: matrix.column, count }
    }

    /// # Safety
    /// The line lies within what may be read from its number `step` on, `count` numbers of it.
    unsafe fn numbers<'a>(self, line: usize, step: usize, count: usize) -> &'a [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.wrapping_add(line * self.line + step * self.step), count) }
    }

    /// # Safety
    /// The number lies within what may be read.
    unsafe fn number(self, line: usize, step: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *self.start.wrapping_add(line * self.line + step * self.step) }
    }
}

/// The best instruction set of this machine, `None` if it has none of them.
pub fn best() -> Option<&'static Kernel> {
    if std::is_x86_feature_detected!("avx512f") {
        return Some(&avx512::KERNEL);
    }
    (std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")).then_some(&avx2::KERNEL)
}

/// Numbers of a row of the target.
///
/// # Safety
/// They lie within it, and nobody else has them.
unsafe fn place<'a>(target: *mut f32, offset: usize, count: usize) -> &'a mut [f32] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(target.wrapping_add(offset), count) }
}

/// Writes a row of a tile that is narrower than its vectors.
fn add_row(numbers: &[f32], base: Base<'_>, place: &mut [f32]) {
    for (column, (place, number)) in place.iter_mut().zip(numbers).enumerate() {
        *place = match base {
            Base::Zero => *number,
            Base::Existing => *place + number,
            Base::Row(values) => values[column] + number,
        };
    }
}

/// Declares the loops for one kind of vector.
macro_rules! instruction_set {
    ($name:ident, $features:literal, $vector:ty, $lanes:literal, $rows:literal, [$($fewer:literal),*],
     $set:ident, $multiply_add:ident, $add:ident, $transpose:ident) => {
        pub mod $name {
            use super::*;

            pub static KERNEL: Kernel = Kernel { lanes: LANES, rows: $rows, tile, pack };
            const LANES: usize = $lanes;
            type Vector = $vector;

            #[inline(always)]
            fn load(numbers: [f32; LANES]) -> Vector {
                // SAFETY: both are as many numbers.
                unsafe { std::mem::transmute(numbers) }
            }

            #[inline(always)]
            fn store(vector: Vector, numbers: &mut [f32; LANES]) {
                // SAFETY: both are as many numbers.
                *numbers = unsafe { std::mem::transmute::<Vector, [f32; LANES]>(vector) };
            }

            #[target_feature(enable = $features)]
            unsafe fn tile(panels: Panels<'_>, base: Base<'_>, target: *mut f32, stride: usize) {
                // SAFETY: the caller's promises.
                unsafe {
                    match panels.rows {
                        $($fewer => tile_of::<$fewer>(panels, base, target, stride),)*
                        _ => tile_of::<$rows>(panels, base, target, stride),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn tile_of<const ROWS: usize>(
                panels: Panels<'_>,
                base: Base<'_>,
                target: *mut f32,
                stride: usize,
            ) {
                for row in 0..ROWS {
                    for half in 0..2 {
                        _mm_prefetch::<_MM_HINT_T0>(target.wrapping_add(row * stride + half * LANES).cast());
                    }
                }
                let mut sums = [[$set(0.0); 2]; ROWS];
                let (left, right) = (panels.left.as_chunks::<LANES>().0, panels.right.as_chunks::<LANES>().0);
                for (left, right) in left.iter().zip(right.as_chunks::<2>().0) {
                    _mm_prefetch::<_MM_HINT_T0>(left.as_ptr().wrapping_add(AHEAD * LANES).cast());
                    for half in right {
                        _mm_prefetch::<_MM_HINT_T0>(half.as_ptr().wrapping_add(2 * AHEAD * LANES).cast());
                    }
                    let right = right.map(load);
                    for row in 0..ROWS {
                        let factor = $set(left[row]);
                        for half in 0..2 {
                            sums[row][half] = $multiply_add(factor, right[half], sums[row][half]);
                        }
                    }
                }
                if panels.columns < 2 * LANES {
                    let mut numbers = [[[0.0; LANES]; 2]; ROWS];
                    for row in 0..ROWS {
                        for half in 0..2 {
                            store(sums[row][half], &mut numbers[row][half]);
                        }
                    }
                    for (row, numbers) in numbers.iter().enumerate() {
                        // SAFETY: the caller's promise.
                        let place = unsafe { place(target, row * stride, panels.columns) };
                        add_row(numbers.as_flattened(), base, place);
                    }
                    return;
                }
                for row in 0..ROWS {
                    // SAFETY: the caller's promise.
                    let place = unsafe { place(target, row * stride, 2 * LANES) };
                    let place = place.as_chunks_mut::<LANES>().0;
                    for half in 0..2 {
                        let sum = match base {
                            Base::Zero => sums[row][half],
                            Base::Existing => $add(load(place[half]), sums[row][half]),
                            Base::Row(values) => $add(load(values.as_chunks::<LANES>().0[half]), sums[row][half]),
                        };
                        store(sum, &mut place[half]);
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack(from: Lines, inner: usize, to: &mut [f32], width: usize) {
                let mut packed = 0;
                if from.step == 1 {
                    let mut block = [$set(0.0); LANES];
                    while packed + LANES <= inner {
                        for line in 0..from.count.min(LANES) {
                            // SAFETY: the caller's promise.
                            let numbers = unsafe { from.numbers(line, packed, LANES) };
                            _mm_prefetch::<_MM_HINT_T0>(numbers.as_ptr().wrapping_add(FAR * LANES).cast());
                            block[line] = load(numbers.as_chunks::<LANES>().0[0]);
                        }
                        for (step, vector) in $transpose(&block).into_iter().enumerate() {
                            let place = &mut to[(packed + step) * width..][..LANES];
                            store(vector, &mut place.as_chunks_mut::<LANES>().0[0]);
                        }
                        packed += LANES;
                    }
                }
                for step in packed..inner {
                    let place = &mut to[step * width..][..LANES];
                    if from.line == 1 && from.count >= LANES {
                        // SAFETY: the caller's promise.
                        let numbers = unsafe { from.numbers(0, step, LANES) };
                        _mm_prefetch::<_MM_HINT_T0>(numbers.as_ptr().wrapping_add(FAR * from.step).cast());
                        place.copy_from_slice(numbers);
                    } else {
                        for (line, place) in place.iter_mut().enumerate() {
                            // SAFETY: the caller's promise.
                            *place = if line < from.count { unsafe { from.number(line, step) } } else { 0.0 };
                        }
                    }
                }
            }
        }
    };
}

instruction_set!(
    avx512,
    "avx512f",
    __m512,
    16,
    14,
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    transpose_16
);
instruction_set!(
    avx2,
    "avx2,fma",
    __m256,
    8,
    6,
    [1, 2, 3, 4, 5],
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    transpose_8
);

/// Rows to columns: first within the quarters of the vectors, then the quarters.
#[target_feature(enable = "avx512f")]
fn transpose_16(rows: &[__m512; 16]) -> [__m512; 16] {
    let mut pairs = *rows;
    for (pair, rows) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
        *pair = [_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[0], rows[1])];
    }
    // Of four rows, one column of each quarter in a vector.
    let mut fours = pairs;
    for (four, pairs) in fours.as_chunks_mut::<4>().0.iter_mut().zip(pairs.as_chunks::<4>().0) {
        let wide = pairs.map(|pair| _mm512_castps_pd(pair));
        *four = [
            _mm512_castpd_ps(_mm512_unpacklo_pd(wide[0], wide[2])),
            _mm512_castpd_ps(_mm512_unpackhi_pd(wide[0], wide[2])),
            _mm512_castpd_ps(_mm512_unpacklo_pd(wide[1], wide[3])),
            _mm512_castpd_ps(_mm512_unpackhi_pd(wide[1], wide[3])),
        ];
    }
    let mut columns = fours;
    for column in 0..4 {
        // Quarters 0 and 2, and 1 and 3, of the rows 0 to 7 and of the rows 8 to 15.
        let even = [0, 8].map(|row| _mm512_shuffle_f32x4::<0x88>(fours[row + column], fours[row + 4 + column]));
        let odd = [0, 8].map(|row| _mm512_shuffle_f32x4::<0xdd>(fours[row + column], fours[row + 4 + column]));
        columns[column] = _mm512_shuffle_f32x4::<0x88>(even[0], even[1]);
        columns[4 + column] = _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]);
        columns[8 + column] = _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]);
        columns[12 + column] = _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}

/// Rows to columns: first within the halves of the vectors, then the halves.
#[target_feature(enable = "avx2")]
fn transpose_8(rows: &[__m256; 8]) -> [__m256; 8] {
    let mut pairs = *rows;
    for (pair, rows) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
        *pair = [_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[0], rows[1])];
    }
    // Of four rows, one column of each half in a vector.
    let mut fours = pairs;
    for (four, pairs) in fours.as_chunks_mut::<4>().0.iter_mut().zip(pairs.as_chunks::<4>().0) {
        *four = [
            _mm256_shuffle_ps::<0x44>(pairs[0], pairs[2]),
            _mm256_shuffle_ps::<0xee>(pairs[0], pairs[2]),
            _mm256_shuffle_ps::<0x44>(pairs[1], pairs[3]),
            _mm256_shuffle_ps::<0xee>(pairs[1], pairs[3]),
        ];
    }
    let mut columns = fours;
    for column in 0..4 {
        columns[column] = _mm256_permute2f128_ps::<0x20>(fours[column], fours[4 + column]);
        columns[4 + column] = _mm256_permute2f128_ps::<0x31>(fours[column], fours[4 + column]);
    }
    columns
}
