#!/usr/bin/env bash
# Table 2 of the paper: N labelled sentences in total, cross-entropy (CE) beside CE+SCL.
#
#   bash scripts/few_shot.sh [OPTION ...]
#
#   --shots "N ..."       20, 100, 1000                            (default: all three)
set -euo pipefail

tasks="SST-2 QNLI MNLI" allowed="sample SST-2 QNLI MNLI CoLA MRPC RTE" own=shots
shots="20 100 1000"
. "$(dirname "$0")/study.sh"
parse "$@"
for n in $shots; do known --shots "$n" "20 100 1000"; done
set_up
status=0
study few_shot data="$(list $tasks)" protocol="few_shot_${shots// /,few_shot_}" "$(both_losses)" \
  criterion.scl_temperature="$scl_temperature" "$(every_draw)" || status=$?
report few_shot
[[ $shots != *" "* ]] || do_it fairseq-scl plot shots "$output/few_shot" --output "$output/few_shot/shots.png"
do_it fairseq-scl plot embeddings "$output/few_shot" --output "$output/few_shot/embeddings.png"
exit $status
