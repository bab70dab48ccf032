"""Turns runs of the official suite into `docs/conformance.md` and its picture, and says if they are good.

    pywasmvm wast FOLDER/core FOLDER/custom --json > run.json
    python spec-tests/report.py run.json [MORE.json ...] [--write]

Each JSON file is the output of one run, on one engine. Exit status 1 when a run is not what `expected.toml`
and the suite's own counts want; without `--write` nothing is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import gaps  # noqa: E402 - found through the line above

from pywasmvm.script.suite import find_suite  # noqa: E402

DOCS = HERE.parent / "docs"

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
    ("Custom annotations (beside the core)", ("custom/*",)),
    ("Other", ("*",)),
)

#: The order of the picture and the tables: the base first.
ORDER = ("WebAssembly 1.0", *(title for title, _ in AREAS if title != "WebAssembly 1.0"))


def area(file: str) -> str:
    """The proposal a file tests."""
    return next(title for title, globs in AREAS if any(fnmatch(file, glob) for glob in globs))


def tally(run: dict[str, Any], key: Callable[[dict[str, Any], str], str]) -> dict[str, Counter[str]]:
    """Assertions of a run, passed and failed, summed up by `key(record, kind)`."""
    sums: dict[str, Counter[str]] = {}
    for record in run["files"]:
        for kind, counts in record["kinds"].items():
            if kind.startswith("assert_"):
                sums.setdefault(key(record, kind), Counter()).update(counts)
    return sums


def title(run: dict[str, Any]) -> str:
    """What a run is called in a table."""
    trip = run["totals"]["round_trip"]
    return run["totals"]["engine"] + (f", {trip} round trip" if trip else "")


def table(
    head: str, rows: Iterable[str], runs: list[dict[str, Any]], sums: list[dict[str, Counter[str]]]
) -> list[str]:
    """A Markdown table with a column per run."""
    lines = [f"| {head} | {' | '.join(map(title, runs))} |", f"| --- |{' ---: |' * len(runs)}"]
    for row in rows:
        if all(row in by for by in sums):
            cells = [f"{by[row]['passed']:,} of {by[row].total():,}" for by in sums]
            lines.append(f"| {row} | {' | '.join(cells)} |")
    return [*lines, ""]


def summary(run: dict[str, Any]) -> list[str]:
    """A run in one item of a list."""
    sums, messages = run["totals"], run["totals"]["messages"]
    peak = sums["peak_memory"]
    memory = "." if peak is None else f", at most {peak / 2**20:.0f} MiB each."
    return [
        f"* **{title(run)}**: {sums['passed']:,} of {sums['assertions']:,} assertions in {sums['files']}"
        f" files; {sums['commands']:,} commands, {sums['failed']} failed, {sums['skipped']} skipped.",
        f"  {messages['agreed']:,} of {messages['total']:,} messages of malformed and invalid modules begin"
        f" with the suite's words. {sums['wall_seconds']:.0f} s with {sums['jobs']} processes{memory}",
    ]


def document(runs: list[dict[str, Any]]) -> str:
    """The page."""
    lines = [
        "# Conformance",
        "",
        "What this machine makes of the official WebAssembly 3.0 test suite: assertions that hold, of all",
        "there are. Written by `spec-tests/report.py` from runs of `pywasmvm wast` over the suite at commit",
        f"`{(HERE / 'REVISION').read_text().strip()}`;",
        "[spec-tests](../spec-tests/README.md) says how to repeat it.",
        "",
        "![Assertions passed, by proposal](conformance.svg)",
        "",
    ]
    lines += [line for run in runs for line in summary(run)]
    by_area = [tally(run, lambda record, kind: area(record["file"])) for run in runs]
    by_kind = [tally(run, lambda record, kind: kind) for run in runs]
    kinds = sorted({kind for sums in by_kind for kind in sums})
    lines += ["", "## By proposal", "", *table("proposal", ORDER, runs, by_area)]
    lines += ["## By kind", "", *table("assertion", kinds, runs, by_kind)]
    gaps_left = [f"* `{file}`: {gap['failed']}, {gap['reason']}" for file, gap in gaps.expected().items()]
    lines += ["## Known gaps", "", *(gaps_left or ["None."]), ""]
    return "\n".join(lines)


# -- the picture ---------------------------------------------------------------------------------------

_ROW, _LEFT, _WIDTH, _TOP = 26, 250, 330, 74
_GREEN, _RED, _INK, _FAINT = "#2e8b57", "#c0392b", "#1f2933", "#66727f"


def picture(run: dict[str, Any]) -> str:
    """Bars by proposal as SVG: green passed, red failed, all as long as their area is complete."""
    sums = tally(run, lambda record, kind: area(record["file"]))
    rows = [name for name in ORDER if name in sums]
    height = _TOP + _ROW * len(rows) + 16
    share = f"{run['totals']['passed']:,} of {run['totals']['assertions']:,}"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="740" height="{height}" viewBox="0 0 740 {height}"'
        ' font-family="system-ui, sans-serif" role="img">',
        f"<title>{share} assertions of the official suite pass</title>",
        f'<rect width="740" height="{height}" rx="8" fill="#ffffff"/>',
        _text(24, 36, share, _INK, size=22, weight=700),
        _text(24, 56, f"assertions of the official WebAssembly 3.0 suite pass ({title(run)})", _FAINT),
    ]
    for index, name in enumerate(rows):
        counts, y = sums[name], _TOP + index * _ROW
        out += [
            _text(_LEFT - 12, y + 13, name, _INK, anchor="end"),
            _bar(y, 1.0, _RED),
            _bar(y, counts["passed"] / counts.total(), _GREEN),
            _text(_LEFT + _WIDTH + 12, y + 13, f"{counts['passed']:,} / {counts.total():,}", _FAINT),
        ]
    return "\n".join([*out, "</svg>", ""])


def _bar(y: int, share: float, fill: str) -> str:
    return f'<rect x="{_LEFT}" y="{y + 3}" width="{_WIDTH * share:.1f}" height="13" fill="{fill}"/>'


def _text(
    x: int, y: int, text: str, fill: str, *, size: int = 12, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"'
        f' font-weight="{weight}">{escape(text)}</text>'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.json")
    parser.add_argument(
        "--write", action="store_true", help="write docs/conformance.md and docs/conformance.svg"
    )
    parser.add_argument("--suite", help="folder of the official suite, for its counts")
    args = parser.parse_args()
    runs = [json.loads(path.read_text()) for path in args.runs]
    counts = gaps.counts(find_suite(args.suite))
    known = gaps.expected()
    said = []
    for run in runs:
        name, sums = title(run), run["totals"]
        seen = {record["file"] for record in run["files"]}
        missing = [file for file in counts if file not in seen and not file.startswith("legacy/")]
        said += [f"{name}: {file} was not run" for file in missing]
        for record in run["files"]:
            said += [f"{name}: {line}" for line in gaps.complaints(record, known, counts)]
        print(f"{name}: {sums['passed']:,} of {sums['assertions']:,}, {sums['failed']} commands failed")
    if args.write:
        (DOCS / "conformance.md").write_text(document(runs))
        (DOCS / "conformance.svg").write_text(picture(runs[0]))
    print("\n".join(said) if said else "as expected")
    return 1 if said else 0


if __name__ == "__main__":
    raise SystemExit(main())
