#!/usr/bin/env bash
# Set up .venv, then run the linter, the type checker and the tests.
#
#   bash scripts/test.sh [PYTEST ARGUMENT ...]     e.g. -m slow, or -k loss
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
