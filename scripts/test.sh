#!/usr/bin/env bash
# The whole suite on a fresh machine: its own environment, then scripts/check. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

# ffprobe judges our files, node runs the official JavaScript client. Both are only needed by tests.
missing=()
command -v ffprobe >/dev/null || missing+=(ffmpeg)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if [ "${#missing[@]}" -gt 0 ]; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

. scripts/environment.sh
prepare_environment .venv-test dev
export PATH="$PWD/.venv-test/bin:$PATH"
exec sh scripts/check "$@"
