//! How a product is cut into pieces that fit the caches, and shared out among threads.

use std::{cell::RefCell, ops::Range};

use rayon::prelude::*;

use super::{
    Base, Matrix, Target,
    kernel::{Kernel, Lines, Panels},
};

/// Steps along the inner axis of one piece, at most.
const DEPTH: usize = 768;
/// Rows or columns of one task: with [`DEPTH`] steps they fill a part of a core's second cache.
const TASK: usize = 96;
/// Numbers of an operand that are packed for all tasks at a time.
const SHARED: usize = 1 << 22;
/// Multiply-adds that are worth a second thread.
const LARGE: usize = 1 << 19;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

/// Memory that is kept for the next product of a thread.
#[derive(Default)]
struct Buffer(Vec<CacheLine>);

impl Buffer {
    fn of(&mut self, numbers: usize) -> &mut [f32] {
        let lines = numbers.div_ceil(16);
        if self.0.len() < lines {
            // Not grown, which would copy what nobody wants.
            self.0 = vec![CacheLine([0.0; 16]); lines];
        }
        // SAFETY: a line is sixteen numbers without gaps, and as many have just been made sure of.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), numbers) }
    }
}

thread_local! {
    static SHARED_BUFFER: RefCell<Buffer> = const { RefCell::new(Buffer(Vec::new())) };
    static TASK_BUFFER: RefCell<Buffer> = const { RefCell::new(Buffer(Vec::new())) };
}

/// A piece of the inner axis.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    steps: usize,
}

/// An operand, cut into panels: of the left one rows, of the right one columns.
#[derive(Clone, Copy)]
struct Operand {
    /// With the lines that are cut as rows.
    matrix: Matrix,
    /// Lines in all.
    lines: usize,
    /// Lines of a panel.
    panel: usize,
    /// Numbers of a packed panel for each step: its lines, and zeros.
    width: usize,
}

impl Operand {
    fn panels(self) -> usize {
        self.lines.div_ceil(self.panel)
    }

    /// Lines of a panel; the last one may have fewer.
    fn lines_of(self, panel: usize) -> usize {
        self.panel.min(self.lines - panel * self.panel)
    }

    /// The operand from a line on, and at most as many.
    fn from(self, line: usize, most: usize) -> Self {
        let start = self.matrix.start.wrapping_add(line * self.matrix.row);
        Self { matrix: Matrix { start, ..self.matrix }, lines: most.min(self.lines - line), ..self }
    }

    /// # Safety
    /// The lines may be read.
    unsafe fn pack(self, kernel: &Kernel, panel: usize, piece: Piece, to: &mut [f32]) {
        for offset in (0..self.width).step_by(kernel.lanes) {
            let first = panel * self.panel + offset;
            let lines = Lines::rows(self.matrix, first, piece.start, self.lines.saturating_sub(first));
            // SAFETY: the caller's promise.
            unsafe { (kernel.pack)(lines, piece.steps, &mut to[offset..], self.width) };
        }
    }
}

/// A product of two operands of which one is packed for all tasks, piece by piece and in each panel by panel; a task
/// packs its panels of the other.
struct Product<'a> {
    kernel: &'a Kernel,
    inner: usize,
    /// Steps of a piece; the last one may have fewer.
    depth: usize,
    target: Target,
    base: Base<'a>,
    shared: Operand,
    own: Operand,
    /// Whether a task's own panels are rows of the result, and not columns.
    owns_rows: bool,
}

impl Product<'_> {
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let steps = move |start| self.depth.min(self.inner - start);
        (0..self.inner).step_by(self.depth).map(move |start| Piece { start, steps: steps(start) })
    }

    /// Where a panel of a piece of the shared operand lies.
    fn place(&self, panel: usize, piece: Piece) -> Range<usize> {
        let begin = (piece.start * self.shared.panels() + panel * piece.steps) * self.shared.width;
        begin..begin + piece.steps * self.shared.width
    }

    fn shared_size(&self) -> usize {
        self.shared.panels() * self.inner * self.shared.width
    }

    /// Packs a panel of the shared operand.
    ///
    /// # Safety
    /// The operand may be read; nobody else touches the panel's places from `to` on.
    unsafe fn pack_shared(&self, panel: usize, to: Target) {
        for piece in self.pieces() {
            let place = self.place(panel, piece);
            // SAFETY: the caller's promise.
            unsafe {
                let to = std::slice::from_raw_parts_mut(to.start.add(place.start), place.len());
                self.shared.pack(self.kernel, panel, piece, to);
            }
        }
    }

    /// Computes the part of the result that some panels of each operand make.
    ///
    /// # Safety
    /// The operands may be read, and the part of the target written by nobody else.
    unsafe fn compute(&self, packed: &[f32], shared: Range<usize>, own: Range<usize>) {
        TASK_BUFFER.with_borrow_mut(|buffer| {
            let buffer = buffer.of(own.len() * self.depth * self.own.width);
            for piece in self.pieces() {
                let size = piece.steps * self.own.width;
                for (panel, to) in own.clone().zip(buffer.chunks_exact_mut(size)) {
                    // SAFETY: the caller's promise.
                    unsafe { self.own.pack(self.kernel, panel, piece, to) };
                }
                for shared in shared.clone() {
                    let theirs = &packed[self.place(shared, piece)];
                    for (own, ours) in own.clone().zip(buffer.chunks_exact(size)) {
                        // SAFETY: the caller's promise.
                        unsafe { self.tile((theirs, shared), (ours, own), piece) };
                    }
                }
            }
        });
    }

    /// Adds the product of two packed panels.
    ///
    /// # Safety
    /// The part of the target may be written by nobody else.
    unsafe fn tile(&self, shared: (&[f32], usize), own: (&[f32], usize), piece: Piece) {
        let (lines, own_lines) = (self.shared.lines_of(shared.1), self.own.lines_of(own.1));
        let (first, own_first) = (shared.1 * self.shared.panel, own.1 * self.own.panel);
        let (row, column, panels) = if self.owns_rows {
            (own_first, first, Panels { left: own.0, right: shared.0, rows: own_lines, columns: lines })
        } else {
            (first, own_first, Panels { left: shared.0, right: own.0, rows: lines, columns: own_lines })
        };
        let base = match self.base {
            _ if piece.start > 0 => Base::Existing,
            Base::Row(values) => Base::Row(&values[column..]),
            base => base,
        };
        let place = self.target.start.wrapping_add(row * self.target.row + column);
        // SAFETY: the caller's promise.
        unsafe { (self.kernel.tile)(panels, base, place, self.target.row) };
    }
}

/// See [`super::multiply`].
///
/// # Safety
/// As there, and the kernel's instruction set is there.
pub unsafe fn multiply(
    kernel: &Kernel,
    (rows, inner, columns): (usize, usize, usize),
    target: Target,
    base: Base<'_>,
    left: Matrix,
    right: Matrix,
    is_parallel: bool,
) {
    let left = Operand { matrix: left, lines: rows, panel: kernel.rows, width: kernel.lanes };
    let width = 2 * kernel.lanes;
    let right = Operand { matrix: right.transposed(), lines: columns, panel: width, width };
    let owns_rows = rows > columns;
    let (shared, own) = if owns_rows { (right, left) } else { (left, right) };
    let depth = inner.div_ceil(inner.div_ceil(DEPTH));
    let threads = if is_parallel && rows * inner * columns > LARGE { rayon::current_num_threads() } else { 1 };
    let most = (SHARED / inner / shared.panel).max(1) * shared.panel;
    // Taken and not borrowed: a task that this thread steals meanwhile may be a product too.
    let mut buffer = SHARED_BUFFER.take();
    for line in (0..shared.lines).step_by(most) {
        let (target, base) = if owns_rows {
            let base = if let Base::Row(values) = base { Base::Row(&values[line..]) } else { base };
            (Target { start: target.start.wrapping_add(line), ..target }, base)
        } else {
            (Target { start: target.start.wrapping_add(line * target.row), ..target }, base)
        };
        let product = Product { kernel, inner, depth, target, base, shared: shared.from(line, most), own, owns_rows };
        // SAFETY: the caller's promise.
        unsafe { run(&product, buffer.of(product.shared_size()), threads) };
    }
    SHARED_BUFFER.replace(buffer);
}

/// Packs the shared operand and shares the result out in tasks.
///
/// # Safety
/// As [`Product::compute`].
unsafe fn run(product: &Product<'_>, packed: &mut [f32], threads: usize) {
    let place = Target::new(packed, 0);
    // SAFETY: the caller's promise; each panel has its own place.
    let pack = |panel: usize| unsafe { product.pack_shared(panel, place) };
    let (shared, own) = (product.shared.panels(), product.own.panels());
    if threads > 1 {
        (0..shared).into_par_iter().with_min_len(2).for_each(pack);
    } else {
        (0..shared).for_each(pack);
    }
    let packed = &*packed;
    let across = own.div_ceil(TASK / product.own.panel).next_multiple_of(threads).min(own);
    // Where there are few, the shared panels are shared out too.
    let down = if threads > 1 { (3 * threads).div_ceil(across).min(shared) } else { 1 };
    let part = |panels: usize, parts: usize, index: usize| index * panels / parts..(index + 1) * panels / parts;
    // SAFETY: the caller's promise; each task has its own part of the target.
    let compute = |task: usize| unsafe {
        product.compute(packed, part(shared, down, task / across), part(own, across, task % across));
    };
    if threads > 1 {
        (0..across * down).into_par_iter().for_each(compute);
    } else {
        (0..across).for_each(compute);
    }
}
