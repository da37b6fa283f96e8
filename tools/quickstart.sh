#!/usr/bin/env bash
# From nothing to three systems trained and tested on synthetic data, the two-layer ensemble, the end-to-end model and the
# real-time model, in minutes on two CPU cores; a GPU is used when there.
#   bash tools/quickstart.sh [--fresh] [--smoke]
#   --fresh   redo everything; without it, steps that are done already are skipped and training goes on where it was
#   --smoke   a few images and steps only: shows that everything runs, learns nothing
# Writes data/quickstart/ and work_dirs/quickstart/ in the current folder, with a log of each step in
# work_dirs/quickstart/logs/. Settings, all optional:
#   IMAGES=1600 VAL_IMAGES=200 SIZE=160 SEED=0   the data set: training and validation images, their longest side
#   AT_ONCE=3   systems trained side by side; default: all, or fewer where cores or memory are short, one on a GPU
set -euo pipefail

fresh=false smoke=false
for argument in "$@"; do
    case $argument in
        --fresh) fresh=true ;;
        --smoke) smoke=true ;;
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
        *) echo "error: unknown argument $argument; see --help" >&2; exit 2 ;;
    esac
done
systems=(two_layer_ensemble hier_e2e hier_rtmdet)
at_once=${AT_ONCE:-${#systems[@]}}
if [[ ! $at_once =~ ^[1-${#systems[@]}]$ ]]; then
    echo "error: AT_ONCE is a number from 1 to ${#systems[@]}, not '$at_once'" >&2
    exit 2
fi

# Each step that has begun and not ended has a file here: its name, its log and, where it failed, its status.
work=work_dirs/quickstart
unfinished=$work/.unfinished
stage='the set-up'
PYTHON=${PYTHON:-}
stopped() {
    local status=$?
    trap '' INT TERM HUP
    end_jobs
    ((status == 0)) || say_why "$status" >&2
    rm -rf "$unfinished"
}
trap stopped EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Ends what this shell has started, with all processes of it.
end_jobs() {
    local job running
    running=$(jobs -rp)
    for job in $running; do
        kill -TERM -- "-$job" 2>/dev/null || kill -TERM "$job" 2>/dev/null || true
    done
    for job in $running; do
        wait "$job" || true
    done
}

# say_why STATUS: where it stopped, and what helps.
say_why() {
    local interrupted=$(($1 == 129 || $1 == 130 || $1 == 143)) places='' record step log status
    echo
    for record in "$unfinished"/*.step; do
        step=$stage log='' status=$1
        # What the set-up writes lies in its environment.
        if [[ $stage == 'the set-up' && -f ${PYTHON%/bin/*}/hierseg-setup.log ]]; then
            log=${PYTHON%/bin/*}/hierseg-setup.log
        elif [[ -f $record ]]; then
            { read -r step && read -r log && read -r status; } <"$record" || status=$1
        fi
        places+=${places:+ and }$step
        ((interrupted)) && continue
        echo "error: the quickstart failed at $step (status $status)."
        # Of systems side by side only the progress was shown.
        if ((at_once > 1)) && [[ -f $log && $step =~ ', '(train|test) ]]; then
            tail -n 12 "$log" | sed 's/^/  | /'
        fi
        echo "  log:   ${log:-none yet, see above}"
        echo "  mend:  $(mend "$status" "$log")"
    done
    ((!interrupted)) || echo "Interrupted at $places."
    echo '  then:  the same command again, without --fresh, goes on from there.'
}

# mend STATUS LOG: what helps against a failure, by what it left behind.
mend() {
    if [[ -z $2 ]]; then
        echo 'what the lines above say.'
    elif (($1 == 137)); then
        echo 'the system ended it, most likely for want of memory. End other programs; AT_ONCE=1 and SIZE=128 take less.'
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
        echo 'there is too little memory. End other programs; AT_ONCE=1 and SIZE=128 take less.'
    else
        echo 'what the last lines of the log say.'
    fi
}

# Seconds that each step takes, of all data and of --smoke: training and test of one system after another, on two CPU
# cores that do nothing else. They and the percent below follow from a run with three at once. The last one was timed alone.
declare -A estimates=(
    ['write a synthetic data set']='8 2' ['convert the training split']='4 1' ['convert the validation split']='3 1'
    ['train two_layer_ensemble']='530 29' ['test two_layer_ensemble']='30 21'
    ['train hier_e2e']='490 19' ['test hier_e2e']='18 15'
    ['train hier_rtmdet']='450 19' ['test hier_rtmdet']='27 15'
    ['explain the ensemble on one image']='10 10' ['compare all']='80 80'
)
# Percent of that, by the number of trainings at once: what each takes, and what all take together.
one_takes=(0 100 125 185) all_take=(0 100 75 67)
estimate() {
    local full small percent=100
    read -r full small <<<"${estimates[$1]}"
    [[ $1 != train* && $1 != test* ]] || percent=${2:-${one_takes[at_once]}}
    $smoke && echo $((small * percent / 100)) || echo $((full * percent / 100))
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
stage='the preparation'
configs=$HIERSEG_ROOT/configs/quickstart
data=data/quickstart
declare -A names=([two_layer_ensemble]=ensemble [hier_e2e]=end-to-end [hier_rtmdet]=real-time)
images=${IMAGES:-1600} val_images=${VAL_IMAGES:-200}
if $smoke; then
    images=24 val_images=8
fi
! $fresh || rm -rf "$data" "$work"
rm -rf "$unfinished"

# How many systems are trained at once. A second thread makes a step little shorter, so that each has one as long as
# cores are few, and all are trained at once even on two cores: both are busy to the end.
cores=1 why='' memory_of_one=2000000  # kB
if ((at_once > 1)); then
    cores=$("$PYTHON" -c 'from hierseg.threads import usable_cores; print(usable_cores())')
fi
if [[ -z ${AT_ONCE:-} ]]; then
    fit=$(awk -v one=$memory_of_one '/^MemAvailable/ { print int($2 / one) }' /proc/meminfo)
    if [[ -e /dev/nvidiactl && ! ${CUDA_VISIBLE_DEVICES-all} =~ ^(-1)?$ ]]; then
        at_once=1 why='they would share the GPU'
    elif ((cores == 1)); then
        at_once=1 why='there is one core'
    elif ((${fit:-at_once} < at_once)); then
        at_once=$((fit > 1 ? fit : 1)) why="$((memory_of_one / 1000)) MB of free memory are needed for each"
    fi
fi
threads=$((cores > at_once ? cores / at_once : 1))

# step NAME RESULT COMMAND...: runs a command into its log unless its result is there from an earlier run of the same
# steps, with the same settings and configs.
number=0 record='' show=cat
chain="$smoke $(cat "$HIERSEG_ROOT"/configs/quickstart/*.py "$HIERSEG_ROOT"/configs/_base_/{,*/}*.py | cksum)"
step() {
    local name=$1 result=$2 start=$SECONDS mark=$data/.steps/$1
    shift 2
    chain=$(printf '%s\n' "$chain" "$@" | cksum)
    number=$((number + 1))
    if [[ -e $result && -f $mark && $(<"$mark") == "$chain" ]]; then
        echo "== $number/${#estimates[@]} $name: done before"
        return
    fi
    echo "== $number/${#estimates[@]} $name: about $(duration "$(estimate "$name")")"
    local log=$PWD/$work/logs/$number-${name// /-}.log
    mkdir -p "$work/logs" "$unfinished"
    record=$unfinished/$number.step
    printf '%s\n' "step $number of ${#estimates[@]}, $name" "$log" >"$record"
    "$@"
    mkdir -p "$data/.steps"
    echo "$chain" >"$mark"
    rm "$record"
    echo "== $number/${#estimates[@]} $name: took $(duration $((SECONDS - start)))"
}

# run COMMAND...: the program of a step, in a session of its own: it can be ended at any time, with all its processes.
run() {
    local output printer status=0
    exec {output}> >(tee "$log" | $show)
    printer=$!
    setsid "$@" >&"$output" 2>&1 &
    wait $! || status=$?
    exec {output}>&-
    wait "$printer" || status=$((status ? status : $?))
    return "$status"
}

# Of systems side by side the progress is shown, each line with its system.
progress() {
    local head="s/^.* INFO - (Epoch\([a-z]+\) *\[.*\]) .*" line
    line=$(printf '%-18s | ' "${name#* }")
    sed -unE -e "$head(eta: [^ ]+) .* (loss: [^ ]+) .*/$line\1  \2  \3/p;t" \
        -e "$head(segm\/mAP: [^ ]+) .*/$line\1  \2/p"
}

synthesize() {
    rm -rf "$data"
    run "$PYTHON" "$tools/synthesize.py" "$data" --images "$images" --val-images "$val_images" \
        --size "${SIZE:-160}" --seed "${SEED:-0}" --tail-ratio 30 --workers "$(nproc)"
}

convert() {
    local split=$1 official=$data/challenge-2019
    run "$PYTHON" "$tools/dataset_converters/openimages.py" --out "$data/store/$split" --overwrite --workers "$(nproc)" \
        --hierarchy "$official-label-hierarchy.json" --classes "$official-classes-description.csv" \
        --boxes "$official-$split-segmentation-bbox.csv" --labels "$official-$split-segmentation-labels.csv" \
        --masks "$official-$split-segmentation-masks.csv" --mask-dir "$data/$split-masks" --images "$data/$split"
}

# What a system's config has otherwise here: no validation, which the test does again; with --smoke a few steps.
overrides() {
    [[ $1 == two_layer_ensemble ]] || echo train_cfg.val_begin=1000
    case $smoke,$1 in
        true,hier_e2e)
            echo train_cfg.max_epochs=1 train_dataloader.batch_sampler.iterations=3 ;;
        true,hier_rtmdet)
            echo train_cfg.max_epochs=1 train_dataloader.batch_sampler.iterations=3 \
                param_scheduler.1.begin=0 param_scheduler.1.T_max=1 ;;
        true,two_layer_ensemble)
            echo train_cfg.max_epochs.layer{0,1}=1 train_dataloader.layer{0,1}.batch_sampler.iterations=2 ;;
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
    run "$PYTHON" "$tools/train.py" "$configs/$system.py" --work-dir "$folder" --resume ${2:+--cfg-options "${@:2}"}
}

evaluate() {
    local folder=$work/$1
    rm -rf "$folder/overlays"
    # An absolute folder, or the pictures would lie under a timestamp.
    run "$PYTHON" "$tools/test.py" "$configs/$1.py" "$(<"$folder/last_checkpoint")" --work-dir "$folder" \
        --show-dir "$PWD/$folder/overlays" --coco-results "$2"
}

# How the ensemble comes to what it says of one image, the first.
explain() {
    local images=("$data"/validation/*) folder=$work/two_layer_ensemble
    run "$PYTHON" "$tools/analysis_tools/explain_ensemble.py" "$configs/two_layer_ensemble.py" \
        "$(<"$folder/last_checkpoint")" --image "${images[0]}" --out "$folder/flow.png"
}

# One page about all, the ensemble first: it is what the others are compared to.
compare() {
    local runs=() system folder
    for system in "${systems[@]}"; do
        folder=$work/$system
        runs+=(--run "${names[$system]}=$configs/$system.py,$(<"$folder/last_checkpoint"),$folder/detections.json")
    done
    run "$PYTHON" "$tools/compare.py" "${runs[@]}" --title 'One model or two?' --out "$work/comparison"
}

# A lane trains and tests systems that no other has taken, until one fails.
lane() {
    local place system
    trap lane_stopped EXIT
    trap 'exit 143' TERM HUP
    trap '' INT  # the script hears it, too, and ends the lanes
    if ((at_once > 1)); then
        show=progress
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
    fi
    for place in "${!systems[@]}"; do
        system=${systems[place]}
        [[ ! -e $unfinished/failed ]] || return 0
        mkdir "$unfinished/$system" 2>/dev/null || continue
        chain=$prepared number=$((3 + 2 * place))
        # shellcheck disable=SC2046  # several words are meant
        step "train $system" "$work/$system/last_checkpoint" train "$system" $(overrides "$system")
        step "test $system" "$work/$system/results.json" evaluate "$system" "$work/$system/detections.json"
    done
}
lane_stopped() {
    local status=$?
    trap '' TERM HUP
    end_jobs
    if ((status != 0 && status != 143)); then
        [[ -z $record ]] || echo "$status" >>"$record"
        touch "$unfinished/failed"
        ((at_once == 1)) || echo "== $(head -n 1 "$record"): failed; what runs beside it goes on to its end"
    fi
}

total=0
for name in "${!estimates[@]}"; do
    total=$((total + $(estimate "$name" "${all_take[at_once]}")))
done
echo "== ${#estimates[@]} steps, together about $(duration "$total") with the default settings on two CPU cores that do nothing else"
step 'write a synthetic data set' "$data/train" synthesize "$images" "$val_images" "${SIZE:-160}" "${SEED:-0}"
step 'convert the training split' "$data/store/train" convert train
step 'convert the validation split' "$data/store/validation" convert validation

if ((at_once > 1)); then
    echo "== $at_once systems side by side on $cores cores${why:+: $why}; all that they print is in $work/logs/"
elif [[ -n $why ]]; then
    echo "== one system after another: $why"
fi
prepared=$chain lanes=() status=0
mkdir -p "$unfinished"
for ((i = 0; i < at_once; i++)); do
    lane &
    lanes+=($!)
done
for pid in "${lanes[@]}"; do
    wait "$pid" || status=$((status == 0 ? $? : status))
done
((status == 0)) || exit "$status"
chain=$(cat "$data"/.steps/{train,test}* | cksum) number=$((3 + 2 * ${#systems[@]}))
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
