# How many simulated worlds to run, and from which seed on.
SEEDS ?= 200
FROM ?= 0

.PHONY: sim
sim:
	cargo run --quiet --package countersign-testkit --bin countersign-sim -- \
		--seeds $(SEEDS) --from $(FROM)
