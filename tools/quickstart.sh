#!/usr/bin/env bash
# From nothing to three systems trained and tested on synthetic data, the two-layer ensemble, the end-to-end model and the
# real-time model, in minutes on two CPU cores; a GPU is used when there.
#   bash tools/quickstart.sh [--fresh] [--smoke]
#   --fresh   redo everything; without it, steps that are done already are skipped and training goes on where it was
#   --smoke   a few images and steps only: shows that everything runs, learns nothing
# Writes data/quickstart/ and work_dirs/quickstart/ in the current folder, with a log of each step in
# work_dirs/quickstart/logs/. Settings, all optional:
#   IMAGES=1600 VAL_IMAGES=200 SIZE=160 SEED=0   the data set: training and validation images, their longest side
set -euo pipefail

fresh=false smoke=false
for argument in "$@"; do
    case $argument in
        --fresh) fresh=true ;;
        --smoke) smoke=true ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
        *) echo "error: unknown argument $argument; see --help" >&2; exit 2 ;;
    esac
done

# Where it stands, for those who ask why it stopped.
position='the set-up' log=''
PYTHON=${PYTHON:-}
stopped() {
    local status=$?
    if ((status == 0)); then
        return
    fi
    # What the set-up writes lies in its environment.
    if [[ -z $log && -f ${PYTHON%/bin/*}/hierseg-setup.log ]]; then
        log=${PYTHON%/bin/*}/hierseg-setup.log
    fi
    {
        echo
        if ((status == 130 || status == 143)); then
            echo "Interrupted at $position."
        else
            echo "error: the quickstart failed at $position (status $status)."
            echo "  log:   ${log:-none yet, see above}"
            echo "  mend:  $(mend "$status" "$log")"
        fi
        echo '  then:  the same command again, without --fresh, goes on from there.'
    } >&2
}
trap stopped EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# mend STATUS LOG: what helps against a failure, by what it left behind.
mend() {
    if [[ -z $2 ]]; then
        echo 'what the lines above say.'
    elif (($1 == 137)); then
        echo 'the system ended it, most likely for want of memory. End other programs; SIZE=128 also takes less.'
    elif grep -q 'No space left on device' "$2"; then
        echo "the disk is full. Make room where this is: $PWD (df -h . tells how much there is)."
    elif grep -qE 'DataLoader worker .* (killed|exited)|[Bb]us error|shared memory' "$2"; then
        echo 'loader workers ran out of memory that they share. In a container: docker run --shm-size 2g.'
    elif grep -qE 'CUDA|cuDNN|NVIDIA' <(grep -E '^[A-Za-z_.]*(Error|Exception)' "$2"); then
        echo 'leave the GPU alone: export HIERSEG_CPU_ONLY=1'
    elif grep -qE '^(ModuleNotFoundError|ImportError)' "$2"; then
        echo "$PYTHON -m hierseg doctor: says what is missing and how to get it."
    elif grep -qE 'NewConnectionError|ReadTimeout|name resolution|Network is unreachable' "$2"; then
        echo 'a download failed: see to the network, a proxy (HTTPS_PROXY) or another package index (PIP_INDEX_URL).'
    elif grep -qE 'MemoryError|[Cc]annot allocate memory|enough memory' "$2"; then
        echo 'there is too little memory. End other programs; SIZE=128 also takes less.'
    else
        echo 'what the last lines of the log say.'
    fi
}

# Seconds that each step takes, of all data and of --smoke. Training and sum of the first are measured on two CPU cores
# that do nothing else, the second with one thread.
declare -A estimates=(
    ['write a synthetic data set']='8 2' ['convert the training split']='4 1' ['convert the validation split']='3 1'
    ['train two_layer_ensemble']='289 29' ['test two_layer_ensemble']='20 21'
    ['train hier_e2e']='288 19' ['test hier_e2e']='14 15'
    ['train hier_rtmdet']='170 19' ['test hier_rtmdet']='14 15'
    ['explain the ensemble on one image']='4 10' ['compare all']='45 80'
)
estimate() {
    local full small
    read -r full small <<<"${estimates[$1]}"
    $smoke && echo "$small" || echo "$full"
}
duration() {
    (($1 < 100)) && echo "$1 s" || echo "$((($1 + 30) / 60)) min"
}

set --  # the set-up has arguments of its own
if [[ ${HIERSEG_SKIP_SETUP:-0} != 1 ]]; then
    echo '== set up: about 5 minutes the first time, no time later'
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$tools/setup.sh"
configs=$HIERSEG_ROOT/configs/quickstart
data=data/quickstart
work=work_dirs/quickstart
systems=(two_layer_ensemble hier_e2e hier_rtmdet)
declare -A names=([two_layer_ensemble]=ensemble [hier_e2e]=end-to-end [hier_rtmdet]=real-time)
images=${IMAGES:-1600} val_images=${VAL_IMAGES:-200}
if $smoke; then
    images=24 val_images=8
fi
! $fresh || rm -rf "$data" "$work"

# step NAME RESULT COMMAND...: runs a command into its log unless its result is there from an earlier run of the same
# steps, with the same settings and configs.
number=0
chain=$(cat "$HIERSEG_ROOT"/configs/quickstart/*.py "$HIERSEG_ROOT"/configs/_base_/{,*/}*.py | cksum)
step() {
    local name=$1 result=$2 start=$SECONDS mark=$data/.steps/$1
    shift 2
    chain=$(printf '%s\n' "$chain" "$@" | cksum)
    number=$((number + 1))
    position="step $number of ${#estimates[@]}, $name"
    if [[ -e $result && -f $mark && $(<"$mark") == "$chain" ]]; then
        echo "== $number/${#estimates[@]} $name: done before"
        return
    fi
    echo "== $number/${#estimates[@]} $name: about $(duration "$(estimate "$name")")"
    log=$PWD/$work/logs/$number-${name// /-}.log
    mkdir -p "$work/logs"
    "$@" 2>&1 | tee "$log"
    mkdir -p "$data/.steps"
    echo "$chain" >"$mark"
    echo "== $number/${#estimates[@]} $name: took $(duration $((SECONDS - start)))"
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
        true,hier_rtmdet)
            echo --cfg-options train_cfg.max_epochs=1 train_dataloader.batch_sampler.iterations=3 \
                param_scheduler.1.begin=0 param_scheduler.1.T_max=1 ;;
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

# One page about all, the ensemble first: it is what the others are compared to.
compare() {
    local runs=()
    for system in "${systems[@]}"; do
        runs+=(--run "${names[$system]}=$configs/$system.py,$(<"$work/$system/last_checkpoint")")
    done
    "$PYTHON" "$tools/compare.py" "${runs[@]}" --title 'One model or two?' --out "$work/comparison"
}

total=0
for name in "${!estimates[@]}"; do
    total=$((total + $(estimate "$name")))
done
echo "== ${#estimates[@]} steps, together about $(duration "$total") with the default settings on two CPU cores that do nothing else"
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
step 'compare all' "$work/comparison/index.html" compare

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
echo "took $((SECONDS / 60)) min $((SECONDS % 60)) s"
echo "the comparison: $PWD/$work/comparison/index.html"
