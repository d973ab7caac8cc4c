//! How long the hot paths take: `cargo bench --bench hot_paths`.
//!
//! Times differ from run to run and from machine to machine; `instructions` counts instead.

use criterion::Criterion;

mod paths;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, path) in paths::PATHS {
        // The run includes what a path sets up once, which a hundred runs of it make small.
        criterion.bench_function(name, |bencher| bencher.iter(|| path(100)));
    }
    criterion.final_summary();
}
