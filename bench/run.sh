#!/usr/bin/env bash
# Purpose: what llmc compiles next to its peers, alternating in one run: encoders next to onnxruntime and OpenVINO, decoders
#          next to llama.cpp. Markdown tables on standard output, JSON lines in target/bench/{encoders,decoders}.jsonl.
# Usage:   make bench          or: [LLMC=…/llmc] bench/run.sh [encoders|decoders|all] [MODEL…] [OPTIONS]
#          Without a part, $BENCH says which, else all. MODEL (with a part): a name of examples/get_models.sh --list, or a
#          path. OPTIONS: --threads 1,2  --repeats 5  --cases …  --compile "OPTIONS"  --peer-only  --llmc-only (decoders)
#          --precisions f32,int8 (encoders)
# Example: bench/run.sh decoders gemma3-270m --threads 1 --cases 512+128 --repeats 3
#          Python packages are kept in ~/.cache/llmc/venv. A quiet machine gives the better answer.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
models=${LLMC_MODELS:-$HOME/.cache/llmc/models}
venvs=$HOME/.cache/llmc/venv
target=${CARGO_TARGET_DIR:-target}
llmc=${LLMC:-$target/release/llmc}

part=${BENCH:-all}
case ${1:-} in encoders | decoders | all) part=$1; shift ;; esac
named=()
while [ $# -gt 0 ] && [[ $1 != -* ]]; do named+=("$1"); shift; done
case $part in
  all)
    [ ${#named[@]} -eq 0 ] || { echo "bench: models are named for one part: encoders or decoders" >&2; exit 2; } ;;
  encoders | decoders) ;;
  *) echo "bench: BENCH is \`$part\`, expected encoders, decoders or all" >&2; exit 2 ;;
esac

# venv NAME MODULE… -- PIP-ARGUMENT…: makes the environment unless it can import the modules.
venv() {
  local folder=$venvs/$1 modules=()
  shift
  while [ "$1" != -- ]; do modules+=("$1"); shift; done
  shift
  if ! "$folder/bin/python" -c "import $(IFS=,; echo "${modules[*]}")" 2>/dev/null; then
    echo "bench: installing $* into $folder" >&2
    python3 -m venv "$folder" || { echo "bench: python3 -m venv failed (Debian: python3-venv)" >&2; return 1; }
    nice -n 10 "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
  fi
}

encoders() {
  local name paths=()
  [ ${#named[@]} -gt 0 ] || named=(all-minilm-l6-v2 all-mpnet-base-v2)
  for name in "${named[@]}"; do
    if [[ $name == */* ]]; then
      paths+=("$name")
    else
      examples/get_models.sh "$name" >&2 || return 1
      paths+=("$models/$name")
    fi
  done
  # sympy: onnxruntime.transformers wants it
  venv encoders numpy onnx onnxruntime openvino safetensors sympy -- numpy onnx onnxruntime openvino safetensors sympy || return 1
  "$target/release/llmc-bench" encoders "${paths[@]}" --python "$venvs/encoders/bin/python" --llmc "$llmc" \
    --golden tests/golden/real --cache "$models/bench" --record "$target/bench/encoders.jsonl" "$@"
}

decoders() {
  local name paths=() version=0.3.36
  [ ${#named[@]} -gt 0 ] || named=(gemma3-270m qwen2.5-coder-0.5b)
  for name in "${named[@]}"; do
    if [[ $name == */* || -e $name ]]; then
      paths+=("$name")
    else
      examples/get_models.sh "$name" >&2 || return 1
      paths+=("$models/$name"/*.gguf)
    fi
  done
  # Built from source, for this processor: some minutes, once.
  CMAKE_ARGS=-DGGML_NATIVE=ON CMAKE_BUILD_PARALLEL_LEVEL=2 MAKEFLAGS=-j2 \
    venv "llama-cpp-$version" llama_cpp -- --no-binary llama-cpp-python "llama-cpp-python==$version" || return 1
  "$target/release/llmc-bench" decoders "${paths[@]}" --python "$venvs/llama-cpp-$version/bin/python" --llmc "$llmc" \
    --cache "$models/bench" --record "$target/bench/decoders.jsonl" "$@"
}

cargo build --quiet --release --locked -p llmc-bench
status=0
case $part in
  all)
    named=()
    encoders "$@" || status=1
    named=()
    decoders "$@" || status=1 ;;
  *) "$part" "$@" || status=$? ;;
esac
exit $status
