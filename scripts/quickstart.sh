#!/usr/bin/env bash
# From a clone to a table: fine-tune with cross-entropy (CE) and with CE + supervised contrastive
# loss (CE+SCL) on a few labelled sentences, through fairseq-train.
#
#   bash scripts/quickstart.sh [OPTION ...]
#
#   --data NAME      sample (default: sentences shipped with the package) or glue:TASK
#   --glue-dir DIR   where DIR/TASK/train.tsv lies, for glue:TASK (default: from the Hugging Face hub)
#   --encoder NAME   minilm, mpnet, OWNER/NAME on the Hugging Face hub, or a folder (default: minilm)
#   --shots N        training sentences in total (default: 20)
#   --draws D        draws of them, each trained with both losses (default: 3)
#   --output DIR     default: quickstart
#
# What is finished is used again by the next call.
set -euo pipefail
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
fail() { echo "quickstart: $*" >&2; exit 2; }
whole_number() { # option, value
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 $2 must be a whole number above 0"
}
# Large pages for large blocks: 4 % less time for an update on a CPU (glibc).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

data=sample glue_dir= encoder= shots=20 draws=3 output=quickstart
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --data | --glue-dir | --encoder | --shots | --draws | --output)
      if [ $# -lt 2 ]; then fail "$1 needs a value"; fi
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2 ;;
    *) fail "unknown option $1 (see --help)" ;;
  esac
done
whole_number --shots "$shots"
whole_number --draws "$draws"
case $data in
  sample) protocol=given ;;
  glue:STS-B) fail "glue:STS-B is a regression, it has no classes to contrast" ;;
  glue:?*) protocol=few-shot ;;
  *) fail "--data $data must be sample or glue:TASK" ;;
esac
[ ! -e "$encoder" ] || encoder=$(realpath "$encoder")
[ -z "$glue_dir" ] || glue_dir=$(realpath "$glue_dir")
output=$(realpath -m "$output")

cd "$(dirname "$0")/.."
bash scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
export PYTHONWARNINGS=ignore TOKENIZERS_PARALLELISM=true
step() { printf '\n== %s\n' "$*"; }

imported=$output/encoders/$(basename "${encoder:-minilm}")
[ -z "$encoder" ] || [ ! -e "$encoder/train_flags.txt" ] || imported=$encoder
if [ ! -e "$imported" ]; then
  step "import the encoder"
  fairseq-scl import-model "${encoder:-minilm}" "$imported"
fi
name=${data#glue:}-$(basename "$imported")
prepared=$output/data/$name
if [ ! -e "$prepared" ]; then
  step "prepare the data"
  fairseq-scl prepare "$prepared" --encoder "$imported" --data "$data" ${glue_dir:+--glue-dir "$glue_dir"}
fi

runs=$output/runs/$name-$shots
flags=$(fairseq-scl recipe "$imported" "$shots" --validate)
mapfile -t recipe <<<"$flags"
train() { # folder, lambda, draw
  local command=(
    fairseq-train "$prepared" --user-dir fairseq_scl --save-dir "$1" --tensorboard-logdir "$1/tensorboard"
    "${recipe[@]}" --protocol "$protocol" --num-shots "$shots" --shots-seed "$3" --seed "$3" --scl-weight "$2"
  )
  rm -rf "$1"
  mkdir -p "$1"
  printf '%q ' "${command[@]}"
  printf '\n'
  "${command[@]}" 2>&1 | tee "$1/train.log" | # show what is learnt, not fairseq's configuration
    sed -unE 's/.*\| (train_inner|valid) \|.*(epoch [0-9]+).*\<(loss[= ][^ ,]+).*\<(accuracy[= ][^ ,]+).*\<(num_updates[= ][0-9]+).*/  \1 \2 \3 \4 \5/p' ||
    { tail -n 3 "$1/train.log" >&2; exit 1; }
  touch "$1/trained"
}
folders=()
for draw in $(seq "$draws"); do
  for loss in ce:0 scl:0.9; do
    folder=$runs/${loss%:*}/draw$draw
    folders+=("$folder")
    [ -e "$folder/trained" ] && continue
    step "train ${loss%:*}, draw $draw of $draws, N = $shots"
    train "$folder" "${loss#*:}" "$draw"
  done
done

step "evaluate on the test set"
fairseq-scl evaluate "${folders[@]}"
step "results (mean ± std over draws)"
fairseq-scl report "$runs" | tee "$runs/table.md"
step "picture of the test embeddings"
if [ "$runs/tsne.png" -nt "${folders[-1]}/result.json" ]; then
  echo "$runs/tsne.png"
else
  fairseq-scl plot embeddings "$runs" --output "$runs/tsne.png"
fi
if [ "$data" = sample ]; then
  step "the same from a table, in one command"
  sample=$(fairseq-scl user-dir)/sample_data
  fairseq-scl finetune "$sample/train.tsv" --test "$sample/test.tsv" --encoder "$imported" --output "$output/model-$(basename "$imported")"
  printf '%s\n' "a joy to watch" "two hours I want back" "the soup was cold again" |
    fairseq-scl predict "$output/model-$(basename "$imported")"
fi
step "watch the curves"
echo "$PWD/.venv/bin/tensorboard --logdir $runs"
