#!/usr/bin/env bash
# What a CUDA machine is asked, in parts of at most 8 minutes each; nothing is fetched there.
#
#   scripts/gpu_session.sh wheels [VERSION]   here, with a network: what its Python lacks goes into .whl (3.12 if not said)
#   scripts/gpu_session.sh small              there: tests marked gpu, small models beside plain diffusers, plans
#   scripts/gpu_session.sh large              there: one of 14B under a cap of 24 GiB, and one with sound
#   scripts/gpu_session.sh small --tiny --device cpu   that all of it runs, on any machine
#
# Results go to $OUT where it is set, else to scripts/results: gpu-PART.{jsonl,md,svg} and gpu-tests.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
part="${1:?wheels, small or large}"
shift

# Of what the project needs, these are in no CUDA image of PyTorch. Pure Python or manylinux, a few megabytes each.
LACKING=(alembic anyio diffusers fastapi ftfy httpcore2 httpx2 imageio-ffmpeg importlib-metadata mako prometheus-client
    pydantic pydantic-core pydantic-settings python-dotenv python-multipart sqlalchemy standardwebhooks starlette
    tokenizers transformers truststore typing-inspection uvicorn wcwidth zipp deprecated peft)

if [ "$part" = wheels ]; then
    platforms=()
    for glibc in 28 27 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
    mkdir -p .whl
    for package in "${LACKING[@]}"; do
        wanted=$(grep -i "^${package}==" constraints.txt || echo "$package")
        python3 -m pip download -q --no-deps --only-binary=:all: --implementation cp --python-version "${1:-3.12}" \
            "${platforms[@]}" -d .whl "$wanted"
    done
    du -sh .whl
    exit
fi

if [ -d .whl ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target /tmp/homereel-site .whl/*.whl
    export PYTHONPATH="/tmp/homereel-site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="${PYTHONPATH:-$PWD}" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
into="${OUT:-scripts/results}"
mkdir -p "$into"
bench() { python3 -m scripts.benchmark "$@" --into "$into" --name "gpu-$part"; }

failed=0
rm -f "$into/gpu-$part.jsonl"
case "$part" in
small)
    # Without a GPU they are skipped.
    python3 -m pytest -q -p no:schemathesis -m gpu tests/gpu tests/pipelines/accel 2>&1 | tee "$into/gpu-tests.txt" ||
        failed=1
    bench wan2.1-t2v-1.3b --size 832x480 --seconds 5 --steps 10 --runs 1 --baseline --limit-s 150 "$@" || failed=1
    bench wan2.2-ti2v-5b --size 1280x704 --seconds 5 --steps 4 --runs 1 --baseline --limit-s 150 "$@" || failed=1
    bench homereel-mini --runs 3 --limit-s 60 "$@" || failed=1
    ;;
large)
    bench wan2.1-t2v-14b --size 832x480 --seconds 5 --steps 3 --runs 1 --offload group --tiled --cap-gb 24 \
        --baseline --limit-s 220 "$@" || failed=1
    bench ltx-2-distilled --size 768x512 --seconds 5 --runs 1 --baseline --limit-s 220 "$@" || failed=1
    ;;
*)
    echo "there is no part called $part" >&2
    exit 2
    ;;
esac
python3 -m scripts.plot_results "$into/gpu-$part.jsonl" --into "$into"
exit "$failed"
