"""One start of a filter in a process of its own, which `go.py` starts: prints its times as JSON.

    python -m benchmarks.startup FILTER VARIANT [--requests 30]

FILTER is `seed` or a Go plugin (`life.PLUGINS`), VARIANT one of `VARIANTS`. What is imported is imported
before the clock runs. Whether a cache on disk is used is up to the environment (`PYWASMVM_CACHE_DIR`,
`PWASM_CACHE_DIR`).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import engines, life, stubs
from benchmarks.engines import Validate

#: The file that `ours, snapshot` begins with, or leaves where there is none yet.
SNAPSHOT = "BENCHMARKS_SNAPSHOT"


def _ours(validate: Validate, snapshot: Path | None = None) -> engines.Load:
    engines.import_all("pywasmvm", but=frozenset({"cli", "script", "debug", "text"}))
    return engines.ours(validate=validate, snapshot=snapshot)


def _restored() -> engines.Load:
    return _ours("lazy", Path(os.environ[SNAPSHOT]))


def _pwasm(mode: str) -> engines.Load:
    engines.import_all("pwasm", but=frozenset({"guests", "sandbox", "emscripten"}))
    return engines.pwasm(mode)


def _wasmtime() -> engines.Load:
    engines.import_all("wasmtime", but=frozenset({"bindgen", "component"}))
    return engines.Wasmtime


#: Engines as they are started, by name.
VARIANTS: dict[str, Callable[[], engines.Load]] = {
    "ours": functools.partial(_ours, "lazy"),
    "ours, eager": functools.partial(_ours, "eager"),
    "ours, snapshot": _restored,
    "pwasm": functools.partial(_pwasm, "auto"),
    "pwasm, interpreter": functools.partial(_pwasm, "interpret"),
    "wasmtime": _wasmtime,
}


def start(filter_: str, load: engines.Load, requests: int) -> life.Times:
    """Seconds of each phase: those of the start, `first`, `second`, `third` request, the `steady` one (the
    best of all later ones), and the `total` up to the third."""
    alive = life.Seed(load) if filter_ == "seed" else life.Go(filter_, load)
    times = dict(alive.times)
    spent = [alive.request() for _ in range(max(requests, 4))]
    times |= dict(zip(("first", "second", "third"), spent, strict=False))
    times["total"] = sum(times.values())
    times["steady"] = min(spent[3:])
    return times


def leave_snapshot(filter_: str, load: engines.Load) -> None:
    """Write the snapshot for the next process, after `_initialize` and before any other call."""
    path = Path(os.environ[SNAPSHOT])
    if path.exists():
        return
    if filter_ == "seed":
        host: stubs.SeedHost | stubs.GoHost = stubs.SeedHost(life.Seed.configuration)
        data = life.SEED.read_bytes()
    else:
        host, data = stubs.GoHost(), life.plugin(filter_)
    guest = host.guest = load(data, host.imports())
    if filter_ != "seed":
        guest.function("_initialize")()
    guest.save(path)  # type: ignore[attr-defined] # only ours can


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("filter", choices=("seed", *life.PLUGINS))
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--requests", type=int, default=30)
    args = parser.parse_args()
    load = VARIANTS[args.variant]()
    json.dump(start(args.filter, load, args.requests), sys.stdout)
    if args.variant == "ours, snapshot":
        leave_snapshot(args.filter, load)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
