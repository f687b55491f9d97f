#!/usr/bin/env bash
# What a whole study takes, and whether speed costs accuracy: the few-shot runs of SST-2 (Table 2) as
# `fairseq-scl study` makes them (its report included), beside the same runs by one fairseq-train after another, with fairseq's own
# encoder, dropout and Adam.
#
#   bash scripts/benchmark_study.sh [OPTION ...]
#
#   --shots "N ..."       20, 100                                  (default: both)
#   --draws D             draws of them                            (default: 10)
#   --slow-draws D        draws that the slow way makes            (default: as many)
#   --glue-dir DIR        where DIR/SST-2/train.tsv lies           (default: from the Hugging Face hub)
#   --output DIR          data, encoder and runs                   (default: studies)
set -euo pipefail

shots="20 100" slow_draws= draws=10 glue_dir= output=studies
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
fail() { echo "$(basename "$0" .sh): $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  name=${1#--}
  [[ $1 == --?* && " help shots slow-draws draws glue-dir output " == *" $name "* ]] ||
    fail "unknown option $1 (see --help)"
  [ "$name" != help ] || { usage; exit 0; }
  if [ $# -lt 2 ]; then fail "$1 needs a value"; fi
  printf -v "${name//-/_}" %s "$2"
  shift 2
done
[ -z "$glue_dir" ] || glue_dir=$(realpath "$glue_dir")
output=$(realpath -m "$output")

cd "$(dirname "$0")/.."
bash scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
export PYTHONWARNINGS=ignore
imported=$output/encoders/minilm
data=$output/data/minilm
[ -e "$imported" ] || fairseq-scl import-model minilm "$imported"
[ -e "$data/SST-2" ] || fairseq-scl prepare "$data/SST-2" --encoder "$imported" --data glue:SST-2 \
  ${glue_dir:+--glue-dir "$glue_dir"}
began=$SECONDS
fairseq-scl study few-shot --tasks SST-2 --shots "$shots" --draws "$draws" --output "$output"
seconds=$((SECONDS - began))
slow=$output/few_shot_slow
for n in $shots; do
  for draw in $(seq "${slow_draws:-$draws}"); do
    for weight in 0 0.9; do
      run=$slow/$n-$weight-$draw
      [ -e "$run/seconds" ] && continue
      began=$(date +%s.%N)
      fairseq-hydra-train --config-dir configs --config-name finetune \
        encoder=minilm data=SST-2 protocol="few_shot_$n" common.cpu=true common.fp16=false \
        common.user_dir="'$PWD/scripts/stock_speed'" optimizer._name=adam task.shots_seed="$draw" \
        criterion.scl_weight="$weight" data_dir="'$data'" hydra.run.dir="'$run'" \
        checkpoint.finetune_from_model="'$imported/model.pt'" > /dev/null 2>&1
      echo "$(date +%s.%N) $began" | awk '{print $1 - $2}' > "$run/seconds"
      fairseq-scl evaluate "$run"
      rm "$run"/checkpoint*.pt # 90 MB each
    done
  done
done
python scripts/benchmark_study.py "$output/few_shot" "$slow" --seconds "$seconds"
