//! What must hold at the end of every run, one promise per file.

mod atomic;
mod bounded;
mod no_blame;
mod no_duplicate;
mod no_loss;
mod offset_monotonic;
mod order;
mod orders;
mod store_agrees;

use super::evidence::Evidence;

/// Judges a run; the error says what was seen.
pub type Check = fn(&Evidence) -> Result<(), String>;

/// Every promise with its name.
pub const INVARIANTS: [(&str, Check); 9] = [
    ("no_loss", no_loss::check),
    ("no_duplicate", no_duplicate::check),
    ("no_blame", no_blame::check),
    ("atomic", atomic::check),
    ("offset_monotonic", offset_monotonic::check),
    ("order", order::check),
    ("orders", orders::check),
    ("store_agrees", store_agrees::check),
    ("bounded", bounded::check),
];
