#!/bin/sh
# Makes the project's virtual environment when there is none, and installs the project into it.
#   scripts/venv.sh ENVIRONMENT EXTRAS        for example: scripts/venv.sh .venv proxy
# Needs any Python >= 3.11 with venv: $PYTHON when set, else the first one found on PATH.
set -eu

environment=$1
extras=$2
minimum="3.11"
new_enough="import sys; raise SystemExit(sys.version_info < (3, 11))"

fail() {
    printf '%s\n' "" "$@" "" >&2
    exit 1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" -c "$new_enough" 2>/dev/null && { echo "$PYTHON"; return; }
        fail "PYTHON=$PYTHON is not a Python >= $minimum: $("$PYTHON" --version 2>&1 || true)"
    fi
    for candidate in python3 python3.11 python3.12 python3.13 python3.14 python; do
        if "$candidate" -c "$new_enough" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>&1) || found="no python3 at all"
    fail "pywasmvm needs Python $minimum or newer; on PATH there is: $found." \
         "Install one (Debian/Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 ..."
}

if [ -x "$environment/bin/python" ] && ! "$environment/bin/python" -c "$new_enough" 2>/dev/null; then
    fail "$environment was made with a Python older than $minimum, or one that is gone." \
         "Remove it and try again: rm -r $environment"
fi
if [ ! -x "$environment/bin/python" ]; then
    python=$(find_python)
    echo "making $environment with $("$python" --version)"
    if ! "$python" -m venv "$environment" >/dev/null 2>&1; then
        rm -rf "$environment"
        fail "$python cannot make virtual environments." \
             "Install its venv module (Debian/Ubuntu: apt install python3-venv) and try again."
    fi
fi
echo "installing pywasmvm[$extras] into $environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --editable ".[$extras]" ||
    fail "pip could not install pywasmvm[$extras]; its own message is above."
