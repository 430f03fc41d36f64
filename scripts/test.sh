#!/usr/bin/env bash
# The whole suite on a fresh machine: its own environment, then scripts/check. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

# ffprobe judges our files, node runs the official JavaScript client, Chromium visits the page: all for tests only.
missing=()
command -v ffprobe >/dev/null || missing+=(ffmpeg)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
# The distribution's, which plays H.264; Playwright's own does not.
command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
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
