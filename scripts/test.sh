#!/usr/bin/env bash
# Set up .venv, then run the linters, the type checker, the documentation and the tests.
#
#   bash scripts/test.sh [PYTEST ARGUMENT ...]     e.g. -m slow, or -k loss
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test,docs
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
exec .venv/bin/python -m pytest "$@"
