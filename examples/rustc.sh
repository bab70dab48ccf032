#!/bin/sh
# Prints the first rustc on PATH that can make wasm: there may be several, and not each has the library for wasm32 and
# a linker. Debian's packages are `rustc`, `libstd-rust-dev-wasm32` and `lld`; rustup's word is
# `rustup target add wasm32-unknown-unknown`.
set -u
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
: >"$scratch/nothing.rs"
IFS=:
for folder in $PATH; do
    [ -x "$folder/rustc" ] || continue
    if "$folder/rustc" --target wasm32-unknown-unknown --crate-type cdylib -o "$scratch/nothing.wasm" \
        "$scratch/nothing.rs" >"$scratch/said" 2>&1; then
        echo "$folder/rustc"
        exit 0
    fi
done
echo "no rustc that can make wasm (Debian: apt install rustc libstd-rust-dev-wasm32 lld)" >&2
cat "$scratch/said" >&2 2>/dev/null
exit 1
