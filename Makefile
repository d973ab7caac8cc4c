# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.

# How many simulated worlds to run, and from which seed on.
SEEDS ?= 200
FROM ?= 0
# How long each fuzz target runs.
SECONDS ?= 60
# What the benchmark or the soak is told; --help lists it.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test ci sim soak fuzz lint docs fmt setup bench bench-peers

help: ## Lists the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## Kills a payments service three times in the middle and counts what became visible
	@.ci/quietly 'building the demonstration' cargo build --release --example demo --example payments
	@target/release/examples/demo

test: ## Runs every test, those on a real Kafka too
	@.ci/run setup tests

ci: ## Runs everything that CI runs
	@.ci/run

sim: ## Runs simulated worlds: make sim SEEDS=1000
	@cargo run --quiet --package countersign-testkit --bin countersign-sim -- \
		--seeds $(SEEDS) --from $(FROM)

soak: setup ## Kills processes for two minutes while messages fail: make soak ARGS='--seconds 30'
	@.ci/quietly 'building the soak' \
		cargo build --release -p countersign-testkit --bin countersign-soak
	@target/release/countersign-soak $(ARGS)

fuzz: ## Fuzzes every target: make fuzz SECONDS=60
	fuzz/run $(SECONDS)

bench: ## Times the hot paths, and counts their instructions against the recorded ones
	@cargo bench --quiet --bench hot_paths --bench instructions

lint: ## Formatting, clippy, licences and sources of dependencies
	@.ci/run format clippy deny

docs: ## The library's documentation, in target/doc
	@.ci/run docs

fmt: ## Formats the sources
	cargo fmt --all

setup: ## Looks for what is needed; as root on Debian it installs what is missing
	@.ci/setup

bench-peers: setup ## Compares with other loops on a real Kafka: make bench-peers ARGS=--quick
	@.ci/quietly 'building the benchmark' \
		cargo build --release -p countersign-cli -p countersign-bench-peers
	@target/release/bench-peers $(ARGS)
