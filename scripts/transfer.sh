#!/usr/bin/env bash
# The paper's generalisation table: a model fine-tuned on all of SST-2, then on 20 labelled reviews
# of each class of Amazon-2 and Yelp-2; cross-entropy (CE) all the way beside CE+SCL all the way.
#
#   bash scripts/transfer.sh [OPTION ...]
#
#   --review-dir DIR      where DIR/amazon-2 and DIR/yelp-2 lie, as published  (default: reviews)
set -euo pipefail

tasks="Amazon-2 Yelp-2" allowed="Amazon-2 Yelp-2" own=review-dir
review_dir=reviews
. "$(dirname "$0")/study.sh"
parse "$@"
review_dir=$(realpath -m "$review_dir")
set_up
prepare SST-2
losses=("criterion.scl_weight=0" "criterion.scl_weight=$scl_weight")
status=0
for loss in "${losses[@]}"; do
  start=
  study transfer-source data=SST-2 protocol=full "$loss" criterion.scl_temperature="$scl_temperature" \
    task.shots_seed=1 keep_checkpoint=true hydra.sweep.subdir="'$loss'" || status=$?
  start=$output/transfer-source/$loss/checkpoint_best.pt
  study transfer data="$(list $tasks)" protocol=transfer "$loss" \
    criterion.scl_temperature="$scl_temperature" "$(every_draw)" || status=$?
done
report transfer
exit $status
