#!/usr/bin/env bash
# Download fairseq's RoBERTa with its tokenizer to DIR/roberta.large (or DIR/roberta.base), for
# `fairseq-scl import-model` and `prepare --encoder`.
#
#   bash scripts/download_roberta.sh DIR [base|large]      default: large
#
# What is complete is skipped, what was cut short goes on. FAIRSEQ_SCL_DOWNLOAD_URL names a mirror of
# https://dl.fbaipublicfiles.com.
set -euo pipefail
case ${1:-} in
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  "") echo "download_roberta: DIR is missing (see --help)" >&2; exit 2 ;;
esac
root=$(dirname "$0")/..
bash "$root/scripts/setup.sh"
exec "$root/.venv/bin/fairseq-scl" download roberta "$@"
