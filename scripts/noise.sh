#!/usr/bin/env bash
# Table 3 of the paper: 100 labelled sentences and three back-translations of each, sampled at
# several temperatures, beside the 100 alone; cross-entropy (CE) and CE+SCL.
#
#   bash scripts/noise.sh [OPTION ...]
#
#   --temperatures "T ..."  of the translations                    (default: 0.3 0.5 0.7 0.9)
#   --forward FILE          fairseq model from English to a language
#   --backward FILE         and back  (default: two small ones, trained by train_translation.sh)
set -euo pipefail

tasks="SST-2 QNLI MNLI" allowed="SST-2 QNLI MNLI CoLA MRPC RTE"
own="temperatures forward backward"
temperatures="0.3 0.5 0.7 0.9" forward= backward=
. "$(dirname "$0")/study.sh"
parse "$@"
for t in $temperatures; do
  [[ $t =~ ^[0-9]*\.?[0-9]+$ ]] || fail "--temperatures $t must be numbers above 0"
done
for model in "$forward" "$backward"; do
  [ -z "$model" ] || [ -f "$model" ] || fail "--forward, --backward: $model is no file"
done
[ -z "$forward" ] || forward=$(realpath "$forward")
[ -z "$backward" ] || backward=$(realpath "$backward")
set_up
if [ -z "$forward" ] || [ -z "$backward" ]; then
  forward=${forward:-$output/translation/en-de/model.pt}
  backward=${backward:-$output/translation/de-en/model.pt}
  do_it bash scripts/train_translation.sh "$output/translation"
fi
for task in $tasks; do
  for t in $temperatures; do
    do_it fairseq-scl back-translate "$data_dir/$task" --encoder "$imported" --temperature "$t" \
      --num-shots 100 --shots-seed $(seq "$draws") --forward "$forward" --backward "$backward"
  done
done
status=0
study noise data="$(list $tasks)" protocol=few_shot_100 "$(both_losses)" \
  criterion.scl_temperature="$scl_temperature" "$(every_draw)" || status=$?
study noise data="$(list $tasks)" protocol=noise task.noise_temperature="$(list $temperatures)" \
  "$(both_losses)" criterion.scl_temperature="$scl_temperature" "$(every_draw)" || status=$?
report noise
do_it fairseq-scl plot noise "$output/noise" --output "$output/noise/noise.png"
exit $status
