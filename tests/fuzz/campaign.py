"""Look for divergences with fresh seeds: `python -m tests.fuzz.campaign verdicts|run|pin`.

Work is split over processes, since some ways of finding a bug end the process. Prints every divergence and
ends with 1 if there was one; `pin` writes the corpus that the tests check.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.fuzz import modules, verdict

CORPUS = Path(__file__).with_name("corpus.zip")

#: Modules that are run, by us and by wasmtime.
RUNS = Path(__file__).with_name("runs.zip")

#: What one module may cost beyond what the process took before.
MOST_SECONDS, MOST_BYTES = 1.0, 64 << 20

#: How many smith modules the mutants are made from.
ORIGINALS = 100


def _check(case: tuple[str, int]) -> tuple[str, int, str]:
    """Verdict and cost of one module; the third item says what is wrong."""
    kind, seed = case
    data = _module(kind, seed)
    before_bytes, before = _peak(), time.process_time()
    try:
        mine = verdict.ours(data)
    except Exception as error:
        return kind, seed, f"{type(error).__name__}: {error}"
    seconds, grown = time.process_time() - before, _peak() - before_bytes
    if seconds > MOST_SECONDS or grown > MOST_BYTES:
        return (
            kind,
            seed,
            f"took {seconds:.2f} s of processor time and {grown >> 20} MiB for {len(data)} bytes",
        )
    other = verdict.reference(data)
    if verdict.differs(mine, other):
        return kind, seed, f"{mine} here; there {other[1].strip() or 'valid'}"
    return kind, seed, ""


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _module(kind: str, seed: int) -> bytes:
    if kind == "smith":
        return modules.smith(seed)
    return modules.mutant(seed, [modules.smith(n, run=n % 2 == 1) for n in range(ORIGINALS)])


def _run(case: tuple[int, tuple[str, ...]]) -> tuple[str, int, str]:
    from tests.fuzz import execution

    seed, engines = case
    data, native = modules.smith(seed, run=True), execution.engine()
    found: list[str] = []
    for engine in engines:
        try:
            found += [f"{engine}: {line}" for line in execution.divergences(data, seed, native, engine)]
        except Exception as error:
            found.append(f"{engine}: {type(error).__name__}: {error}")
    return "run", seed, "; ".join(found)


def _over(function: Any, cases: Iterable[Any], processes: int) -> int:
    found = 0
    with multiprocessing.Pool(processes, maxtasksperchild=500) as pool:
        for kind, seed, problem in pool.imap_unordered(function, cases, chunksize=10):
            if problem:
                found += 1
                print(f"{kind} {seed}: {problem}", flush=True)
    return found


def pin(smiths: int, mutants: int) -> None:
    """Write the corpus: modules and the verdict of the reference on each."""
    verdicts: dict[str, bool] = {}
    with zipfile.ZipFile(CORPUS, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for kind, count in (("smith", smiths), ("mutant", mutants)):
            for seed in range(count):
                data = _module(kind, seed)
                accepted, said = verdict.reference(data)
                if verdict.differs(verdict.ours(data), (accepted, said)):
                    raise SystemExit(f"{kind} {seed} diverges: make it a regression script first")
                if (verdict.ours(data)[0] == "valid") != accepted:
                    continue  # a limit of one of the two
                name = f"{kind}/{seed}.wasm"
                archive.writestr(zipfile.ZipInfo(name), data)
                verdicts[name] = accepted
        archive.writestr(zipfile.ZipInfo("verdicts.json"), json.dumps(verdicts, indent=0))
    print(f"{len(verdicts)} modules, {sum(verdicts.values())} of them valid: {CORPUS.stat().st_size:,} bytes")


def pin_runs(count: int) -> None:
    """Write the modules that the tests run; seeds whose module needs more than a while are left out."""
    kept = 0
    with zipfile.ZipFile(RUNS, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for seed in range(10 * count):
            if kept == count:
                break
            begin = time.process_time()
            problem = _run((seed, ("interp", "translate")))[2]
            if problem:
                raise SystemExit(f"{seed}: {problem}")
            if time.process_time() - begin < MOST_SECONDS:
                archive.writestr(zipfile.ZipInfo(f"{seed}.wasm"), modules.smith(seed, run=True))
                kept += 1
    print(f"{kept} modules: {RUNS.stat().st_size:,} bytes")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["verdicts", "run", "pin"])
    parser.add_argument("--smith", type=int, default=2000, help="how many valid modules")
    parser.add_argument("--mutants", type=int, default=5000, help="how many damaged ones")
    parser.add_argument("--runs", type=int, default=500, help="how many modules to run")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--engines", default="interp,translate,translate-flat", help="of ours, to run")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    given = parser.parse_args()
    first = given.first
    if given.what == "pin":
        pin(200, 500)
        pin_runs(200)
        return 0
    if given.what == "run":
        engines = tuple(given.engines.split(","))
        found = _over(_run, [(seed, engines) for seed in range(first, first + given.runs)], given.processes)
        print(f"{given.runs} modules run, {found} divergences")
    else:
        cases = [("smith", seed) for seed in range(first, first + given.smith)]
        cases += [("mutant", seed) for seed in range(first, first + given.mutants)]
        found = _over(_check, cases, given.processes)
        print(f"{len(cases)} modules checked, {found} divergences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
