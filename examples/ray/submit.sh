#!/bin/bash
# A recipe's corpus and evaluation on a Ray cluster, its training on one node. Nothing of the recipe but `engine`
# differs; whatever is cut short goes on when this is submitted again.
#   export RAY_ADDRESS=http://HEAD:8265
#   ray job submit -- env RECIPE=/shared/mine.yaml OUT=/shared/runs/mine WORKERS=16 bash /shared/examples/ray/submit.sh
# `ray job` needs ray[default]. The job runs on the head node; recipe, data, model, run folder and this file lie where
# all nodes see them, and the same clinalign is installed on each.

set -euo pipefail
cd "$(dirname "$OUT")"
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"    # the cores of a node by its workers; the workers take it over
engine=(engine.kind=ray engine.address=auto "engine.workers=${WORKERS:-8}" "engine.gpus=${GPUS:-1}")

for stage in ingest answer pair corrupt; do
  clinalign "$stage" "$RECIPE" "${engine[@]}" --out "$OUT"
done

# Training is no work of Ray's here: it takes the GPUs of the node that this runs on. Where the head node has none, leave
# the two lines out, train with examples/slurm/train.sbatch on the same run folder, and submit the evaluation after it.
torchrun --standalone --nproc-per-node="${TRAIN_GPUS:-8}" -m clinalign align "$RECIPE" --out "$OUT"
clinalign evaluate "$RECIPE" "${engine[@]}" --out "$OUT"
