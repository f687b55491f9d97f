#!/usr/bin/env bash
# Train two small translation models, English-German and German-English, for
# 'fairseq-scl back-translate' where none of the published ones can be had. What they know is the
# language of their training text: of other text they keep little, unless --copy shows them some.
#
#   bash scripts/train_translation.sh OUTPUT [OPTION ...]
#
#   --data DIR       holds {train,val,test_2016_flickr}.{en,de}.gz, one sentence a line, as Multi30k
#                    is published (default: ../shared/data/multi30k)
#   --copy FILE      English sentences, one a line, to learn beside it as their own translation, both
#                    ways: a word the captions lack is then kept instead of lost (default: none)
#   --updates N      for each direction (default: 1500)
#
# OUTPUT/en-de and OUTPUT/de-en receive model.pt, both dictionaries and sentencepiece.bpe.model.
# Multi30k took 24 minutes on two busy cores; test BLEU 33.7 (en-de) and 36.8 (de-en). With 5,000
# sentences to copy, 20 minutes on two free ones; 31.8 and 35.5.
# A second call goes on with what an interrupted one left; what is finished is used again.
set -euo pipefail
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }

output= data= copy= updates=1500
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --data | --copy | --updates)
      if [ $# -lt 2 ]; then echo "train_translation: $1 needs a value" >&2; exit 2; fi
      printf -v "${1#--}" %s "$2"
      shift 2 ;;
    -*) echo "train_translation: unknown option $1 (see --help)" >&2; exit 2 ;;
    *)
      if [ -n "$output" ]; then echo "train_translation: one OUTPUT, not also $1" >&2; exit 2; fi
      output=$1
      shift ;;
  esac
done
if [ -z "$output" ]; then echo "train_translation: OUTPUT is missing (see --help)" >&2; exit 2; fi
if ! [[ $updates =~ ^[1-9][0-9]*$ ]]; then
  echo "train_translation: --updates $updates must be a whole number above 0" >&2; exit 2
fi
output=$(realpath -m "$output")
data=$(realpath -m "${data:-$(dirname "$0")/../../shared/data/multi30k}")
for split in train val test_2016_flickr; do
  for language in en de; do
    if [ ! -f "$data/$split.$language.gz" ]; then
      echo "train_translation: $data/$split.$language.gz is missing (see --data)" >&2; exit 2
    fi
  done
done
if [ -n "$copy" ] && [ ! -f "$copy" ]; then
  echo "train_translation: --copy $copy is no file" >&2; exit 2
fi
copy=${copy:+$(realpath "$copy")}

cd "$(dirname "$0")/.."
bash scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH
export PYTHONWARNINGS=ignore
step() { printf '\n== %s\n' "$*"; }
show() {
  printf '%q ' "$@"
  printf '\n'
}
logged() { # log file, command
  local log=$1
  shift
  show "$@"
  "$@" > "$log" 2>&1 || { tail -n 3 "$log" >&2; return 1; }
}

work=$output/work
pieces=$work/sentencepiece.bpe.model
mkdir -p "$work"
if [ ! -e "$work/binarized" ]; then
  step "subword pieces and fairseq's binarized data"
  for split in train val test_2016_flickr; do
    for language in en de; do gzip -dc "$data/$split.$language.gz" > "$work/$split.$language"; done
  done
  if [ -n "$copy" ]; then
    for language in en de; do cat "$copy" >> "$work/train.$language"; done
  fi
  python - "$work" "${pieces%.model}" <<'PYTHON'
import sys
from pathlib import Path
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

work, prefix = Path(sys.argv[1]), sys.argv[2]
SentencePieceTrainer.train(
    input=[str(work / "train.en"), str(work / "train.de")], model_prefix=prefix,
    model_type="bpe", vocab_size=4000, character_coverage=1.0, minloglevel=2,
)
model = SentencePieceProcessor(model_file=prefix + ".model")
for split in ("train", "val"):
    for language in ("en", "de"):
        with open(work / f"{split}.{language}", encoding="utf-8", newline="\n") as lines:
            encoded = model.encode([line.rstrip("\n") for line in lines], out_type=str)
        text = "".join(" ".join(sentence) + "\n" for sentence in encoded)
        (work / f"{split}.pieces.{language}").write_text(text, encoding="utf-8")
PYTHON
  rm -rf "$work/binarized.new"
  logged "$work/preprocess.log" fairseq-preprocess \
    --source-lang en --target-lang de --joined-dictionary \
    --trainpref "$work/train.pieces" --validpref "$work/val.pieces" \
    --destdir "$work/binarized.new"
  mv "$work/binarized.new" "$work/binarized"
fi

device=()
python -c 'import sys, torch; sys.exit(torch.cuda.is_available())' && device=(--cpu)
train() { # source, target language
  local pair=$1-$2
  [ -e "$output/$pair/model.pt" ] && return
  local command=(
    fairseq-train "$work/binarized" --user-dir fairseq_scl --source-lang "$1" --target-lang "$2"
    --save-dir "$work/$pair" --arch transformer --share-all-embeddings
    --encoder-layers 3 --encoder-embed-dim 192 --encoder-ffn-embed-dim 512
    --encoder-attention-heads 4 --encoder-normalize-before
    --decoder-layers 2 --decoder-embed-dim 192 --decoder-ffn-embed-dim 512
    --decoder-attention-heads 4 --decoder-normalize-before --dropout 0.1
    --max-source-positions 256 --max-target-positions 256
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --optimizer adam --adam-betas "(0.9, 0.98)" --lr 3e-3 --clip-norm 1.0
    --lr-scheduler polynomial_decay --warmup-updates $((updates / 8))
    --total-num-update "$updates" --max-update "$updates" --max-tokens 2048
    --validate-interval 1000 --validate-interval-updates 500 --save-interval 1000
    --save-interval-updates 500 --keep-interval-updates 1 --no-epoch-checkpoints
    --num-workers 0 --log-format simple --log-interval 50 --seed 1 "${device[@]}"
  )
  # one thread, for the directions run side by side
  OMP_NUM_THREADS=1 logged "$work/$pair.log" "${command[@]}"
  mkdir -p "$output/$pair"
  cp "$work"/binarized/dict.{en,de}.txt "$pieces" "$output/$pair"
  cp "$work/$pair/checkpoint_best.pt" "$output/$pair/model.new"
  mv "$output/$pair/model.new" "$output/$pair/model.pt"
}
score() { # source, target language
  local translated=$work/test.$1-$2.$2
  if [ ! -e "$translated" ]; then
    logged "$work/$1-$2.generate.log" fairseq-interactive "$work/binarized" --user-dir fairseq_scl \
      --source-lang "$1" --target-lang "$2" --path "$output/$1-$2/model.pt" \
      --bpe sentencepiece --sentencepiece-model "$pieces" --beam 5 --input "$work/test_2016_flickr.$1" \
      --buffer-size 1000 --batch-size 64 "${device[@]}"
    sed -n 's/^D-[0-9]*\t[^\t]*\t//p' "$work/$1-$2.generate.log" > "$translated.new"
    mv "$translated.new" "$translated"
  fi
  local command=(sacrebleu "$work/test_2016_flickr.$2" --input "$translated"
    --metrics bleu chrf --format text)
  show "${command[@]}"
  "${command[@]}"
}

step "train en-de and de-en side by side, $updates updates each (logs: $work/*.log)"
set -m # in a process group of its own, so that none of it outlives this script
train en de &
first=$!
set +m
trap 'kill -- "-$first" 2> /dev/null || true' EXIT
train de en
wait "$first"
trap - EXIT
for pair in "en de" "de en"; do
  step "test set, ${pair/ /-}"
  score $pair
done
