# Sateen. `make up` starts a development cluster, `make test` runs everything CI runs.
#
# Build products go to $CARGO_TARGET_DIR (default: target/). One cargo profile (release, with assertions) serves
# everything, so that RocksDB is compiled once.

SHELL := /bin/bash
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
BIN := $(CARGO_TARGET_DIR)/release
SERVERS := -p sateen-mds -p sateen-oss -p sateen-dra-sync -p sateen-dev-s3 -p sateen-cli

.PHONY: help setup build up down status test lint deny unit bench clean

help:
	@echo 'make up      build, start a development cluster in .dev/ and mount it at ./mnt'
	@echo 'make status  show it'
	@echo 'make down    unmount and stop it; the data stays in .dev/'
	@echo 'make test    everything CI runs'
	@echo 'make bench   measure, with ratios to limits measured in the same run'

setup:
	@scripts/setup.sh build

build: setup
	@echo '== building (the first time RocksDB takes 10 to 20 minutes on two cores)'
	cargo build --release --locked $(SERVERS)

up: build
	@$(BIN)/sateen dev up

status:
	@$(BIN)/sateen dev status

down:
	@if [ -x $(BIN)/sateen ]; then $(BIN)/sateen dev down; else echo 'no $(BIN)/sateen: nothing was built, so nothing runs (or CARGO_TARGET_DIR is another than for make up)'; fi

test: lint deny unit

lint:
	@scripts/setup.sh test
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

deny:
	@scripts/deny.sh

unit:
	@scripts/setup.sh test
	@scripts/test-tools.sh
	cargo build --release --locked --workspace
	@scripts/run-tests.sh
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --release --locked --no-deps --workspace
	cargo test --release --locked --doc --workspace

bench: build
	cargo build --release --locked -p sateen-bench
	@mkdir -p target/bench
	@$(BIN)/sateen-bench --out target/bench/results.json $(BENCH_ARGS)

clean:
	cargo clean
