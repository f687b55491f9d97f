#!/usr/bin/env bash
# Updates per second on SST-2: this plugin, stock fairseq, Hugging Face's Trainer.
# Then, where `fairseq-scl study few-shot` has left a study of SST-2 in the same --output, accuracy and seconds of SetFit
# on its very draws.
#
#   bash scripts/benchmark.sh [OPTION ...]
#
#   --updates U           of each run                              (default: 100)
#   --rounds R            of all contenders, one after another     (default: 3)
#   --shape S             minilm or roberta-large                  (default: minilm; on a GPU the other)
#   --glue-dir DIR        where DIR/SST-2/train.tsv lies
#   --output DIR          data and encoder                         (default: studies)
#
# With CUDA_VISIBLE_DEVICES= a machine with a GPU measures its CPU.
set -euo pipefail

updates=100 rounds=3 shape= glue_dir= output=studies
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
fail() { echo "$(basename "$0" .sh): $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  name=${1#--}
  [[ $1 == --?* && " help updates rounds shape glue-dir output " == *" $name "* ]] ||
    fail "unknown option $1 (see --help)"
  [ "$name" != help ] || { usage; exit 0; }
  if [ $# -lt 2 ]; then fail "$1 needs a value"; fi
  printf -v "${name//-/_}" %s "$2"
  shift 2
done
[ -n "$glue_dir" ] || fail "--glue-dir is needed: the peers read SST-2's own files"
glue_dir=$(realpath "$glue_dir") output=$(realpath -m "$output")

cd "$(dirname "$0")/.."
bash scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
export PYTHONWARNINGS=ignore TOKENIZERS_PARALLELISM=false
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1} # large pages, as a study has
imported=$output/encoders/minilm
data=$output/data/minilm/SST-2
[ -e "$imported" ] || fairseq-scl import-model minilm "$imported"
[ -e "$data" ] ||
  fairseq-scl prepare "$data" --encoder "$imported" --data glue:SST-2 --glue-dir "$glue_dir"
peers=$PWD/.venv-peers
if [ ! -e "$peers/installed" ]; then
  python -m venv "$peers"
  "$peers/bin/python" -m pip install --quiet --constraint scripts/constraints-peers.txt \
    torch transformers accelerate setfit
  touch "$peers/installed"
fi
minilm=$(python -c 'from fairseq_scl.encoders.import_model import minilm_folder; print(minilm_folder())')
python scripts/benchmark.py "$data" --encoder "$imported" --model "$minilm" \
  --rows "$glue_dir/SST-2/train.tsv" --peers "$peers" \
  --updates "$updates" --rounds "$rounds" ${shape:+--shape "$shape"}
if [ -d "$output/few_shot/SST-2" ]; then
  "$peers/bin/python" scripts/benchmark_setfit.py "$output/few_shot/SST-2" --model "$minilm" \
    --rows "$glue_dir/SST-2"
fi
