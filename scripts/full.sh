#!/usr/bin/env bash
# The paper's full-data table, in a clone: install, then `fairseq-scl study full [OPTION ...]`.
set -euo pipefail
bash "$(dirname "$0")/setup.sh" >&2
exec "$(dirname "$0")/../.venv/bin/fairseq-scl" study full "$@"
