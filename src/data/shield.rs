//! A shield around foreign code that may panic on damaged input.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

std::thread_local! {
    static IS_SHIELDED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives; nothing where it panicked, and then nothing is printed.
pub(super) fn shielded<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |facts| {
            if !IS_SHIELDED.get() {
                previous(facts);
            }
        }));
    });
    let was_shielded = IS_SHIELDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_SHIELDED.set(was_shielded);
    result.ok()
}
