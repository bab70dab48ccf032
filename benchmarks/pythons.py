"""Our translated code on other Pythons: the kernels in child processes, beside this Python in such a child.

An interpreter needs numpy, and nothing else: this project is found through `PYTHONPATH`.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing

ROOT = Path(__file__).resolve().parents[1]

_VERSION = "import sys, numpy; print('%d.%d.%d' % sys.version_info[:3])"


def version(python: str) -> str | None:
    """The version of an interpreter; None if it does not run or has no numpy."""
    try:
        done = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def measure(pythons: Sequence[str], rounds: int = 2, kernels: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A row for each kernel: ns per instruction by Python version, this one's first."""
    found: dict[str, str] = {}
    for python in (sys.executable, *pythons):
        number = version(python)
        if number is None:
            print(f"{python}: left out, it does not run or has no numpy")
        else:
            found.setdefault(number, python)
    if len(found) < 2:
        return []
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for number, python in found.items():
            for row in _child(python, kernels):
                least = rows.setdefault(row["kernel"], {"kernel": row["kernel"]})
                least[number] = min(least.get(number, math.inf), row["ours"])
    print(f"{'Pythons, ns':16}", *(f"{number:>9}" for number in found))
    for row in rows.values():
        print(f"{row['kernel']:16}", *(f"{row[number]:9.2f}" for number in found))
    means = (timing.geomean(row[number] for row in rows.values()) for number in found)
    print(f"{'geomean':16}", *(f"{mean:9.2f}" for mean in means), flush=True)
    return list(rows.values())


def _child(python: str, kernels: Sequence[str]) -> list[dict[str, Any]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYWASMVM_CACHE_DIR": ""}
    command = [python, "-m", "benchmarks.kernels", "--rounds", "2", *kernels]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows
