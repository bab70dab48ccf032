"""Starts in fresh processes: Go plugins of megabytes from loading to the third request, and the seed filter.

Every start is a child process (`startup.py`), engines in turn, CPU time of the child without its imports, the
best of several. `cold` finds no cache, `warm` the cache on disk that one earlier process left, ours and
pwasm's alike; `snapshot` is an instance of ours that an earlier process kept after `_initialize`. Ours
validates lazily, each function before its first run, unless the row says eager.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import engines, life
from benchmarks.startup import SNAPSHOT

ROOT = Path(__file__).resolve().parents[1]

#: The package an engine comes in, by the first word of a variant.
_MODULES = {peer.name: peer.module for peer in engines.PEERS} | {"ours": "pywasmvm"}


@dataclass(frozen=True)
class Start:
    """A row: a variant of `startup.VARIANTS`, with or without the cache; `once` for what takes long and is
    here for orientation only."""

    variant: str
    warm: bool = False
    once: bool = False

    @property
    def prepared(self) -> bool:
        """Whether it needs what an earlier process leaves."""
        return self.warm or self.variant == "ours, snapshot"

    @property
    def name(self) -> str:
        """The name of the row."""
        return f"{self.variant}, warm" if self.warm else self.variant


STARTS = (
    Start("ours"),
    Start("pwasm"),
    Start("ours", warm=True),
    Start("pwasm", warm=True),
    Start("ours, eager"),
    Start("ours, snapshot"),
    Start("ours, snapshot", warm=True),
    Start("pwasm, interpreter", once=True),
    Start("wasmtime", once=True),
)

#: The columns of the table.
SHOWN = ("total", "load", "first", "second", "third", "steady")

#: Requests in one process, until they are steady.
REQUESTS = {"seed": 600}
REQUESTS_GO = 120

Run = Callable[[str, str, dict[str, str]], dict[str, float]]


def child(filter_: str, variant: str, environment: dict[str, str], requests: int = 0) -> dict[str, float]:
    """The times of one start in a process of its own; `requests` instead of the usual number."""
    command = [sys.executable, "-m", "benchmarks.startup", filter_, variant]
    command += ["--requests", str(requests or REQUESTS.get(filter_, REQUESTS_GO))]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, check=True, text=True
    )
    times: dict[str, float] = json.loads(done.stdout)
    return times


def measure(
    filters: Sequence[str], rounds: int = 2, starts: Sequence[Start] = STARTS, run: Run = child
) -> list[dict[str, Any]]:
    """A row for each filter and start: seconds of the phases in the round with the least total."""
    rows = []
    for filter_ in filters:
        if filter_ in life.PLUGINS and not _there(filter_):
            print(f"{filter_}: left out, gpustack-higress-plugins is not installed")
            continue
        here = [start for start in starts if _usable(start)]
        best = {start: {"total": math.inf} for start in here}
        steady = dict.fromkeys(here, math.inf)
        with tempfile.TemporaryDirectory() as folder:
            environments = {start: _environment(start, Path(folder)) for start in here}
            for start in here:
                if start.prepared:
                    run(filter_, start.variant, environments[start])  # fills the cache, leaves the snapshot
            for number in range(rounds):
                for start in here:
                    if number == 0 or not start.once:
                        times = run(filter_, start.variant, environments[start])
                        best[start] = min(best[start], times, key=lambda times: times["total"])
                        steady[start] = min(steady[start], times["steady"])
        print(f"{filter_ + ', ms':22}", *(f"{key:>9}" for key in SHOWN))
        for start in here:
            row: dict[str, Any] = {"filter": filter_, "start": start.name}
            rows.append(row | best[start] | {"steady": steady[start]})
            print(f"{start.name:22}", *(f"{rows[-1][key] * 1e3:9.1f}" for key in SHOWN), flush=True)
    return rows


def _environment(start: Start, folder: Path) -> dict[str, str]:
    own = folder / start.name
    own.mkdir(mode=0o700)
    cache = str(own) if start.warm else ""
    snapshot = str(own / "snapshot")
    return {"PYWASMVM_CACHE_DIR": cache, "PWASM_CACHE_DIR": cache, SNAPSHOT: snapshot}


def _usable(start: Start) -> bool:
    """Whether its engine is installed."""
    engine = start.variant.split(",")[0]
    return importlib.util.find_spec(_MODULES[engine]) is not None


def _there(name: str) -> bool:
    try:
        life.plugin(name)
    except FileNotFoundError:
        return False
    return True
