//! The system's allocator, with one clear line where it has no memory left. Rust ends the program by a signal there.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{IsTerminal as _, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::note;

/// Hands every request to the system. One that it refuses ends the program with exit code 1 and a line that says how
/// many bytes were asked for, which batch was being computed and what to change; the last checkpoint stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportingAllocator;

// SAFETY: every call is the system allocator's own; where it gives nothing there is no return.
unsafe impl GlobalAlloc for ReportingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { System.realloc(place, layout, size) }, size)
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
        libc::_exit(i32::from(crate::error::FAILED))
    }
}
