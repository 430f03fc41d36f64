#!/usr/bin/env bash
# What a CUDA machine is asked, in parts of at most 8 minutes each; nothing is fetched there.
#
#   scripts/gpu_session.sh wheels             here, with a network: what its Python lacks goes into .whl
#   scripts/gpu_session.sh small              there: small models beside plain diffusers
#   scripts/gpu_session.sh large              there: one of 14B under a cap of 24 GiB, and one with sound
#   scripts/gpu_session.sh models             there: both of these
#   scripts/gpu_session.sh tests              there: tests marked gpu
#   scripts/gpu_session.sh train [SECONDS] [denoiser|decoder]
#                                             there: these tests, and the shipped model goes on learning
#   scripts/gpu_session.sh small --tiny --device cpu   that all of it runs, on any machine
#
# Results go to $OUT where it is set, else to scripts/results: gpu-PART.{jsonl,md,svg}, gpu-tests.txt, train.log, weights.
set -euo pipefail
cd "$(dirname "$0")/.."
part="${1:?wheels, small, large, models, tests or train}"
shift

if [ "$part" = wheels ]; then
    exec python3 -m scripts.wheels "$@"
fi

if [ -d .whl ]; then
    [ -d /tmp/homereel-site ] || python3 -m pip install -q --no-index --no-deps --target /tmp/homereel-site .whl/*.whl
    export PYTHONPATH="/tmp/homereel-site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="${PYTHONPATH:-$PWD}" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
into="${OUT:-scripts/results}"
mkdir -p "$into"
# Each line is a command of the benchmark; the arguments go to every one. One process imports for all.
small='wan2.1-t2v-1.3b --size 832x480 --seconds 5 --steps 4
wan2.2-ti2v-5b --size 1280x704 --seconds 3 --steps 3'
large='wan2.1-t2v-14b --size 832x480 --seconds 3 --steps 2 --offload group --tiled --cap-gb 24
ltx-2-distilled --size 768x512 --seconds 5'
benchmarks() {
    lines=$1
    shift
    rm -f "$into/gpu-$part.jsonl"
    sed "s|\$| --runs 1 --baseline --limit-s ${LIMIT_S:-110} --into $into --name gpu-$part $*|" <<<"$lines" |
        python3 -m scripts.benchmark -
    # Only few files come back from there; python -m scripts.plot_results draws these again.
    [ -z "${OUT:-}" ] || rm -f "$into/gpu-$part"-*.svg
}

# Elsewhere they are skipped.
tests() {
    python3 -m pytest -q -p no:schemathesis -m gpu tests/gpu tests/pipelines/accel 2>&1 | tee "$into/gpu-tests.txt"
}

# Denoiser and decoder side by side, or one of them; beside them the tests marked gpu.
train_shipped_model() {
    seconds=${1:-200}
    stages=${2:-denoiser decoder}
    work=$(mktemp -d)
    stage() {
        python3 -m scripts.train_embedded "$@" --work "$work" --device "${DEVICE:-cuda}" >>"$into/train.log" 2>&1
    }
    python3 -m scripts.train_embedded unpack --work "$work" >/dev/null
    if [[ $stages == *decoder* ]]; then
        stage decoder --batch "${CLIPS:-48}" --anneal-s "$seconds" --steps 1000000 &
    fi
    if [[ $stages == *denoiser* ]]; then
        {
            for share in 0 1 2 3; do
                stage latents --steps "${SHARDS:-256}" --share "$share/4" &
                drawing[share]=$!
            done
            wait "${drawing[@]}"
            stage denoiser --batch "$((16 * ${CLIPS:-48}))" --anneal-s "$((seconds - SECONDS))" --steps 1000000
        } &
    fi
    tests &
    wait
    python3 -m scripts.train_embedded pack --work "$work" --into "$into"
    cat "$into/train.log"
}

case "$part" in
small) benchmarks "$small" "$@" ;;
large) benchmarks "$large" "$@" ;;
models) benchmarks "$small"$'\n'"$large" "$@" ;;
tests) tests ;;
train) train_shipped_model "$@" ;;
*)
    echo "there is no part called $part" >&2
    exit 2
    ;;
esac
