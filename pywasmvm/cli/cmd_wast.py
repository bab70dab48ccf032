"""`pywasmvm wast [PATH ...]`: run scripts of the official test suite, or one's own."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pywasmvm.script.results import Results

HELP = "run .wast scripts and count what passes"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help=".wast files, or folders of them (default: the suite's core)"
    )
    parser.add_argument("--suite", help="folder of the official suite (default: where find_suite looks)")
    parser.add_argument("--engine", default="auto", help="auto (default), interp, translate, translate-flat")
    parser.add_argument(
        "--features", help="which may be used, comma-separated; --features=-simd switches one off"
    )
    parser.add_argument(
        "--round-trip",
        choices=("binary", "text"),
        help="write every module and read it again before it is used; it must come back equal",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes (default: one per processor; 0: none)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="stop a file after this (default: 600)",
    )
    parser.add_argument(
        "--failures", type=int, default=5, metavar="N", help="failures shown per file (default: 5; -1: all)"
    )
    parser.add_argument(
        "--messages", action="store_true", help="list messages of malformed and invalid modules that differ"
    )
    parser.add_argument("--json", action="store_true", help="print totals and a record per file as JSON")


def run(args: argparse.Namespace) -> int:
    """Run them; status 1 if a command failed or never ran."""
    from pywasmvm.features import resolve
    from pywasmvm.runtime.engine import engine_named
    from pywasmvm.script.pool import Settings, default_jobs, run_files
    from pywasmvm.script.results import totals
    from pywasmvm.script.suite import find_suite, scripts, short_name

    names = None if args.features is None else tuple(n.strip() for n in args.features.split(",") if n.strip())
    suite: Path | None = None
    try:
        resolve(names)
        engine_named(args.engine)
        if args.suite is not None or not args.paths:
            suite = find_suite(args.suite)
        paths = scripts(args.paths or [find_suite(args.suite) / "core"])
    except (ValueError, FileNotFoundError) as error:
        print(f"pywasmvm: {error}", file=sys.stderr)
        return 2
    if suite is None:
        suite = _suite_around(paths)

    jobs = default_jobs() if args.jobs is None else args.jobs
    lines = sys.stderr if args.json else sys.stdout
    bar = _Bar(len(paths), sys.stderr)
    begin = time.perf_counter()
    records = []
    for results in run_files(
        paths,
        Settings(args.engine, names, args.round_trip),
        jobs=jobs,
        timeout=args.timeout,
        progress=bar.show if sys.stderr.isatty() else None,
    ):
        results.file = short_name(Path(results.file), suite)
        records.append(results.to_json())
        bar.clear()
        _print_file(results, args.failures, args.messages, lines)
    bar.clear()
    summed = totals(records)
    summed |= {
        "engine": args.engine,
        "round_trip": args.round_trip,
        "jobs": jobs,
        "wall_seconds": round(time.perf_counter() - begin, 3),
    }
    _print_totals(summed, lines)
    if args.json:
        records.sort(key=lambda record: str(record["file"]))
        print(json.dumps({"totals": summed, "files": records}, indent=1))
    return 1 if summed["failed"] or summed["skipped"] else 0


def _suite_around(paths: Sequence[Path]) -> Path | None:
    """The suite that a script is part of, going by the counts that lie beside its folders."""
    return next((folder for folder in paths[0].resolve().parents if (folder / "core").is_dir()), None)


def _print_file(results: Results, most: int, messages: bool, out: TextIO) -> None:
    skipped = f" {results.skipped:6d} skipped" if results.skipped else ""
    print(
        f"{results.file:<48} {results.passed:6d} passed {results.failed:5d} failed{skipped}"
        f" {results.seconds:8.2f} s",
        file=out,
    )
    shown = results.failures if most < 0 else results.failures[:most]
    for failure in shown:
        print(f"  {failure.line}: {failure.kind}: {failure.reason}", file=out)
    if len(shown) < len(results.failures):
        print(f"  ... and {len(results.failures) - len(shown)} more", file=out)
    for outcome in results.disagreements if messages else ():
        print(f'  {outcome.line}: {outcome.kind}: "{outcome.expected}" is "{outcome.found}" here', file=out)
    out.flush()


def _print_totals(summed: dict[str, Any], out: TextIO) -> None:
    messages, peak = summed["messages"], summed["peak_memory"]
    print(
        f"{summed['files']} files, {summed['commands']:,} commands: {summed['passed']:,} of"
        f" {summed['assertions']:,} assertions passed, {summed['failed']:,} commands failed,"
        f" {summed['skipped']:,} skipped",
        file=out,
    )
    if messages["total"]:
        share = 100 * messages["agreed"] / messages["total"]
        print(
            f"messages of malformed and invalid modules: {messages['agreed']:,} of {messages['total']:,}"
            f" begin with the suite's words ({share:.1f} %)",
            file=out,
        )
    memory = "" if peak is None else f", peak memory of a process {peak / 2**20:.0f} MiB"
    how = f"with {summed['jobs']} processes" if summed["jobs"] else "in one process"
    print(f"{summed['wall_seconds']:.1f} s {how}{memory}", file=out)


class _Bar:
    """One line on a terminal that is written over: how many files are done, what passed, what is running."""

    def __init__(self, total: int, out: TextIO) -> None:
        self.total, self.out, self.visible = total, out, False

    def show(self, records: Sequence[Results]) -> None:
        """Draw it anew."""
        over = [r for r in records if r.seconds]
        current = [Path(r.file).name for r in records if not r.seconds]
        width = 24
        filled = width * len(over) // max(self.total, 1)
        passed, failed = sum(r.passed for r in records), sum(r.failed for r in records)
        text = (
            f"[{'#' * filled}{'.' * (width - filled)}] {len(over)}/{self.total} files, {passed:,} passed,"
            f" {failed:,} failed  {' '.join(current)}"
        )
        self.out.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
        self.out.flush()
        self.visible = True

    def clear(self) -> None:
        """Make room for other lines."""
        if self.visible:
            self.out.write("\r\x1b[K")
            self.out.flush()
            self.visible = False
