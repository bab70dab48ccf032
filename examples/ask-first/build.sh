#!/bin/sh
# Builds ask-first.wasm (or the file named) with the Go toolchain, 1.24 or newer: pip install 'pywasmvm[guests]'.
set -eu
cd "$(dirname "$0")"
out=${1:-$PWD/ask-first.wasm}
cache=$(cd .. && pwd)/.cache/go
# No module is downloaded: there is none but ours. `c-shared` makes a library, which is what a filter is.
export GOOS=wasip1 GOARCH=wasm GOCACHE="$cache/build" GOPATH="$cache/path" GOFLAGS=-mod=mod GOPROXY=off \
    GOTOOLCHAIN=local GOTELEMETRY=off
exec go build -buildmode=c-shared -trimpath -buildvcs=false -ldflags "-s -w" -o "$out" .
