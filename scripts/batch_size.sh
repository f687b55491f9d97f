#!/usr/bin/env bash
# The paper's batch size table: CE+SCL on the whole training set with batches of 16, 64 and 256.
# The paper's encoder is RoBERTa-base.
#
#   bash scripts/batch_size.sh [OPTION ...]
#
#   --batch-sizes "B ..."   16, 64, 256                            (default: all three)
set -euo pipefail

tasks="SST-2 CoLA QNLI" allowed="SST-2 CoLA MRPC RTE QNLI MNLI" own=batch-sizes
batch_sizes="16 64 256"
. "$(dirname "$0")/study.sh"
parse "$@"
for b in $batch_sizes; do known --batch-sizes "$b" "16 64 256"; done
set_up
status=0
study batch_size data="$(list $tasks)" protocol=batch_size dataset.batch_size="$(list $batch_sizes)" \
  criterion.scl_weight="$scl_weight" criterion.scl_temperature="$scl_temperature" \
  "$(every_draw)" || status=$?
report batch_size
exit $status
