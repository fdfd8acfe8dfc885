//! Catches the panics of foreign code on damaged input, without a word on stderr.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

std::thread_local! {
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives; nothing if it panicked, and then nothing is printed.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |facts| {
            if !IS_CATCHING.get() {
                previous(facts);
            }
        }));
    });
    let was_catching = IS_CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CATCHING.set(was_catching);
    result.ok()
}
