# llmc: build, test, demonstrate, measure. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(HOME)/.cargo/bin:$(PATH)

TARGET := $(or $(CARGO_TARGET_DIR),target)
LLMC := $(TARGET)/release/llmc

.PHONY: help setup build lint test test-full demo bench clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## install what is missing (Debian 12; as root or through sudo)
	@.ci/setup

build: setup ## the compiler, target/release/llmc
	cargo build --release --locked -p llmc
	@echo "built $(LLMC)"

lint: ## formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# The tests start the `llmc` that the first command leaves beside them. Tests of real models run where the model is.
test: setup lint ## formatting, lints, all tests
	@examples/get_models.sh all-minilm-l6-v2 gemma3-270m || echo "test: going on without real models"
	cargo build --workspace --locked
	cargo test --workspace --locked --no-fail-fast

test-full: setup lint ## the same in release mode, with more real models and the slow tests
	examples/get_models.sh all-minilm-l6-v2 all-mpnet-base-v2 gemma3-270m qwen2.5-coder-0.5b qwen2.5-coder-1.5b
	cargo build --workspace --locked --release
	cargo test --workspace --locked --no-fail-fast --release -- --include-ignored

demo: build ## fetch a sentence encoder and a language model, compile them, embed, talk
	@LLMC=$(LLMC) examples/demo.sh

bench: build ## next to onnxruntime, OpenVINO and llama.cpp, in one run; BENCH=encoders|decoders for one of them
	@LLMC=$(LLMC) bench/run.sh

clean: ## remove what was built
	cargo clean
