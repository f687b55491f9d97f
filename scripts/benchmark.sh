#!/usr/bin/env bash
# Updates per second on SST-2: this plugin, stock fairseq, Hugging Face's Trainer.
# Then, where few_shot.sh has left a study of SST-2 in the same --output, accuracy and seconds of SetFit
# on its very draws.
#
#   bash scripts/benchmark.sh [OPTION ...]
#
#   --updates U           of each run                              (default: 100)
#   --rounds R            of all contenders, one after another     (default: 3)
#   --shape S             minilm or roberta-large                  (default: minilm; on a GPU the other)
#
# With CUDA_VISIBLE_DEVICES= a machine with a GPU measures its CPU.
set -euo pipefail

tasks=SST-2 allowed=SST-2 own="updates rounds shape"
updates=100 rounds=3 shape=
. "$(dirname "$0")/study.sh"
parse "$@"
whole_number --updates "$updates"
whole_number --rounds "$rounds"
[ -z "$shape" ] || known --shape "$shape" "minilm roberta-large"
[ -n "$glue_dir" ] || fail "--glue-dir is needed: the peers read SST-2's own files"
[ -z "$encoder" ] || fail "--encoder: the peers are compared on MiniLM"
set_up
peers=$PWD/.venv-peers
if [ ! -e "$peers/installed" ]; then
  do_it python -m venv "$peers"
  do_it "$peers/bin/python" -m pip install --quiet --constraint scripts/constraints-peers.txt \
    torch transformers accelerate setfit
  do_it touch "$peers/installed"
fi
minilm=$(python -c 'from fairseq_scl.encoders.import_model import minilm_folder; print(minilm_folder())')
do_it python scripts/benchmark.py "$data_dir/SST-2" --encoder "$imported" --model "$minilm" \
  --rows "$glue_dir/SST-2/train.tsv" --peers "$peers" \
  --updates "$updates" --rounds "$rounds" ${shape:+--shape "$shape"}
if [ -d "$output/few_shot/SST-2" ]; then
  do_it "$peers/bin/python" scripts/benchmark_setfit.py "$output/few_shot/SST-2" --model "$minilm" \
    --rows "$glue_dir/SST-2"
fi
