//! The system's allocator and the pool of large blocks, with one clear line where it has no memory left. Rust ends the program by a signal there.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{IsTerminal as _, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::pool;
use crate::{error::FAILED, panics::note};

/// Hands every request to the pool or the system. One that they refuse ends the program with exit code 1 and a line that says how
/// many bytes were asked for, which batch was being computed and what to change; the last checkpoint stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportingAllocator;

// SAFETY: every call is the pool's or the system allocator's own, and a block goes back to where it came from; where they
// give nothing there is no return.
unsafe impl GlobalAlloc for ReportingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some((place, _)) = pool::allocate(layout) {
            return place;
        }
        // SAFETY: the caller's promise.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe {
            if !pool::free(place, layout) {
                System.dealloc(place, layout);
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some((place, is_zero)) = pool::allocate(layout) {
            if !is_zero {
                // SAFETY: the block holds as many bytes.
                unsafe { place.write_bytes(0, layout.size()) };
            }
            return place;
        }
        // SAFETY: the caller's promise.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if pool::fits(place, layout, size) {
            return place;
        }
        // SAFETY: the new size comes from a caller who has made sure that it is none too large for its alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !pool::may_hold(layout) && !pool::may_hold(wanted) {
            // SAFETY: the caller's promise.
            return given(unsafe { System.realloc(place, layout, size) }, size);
        }
        // SAFETY: both are there and hold as many bytes, and the old one is the caller's to give back.
        unsafe {
            let new = self.alloc(wanted);
            std::ptr::copy_nonoverlapping(place, new, layout.size().min(size));
            self.dealloc(place, layout);
            new
        }
    }
}

#[inline]
fn given(place: *mut u8, size: usize) -> *mut u8 {
    if place.is_null() {
        end(size);
    }
    place
}

/// Says what was asked for and ends the program; asks for no memory itself.
#[cold]
fn end(size: usize) -> ! {
    static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
    while HAS_BEGUN.swap(true, Ordering::SeqCst) {
        // Another thread is telling; it ends this one too.
        std::thread::sleep(Duration::from_secs(1));
    }
    let mut text = [0_u8; 2048];
    let space = text.len();
    let mut rest = text.as_mut_slice();
    // Behind a progress bar.
    let begin = if std::io::stderr().is_terminal() { "\n" } else { "" };
    let _ = write!(rest, "{begin}error: out of memory: cannot allocate {size} bytes");
    note::with(|note| {
        let _ = rest.write_all(note);
    });
    let _ = rest.write_all(b"\n");
    let length = space - rest.len();
    // SAFETY: the text is there and this long; the process ends without running anything else.
    unsafe {
        // Not through the library's standard error, which this very thread may be writing to.
        let _ = libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), length);
        libc::_exit(i32::from(FAILED))
    }
}
