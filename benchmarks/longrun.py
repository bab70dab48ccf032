"""A long first call: engines that translate what is hot must do so while it runs.

Each case runs at least 20 million instructions in the first call into a new instance, with `engine="auto"`;
then the same call again, which is translated from its first instruction. `ratio` is the first over the best
later one. `pwasm`, which moves to translated code between calls only, gets a tenth of the work.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import engines, kernels, timing

SOURCE = Path(__file__).resolve().parent / "longrun.wat"


@dataclass(frozen=True)
class Case:
    """A module, and for each size the answer and the instructions, both wasmtime's (its fuel)."""

    name: str
    binary: Callable[[], bytes]
    sizes: dict[int, tuple[int, int]]


def _deep() -> bytes:
    from pywasmvm import Module

    return Module.from_file(SOURCE).to_bytes()


def _kernel(name: str, sizes: dict[int, tuple[int, int]]) -> Case:
    return Case(name, functools.partial(kernels.binary, name), sizes)


#: The hot loop is in the function that is called (`sum32`, `brtable`), in a nest of loops (`mandel`), or in
#: a function that is called once by one that is called once.
CASES = (
    _kernel("sum32", {160_000: (2483700250, 2_080_002), 1_600_000: (3714679395, 20_800_002)}),
    _kernel("brtable", {100_000: (400973670, 2_036_730), 1_000_000: (1346515836, 20_362_859)}),
    _kernel("mandel", {52: (66121, 2_076_625), 168: (688474, 21_617_823)}),
    Case("two calls deep", _deep, {200_000: (2629514546, 2_600_012), 2_000_000: (907429908, 26_000_012)}),
)


def measure(rounds: int = 3, peers: bool = True, small: bool = False) -> list[dict[str, Any]]:
    """A row for each case: ns per instruction of the first and of a later call, ours and pwasm's."""
    loads: dict[str, engines.Load] = {"ours": engines.ours()}
    if peers and engines.PEERS[0].installed:
        loads["pwasm"] = engines.pwasm()
    print(f"{'long first call, ns':20} {'engine':>8} {'first':>9} {'later':>9} {'ratio':>9}")
    rows = []
    for case in CASES:
        for engine, load in loads.items():
            size = (min if small or engine == "pwasm" else max)(case.sizes)
            first = later = math.inf
            for _ in range(1 if engine == "pwasm" else rounds):
                run = load(case.binary(), {}).function("run")
                one, *more = (_timed(run, size, case) for _ in range(4))
                first, later = min(first, one), min(later, *more)
            count = case.sizes[size][1]
            row: dict[str, Any] = {"case": case.name, "engine": engine, "n": size, "instructions": count}
            row |= {"first": first / count * 1e9, "later": later / count * 1e9, "ratio": first / later}
            rows.append(row)
            figures = (row[key] for key in ("first", "later", "ratio"))
            print(f"{case.name:20} {engine:>8}", *(f"{figure:9.2f}" for figure in figures), flush=True)
    return rows


def _timed(run: Callable[[int], int], size: int, case: Case) -> float:
    begin = timing.clock()
    result = run(size)
    spent = timing.clock() - begin
    timing.check(f"{case.name} of {size}", result & 0xFFFF_FFFF, case.sizes[size][0])
    return spent
