# Sourced by quickstart.sh and test.sh: makes a virtual environment from constraints.txt, once per change of it.
# prepare_environment FOLDER EXTRAS   e.g.  prepare_environment .venv client

find_python() {
    for candidate in python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Homereel needs Python 3.11 or newer with venv (on Debian: apt-get install python3-venv)." >&2
    return 1
}

prepare_environment() {
    folder=$1 extras=$2
    # Of pyproject.toml only what is installed; the tools' settings follow it.
    wanted="$(sed '/^\[tool.ruff\]/,$d' pyproject.toml | cat - constraints.txt | cksum) $extras $PWD"
    if [ -x "$folder/bin/homereel" ] && [ "$(cat "$folder/.homereel" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    python=$(find_python)
    echo "Preparing $folder (only now and when the dependencies change; minutes) ..." >&2
    "$python" -m venv "$folder"
    # torch by name, so that a build that is already on this machine counts before a download does.
    "$folder/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt torch -e ".[$extras]" >&2
    echo "$wanted" >"$folder/.homereel"
}
