//! Large blocks of memory that are kept when they are freed. A training step asks for the same tensors again and again;
//! from the system each would come in pages that have yet to be made and cleared, which takes as long as a pass over it.
//!
//! All blocks are pieces of one range of addresses as long as the machine's memory, on huge pages where the system has
//! them. What has been used once stays with the program, and free neighbours become one piece again, so that the program
//! holds little more than it needs at its peak. Where addresses are limited (`ulimit -v`) or there is no such range,
//! there is no pool, and all is the system allocator's.

use std::{
    alloc::Layout,
    ptr::{self, null_mut},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Smaller requests are the system allocator's.
const LARGE: usize = 1 << 20;
/// Sizes of pieces are multiples of this; it is one of a page's size.
const UNIT: usize = 1 << 16;
/// Where the range begins: a multiple of the size of a huge page.
const HUGE_PAGE: usize = 1 << 21;

/// A free piece, written at its own beginning; they are linked by address.
struct Free {
    size: usize,
    next: *mut Free,
}

struct Pool {
    is_ready: bool,
    /// The range; both 0 where there is none.
    start: usize,
    end: usize,
    /// What lies behind has never been used.
    top: usize,
    free: *mut Free,
}

// SAFETY: its pointers lead into the range, which whoever holds the lock has for themselves where it is free.
unsafe impl Send for Pool {}

static POOL: Mutex<Pool> = Mutex::new(Pool { is_ready: false, start: 0, end: 0, top: 0, free: null_mut() });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rounded(size: usize) -> usize {
    size.next_multiple_of(UNIT)
}

/// Whether a request is for the pool, if there is one with room for it.
pub fn may_hold(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= UNIT
}

/// A block, and whether it is all zeros; none where the request is not the pool's or it has no room.
pub fn allocate(layout: Layout) -> Option<(*mut u8, bool)> {
    if !may_hold(layout) {
        return None;
    }
    let size = rounded(layout.size());
    let mut pool = pool();
    if !pool.is_ready {
        pool.reserve();
    }
    pool.take_free(size).map(|block| (block, false)).or_else(|| pool.take_new(size).map(|block| (block, true)))
}

/// Takes a block back, where it is the pool's.
///
/// # Safety
/// It was allocated for this layout, and nobody uses it any more.
pub unsafe fn free(block: *mut u8, layout: Layout) -> bool {
    if !may_hold(layout) {
        return false;
    }
    let mut pool = pool();
    let is_ours = pool.holds(block);
    if is_ours {
        // SAFETY: the caller's promise.
        unsafe { pool.give_back(block as usize, rounded(layout.size())) };
    }
    is_ours
}

/// Whether a block is as good for another size.
pub fn fits(block: *mut u8, layout: Layout, size: usize) -> bool {
    may_hold(layout) && size >= LARGE && rounded(layout.size()) == rounded(size) && pool().holds(block)
}

impl Pool {
    fn holds(&self, block: *mut u8) -> bool {
        (self.start..self.end).contains(&(block as usize))
    }

    /// Asks the system for the range.
    fn reserve(&mut self) {
        self.is_ready = true;
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the place for the answer is there.
        let is_known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
        if !is_known || limit.rlim_cur != libc::RLIM_INFINITY {
            return;
        }
        // SAFETY: a question.
        let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
        let (Ok(pages), Ok(page)) = (usize::try_from(pages), usize::try_from(page)) else { return };
        let size = pages.saturating_mul(page) / HUGE_PAGE * HUGE_PAGE;
        if size == 0 || !UNIT.is_multiple_of(page) {
            return;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping.
        let place = unsafe { libc::mmap(null_mut(), size + HUGE_PAGE, access, flags, -1, 0) };
        if place == libc::MAP_FAILED {
            return;
        }
        #[cfg(target_os = "linux")]
        // SAFETY: the mapping that has just been made. Without huge pages it is slower and no worse.
        unsafe {
            libc::madvise(place, size + HUGE_PAGE, libc::MADV_HUGEPAGE);
        }
        self.start = (place as usize).next_multiple_of(HUGE_PAGE);
        self.top = self.start;
        self.end = self.start + size;
    }

    /// The smallest free piece that is large enough, or its beginning.
    fn take_free(&mut self, size: usize) -> Option<*mut u8> {
        let mut best: Option<*mut *mut Free> = None;
        let mut best_size = usize::MAX;
        let mut link = &raw mut self.free;
        // SAFETY: links lead to free pieces, which are the pool's.
        unsafe {
            while !(*link).is_null() {
                let found = (**link).size;
                if found >= size && found < best_size {
                    (best, best_size) = (Some(link), found);
                }
                link = &raw mut (**link).next;
            }
            let link = best?;
            let piece = *link;
            if best_size == size {
                *link = (*piece).next;
            } else {
                let rest = (piece as usize + size) as *mut Free;
                ptr::write(rest, Free { size: best_size - size, next: (*piece).next });
                *link = rest;
            }
            Some(piece.cast())
        }
    }

    /// A piece that has never been used.
    fn take_new(&mut self, size: usize) -> Option<*mut u8> {
        if self.end - self.top < size {
            return None;
        }
        let block = self.top;
        self.top += size;
        Some(block as *mut u8)
    }

    /// Links a piece in by its address and joins it to its neighbours.
    ///
    /// # Safety
    /// It is a piece of the range, and nobody else's.
    unsafe fn give_back(&mut self, block: usize, size: usize) {
        let mut before: *mut Free = null_mut();
        let mut after = self.free;
        // SAFETY: links lead to free pieces, which are the pool's, and so is the block from now on.
        unsafe {
            while !after.is_null() && (after as usize) < block {
                before = after;
                after = (*after).next;
            }
            let piece = block as *mut Free;
            ptr::write(piece, Free { size, next: after });
            if !after.is_null() && block + size == after as usize {
                (*piece).size += (*after).size;
                (*piece).next = (*after).next;
            }
            if before.is_null() {
                self.free = piece;
            } else if before as usize + (*before).size == block {
                (*before).size += (*piece).size;
                (*before).next = (*piece).next;
            } else {
                (*before).next = piece;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::alloc::GlobalAlloc as _;

    use super::*;
    use crate::memory::allocator::ReportingAllocator;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 64).expect("a layout")
    }

    /// A pool of its own over a range that a vector holds.
    fn over(memory: &mut [u64]) -> Pool {
        let start = (memory.as_mut_ptr() as usize).next_multiple_of(UNIT);
        let end = start + (memory.len() - UNIT / 8) * 8 / UNIT * UNIT;
        Pool { is_ready: true, start, end, top: start, free: null_mut() }
    }

    fn pieces(pool: &Pool) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let mut piece = pool.free;
        while !piece.is_null() {
            // SAFETY: a free piece of the test's own pool.
            let (size, next) = unsafe { ((*piece).size, (*piece).next) };
            found.push(((piece as usize - pool.start) / UNIT, size / UNIT));
            piece = next;
        }
        found
    }

    #[test]
    fn freed_neighbours_become_one_piece_and_the_smallest_that_fits_is_taken() {
        let mut memory = vec![0_u64; 12 * UNIT / 8];
        let mut pool = over(&mut memory);
        let taken: Vec<usize> = (0..6).map(|_| pool.take_new(UNIT).expect("there is room") as usize).collect();
        // SAFETY: each block is given back once.
        unsafe {
            pool.give_back(taken[1], UNIT);
            pool.give_back(taken[4], UNIT);
            assert_eq!(pieces(&pool), [(1, 1), (4, 1)]);
            pool.give_back(taken[2], UNIT);
            assert_eq!(pieces(&pool), [(1, 2), (4, 1)]);
            assert_eq!(pool.take_free(UNIT).map(|block| block as usize), Some(taken[4]));
            pool.give_back(taken[4], UNIT);
            pool.give_back(taken[3], UNIT);
            assert_eq!(pieces(&pool), [(1, 4)]);
        }
        assert_eq!(pool.take_free(3 * UNIT).map(|block| block as usize), Some(taken[1]));
        assert_eq!(pieces(&pool), [(4, 1)]);
        assert_eq!(pool.take_free(2 * UNIT), None);
    }

    #[test]
    fn no_two_blocks_overlap_and_all_comes_back() {
        let mut memory = vec![0_u64; 260 * UNIT / 8];
        let mut pool = over(&mut memory);
        let mut random = crate::random::Random::new(7);
        let mut used: Vec<(usize, usize)> = Vec::new();
        for _ in 0..2000 {
            if random.below(2) == 0 && !used.is_empty() {
                let (block, size) = used.swap_remove(random.below(used.len()));
                // SAFETY: it is in use and given back once.
                unsafe { pool.give_back(block, size) };
            } else {
                let size = (1 + random.below(9)) * UNIT;
                if let Some(block) = pool.take_free(size).or_else(|| pool.take_new(size)) {
                    let block = block as usize;
                    assert!(block >= pool.start && block + size <= pool.end);
                    assert!(used.iter().all(|&(other, length)| block + size <= other || other + length <= block));
                    used.push((block, size));
                }
            }
        }
        for (block, size) in used {
            // SAFETY: as above.
            unsafe { pool.give_back(block, size) };
        }
        assert_eq!(pieces(&pool), [(0, (pool.top - pool.start) / UNIT)]);
    }

    #[test]
    fn a_used_block_is_cleared_when_zeros_are_asked_for_and_keeps_its_content_when_it_grows() {
        let allocator = ReportingAllocator;
        let (small, large) = (layout(3 * LARGE + 5), layout(5 * LARGE));
        // SAFETY: what is allocated is written and read within its size, and freed once.
        unsafe {
            for _ in 0..3 {
                let block = allocator.alloc_zeroed(small);
                assert!(std::slice::from_raw_parts(block, small.size()).iter().all(|&value| value == 0));
                block.write_bytes(1, small.size());
                let block = allocator.realloc(block, small, large.size());
                assert!(std::slice::from_raw_parts(block, small.size()).iter().all(|&value| value == 1));
                block.write_bytes(2, large.size());
                let block = allocator.realloc(block, large, 100);
                assert!(std::slice::from_raw_parts(block, 100).iter().all(|&value| value == 2));
                allocator.dealloc(block, layout(100));
            }
        }
        assert!(!may_hold(layout(LARGE - 1)) && may_hold(layout(LARGE)));
    }
}
