#!/usr/bin/env bash
# The paper's full-data table: the whole training set, tested on GLUE's validation set,
# cross-entropy (CE) beside CE+SCL; a draw is a seed.
#
#   bash scripts/full.sh [OPTION ...]
set -euo pipefail

tasks="SST-2 CoLA MRPC RTE QNLI MNLI" allowed="SST-2 CoLA MRPC RTE QNLI MNLI" own=
. "$(dirname "$0")/study.sh"
parse "$@"
set_up
status=0
study full data="$(list $tasks)" protocol=full "$(both_losses)" \
  criterion.scl_temperature="$scl_temperature" "$(every_draw)" || status=$?
report full
exit $status
