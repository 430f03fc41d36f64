#!/usr/bin/env bash
# Every method of OpenAI's clients, old and new, and of LiteLLM, against one running server with the model that ships.
# Installs each version into an environment of its own (build/clients), prints what it saw, fails if anything failed.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/environment.sh
prepare_environment .venv-test dev
exec .venv-test/bin/python -m scripts.conformance "$@"
