"""Replays recorded proxy exchanges (golden cases) against our proxy, or the real Envoy as a check of itself.

    python tests/replay/replay.py FILE.json ... [--filters DIR] [--json] [--proxy COMMAND]

One line per case and a total last; the exit status is 0 only if all passed. Cases listed in gaps.toml may
fail, and must be taken off that list as soon as they pass.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script: make `tests` importable
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.replay import cases, client, compare, modules, proxy, render, tcp
from tests.replay.upstream import Upstream

GAP_PATIENCE = 0.15  # a case that is known to fail mostly does so by waiting in vain


@dataclass
class Result:
    """How one case went: `passed`, `failed`, `gap` (known to fail) or `mended` (a gap that passes)."""

    file: str
    name: str
    outcome: str
    seconds: float
    reason: str = ""
    differences: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.outcome in ("passed", "gap")

    def line(self) -> str:
        text = f"{self.outcome:7} {self.file}:{self.name} ({self.seconds:.1f} s)"
        if self.reason:
            text += f" [{self.reason}]"
        if self.outcome == "failed":
            text += "".join(f"\n        {difference}" for difference in self.differences)
        return text


async def run_case(
    case: cases.Case, filters: Path, command: proxy.Command, patience: float = 1.0
) -> list[str]:
    """Run one case from start to stop; the differences between what it expects and what was seen."""
    expect = case.expected(command.is_envoy)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused, nobody takes the port
        far: Upstream | tcp.Upstream = (
            tcp.Upstream() if case.is_script else Upstream(case.data.get("upstream", {}))
        )
        async with far as upstream:
            ports = {
                "listener": proxy.free_port(),
                "upstream": upstream.port,
                "dead": dead.getsockname()[1],
            }
            config = Path(folder) / "envoy.yaml"
            config.write_text(render.render(case, filters, ports), encoding="utf-8")
            level = case.data.get("log_level", "trace")
            running = await proxy.RunningProxy.start(command, config, level, Path(folder), patience)
            upstream.pause = running.pause
            try:
                seen = await _observe(case, expect, running, ports["listener"], upstream)
            finally:
                exit_status = await running.stop()
            seen.upstream_requests = upstream.requests
            seen.host_errors = running.host_errors
            if not seen.started:
                seen.exit_status, seen.last_line = exit_status, running.last_words()
            return compare.compare(case, expect, seen, ports, command.is_envoy)


async def _observe(
    case: cases.Case,
    expect: dict[str, Any],
    running: proxy.RunningProxy,
    port: int,
    upstream: Upstream | tcp.Upstream,
) -> compare.Seen:
    seen = compare.Seen()
    seen.started = await running.wait_until_listening(port, probe=not case.is_script)
    known = len(expect.get("startup_log", [])) if seen.started and case.compare_logs else None
    first = await running.guest_lines(0, known)
    seen.startup_log = [record.golden for record in first]
    if not seen.started:
        return seen
    running.started_at = len(running.records)
    position = len(first)
    wanted = expect.get("request_logs", [])
    for index, request in enumerate(case.requests):
        await asyncio.sleep(request.get("sleep", 0))
        if isinstance(upstream, tcp.Upstream):
            response = await tcp.connection(
                request["steps"], _nth(expect.get("responses", []), index), port, upstream, running
            )
        else:
            response = await client.exchange(request, port, running.pause, running.patience)
        seen.responses.append(response)
        count = len(wanted[index]) if case.compare_logs and index < len(wanted) else None
        lines = await running.guest_lines(position, count)
        seen.request_logs.append([record.golden for record in lines])
        position += len(lines)
    after = await running.guest_lines(position, len(expect.get("after_log", [])))
    seen.after_log = [record.golden for record in after]
    return seen


def _nth(items: list[dict[str, Any]], index: int) -> dict[str, Any]:
    return items[index] if index < len(items) else {}


async def replay(
    selected: list[cases.Case],
    filters: Path,
    command: proxy.Command,
    gaps: dict[str, str],
    jobs: int,
    report: Any = None,
) -> list[Result]:
    """Run cases, `jobs` at a time; results in the order given. `report(result)` is called as each ends."""
    slots = asyncio.Semaphore(jobs)

    async def one(case: cases.Case) -> Result:
        async with slots:
            begin = time.monotonic()
            try:
                patience = GAP_PATIENCE if case.name in gaps else 1.0
                differences = await run_case(case, filters, command, patience)
            except (OSError, TimeoutError, ValueError) as error:
                differences = [f"{type(error).__name__}: {error}"]
            seconds = time.monotonic() - begin
        reason = gaps.get(case.name, "")
        outcome = "failed" if differences else "passed"
        if reason:
            outcome = "gap" if differences else "mended"
        result = Result(case.file, case.name, outcome, seconds, reason, differences)
        if report is not None:
            report(result)
        return result

    return list(await asyncio.gather(*(one(case) for case in selected)))


def _filters(folder: Path | None) -> Path:
    """The folder of `.wasm` files: compiled from `folder` when that holds sources only."""
    if folder is not None and any(folder.glob("*.wasm")):
        return folder.resolve()
    return modules.build(cases.FILTERS if folder is None else folder)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument(
        "--filters",
        type=Path,
        metavar="DIR",
        help="folder of filters, as .wasm or as sources to compile (default: golden/filters)",
    )
    parser.add_argument(
        "--proxy", metavar="COMMAND", help="proxy to check (default: ours; `envoy` for the real one)"
    )
    parser.add_argument(
        "--case", action="append", default=[], metavar="NAME", help="only this case; repeatable"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    options = parser.parse_args(arguments)

    try:
        selected = [case for path in options.files for case in cases.load(path)]
        unknown = set(options.case) - {case.name for case in selected}
        if unknown:
            raise ValueError(f"no such case: {', '.join(sorted(unknown))}")
        command = proxy.Command.parse(options.proxy)
        filters = _filters(options.filters)
    except (OSError, ValueError, modules.BuildError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    if options.case:
        selected = [case for case in selected if case.name in options.case]
    gaps = {} if command.is_envoy else cases.load_gaps()

    def show(result: Result) -> None:
        if not options.json:
            print(result.line().encode("utf-8", "backslashreplace").decode(), flush=True)

    begin = time.monotonic()
    results = asyncio.run(replay(selected, filters, command, gaps, max(1, options.jobs), show))
    seconds = time.monotonic() - begin
    counts = {
        outcome: sum(r.outcome == outcome for r in results)
        for outcome in ("passed", "failed", "gap", "mended")
    }
    if options.json:
        print(
            json.dumps(
                {**counts, "seconds": round(seconds, 2), "cases": [vars(r) for r in results]}, indent=1
            )
        )
    else:
        for result in results:
            if result.outcome == "mended":
                print(f"{result.name} passes now: take it off gaps.toml")
        total = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        print(f"{len(results)} cases: {total} ({seconds:.1f} s)")
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
