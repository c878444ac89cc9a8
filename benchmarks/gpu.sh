#!/bin/sh
# Trains the zoo on a GPU machine that has only a shell: everything travels in a few archives.
#
#   benchmarks/gpu.sh pack [FILE...]        here: $WORK/ship-*.tar with code, images and further files (wheels)
#   benchmarks/gpu.sh unpack ARCHIVE...     there, once for each archive or for all of them
#   benchmarks/gpu.sh train [ADAPTER...]    there: trains them (default: all), then writes $OUT/zoo-*.tar and $OUT/train.log
#   benchmarks/gpu.sh merge ARCHIVE...      here: puts weights and training records into this checkout
#   benchmarks/gpu.sh rehearse              here: all of it on the CPU, with a few images, in a temporary folder
#
# `train` stops at the deadline. Trainings in progress first write a checkpoint below $WORK (in a Git checkout: to its
# .cache/training); the same command continues them. Wheels among the packed files are installed below $WORK, without a
# network.
#
# Variables and their defaults:
#   WORK=benchmarks/.work/gpu  folder for archives, data, checkpoints and weights
#   OUT=$WORK/back             folder for the archives that `train` writes
#   DATA=tiny-imagenet-train   dataset to pack; LIMIT=N packs only the first N images
#   PIXELS=                    1 packs the decoded pixels: independent of the JPEG library there, but larger
#   MIB=60                     largest archive of `pack`
#   BUDGET=300000i             images or seconds for each training
#   JOBS=<number of cores>     trainings at the same time
#   DEADLINE=480               seconds after which `train` stops
#   DEVICE=cuda                cpu for a rehearsal
#   PYTHON=python3             interpreter with tokbench's dependencies
set -eu
here=$(cd "$(dirname "$0")" && pwd)
repository=$(dirname "$here")
WORK=${WORK:-$here/.work/gpu}
OUT=${OUT:-$WORK/back}
PYTHON=${PYTHON:-python3}

pack() {
    "$PYTHON" "$here/gpu.py" pack "${DATA:-tiny-imagenet-train}" "$WORK" --size "${MIB:-60}" \
        ${LIMIT:+--limit "$LIMIT"} ${PIXELS:+--pixels} --extra "$@"
}

unpack() {
    "$PYTHON" "$here/gpu.py" unpack "$WORK" "$@"
}

train() {
    root=$repository
    if [ -d "$WORK/checkout" ]; then root=$WORK/checkout; fi
    if ls "$WORK"/extra/*.whl >/dev/null 2>&1 && [ ! -d "$WORK/site" ]; then
        "$PYTHON" -m pip install -q --no-index --no-deps --target "$WORK/site" "$WORK"/extra/*.whl
    fi
    PYTHONPATH=$root:$WORK/site
    TOKBENCH_CACHE=$WORK/cache
    export PYTHONPATH TOKBENCH_CACHE
    if [ $# -eq 0 ]; then set -- --all; fi
    set -- "$@" --root "$root" --data "$(echo "$WORK"/data/*)" --out "$WORK/zoo" --device "${DEVICE:-cuda}" \
        --budget "${BUDGET:-300000i}" --jobs "${JOBS:-$(nproc)}"
    mkdir -p "$OUT"
    status=0
    timeout --signal=TERM --kill-after=60 "${DEADLINE:-480}" "$PYTHON" -m tokbench train "$@" \
        >"$OUT/train.log" 2>&1 || status=$?
    cat "$OUT/train.log"
    if [ $status -eq 137 ]; then status=124; fi # killed, because it had not stopped a minute after the deadline
    if [ $status -eq 124 ]; then
        states=$(find "$WORK/cache" "$root/.cache" -path '*/training/*.pt' 2>/dev/null | wc -l)
        echo "stopped at the deadline; unfinished trainings that are saved: $states"
    fi
    "$PYTHON" "$here/gpu.py" collect "$WORK/zoo" "$OUT"
    if [ $status -ne 124 ]; then return $status; fi
}

merge() {
    "$PYTHON" "$here/gpu.py" unpack "$repository" "$@"
}

rehearse() {
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    OUT=$WORK/back
    LIMIT=${LIMIT:-512} MIB=${MIB:-2}
    pack
    unpack "$WORK"/ship-*.tar
    DEVICE=cpu BUDGET=${BUDGET:-20s} JOBS=${JOBS:-2} DEADLINE=${DEADLINE:-180}
    train pca.f8c4 vqgan.f8 kl.f8c4 gpt.vqgan_f8
    "$PYTHON" "$here/gpu.py" unpack "$WORK/merged" "$OUT"/zoo-*.tar
    find "$WORK/merged" -type f
}

command=${1:-help}
case $command in
pack | unpack | train | merge | rehearse)
    shift
    mkdir -p "$WORK"
    WORK=$(cd "$WORK" && pwd)
    "$command" "$@"
    ;;
*)
    sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//p;}' "$0"
    [ "$command" = help ] || exit 2
    ;;
esac
