"""The interpreter against the interpreter of `pwasm`, kernel by kernel, in one process run.

Both engines run in turn, CPU time, best of several rounds; every answer is checked. The fuel each kernel uses
is compared with the count stored beside it, so the figures are per Wasm instruction. The last line is the
ratio of the geometric means (ours / theirs); the exit status is 0 when it is at most `--bar`.

    python benchmarks/interpreter.py [--rounds 5] [--bar 1.25] [--json FILE] [KERNEL ...]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["PWASM_CACHE_DIR"] = ""  # nothing may come from an earlier run

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pywasmvm import Instance, Module, Store, StoreLimits  # noqa: E402 - found through the line above

KERNELS = HERE / "kernels"


def cases(names: list[str]) -> list[dict[str, object]]:
    """The smallest size of each kernel: interpreters are slow."""
    chosen: dict[str, dict[str, object]] = {}
    for case in json.loads((KERNELS / "kernels.json").read_text())["cases"]:
        if not names or case["kernel"] in names:
            chosen.setdefault(case["kernel"], case)
    return list(chosen.values())


def ours(data: bytes, limits: StoreLimits) -> tuple[Callable[[int], int], Store]:
    """Our interpreter with the limits a proxy sets."""
    store = Store(limits, engine="interp")
    run = Instance(Module(data), store=store).exports.run
    return run, store


def theirs(data: bytes) -> Callable[[int], int]:
    """pwasm in its interpreter mode."""
    import pwasm

    instance = pwasm.instantiate(pwasm.decode_module(data), mode="interpret")
    return instance.exports.run


def timed(call: Callable[[int], int], n: int, expected: int) -> float:
    """CPU seconds of one call; the answer must be right."""
    start = time.process_time()
    result = call(n)
    spent = time.process_time() - start
    if (result - expected) & 0xFFFF_FFFF:
        raise SystemExit(f"wrong answer: {result}, expected {expected}")
    return spent


def geomean(values: list[float]) -> float:
    """Geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bar", type=float, default=1.25)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    rows = []
    print(f"{'kernel':10} {'ours':>8} {'pwasm':>8}  ns per instruction, ratio")
    for case in cases(args.kernels):
        name, n, expected, count = (case[key] for key in ("kernel", "n", "result", "instructions"))
        data = (KERNELS / "built" / f"{name}.wasm").read_bytes()
        run, _ = ours(data, StoreLimits(seconds=60.0))
        peer = theirs(data)
        best = [math.inf, math.inf]
        for _ in range(args.rounds):
            best[0] = min(best[0], timed(run, n, expected))
            best[1] = min(best[1], timed(peer, n, expected))
        fuelled, store = ours(data, StoreLimits(fuel=1 << 40))
        fuelled(n)
        used = (1 << 40) - (store.fuel_left or 0)
        figures = [seconds / count * 1e9 for seconds in best]
        rows.append({"kernel": name, "ours": figures[0], "pwasm": figures[1], "fuel": used, "stored": count})
        note = "" if used == count else f"   (fuel {used}, stored {count})"
        print(
            f"{name:10} {figures[0]:8.1f} {figures[1]:8.1f}  {figures[0] / figures[1]:.2f}{note}", flush=True
        )
    means = [geomean([row[key] for row in rows]) for key in ("ours", "pwasm")]
    ratio = means[0] / means[1]
    print(f"{'geomean':10} {means[0]:8.1f} {means[1]:8.1f}  {ratio:.2f}")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "ratio": ratio}, indent=1))
    return 0 if ratio <= args.bar else 1


if __name__ == "__main__":
    raise SystemExit(main())
