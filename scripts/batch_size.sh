#!/usr/bin/env bash
# The paper's batch size table, in a clone: install, then `fairseq-scl study batch-size [OPTION ...]`.
set -euo pipefail
bash "$(dirname "$0")/setup.sh" >&2
exec "$(dirname "$0")/../.venv/bin/fairseq-scl" study batch-size "$@"
