"""Writes `docs/benchmarks.md` and its picture from the newest run in `benchmarks/results`.

    python benchmarks/report.py [--check]

`--check` writes nothing and ends with 1 when the page is not what the newest run says.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"


def newest() -> Path:
    """The run with the last date."""
    return max((HERE / "results").glob("*-tiers.json"))


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def table(rows: list[dict[str, Any]]) -> str:
    """The figures of one tier as Markdown."""
    peers = [name for name in ("pwasm", "wasmtime") if name in rows[0]]
    lines = [
        f"| kernel | ours | {' | '.join(peers)} | pwasm : ours |",
        "| --- |" + " --: |" * (len(peers) + 2),
    ]
    for row in rows:
        figures = " | ".join(
            f"{row[name]:.2f}" if row[name] < 1 else f"{row[name]:.1f}" for name in ("ours", *peers)
        )
        lines.append(f"| {row['kernel']} | {figures} | {row['pwasm'] / row['ours']:.2f} |")
    means = " | ".join(f"**{_mean([row[name] for row in rows]):.2f}**" for name in ("ours", *peers))
    lines.append(f"| **geomean** | {means} | **{_mean([row['pwasm'] / row['ours'] for row in rows]):.2f}** |")
    return "\n".join(lines)


def page(run: dict[str, Any]) -> str:
    """The whole page."""
    tiers = run["tiers"]
    return f"""# Benchmarks

Nanoseconds of CPU time per Wasm instruction, {run["date"]}, CPython {run["python"]}, best of {run["rounds"]}
rounds in one process, the engines in turn, our engines with the limits a proxy sets. Absolute figures belong
to the machine; ratios travel. `make bench` measures yours, and `python benchmarks/report.py` writes this page
from the newest run in `benchmarks/results`.

![How much faster translated code is than pwasm's, kernel by kernel](benchmarks.svg)

## Translated code

Against `pwasm` 0.2a0, which compiles to Python too, at the largest size of each kernel, after a first call.
The native engine `wasmtime` shows where the ground is.

{table(tiers["translated"])}

## The interpreter

Against the interpreter of `pwasm`, at the smallest size of each kernel.

{table(tiers["interpreted"])}
"""


def picture(rows: list[dict[str, Any]]) -> str:
    """A bar for each kernel: how many times as fast as pwasm; the scale is logarithmic."""
    high, left, width = 22, 90, 420
    ratios = [(row["kernel"], row["pwasm"] / row["ours"]) for row in rows]
    top = max(math.log(max(ratio for _, ratio in ratios)), math.log(2))
    height = high * len(ratios) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 70} {height}" '
        'font-family="sans-serif" font-size="13">'
    ]
    for place, (name, ratio) in enumerate(ratios):
        y = 10 + place * high
        length = max(math.log(ratio), 0.0) / top * width
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end" fill="#555">{name}</text>')
        parts.append(
            f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{high - 6}" rx="2" fill="#3b7dd8"/>'
        )
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 14}" fill="#555">{ratio:.2f}x</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    run = json.loads(newest().read_text())
    files = {DOCS / "benchmarks.md": page(run), DOCS / "benchmarks.svg": picture(run["tiers"]["translated"])}
    stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
    if not args.check:
        for path, text in files.items():
            path.write_text(text)
        return 0
    print(
        f"stale: {', '.join(stale)}: run python benchmarks/report.py"
        if stale
        else "benchmarks: page and run agree"
    )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
