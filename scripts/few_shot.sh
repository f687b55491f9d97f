#!/usr/bin/env bash
# Table 2 of the paper, in a clone: install, then `fairseq-scl study few-shot [OPTION ...]`.
set -euo pipefail
bash "$(dirname "$0")/setup.sh" >&2
exec "$(dirname "$0")/../.venv/bin/fairseq-scl" study few-shot "$@"
