#!/bin/sh
# Prints the first rustc on PATH that has the library for wasm32: there may be several. Debian's packages are `rustc`
# and `libstd-rust-dev-wasm32`; rustup's word is `rustup target add wasm32-unknown-unknown`.
set -u
IFS=:
for folder in $PATH; do
    root=$("$folder/rustc" --print sysroot 2>/dev/null) || continue
    if [ -d "$root/lib/rustlib/wasm32-unknown-unknown/lib" ]; then
        echo "$folder/rustc"
        exit 0
    fi
done
echo "no rustc with the library for wasm32 (Debian: apt install rustc libstd-rust-dev-wasm32)" >&2
exit 1
