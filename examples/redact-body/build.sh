#!/bin/sh
# Builds redact-body.wasm (or the file named) with a rustc that knows wasm32: see ../rustc.sh.
set -eu
cd "$(dirname "$0")"
out=${1:-$PWD/redact-body.wasm}
rustc=$(sh ../rustc.sh)
# A panic is a trap, which the proxy answers with 503; nothing is unwound, and no symbols are kept.
exec "$rustc" --target wasm32-unknown-unknown --crate-type cdylib --edition 2021 \
    -C opt-level=s -C panic=abort -C lto -C strip=symbols -o "$out" filter.rs
