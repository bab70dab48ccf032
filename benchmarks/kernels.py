"""The 15 kernels: nanoseconds per Wasm instruction, our two tiers beside the same two of `pwasm`, and others.

The interpreter meets pwasm's interpreter at the smallest size of each kernel, translated code meets what
pwasm compiles at the largest, after calls that are not counted. Then ours is measured against itself: with
the limits of the proxy (a deadline, a depth of calls), with fuel besides, and with no limits. The fuel that
each kernel uses must equal the count stored beside it, which is wasmtime's.

    python -m benchmarks.kernels [--rounds 3]      our own translated code only, as JSON: `pythons.py` asks so
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import engines, timing

if TYPE_CHECKING:
    from pywasmvm import StoreLimits

FOLDER = Path(__file__).resolve().parent / "kernels"

#: Our engine, the mode of pwasm it is measured against, and which size of a kernel.
TIERS = {"interpreted": ("interp", "interpret", 0), "translated": ("translate", "compile", -1)}

#: More than any kernel burns.
FUEL = 1 << 40

#: Seconds one measurement takes at least: calls are repeated, though not more often than MOST. CLOSER is how
#: many times as many rounds our own limits are compared in.
LEAST, MOST, CLOSER = 0.03, 100, 3

Row = dict[str, Any]


def cases(names: Sequence[str], size: int) -> list[dict[str, Any]]:
    """One case of each kernel: its smallest size (0) or its largest (-1)."""
    chosen: dict[str, list[dict[str, Any]]] = {}
    for case in json.loads((FOLDER / "kernels.json").read_text())["cases"]:
        if not names or case["kernel"] in names:
            chosen.setdefault(case["kernel"], []).append(case)
    return [sizes[size] for sizes in chosen.values()]


def binary(name: str) -> bytes:
    """A kernel as it was built."""
    return (FOLDER / "built" / f"{name}.wasm").read_bytes()


def imports() -> engines.Imports:
    """What the kernel of host calls imports."""

    def h(a, b, c):  # type: ignore[no-untyped-def] # the adapter annotates it
        return a

    return {("env", "h"): h}


def measure(tier: str, names: Sequence[str] = (), rounds: int = 5, full: bool = True) -> list[Row]:
    """A row for each kernel: ns per instruction of each engine, and the fuel it used. Prints them.

    Without `full` neither the other limits nor `pywasm`, which is slow.
    """
    engine, mode, size = TIERS[tier]
    variants: dict[str, engines.Load] = {"ours": engines.ours(engine)}
    if engines.PEERS[0].installed:
        variants["pwasm"] = engines.pwasm(mode)
    for peer in engines.installed():
        # pywasm interprets, at its speed: only the small sizes.
        if (full if peer.slow else tier == "translated") and peer.slow == (tier == "interpreted"):
            variants.setdefault(peer.name, peer.load)
    columns = [*variants, *_limits()] if full and tier == "translated" else list(variants)
    print(f"{tier + ', ns':16}", *(f"{name:>9}" for name in columns), flush=True)
    rows = []
    for case in cases(names, size):
        rows.append(_row(case, engine, variants, rounds, tier == "translated", full))
        _show(rows[-1:], columns, case["kernel"])
    _show(rows, columns, "geomean")
    return rows


def _row(
    case: dict[str, Any], engine: str, variants: dict[str, engines.Load], rounds: int, warm: bool, full: bool
) -> Row:
    name, n, count = case["kernel"], case["n"], case["instructions"]
    data = binary(name)
    runs = {variant: load(data, imports()).function("run") for variant, load in variants.items()}
    timed = {variant: functools.partial(_timed, run, case) for variant, run in runs.items()}
    slow = {peer.name for peer in engines.PEERS if peer.slow}
    repeats = {}
    for variant, measure_once in timed.items():
        for _ in range(2 if warm else 0):  # pwasm compiles at the second call
            measure_once()
        # What is over in no time is repeated: a moment says more about the machine than about the engine.
        repeats[variant] = 1 if variant in slow else math.ceil(min(LEAST / measure_once(), MOST))
    timed = {variant: functools.partial(f, repeats[variant]) for variant, f in timed.items()}
    least = timing.best({variant: f for variant, f in timed.items() if variant not in slow}, rounds)
    least |= timing.best({variant: f for variant, f in timed.items() if variant in slow}, 1)
    if full and warm:
        own = {variant: engines.ours(engine, limits) for variant, limits in _limits().items()}
        pairs = {}
        for variant, load in own.items():
            run = load(data, imports()).function("run")
            pairs[variant] = functools.partial(_timed, run, case, repeats["ours"])
            pairs[variant]()
        # These differ by little, so they are looked at more often, without the others in between.
        least |= timing.best(pairs, CLOSER * rounds)
    row: Row = {"kernel": name, "n": n, "instructions": count}
    row |= {variant: seconds / count * 1e9 for variant, seconds in least.items()}
    row["fuel_used"] = fuel_used(data, engine, n)
    return row


def _limits() -> dict[str, StoreLimits]:
    """Limits whose costs are compared: the proxy's, the same with fuel, none."""
    from pywasmvm import StoreLimits

    proxy = engines.proxy_limits()
    unlimited = StoreLimits(None, None, None, None, None, None)
    return {"limited": proxy, "fuel": dataclasses.replace(proxy, fuel=FUEL), "unlimited": unlimited}


def _timed(run: Callable[[int], int], case: dict[str, Any], repeat: int = 1) -> float:
    """Seconds of one call, on average of so many."""
    n = case["n"]
    begin = timing.clock()
    for _ in range(repeat):
        result = run(n)
    spent = timing.clock() - begin
    # Some show i32 signed, some unsigned.
    timing.check(case["kernel"], result & 0xFFFF_FFFF, case["result"] & 0xFFFF_FFFF)
    return spent / repeat


def fuel_used(data: bytes, engine: str, n: int) -> int:
    """Units of fuel of one call."""
    limits = dataclasses.replace(engines.proxy_limits(), fuel=FUEL)
    guest = engines.Ours(data, imports(), engine, limits, "eager")
    guest.function("run")(n)
    return FUEL - (guest.store.fuel_left or 0)


def _show(rows: list[Row], columns: Sequence[str], name: str) -> None:
    figures = [timing.geomean(row[column] for row in rows) for column in columns]
    note = "  (fuel differs)" if any(row["fuel_used"] != row["instructions"] for row in rows) else ""
    print(f"{name:16}", *(f"{figure:9.2f}" for figure in figures), note, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    alone = {"ours": engines.ours("translate")}
    rows = [_row(case, "translate", alone, args.rounds, True, False) for case in cases(args.kernels, -1)]
    json.dump(rows, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
