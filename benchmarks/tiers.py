"""Both our engines against `pwasm`'s, kernel by kernel, in one run; `wasmtime` beside them if installed.

The interpreter meets pwasm's interpreter at the smallest size of each kernel, translated code meets what
pwasm compiles at the largest, after a first call that is not counted. Engines run in turn, CPU time, best of
several rounds, every answer checked, our engines with the limits a proxy sets. The fuel each kernel uses is
compared with the count stored beside it, so figures are per Wasm instruction. Exit status 0 when the ratios
of the geometric means (ours / pwasm's) are at most `--bar` and `--bar-translated`.

    python benchmarks/tiers.py [--rounds 5] [--json FILE] [KERNEL ...]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["PWASM_CACHE_DIR"] = ""  # nothing may come from an earlier run

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pywasmvm import Instance, Module, Store, StoreLimits  # noqa: E402 - found through the line above

KERNELS = HERE / "kernels"

#: What the proxy sets: a deadline, the default limit of memory.
LIMITS = StoreLimits(seconds=120.0)

#: Our engine, the mode of pwasm it is measured against, and which size of a kernel.
TIERS = {"interpreted": ("interp", "interpret", 0), "translated": ("translate", "compile", -1)}

Run = Callable[[int], int]


def cases(names: list[str], size: int) -> list[dict[str, Any]]:
    """One case of each kernel: its smallest size (0) or its largest (-1)."""
    chosen: dict[str, list[dict[str, Any]]] = {}
    for case in json.loads((KERNELS / "kernels.json").read_text())["cases"]:
        if not names or case["kernel"] in names:
            chosen.setdefault(case["kernel"], []).append(case)
    return [sizes[size] for sizes in chosen.values()]


def ours(data: bytes, engine: str, limits: StoreLimits) -> tuple[Run, Store]:
    """One of our engines."""
    store = Store(limits, engine=engine)
    run: Run = Instance(Module(data), store=store).exports.run
    return run, store


def pwasm(data: bytes, mode: str) -> Run:
    """pwasm as an interpreter or as a compiler to Python."""
    import pwasm

    instance = pwasm.instantiate(pwasm.decode_module(data), mode=mode)
    run: Run = instance.exports.run
    return run


def wasmtime(data: bytes) -> Run | None:
    """A native engine, to see where the ground is; None where it is not installed."""
    try:
        import wasmtime
    except ImportError:
        return None
    store = wasmtime.Store()
    instance = wasmtime.Instance(store, wasmtime.Module(store.engine, data), [])
    run: Any = instance.exports(store)["run"]
    return lambda n: run(store, n)


def timed(call: Run, n: int, expected: int) -> float:
    """CPU seconds of one call; the answer must be right."""
    start = time.process_time()
    result = call(n)
    spent = time.process_time() - start
    if (result - expected) & 0xFFFF_FFFF:
        raise SystemExit(f"wrong answer: {result}, expected {expected}")
    return spent


def fuel_used(data: bytes, engine: str, n: int) -> int:
    """Units of fuel of one call."""
    run, store = ours(data, engine, StoreLimits(fuel=1 << 40))
    run(n)
    return (1 << 40) - (store.fuel_left or 0)


def geomean(values: list[float]) -> float:
    """Geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def measure(tier: str, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """A row for each kernel: ns per instruction of each engine, and the fuel it used."""
    engine, mode, size = TIERS[tier]
    rows = []
    print(f"{tier:12} {'ours':>8} {'pwasm':>8} {'wasmtime':>9}  ns per instruction, ours / pwasm")
    for case in cases(names, size):
        name, n, expected, count = (case[key] for key in ("kernel", "n", "result", "instructions"))
        data = (KERNELS / "built" / f"{name}.wasm").read_bytes()
        runs: dict[str, Run] = {"ours": ours(data, engine, LIMITS)[0], "pwasm": pwasm(data, mode)}
        native = wasmtime(data) if tier == "translated" else None
        if native is not None:
            runs["wasmtime"] = native
        if tier == "translated":
            for run in runs.values():
                for _ in range(2):  # pwasm compiles at the second call
                    run(n)
        best = dict.fromkeys(runs, math.inf)
        for _ in range(rounds):
            for engine_name, run in runs.items():
                best[engine_name] = min(best[engine_name], timed(run, n, expected))
        row: dict[str, Any] = {"kernel": name, "n": n, "instructions": count}
        row |= {engine_name: seconds / count * 1e9 for engine_name, seconds in best.items()}
        row["fuel"] = fuel_used(data, engine, n)
        rows.append(row)
        note = "" if row["fuel"] == count else f"   (fuel {row['fuel']}, stored {count})"
        _show(name, [row], note)
    _show("geomean", rows)
    print()
    return rows


def _show(name: str, rows: list[dict[str, Any]], note: str = "") -> None:
    """A line: the geometric mean of the rows."""
    mine, peer = (geomean([row[key] for row in rows]) for key in ("ours", "pwasm"))
    native = f"{geomean([row['wasmtime'] for row in rows]):9.2f}" if "wasmtime" in rows[0] else " " * 9
    print(f"{name:12} {mine:8.1f} {peer:8.1f} {native}  {mine / peer:.2f}{note}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bar", type=float, default=1.25, help="of the interpreter")
    parser.add_argument("--bar-translated", type=float, default=1 / 1.5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found = {tier: measure(tier, args.kernels, args.rounds) for tier in TIERS}
    ratios = {tier: geomean([row["ours"] / row["pwasm"] for row in rows]) for tier, rows in found.items()}
    if args.json:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "rounds": args.rounds,
        }
        args.json.write_text(json.dumps(record | {"ratios": ratios, "tiers": found}, indent=1) + "\n")
    wrong = [r["kernel"] for rows in found.values() for r in rows if r["fuel"] != r["instructions"]]
    if wrong:
        print(f"fuel differs from the stored count: {', '.join(wrong)}")
    return (
        0
        if ratios["interpreted"] <= args.bar and ratios["translated"] <= args.bar_translated and not wrong
        else 1
    )


if __name__ == "__main__":
    raise SystemExit(main())
