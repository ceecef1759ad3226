#!/usr/bin/env bash
# Purpose: sentences per second of a compiled all-MiniLM-L6-v2 next to onnxruntime, alternating in one run.
# Usage:   make bench          or: LLMC=target/release/llmc bench/run.sh [--json] [--repeats N] [--peer-only] …
#          onnxruntime goes into target/bench-venv, the ONNX graphs beside the model. A quiet machine gives the better answer.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
models=${LLMC_MODELS:-$HOME/.cache/llmc/models}
venv=${CARGO_TARGET_DIR:-target}/bench-venv

examples/get_models.sh all-minilm-l6-v2 >&2
if ! "$venv/bin/python" -c 'import numpy, onnx, onnxruntime, safetensors, sympy' 2>/dev/null; then
  echo "bench: installing onnxruntime into $venv" >&2
  python3 -m venv "$venv" || { echo "bench: python3 -m venv failed (Debian: python3-venv)" >&2; exit 1; }
  # sympy: onnxruntime.transformers wants it
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy onnx onnxruntime safetensors sympy
fi
cargo build --quiet --release --locked -p llmc-bench
exec "${CARGO_TARGET_DIR:-target}/release/llmc-bench" --python "$venv/bin/python" --llmc "${LLMC:-target/release/llmc}" \
  --model "$models/all-minilm-l6-v2" --golden tests/golden/real/all-minilm-l6-v2 "$@"
