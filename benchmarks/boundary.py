"""The boundary: what one call of a host function costs a guest, and one call of an export the host.

- `host call`: one turn of the loop in `kernels/hostcall.wat`: three constants, a call of a Python function
  `(i32, i32, i32) -> i32` that returns its first argument (ours through `@linker.func`), a drop, and the
  loop's own subtraction and branch. The loop is not subtracted.
- `export`: one turn of a Python `for` around a call of `(i32, i32, i32) -> i32`, which returns its first
  argument.
- `export, empty`: the same for a function without parameters and results.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import engines, kernels, timing

SOURCE = Path(__file__).resolve().parent / "boundary.wat"

COLUMNS = ("host call", "export", "export, empty")

#: Calls in one measurement, and measurements that are not counted: engines that translate do so then.
CALLS, WARM = 20_000, 5


def measure(rounds: int = 10, calls: int = CALLS, slow: bool = True) -> list[dict[str, Any]]:
    """A row for each engine: nanoseconds of each kind of call."""
    from pywasmvm import Module

    exports = Module.from_file(SOURCE).to_bytes()
    loads = {"ours": engines.ours()} | {peer.name: peer.load for peer in engines.installed()}
    slow_ones = {peer.name for peer in engines.PEERS if peer.slow}
    rows: list[dict[str, Any]] = [{"engine": name} for name in loads if slow or name not in slow_ones]
    for column in COLUMNS:
        timed: dict[str, Callable[[], float]] = {}
        for row in rows:
            name = row["engine"]
            count = calls // 20 if name in slow_ones else calls
            if column == "host call":
                run = loads[name](kernels.binary("hostcall"), kernels.imports()).function("run")
                timed[name] = functools.partial(_inside, run, count)
            else:
                guest = loads[name](exports, {})
                export, arguments = ("first", (7, 8, 9)) if column == "export" else ("nop", ())
                timed[name] = functools.partial(_outside, guest.function(export), arguments, count)
            for _ in range(WARM):
                timed[name]()
        for name, least in timing.best(timed, rounds).items():
            next(row for row in rows if row["engine"] == name)[column] = least * 1e9
    print(f"{'boundary, ns':16}", *(f"{column:>14}" for column in COLUMNS))
    for row in rows:
        print(f"{row['engine']:16}", *(f"{row[column]:14.0f}" for column in COLUMNS), flush=True)
    return rows


def _inside(run: Callable[[int], int], count: int) -> float:
    begin = timing.clock()
    left = run(count)
    spent = timing.clock() - begin
    timing.check("the counter of the loop", left, 0)
    return spent / count


def _outside(function: Callable[..., Any], arguments: tuple[int, ...], count: int) -> float:
    if arguments:
        timing.check("the first argument", function(*arguments), arguments[0])
        a, b, c = arguments
        begin = timing.clock()
        for _ in itertools.repeat(None, count):
            function(a, b, c)
    else:
        begin = timing.clock()
        for _ in itertools.repeat(None, count):
            function()
    return (timing.clock() - begin) / count
