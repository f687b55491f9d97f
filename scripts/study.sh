# What quickstart.sh and the scripts of the paper's tables share; they source it. Bash.

common_options='
Options of every study:
  --tasks "T ..."       data sets                                (default: __TASKS__)
  --draws D             draws, each trained with every loss      (default: 10)
  --encoder DIR         a Hugging Face, fairseq or imported encoder folder  (default: MiniLM-L6)
  --glue-dir DIR        where DIR/TASK/train.tsv lies  (default: from the Hugging Face hub)
  --scl-weight W        lambda of CE+SCL                         (default: 0.9)
  --scl-temperature T   tau                                      (default: 0.3)
  --jobs J              runs side by side on this machine        (default: its cores; 1 on a GPU)
  --slurm PARTITION     send the runs to SLURM instead
  --output DIR          data, encoder, runs and report           (default: studies)
  --dry-run             print the commands, run none
  -- KEY=VALUE ...      overrides of configs/, in the syntax of Hydra

A second call runs what is missing or failed; what is finished is used again.'

fail() { echo "$(basename "$0" .sh): $*" >&2; exit 2; }

usage() {
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
  echo "${common_options/__TASKS__/$tasks}"
}

# Sets the variables named like the options; "$own" lists those of the script itself.
parse() {
  draws=10 encoder= glue_dir= scl_weight=0.9 scl_temperature=0.3 jobs= slurm= output=studies
  dry_run= overrides=()
  local name known_options
  while [ $# -gt 0 ]; do
    case $1 in
      --) shift; overrides=("$@"); return ;;
      -h) name=help ;;
      --?*) name=${1#--} ;;
      *) name=none ;;
    esac
    known_options="help dry-run tasks draws encoder glue-dir scl-weight scl-temperature jobs slurm output $own"
    [[ " $known_options " == *" $name "* ]] || fail "unknown option $1 (see --help)"
    case $name in
      help) usage; exit 0 ;;
      dry-run) dry_run=1; shift ;;
      *)
        if [ $# -lt 2 ]; then fail "$1 needs a value"; fi
        printf -v "${name//-/_}" %s "$2"
        shift 2 ;;
    esac
  done
}

whole_number() { # option, value
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 $2 must be a whole number above 0"
}

known() { # option, value, allowed words
  [[ " $3 " == *" $2 "* ]] || fail "$1 $2 must be one of: $3"
}

do_it() { # print a command and, but for a dry run, run it
  printf '%q ' "$@"
  printf '\n'
  [ -n "$dry_run" ] || "$@"
}

encoder_folder() { # where $encoder lies, or will lie, imported
  if [ -n "$encoder" ] && [ -e "$encoder/train_flags.txt" ]; then
    echo "$encoder"
  else
    echo "$output/encoders/$(basename "${encoder:-minilm}")"
  fi
}

list() { local IFS=,; echo "$*"; } # "a b" -> a,b

# Installs, imports the encoder; sets $imported, $arch and $data_dir.
set_up() {
  whole_number --draws "$draws"
  [ -z "$jobs" ] || whole_number --jobs "$jobs"
  local task
  for task in $tasks; do known --tasks "$task" "$allowed"; done
  [ -z "$encoder" ] || [ -d "$encoder" ] || fail "--encoder $encoder is no folder"
  output=$(realpath -m "$output")
  [ -z "$glue_dir" ] || glue_dir=$(realpath -m "$glue_dir")
  [ -z "$encoder" ] || encoder=$(realpath "$encoder")
  cd "$(dirname "$0")/.."
  [ -n "$dry_run" ] || bash scripts/setup.sh
  PATH=$PWD/.venv/bin:$PATH
  export PYTHONWARNINGS=ignore TOKENIZERS_PARALLELISM=false
  imported=$(encoder_folder)
  [ -e "$imported" ] || do_it fairseq-scl import-model "${encoder:-minilm}" "$imported"
  arch=minilm_l6
  if [ -e "$imported/train_flags.txt" ]; then
    arch=$(sed -n 's/.*--arch \([^ ]*\).*/\1/p' "$imported/train_flags.txt")
  fi
  case $arch in
    minilm_l6) config=minilm ;;
    sentence_roberta) config=roberta_base ;;
    sentence_roberta_large) config=roberta_large ;;
    *) fail "--encoder $encoder is a $arch; configs/encoder has minilm, roberta_base and roberta_large" ;;
  esac
  data_dir=$output/data/$(basename "$imported")
  for task in $tasks; do prepare "$task"; done
}

prepare() { # data set
  [ -e "$data_dir/$1" ] && return
  local source=(--data "glue:$1" ${glue_dir:+--glue-dir "$glue_dir"})
  case $1 in
    sample) source=(--data sample) ;;
    Amazon-2 | Yelp-2) source=(--data "${1,,}" --data-dir "$review_dir/${1,,}") ;;
  esac
  do_it fairseq-scl prepare "$data_dir/$1" --encoder "$imported" "${source[@]}"
}

# Large pages for large blocks: 4 % less time for an update on a CPU (glibc).
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

# Runs one study: its name, then Hydra's overrides; ends with 1 if a run failed. $start: a model to
# start from, instead of the encoder.
study() {
  local name=$1 where=() gpu=
  shift
  python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null && gpu=1
  [ -n "$gpu" ] || where+=(common.cpu=true common.fp16=false)
  if [ -n "$slurm" ]; then
    where+=(hydra/launcher=submitit_slurm hydra.launcher.partition="$slurm")
  else
    local cores=$(OMP_NUM_THREADS= nproc) # which nproc would heed
    local side_by_side=${jobs:-${gpu:-$cores}}
    where+=(hydra/launcher=joblib hydra.launcher.n_jobs="$side_by_side")
    [ -n "$gpu" ] || export OMP_NUM_THREADS=$(( (cores + side_by_side - 1) / side_by_side ))
  fi
  do_it python -m fairseq_scl.studies.study --multirun --config-dir configs --config-name finetune \
    hydra.sweep.dir="'$output/$name'" encoder="$config" data_dir="'$data_dir'" \
    checkpoint.finetune_from_model="'${start:-$imported/model.pt}'" "${where[@]}" "$@" "${overrides[@]}"
}

every_draw() { echo "task.shots_seed=range(1,$((draws + 1)))"; }
both_losses() { echo "criterion.scl_weight=0,$scl_weight"; }

report() { # name of the study
  do_it fairseq-scl report "$output/$1" --output "$output/$1/report.html"
  do_it fairseq-scl report "$output/$1"
}
