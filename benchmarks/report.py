"""Writes `docs/benchmarks.md` and its picture from the newest run in `benchmarks/results`.

    python benchmarks/report.py [--check]

`--check` writes nothing and ends with 1 when the page is not what the newest run says.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"

Run = dict[str, Any]
Rows = Sequence[dict[str, Any]]

#: Engines in the order of the columns.
ENGINES = ("ours", "pwasm", "pywasm", "wasmtime", "pywasm3")


def newest() -> Path:
    """The run with the last date; of several on one day the last name."""
    return max((HERE / "results").glob("*.json"))


def _with_long_parts(run: Run, path: Path) -> Run:
    """The run, with the parts that take too long for each of them from the last one that has them."""
    whole = dict(run)
    for part in ("plugins", "pythons"):
        for older in sorted((HERE / "results").glob("*.json"), reverse=True):
            if whole.get(part):
                break
            rows = json.loads(older.read_text()).get(part) if older.name < path.name else None
            if rows:
                whole |= {part: rows, f"{part}_from": older.stem}
    return whole


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def number(value: float | None) -> str:
    """Three digits, more where there are more before the point."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "| --- |" + " --: |" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])


def kernels(rows: Rows) -> str:
    """The figures of one tier, and what fuel and limits cost where that was measured."""
    engines = [name for name in ENGINES if name in rows[0]]
    ratios = [
        (label, above, below)
        for label, above, below in (
            ("pwasm : ours", "pwasm", "ours"),
            ("fuel : none", "fuel", "limited"),
            ("limits : none", "limited", "unlimited"),
        )
        if above in rows[0] and below in rows[0]
    ]
    body = [
        [
            row["kernel"],
            *(number(row[name]) for name in engines),
            *(f"{row[a] / row[b]:.2f}" for _, a, b in ratios),
        ]
        for row in rows
    ]
    means = [number(_mean(row[name] for row in rows)) for name in engines]
    means += [f"{_mean(row[a] / row[b] for row in rows):.2f}" for _, a, b in ratios]
    return _table(
        ["kernel", *engines, *(label for label, _, _ in ratios)],
        [*body, ["**geomean**", *(f"**{mean}**" for mean in means)]],
    )


def _columns(rows: Rows, first: str, columns: dict[str, str], scale: float = 1) -> str:
    """Rows as they are; `columns` maps keys to what stands above them."""
    return _table(
        [first, *columns.values()],
        (
            [str(row[first]), *(number(None if row[key] is None else row[key] * scale) for key in columns)]
            for row in rows
        ),
    )


def verdicts(run: Run) -> str:
    """The bars."""
    return _table(
        ["figure", "measured", "bar", "met"],
        (
            [row["name"], f"{row['figure']:.3f}", f"{row['bar']:.2f}", "yes" if row["met"] else "**no**"]
            for row in run["bars"]
        ),
    )


def _sections(run: Run) -> Iterable[str]:
    tiers = run.get("tiers", {})
    if run.get("bars"):
        yield f"""## At a glance

Each figure is a ratio from this one run, and smaller is better: `ours : pwasm's`, or ours under two
conditions. The bars stand in [bars.py](../benchmarks/bars.py).

{verdicts(run)}"""
    if "translated" in tiers:
        yield f"""## Translated code

Nanoseconds per Wasm instruction at the largest size of each kernel, after first calls that do not count.
`pwasm` compiles to Python too; native engines show where the ground is. "ours" has the limits of the proxy: a
deadline and a depth of calls. The last columns compare ours with itself: counting fuel with not counting it,
and those limits with none at all.

![How much faster translated code is than pwasm's, kernel by kernel](benchmarks.svg)

{kernels(tiers["translated"])}"""
    if "interpreted" in tiers:
        yield f"""## The interpreter

Nanoseconds per Wasm instruction at the smallest size of each kernel, against the interpreter of `pwasm`.

{kernels(tiers["interpreted"])}"""
    if "seed" in run:
        columns = {
            "request_us": "request, us",
            "response_headers_us": "`proxy_on_response_headers`, us",
            "early_us": "mean of the first 100 requests, us",
        }
        yield f"""## The seed filter

A 17 KB AssemblyScript filter; a request is six calls of the guest with eleven calls of the host. All engines
have the same stub as a host; `ours, abi` is our real proxy-wasm host.

{_columns(run["seed"], "engine", columns)}"""
    if "seed_cold" in run:
        columns = {
            "load_ms": "load, ms",
            "setup_ms": "set-up, ms",
            "first_ms": "first request, ms",
            "total_ms": "all, ms",
        }
        yield f"""The same from the bytes to the first request, without a cache; ours with full validation,
which `pwasm` does not have.

{_columns(run["seed_cold"], "engine", columns)}"""
    if "boundary" in run:
        columns = {key: f"{key}, ns" for key in run["boundary"][0] if key != "engine"}
        yield f"""## The boundary

What a call costs that does nothing: of a Python function by the guest (one turn of a loop around it) and
of an export by Python, `(i32, i32, i32) -> i32` and without values. [boundary.py](../benchmarks/boundary.py)
says exactly what is in a turn.

{_columns(run["boundary"], "engine", columns)}"""
    if run.get("starts"):
        yield """## Starts

CPU milliseconds of a fresh process without its imports, from the bytes to the third request. `set-header` and
`ai-proxy` are Go plugins of 5.5 and 9.7 MB. Warm: with the cache on disk that one earlier process left.
Snapshot: from an instance that was kept after its initialisation. The steady request is the best of many
later ones."""
        phases = ("total", "load", "initialise", "setup", "configure", "first", "second", "third", "steady")
        for filter_ in dict.fromkeys(row["filter"] for row in run["starts"]):
            rows = [row for row in run["starts"] if row["filter"] == filter_]
            columns = {key: key for key in phases if key in rows[0]}
            yield _columns([row | {filter_: row["start"]} for row in rows], filter_, columns, 1e3)
    if "longrun" in run:
        rows = [row | {"case, engine": f"{row['case']}, {row['engine']}"} for row in run["longrun"]]
        columns = {"first": "first call, ns", "later": "later call, ns", "ratio": "first : later"}
        yield f"""## A long first call

Nanoseconds per instruction of a first call that runs more than 20 million of them (`pwasm`: a tenth), and of
the same call again.

{_columns(rows, "case, engine", columns)}"""
    if run.get("proxy"):
        yield f"""## The proxy without filters

Microseconds of CPU for one small GET through a proxy that is a process of its own on one event loop, with
ten keep-alive connections; [proxy.py](../benchmarks/proxy.py) says what the peers are. `aiohttp` parses and
writes HTTP in native code; Envoy is here for orientation.

{_columns(run["proxy"], "proxy", {"request_us": "request, us"})}"""
    if run.get("workers"):
        columns = {"per_second": "requests a second", "clients": "processors the clients took"}
        yield f"""## Workers

`pywasmvm serve --concurrency N` on two processors, which the clients share, through the seed filter: requests
a second, 16 connections.

{_columns(run["workers"], "workers", columns)}"""
    if run.get("plugins"):
        columns = {"cold": "cold", "warm": "warm", "snapshot": "snapshot", "first": "first request, cold"}
        yield f"""## The filters of a real gateway

CPU milliseconds of the 14 Go filters of `gpustack-higress-plugins` (5.5 to 9.7 MB) in our proxy-wasm host,
from the bytes to a plugin that is configured, in fresh processes without their imports. Warm: with the
cache on disk. Snapshot: from the state that an earlier process kept after `_initialize`, or after the whole
start where that takes longer than half a second; with the cache. `ai-data-masking` with its system words
builds tables out of them when it is configured, in billions of instructions: that is done once, and kept.

Measured in a run of their own, with another job on the other processor.{_said(run, "plugins")}

{_columns(run["plugins"], "plugin", columns, 1e3)}"""
    if run.get("pythons"):
        rows = run["pythons"]
        versions = [key for key in rows[0] if key != "kernel"]
        mean = {key: _mean(row[key] for row in rows) for key in versions}
        yield f"""## Pythons

Our translated code, nanoseconds per instruction.{_said(run, "pythons")}

{_columns([*rows, {"kernel": "**geomean**"} | mean], "kernel", {key: key for key in versions})}"""


def _said(run: Run, part: str) -> str:
    """Which run a part is from, if it is not this one."""
    older = run.get(f"{part}_from")
    return f" From an earlier run ({older})." if older else ""


def page(run: Run) -> str:
    """The whole page."""
    peers = ", ".join(f"`{name}` {version}" for name, version in run.get("peers", {}).items())
    missing = ", ".join(f"`{name}`" for name in run.get("missing", ()))
    beside = f" Beside us: {peers}." if peers else ""
    beside += f" Not installed: {missing}." if missing else ""
    head = f"""# Benchmarks

CPU time, {run["date"]}, CPython {run["python"]}, the engines in turn, the best of several rounds, every
answer checked, our engines with the limits a proxy sets.{beside}

Absolute figures belong to the machine; ratios travel. `make bench` measures yours, and
`python benchmarks/report.py` writes this page from the newest run in `benchmarks/results`.
"""
    return "\n\n".join([head.rstrip("\n"), *_sections(run)]) + "\n"


def picture(rows: Rows) -> str:
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
    run = _with_long_parts(json.loads(newest().read_text()), newest())
    files = {DOCS / "benchmarks.md": page(run)}
    rows = run.get("tiers", {}).get("translated", [])
    if rows and "pwasm" in rows[0]:
        files[DOCS / "benchmarks.svg"] = picture(rows)
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
