"""Runs the official suite and our own scripts in every way there is, and says whether all is as expected.

    python spec-tests/report.py [--write] [--suite FOLDER] [RUN.json ...]

Each engine runs the scripts as they are, with every module encoded and decoded again, and with every module
printed and parsed again. Exit status 1 when something is not what `expected.toml` and the suite's own counts
want. `--write` also writes `docs/conformance.md` and its picture. With RUN.json, which `pywasmvm wast --json`
wrote, these runs are judged and nothing is run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import gaps  # noqa: E402 - found through the line above
from picture import picture  # noqa: E402

from pywasmvm.script.suite import find_suite  # noqa: E402

DOCS = HERE.parent / "docs"
ROUND_TRIPS = (None, "binary", "text")

#: Proposals by the files that test them; the first line that fits a file counts.
AREAS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Bulk memory", ("core/bulk-memory/*",)),
    ("SIMD", ("core/simd/*",)),
    ("Relaxed SIMD", ("core/relaxed-simd/*",)),
    ("Exceptions", ("core/exceptions/*",)),
    ("Garbage collection", ("core/gc/*",)),
    ("64-bit memories and tables", ("core/memory64/*",)),
    ("Several memories", ("core/multi-memory/*",)),
    ("Tail calls", ("core/return_call.wast", "core/return_call_indirect.wast")),
    ("Table instructions", ("core/table_*.wast",)),
    (
        "References and recursive types",
        (
            *("core/ref*.wast", "core/br_on*.wast", "core/type-*.wast", "core/call_ref.wast"),
            *("core/return_call_ref.wast", "core/local_init.wast", "core/unreached-valid.wast"),
        ),
    ),
    ("Annotations and identifiers", ("core/annotations.wast", "core/id.wast")),
    ("Definitions and instances", ("core/instance.wast",)),
    ("WebAssembly 1.0", ("core/*",)),
    ("Custom annotations", ("custom/*",)),
    ("Other", ("*",)),
)

#: The order of the picture and the tables: the base first.
ORDER = ("WebAssembly 1.0", *(title for title, _ in AREAS if title != "WebAssembly 1.0"))

Run = dict[str, Any]


def run(engine: str, round_trip: str | None, *paths: Path) -> Run:
    """Run scripts with the command line; what it says in JSON. Its lines go to stderr."""
    command = [sys.executable, "-m", "pywasmvm", "wast", "--json", "--engine", engine, *map(str, paths)]
    if round_trip is not None:
        command += ["--round-trip", round_trip]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=HERE.parent, text=True)
    if not done.stdout:
        raise SystemExit(done.returncode or 1)  # it has said why
    found: Run = json.loads(done.stdout)
    return found


def area(file: str) -> str:
    """The proposal a file tests."""
    return next(title for title, globs in AREAS if any(fnmatch(file, glob) for glob in globs))


def tally(run: Run, key: Callable[[dict[str, Any], str], str]) -> dict[str, Counter[str]]:
    """Assertions of a run, passed and failed, summed up by `key(record, kind)`."""
    sums: dict[str, Counter[str]] = {}
    for record in run["files"]:
        for kind, counts in record["kinds"].items():
            if kind.startswith("assert_"):
                sums.setdefault(key(record, kind), Counter()).update(counts)
    return sums


def by_folder(run: Run) -> dict[str, Counter[str]]:
    """The assertions of `core` and of `custom`."""
    return tally(run, lambda record, kind: record["file"].partition("/")[0])


def by_area(run: Run) -> dict[str, Counter[str]]:
    """The assertions of each proposal."""
    return tally(run, lambda record, kind: area(record["file"]))


def share(counts: Counter[str]) -> str:
    """How many of how many."""
    return f"{counts['passed']:,} of {counts.total():,}"


def title(run: Run) -> str:
    """What a run is called in a table."""
    trip = run["totals"]["round_trip"]
    return run["totals"]["engine"] + (f", {trip} round trip" if trip else "")


def table(head: str, rows: Iterable[str], runs: list[Run], sums: list[dict[str, Counter[str]]]) -> list[str]:
    """A Markdown table with a column per run; rows that a run has nothing for are left out."""
    lines = [f"| {head} | {' | '.join(map(title, runs))} |", f"| --- |{' ---: |' * len(runs)}"]
    common = [row for row in rows if all(row in by for by in sums)]
    lines += [f"| {row} | {' | '.join(share(by[row]) for by in sums)} |" for row in common]
    return [*lines, ""]


def summary(run: Run) -> list[str]:
    """A run in one item of a list."""
    sums, messages, folders = run["totals"], run["totals"]["messages"], by_folder(run)
    peak = sums["peak_memory"]
    memory = "." if peak is None else f", at most {peak / 2**20:.0f} MiB each."
    return [
        f"* **{title(run)}**: "
        + ", ".join(f"{share(counts)} in `{name}`" for name, counts in folders.items()),
        f"  ({sums['files']} files, {sums['commands']:,} commands, {sums['failed']} failed, {sums['skipped']}"
        " skipped).",
        f"  {messages['agreed']:,} of {messages['total']:,} messages of malformed and invalid modules begin",
        f"  with the suite's words. {sums['wall_seconds']:.0f} s with {sums['jobs']} processes{memory}",
    ]


def document(runs: list[Run]) -> str:
    """The page."""
    lines = [
        "# Conformance",
        "",
        "What this machine makes of the official WebAssembly 3.0 test suite: assertions that hold, of all",
        "there are. Written by `spec-tests/report.py` from runs over the suite at commit",
        f"`{(HERE / 'REVISION').read_text().strip()}`;",
        "[spec-tests](../spec-tests/README.md) says what is counted and how to repeat it.",
        "",
        "![Assertions passed, by proposal](conformance.svg)",
        "",
    ]
    lines += [line for run in runs for line in summary(run)]
    kinds = sorted({kind for run in runs for kind in run["totals"]["kinds"] if kind.startswith("assert_")})
    lines += ["", "## By proposal", "", *table("proposal", ORDER, runs, [by_area(run) for run in runs])]
    kind_sums = [tally(run, lambda record, kind: kind) for run in runs]
    lines += ["## By kind", "", *table("assertion", kinds, runs, kind_sums)]
    gaps_left = [f"* `{file}`: {gap['failed']}, {gap['reason']}" for file, gap in gaps.expected().items()]
    lines += ["## Known gaps", "", *(gaps_left or ["None."]), ""]
    return "\n".join(lines)


def judge(run: Run, counts: dict[str, dict[str, int]]) -> list[str]:
    """What is not as expected; `counts` are empty for scripts that nobody has counted."""
    name, known = title(run), gaps.expected()
    seen = {record["file"] for record in run["files"]}
    said = [f"{name}: {f} was not run" for f in counts if f.startswith(gaps.FOLDERS) and f not in seen]
    for record in run["files"]:
        said += [f"{name}: {line}" for line in gaps.complaints(record, known, counts)]
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN.json")
    parser.add_argument("--write", action="store_true", help="write docs/conformance.md and .svg")
    parser.add_argument("--suite", help="folder of the official suite")
    args = parser.parse_args()
    try:
        suite = find_suite(args.suite)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    said = []
    if args.runs:
        runs = [json.loads(path.read_text()) for path in args.runs]
    else:
        # What is written and read again is the same for all engines.
        first, *others = gaps.ENGINES
        ways = [(first, trip) for trip in ROUND_TRIPS] + [(engine, None) for engine in others]
        runs = [run(*way, *(suite / folder for folder in gaps.FOLDERS)) for way in ways]
        said += [line for way in ways for line in judge(run(*way, HERE / "own"), {})]
    counts = gaps.counts(suite)
    for each in runs:
        said += judge(each, counts)
        folders = by_folder(each)
        print(f"{title(each)}: " + ", ".join(f"{share(sums)} in {name}" for name, sums in folders.items()))
    if args.write:
        (DOCS / "conformance.md").write_text(document(runs))
        core = by_folder(runs[0])["core"]
        (DOCS / "conformance.svg").write_text(
            picture(f"{core['passed']:,} of {core.total():,}", ORDER, by_area(runs[0]))
        )
    print("\n".join(said) if said else "all as expected")
    return 1 if said else 0


if __name__ == "__main__":
    raise SystemExit(main())
