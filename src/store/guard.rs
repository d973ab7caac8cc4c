//! Panics of the storage engine, turned into errors and kept off the terminal.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::thread;

use super::StoreError;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work` and makes a panic in it an error. The panic hook stays silent for this thread.
pub(super) fn catching<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    install();
    let before = QUIET.replace(true);
    // The store counts as failed after a panic, so that nothing of it is seen half changed.
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    result.unwrap_or_else(|_| {
        let said = SAID.with_borrow_mut(Option::take);
        Err(StoreError::Panicked { what: said.unwrap_or_else(|| "no message".to_owned()) })
    })
}

/// Puts a hook before the present one that keeps the message of quiet threads for the error.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let engine = thread::current().name().is_some_and(|name| name.starts_with("sled"));
            if QUIET.get() || engine {
                SAID.set(Some(info.to_string().replace('\n', " ")));
            } else {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_quotes_it() {
        let error = catching::<()>(|| panic!("torn page")).expect_err("it panics");
        assert!(matches!(&error, StoreError::Panicked { what } if what.contains("torn page")));
        assert!(error.is_damage());
        assert!(!QUIET.get());
    }
}
