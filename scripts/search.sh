#!/usr/bin/env bash
# Lambda x tau by validation accuracy, and cross-entropy (CE) beside it; the test set is not read.
#
#   bash scripts/search.sh [OPTION ...]
#
#   --shots "N ..."               20, 100, 1000                    (default: 100)
#   --scl-weights "W ..."         lambda                           (default: 0.1 0.3 0.5 0.7 0.9 1)
#   --scl-temperatures "T ..."    tau                              (default: 0.1 0.3 0.5 0.7)
#   --learning-rates "R ..."                                       (default: the encoder's)
set -euo pipefail

tasks="SST-2 QNLI MNLI" allowed="sample SST-2 QNLI MNLI CoLA MRPC RTE"
own="shots scl-weights scl-temperatures learning-rates"
shots=100 scl_weights="0.1 0.3 0.5 0.7 0.9 1" scl_temperatures="0.1 0.3 0.5 0.7" learning_rates=
. "$(dirname "$0")/study.sh"
parse "$@"
for n in $shots; do known --shots "$n" "20 100 1000"; done
set_up
rates=()
for rate in $learning_rates; do rates+=("[$rate]"); done
[ ${#rates[@]} = 0 ] || overrides+=("optimization.lr=$(list "${rates[@]}")")
protocols=few_shot_${shots// /,few_shot_}
status=0
study search data="$(list $tasks)" protocol="$protocols" criterion.scl_weight=0 split=null \
  "$(every_draw)" || status=$?
study search data="$(list $tasks)" protocol="$protocols" criterion.scl_weight="$(list $scl_weights)" \
  criterion.scl_temperature="$(list $scl_temperatures)" split=null "$(every_draw)" || status=$?
report search
exit $status
