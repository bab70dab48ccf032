#!/bin/sh
# Builds access-log.wasm (or the file named) with zig, a C++ compiler from PyPI: pip install 'pywasmvm[guests]'.
set -eu
cd "$(dirname "$0")"
out=${1:-$PWD/access-log.wasm}
export ZIG_GLOBAL_CACHE_DIR="$PWD/../.cache/zig" ZIG_LOCAL_CACHE_DIR="$PWD/../.cache/zig"
exec "${PYTHON:-python3}" -m ziglang c++ --target=wasm32-freestanding -std=c++17 -O2 -Wall -Wextra \
    -fno-exceptions -fno-rtti -nostdlib -Wl,--no-entry -Wl,--strip-all -o "$out" filter.cc
