#!/usr/bin/env bash
# From a fresh clone to a video: bash scripts/quickstart.sh "a red ball bouncing on a green field"
# Sets up .venv, starts a server on a free port, generates through the official `openai` client, stops the server.
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-"a red ball bouncing on a green field"}

. scripts/environment.sh
prepare_environment .venv client
exec .venv/bin/python scripts/quickstart.py "$prompt"
