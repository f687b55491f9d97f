#!/usr/bin/env bash
# Lambda x tau by validation accuracy, in a clone: install, then `fairseq-scl study search [OPTION ...]`.
set -euo pipefail
bash "$(dirname "$0")/setup.sh" >&2
exec "$(dirname "$0")/../.venv/bin/fairseq-scl" study search "$@"
