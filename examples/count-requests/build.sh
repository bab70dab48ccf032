#!/bin/sh
# Builds count-requests.wasm (or the file named) with zig, a C compiler from PyPI: pip install 'pywasmvm[guests]'.
set -eu
cd "$(dirname "$0")"
out=${1:-$PWD/count-requests.wasm}
export ZIG_GLOBAL_CACHE_DIR="$PWD/../.cache/zig" ZIG_LOCAL_CACHE_DIR="$PWD/../.cache/zig"
# Freestanding: no operating system, no libc. What is exported stands in the source; there is no main to enter.
exec "${PYTHON:-python3}" -m ziglang cc --target=wasm32-freestanding -O2 -Wall -Wextra -Wno-unused-parameter \
    -nostdlib -Wl,--no-entry -Wl,--strip-all -o "$out" filter.c
