"""All benchmarks in one run: kernels, the seed filter, the boundary, starts of plugins, long first calls.

    python -m benchmarks.run [PART ...] [--quick] [--rounds N] [--pythons PYTHON ...] [--json FILE]

Our engine and every peer that is installed, CPU time, in turn, the best of several rounds, every answer
checked. Ends with 1 when a bar of `bars.py` does not hold (`--ci`: one of those that CI checks), with 2 when
an engine gives a wrong answer or a process fails. Nothing is written unless `--json` says where.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    bars,
    boundary,
    engines,
    go,
    kernels,
    life,
    longrun,
    plugins,
    proxy,
    pythons,
    seed,
    timing,
    workers,
)

Results = dict[str, Any]


def _kernels(args: argparse.Namespace) -> Results:
    rounds = args.rounds or (3 if args.quick else 7)
    full = not args.quick
    return {"tiers": {tier: kernels.measure(tier, args.kernels, rounds, full) for tier in kernels.TIERS}}


def _seed(args: argparse.Namespace) -> Results:
    steady = seed.measure(args.rounds or (15 if args.quick else 60), slow=not args.quick)
    return {"seed": steady, "seed_cold": seed.cold(args.rounds or (3 if args.quick else 12), not args.quick)}


def _boundary(args: argparse.Namespace) -> Results:
    calls = boundary.CALLS // (4 if args.quick else 1)
    return {"boundary": boundary.measure(args.rounds or 7, calls, not args.quick)}


def _starts(args: argparse.Namespace) -> Results:
    small = go.measure(["seed"], args.starts + 1)
    return {"starts": small + go.measure(list(life.PLUGINS), args.starts)}


def _longrun(args: argparse.Namespace) -> Results:
    return {"longrun": longrun.measure(args.rounds or 3)}


def _workers(args: argparse.Namespace) -> Results:
    return {"workers": workers.measure(args.rounds or 5)}


def _plugins(args: argparse.Namespace) -> Results:
    return {"plugins": plugins.measure(rounds=args.starts)}


def _proxy(args: argparse.Namespace) -> Results:
    return {"proxy": proxy.measure(args.rounds or 6)}


def _pythons(args: argparse.Namespace) -> Results:
    return {"pythons": pythons.measure(args.pythons, args.rounds or 3)}


#: Every part, in the order of the page.
PARTS: dict[str, Callable[[argparse.Namespace], Results]] = {
    "kernels": _kernels,
    "seed": _seed,
    "boundary": _boundary,
    "starts": _starts,
    "longrun": _longrun,
    "plugins": _plugins,
    "proxy": _proxy,
    "workers": _workers,
    "pythons": _pythons,
}

QUICK = ("kernels", "seed", "boundary")


def machine() -> Results:
    """What the figures belong to."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "peers": {peer.name: peer.version for peer in engines.installed()},
        "missing": [peer.name for peer in engines.PEERS if not peer.installed],
    }


def main(argv: list[str] | None = None) -> int:
    # Nothing may come from an earlier run; parts that measure a cache give it a folder of their own.
    os.environ["PYWASMVM_CACHE_DIR"] = os.environ["PWASM_CACHE_DIR"] = ""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without: all")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}; few rounds, not all")
    parser.add_argument("--rounds", type=int, default=0, help="instead of what each part takes")
    parser.add_argument("--starts", type=int, default=2, help="processes for each row of the starts (2)")
    parser.add_argument("--kernels", nargs="*", default=[], metavar="KERNEL", help="not all of them")
    parser.add_argument("--pythons", nargs="*", default=[], metavar="PYTHON", help="other Pythons with numpy")
    parser.add_argument("--ci", action="store_true", help="hold to the bars of CI only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    args = parser.parse_args(argv)
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    run = machine()
    for name in run["missing"]:
        print(f"{name}: left out, it is not installed")
    failed: list[str] = []
    try:
        for part in args.parts or (QUICK if args.quick else PARTS):
            try:
                run |= PARTS[part](args)
            except subprocess.CalledProcessError as error:
                failed.append(part)
                print(f"{part}: {error}", file=sys.stderr)
            print(flush=True)
    except timing.WrongAnswerError as error:
        print(f"wrong answer: {error}", file=sys.stderr)
        return 2
    run["bars"] = bars.judge(run, args.ci)
    for row in run["bars"]:
        verdict = "" if row["met"] else "NOT MET"
        print(f"{row['name']:44} {row['figure']:8.3f}   bar {row['bar']:.2f}   {verdict}")
    if args.json:
        args.json.write_text(json.dumps(run, indent=1) + "\n")
    rows = [row for tier in run.get("tiers", {}).values() for row in tier]
    wrong = [row["kernel"] for row in rows if row["fuel_used"] != row["instructions"]]
    if wrong:
        print(f"fuel differs from the stored count: {', '.join(wrong)}", file=sys.stderr)
        return 2
    return 2 if failed else 0 if all(row["met"] for row in run["bars"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
