//! Letters as text.

use std::fmt::Write as _;

use comfy_table::{Table, presets};

use super::Letter;

/// How much of an error a line of the list has.
const ERROR_CHARS: usize = 60;

/// One line for each.
pub(crate) fn table(letters: &[Letter]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "letter",
        "message",
        "last failed (UTC)",
        "attempts",
        "disposition",
        "error",
    ]);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for letter in letters {
        let Letter { at, message, last_failed, attempts, disposition, class, error, .. } = letter;
        let mut error: String = format!("{class}: {error}").chars().take(ERROR_CHARS).collect();
        error = error.replace(char::is_control, " ");
        table.add_row([at, message, last_failed, &attempts.to_string(), disposition, &error]);
    }
    let mut out = table.trim_fmt();
    out.push('\n');
    out
}

/// Everything about one.
pub(crate) fn text(letter: &Letter) -> String {
    let Letter { at, message, disposition, group, instance, attempts, class, error, .. } = letter;
    let mut out = format!("{at} is the dead letter of {message}\n\n");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<14}{value}");
    };
    if let Some(origin) = &letter.origin {
        line("origin", origin);
    }
    line("disposition", disposition);
    line("class", class);
    line("reason", &letter.reason);
    line("error", error);
    line("attempts", &attempts.to_string());
    line("first failed", &letter.first_failed);
    line("last failed", &letter.last_failed);
    line("group", group);
    line("instance", instance);
    line("timestamp", letter.timestamp.as_deref().unwrap_or("none"));
    for (name, value) in &letter.headers {
        line("header", &format!("{name}: {}", value.as_deref().unwrap_or("(null)")));
    }
    line("key", letter.key.as_deref().unwrap_or("none"));
    line("value", letter.value.as_deref().unwrap_or("none (a tombstone)"));
    out
}
