#!/usr/bin/env bash
# From nothing to a trained and tested model on synthetic data, in minutes on two CPU cores; a GPU is used when there.
#   bash tools/quickstart.sh [--fresh] [--smoke]
#   --fresh   redo everything; without it, steps that are done already are skipped and training goes on where it was
#   --smoke   a few images and steps only: shows that everything runs, learns nothing
# Writes data/quickstart/ and work_dirs/quickstart/ in the current folder. Settings, all optional:
#   IMAGES=1600 VAL_IMAGES=200 SIZE=160 SEED=0   the data set: training and validation images, their longest side
set -euo pipefail

fresh=false smoke=false
for argument in "$@"; do
    case $argument in
        --fresh) fresh=true ;;
        --smoke) smoke=true ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
        *) echo "error: unknown argument $argument; see --help" >&2; exit 2 ;;
    esac
done

set --  # the set-up has arguments of its own
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
tools=$HIERSEG_ROOT/tools
config=$HIERSEG_ROOT/configs/quickstart/hier_e2e.py
data=data/quickstart
work=work_dirs/quickstart
images=${IMAGES:-1600} val_images=${VAL_IMAGES:-200} overrides=()
if $smoke; then
    images=24 val_images=8
    overrides=(--cfg-options train_cfg.max_epochs=1 train_cfg.val_interval=1 train_dataloader.batch_sampler.iterations=3)
fi
! $fresh || rm -rf "$data" "$work"

# step NAME RESULT COMMAND...: runs a command unless its result is there from an earlier run of the same steps,
# with the same settings and configs.
chain=$(cat "$HIERSEG_ROOT"/configs/quickstart/*.py "$HIERSEG_ROOT"/configs/_base_/{,*/}*.py | cksum)
step() {
    local name=$1 result=$2 start=$SECONDS mark=$data/.steps/$1
    shift 2
    chain=$(printf '%s\n' "$chain" "$@" | cksum)
    if [[ -e $result && -f $mark && $(<"$mark") == "$chain" ]]; then
        echo "== $name: done before"
        return
    fi
    echo "== $name"
    "$@"
    mkdir -p "$data/.steps"
    echo "$chain" >"$mark"
    echo "== $name: $((SECONDS - start)) s"
}

synthesize() {
    rm -rf "$data"
    "$PYTHON" "$tools/synthesize.py" "$data" --images "$images" --val-images "$val_images" \
        --size "${SIZE:-160}" --seed "${SEED:-0}" --tail-ratio 30 --workers "$(nproc)"
}

convert() {
    local split=$1 official=$data/challenge-2019
    "$PYTHON" "$tools/dataset_converters/openimages.py" --out "$data/store/$split" --overwrite --workers "$(nproc)" \
        --hierarchy "$official-label-hierarchy.json" --classes "$official-classes-description.csv" \
        --boxes "$official-$split-segmentation-bbox.csv" --labels "$official-$split-segmentation-labels.csv" \
        --masks "$official-$split-segmentation-masks.csv" --mask-dir "$data/$split-masks" --images "$data/$split"
}

train() {
    # An interrupted run of the same steps goes on; checkpoints of any other make way.
    if [[ ! -f $work/.begun || $(<"$work/.begun") != "$chain" ]]; then
        rm -rf "$work"
        mkdir -p "$work"
        echo "$chain" >"$work/.begun"
    fi
    "$PYTHON" "$tools/train.py" "$config" --work-dir "$work" --resume "${overrides[@]}"
}

evaluate() {
    rm -rf "$work/overlays"
    # An absolute folder, or the pictures would lie under a timestamp.
    "$PYTHON" "$tools/test.py" "$config" "$(<"$work/last_checkpoint")" --work-dir "$work" --show-dir "$PWD/$work/overlays"
}

step 'write a synthetic data set' "$data/train" synthesize "$images" "$val_images" "${SIZE:-160}" "${SEED:-0}"
step 'convert the training split' "$data/store/train" convert train
step 'convert the validation split' "$data/store/validation" convert validation
step 'train' "$work/last_checkpoint" train "${overrides[@]}"
step 'test' "$work/results.json" evaluate

echo
echo "scores:   $PWD/$work/results.json"
cat "$work/results.json"
echo "pictures: $PWD/$work/overlays (ground truth beside prediction)"
echo "weights:  $(<"$work/last_checkpoint")"
echo "took $((SECONDS / 60)) min $((SECONDS % 60)) s"
