#!/usr/bin/env bash
# From nothing to both systems trained and tested on synthetic data, the end-to-end model and the two-layer ensemble, in
# minutes on two CPU cores; a GPU is used when there.
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
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
        *) echo "error: unknown argument $argument; see --help" >&2; exit 2 ;;
    esac
done

set --  # the set-up has arguments of its own
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
tools=$HIERSEG_ROOT/tools
configs=$HIERSEG_ROOT/configs/quickstart
data=data/quickstart
work=work_dirs/quickstart
systems=(two_layer_ensemble hier_e2e)
declare -A names=([two_layer_ensemble]=ensemble [hier_e2e]=end-to-end)
images=${IMAGES:-1600} val_images=${VAL_IMAGES:-200}
if $smoke; then
    images=24 val_images=8
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

# What --smoke changes in the training of a system.
overrides() {
    case $smoke,$1 in
        true,hier_e2e)
            echo --cfg-options train_cfg.max_epochs=1 train_dataloader.batch_sampler.iterations=3 ;;
        true,two_layer_ensemble)
            echo --cfg-options train_cfg.max_epochs.layer{0,1}=1 train_dataloader.layer{0,1}.batch_sampler.iterations=2 ;;
    esac
}

train() {
    local system=$1 folder=$work/$1
    # An interrupted run of the same steps goes on; checkpoints of any other make way.
    if [[ ! -f $folder/.begun || $(<"$folder/.begun") != "$chain" ]]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        echo "$chain" >"$folder/.begun"
    fi
    "$PYTHON" "$tools/train.py" "$configs/$system.py" --work-dir "$folder" --resume "${@:2}"
}

evaluate() {
    local folder=$work/$1
    rm -rf "$folder/overlays"
    # An absolute folder, or the pictures would lie under a timestamp.
    "$PYTHON" "$tools/test.py" "$configs/$1.py" "$(<"$folder/last_checkpoint")" --work-dir "$folder" \
        --show-dir "$PWD/$folder/overlays"
}

# How the ensemble comes to what it says of one image, the first.
explain() {
    local images=("$data"/validation/*) folder=$work/two_layer_ensemble
    "$PYTHON" "$tools/analysis_tools/explain_ensemble.py" "$configs/two_layer_ensemble.py" \
        "$(<"$folder/last_checkpoint")" --image "${images[0]}" --out "$folder/flow.png"
}

# One page about both, the ensemble first: it is what the other is compared to.
compare() {
    local runs=()
    for system in "${systems[@]}"; do
        runs+=(--run "${names[$system]}=$configs/$system.py,$(<"$work/$system/last_checkpoint")")
    done
    "$PYTHON" "$tools/compare.py" "${runs[@]}" --title 'One model or two?' --out "$work/comparison"
}

step 'write a synthetic data set' "$data/train" synthesize "$images" "$val_images" "${SIZE:-160}" "${SEED:-0}"
step 'convert the training split' "$data/store/train" convert train
step 'convert the validation split' "$data/store/validation" convert validation
prepared=$chain
for system in "${systems[@]}"; do
    chain=$prepared
    # shellcheck disable=SC2046  # several words are meant
    step "train $system" "$work/$system/last_checkpoint" train "$system" $(overrides "$system")
    step "test $system" "$work/$system/results.json" evaluate "$system"
done
step 'explain the ensemble on one image' "$work/two_layer_ensemble/flow.png" explain
step 'compare both' "$work/comparison/index.html" compare

echo
cat "$work/comparison/table.md"
for system in "${systems[@]}"; do
    folder=$PWD/$work/$system curves=("$PWD/$work/$system"/*/loss_curves.png)
    echo "$system"
    echo "  pictures: $folder/overlays (ground truth beside prediction)"
    echo "  curves:   ${curves[-1]}"
    echo "  weights:  $(<"$work/$system/last_checkpoint")"
done
echo "the ensemble on one image: $PWD/$work/two_layer_ensemble/flow.png"
echo "the comparison: $PWD/$work/comparison/index.html"
echo "took $((SECONDS / 60)) min $((SECONDS % 60)) s"
