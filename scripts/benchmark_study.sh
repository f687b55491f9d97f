#!/usr/bin/env bash
# What a whole study takes, and whether speed costs accuracy: the few-shot runs of SST-2 (Table 2) as
# few_shot.sh makes them, beside the same runs by one fairseq-train after another, with fairseq's own
# encoder, dropout and Adam.
#
#   bash scripts/benchmark_study.sh [OPTION ...]
#
#   --shots "N ..."       20, 100                                  (default: both)
#   --slow-draws D        draws that the slow way makes            (default: as many)
set -euo pipefail

tasks=SST-2 allowed=SST-2 own="shots slow-draws"
shots="20 100" slow_draws=
. "$(dirname "$0")/study.sh"
parse "$@"
for n in $shots; do known --shots "$n" "20 100"; done
[ -z "$encoder" ] || fail "--encoder: the ways are compared on MiniLM"
set_up
began=$SECONDS
study few_shot data=SST-2 protocol="few_shot_${shots// /,few_shot_}" "$(both_losses)" "$(every_draw)"
seconds=$((SECONDS - began))
slow=$output/few_shot_slow
for n in $shots; do
  for draw in $(seq "${slow_draws:-$draws}"); do
    for weight in 0 "$scl_weight"; do
      run=$slow/$n-$weight-$draw
      [ -e "$run/seconds" ] && continue
      began=$(date +%s.%N)
      do_it env -u GLIBC_TUNABLES fairseq-hydra-train --config-dir configs --config-name finetune \
        encoder=minilm data=SST-2 protocol="few_shot_$n" common.cpu=true common.fp16=false \
        common.user_dir="'$PWD/scripts/stock_speed'" optimizer._name=adam task.shots_seed="$draw" \
        criterion.scl_weight="$weight" data_dir="'$data_dir'" hydra.run.dir="'$run'" \
        checkpoint.finetune_from_model="'$imported/model.pt'" > /dev/null 2>&1
      echo "$(date +%s.%N) $began" | awk '{print $1 - $2}' > "$run/seconds"
      do_it fairseq-scl evaluate "$run"
      rm "$run"/checkpoint*.pt # 90 MB each
    done
  done
done
do_it python scripts/benchmark_study.py "$output/few_shot" "$slow" --seconds "$seconds"
