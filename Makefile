# Thin: each line is a command anyone could type. One profile (release) for everything, so that
# RocksDB is compiled once.
SHELL := /bin/bash
CARGO := . .ci/env && cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: demo test check bench bench-ann bench-encode bench-train setup build fmt clippy buf unit docs

demo: setup
	@[ -x $(TARGET)/release/diptych ] || echo "Building. The first build compiles RocksDB: 20 to 30 minutes on two cores, seconds after that."
	$(CARGO) build --release --workspace
	@data/demo.sh $(TARGET)/release/diptych

test: setup check buf unit docs
	$(CARGO) build --release --workspace --benches

check: fmt clippy

bench: setup
	$(CARGO) bench --workspace

# Needs Python 3 and, the first time, PyPI. ARGS=--profile shows where the time goes, ARGS=--help the rest.
bench-encode:
	@command -v python3 >/dev/null || { echo "bench-encode: python3 is missing; the peers are compared by a Python script (3.9 or newer)" >&2; exit 1; }
	python3 -B benches/encode/run.py --cache $(TARGET)/bench-encode $(ARGS)

# The same, and 1 GB of disk; ARGS="--n 100000,1000000" needs 20 GB of memory and some hours.
bench-ann: setup
	@command -v python3 >/dev/null || { echo "bench-ann: python3 is missing; the peers are measured by a Python script (3.9 or newer)" >&2; exit 1; }
	. .ci/env && python3 -B benches/ann/run.py --cache $(TARGET)/bench-ann $(ARGS)

# Trains every objective on phantoms at equal budget; half an hour on two idle cores.
bench-train: setup build
	@sh benches/train/objectives.sh $(TARGET)/release/diptych $(TARGET)/bench-train

setup:
	@.ci/setup

build:
	$(CARGO) build --release --workspace

fmt:
	cargo fmt --all --check

clippy:
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

# The wire: its style, and that no client of the last release breaks. Says so where there is no buf.
buf:
	@.ci/buf

# Last, the network half of the hub, which the default build leaves out.
unit:
ifeq ($(NEXTEST),yes)
	$(CARGO) nextest run --release --workspace --no-fail-fast
else
	$(CARGO) test --release --workspace --all-targets
endif
	$(CARGO) test --release --workspace --doc
	$(CARGO) test --release -p diptych-hub --features download

docs:
	$(CARGO) doc --release --workspace --no-deps
docs: export RUSTDOCFLAGS := -D warnings
