#!/usr/bin/env bash
# Table 3 of the paper, in a clone: install, then `fairseq-scl study noise [OPTION ...]`.
set -euo pipefail
bash "$(dirname "$0")/setup.sh" >&2
exec "$(dirname "$0")/../.venv/bin/fairseq-scl" study noise "$@"
