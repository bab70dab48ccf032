"""The seed filter: a whole request, `proxy_on_response_headers` alone, a cold start; our real host beside it.

Engines get the same stub host (`stubs.SeedHost`) and run in one process, in turn. The row `ours, abi` is our
own proxy-wasm host with everything it does: contexts, header maps, deferred effects, log records.

A cold start is loading (ours with full validation), set-up and the first request, with new objects all the
way down and no cache on disk, repeated in this process; the least of each phase.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from benchmarks import engines, life, timing

Row = dict[str, Any]

#: Requests before the steady ones are timed, until all that is ever translated is.
WARM, WARM_SLOW = 600, 1

#: Of these the mean is shown: what a filter is like that has just started.
EARLY = 100

#: Requests in one turn of an engine.
TURN = 5

HEADERS = [(":authority", "a"), (":path", "/"), (":method", "GET")]
ANSWER = [(":status", "200"), ("content-type", "text/plain"), ("content-length", "12")]


class AbiSeed:
    """The filter in our proxy-wasm host, asked as `life.Seed` is."""

    def __init__(self) -> None:
        from abi.proxy_wasm import Action, HeaderMap, Plugin

        self._make, self._continue = HeaderMap, Action.CONTINUE
        self.plugin = Plugin(
            life.SEED.read_bytes(),
            root_id="add_header",
            config=life.Seed.configuration,
            limits=engines.proxy_limits(),
        )
        self.response_headers = math.inf

    def request(self) -> float:
        """Seconds of one request, its header maps included."""
        begin = timing.clock()
        with self.plugin.http_stream() as stream:
            request, response = self._make(HEADERS), self._make(ANSWER)
            stream.on_request_headers(request, True)
            before = timing.clock()
            action = stream.on_response_headers(response, False)
            self.response_headers = timing.clock() - before
        end = timing.clock()
        timing.check("the action", action, self._continue)
        timing.check("the header", response["hi"], life.Seed.configuration.decode())
        return end - begin


def _loads() -> dict[str, engines.Load]:
    return {"ours": engines.ours()} | {peer.name: peer.load for peer in engines.installed()}


def measure(rounds: int = 40, warm: int = WARM, slow: bool = True) -> list[Row]:
    """A row for each engine: microseconds of a request, of `proxy_on_response_headers` in it, and of one of
    the first hundred requests on average (None where there were fewer)."""
    slow_ones = {peer.name for peer in engines.PEERS if peer.slow}
    alive: dict[str, life.Seed | AbiSeed] = {
        name: life.Seed(load) for name, load in _loads().items() if slow or name not in slow_ones
    }
    alive["ours, abi"] = AbiSeed()
    headers = dict.fromkeys(alive, math.inf)

    def turn(name: str, count: int) -> float:
        least = math.inf
        for _ in range(count):
            least = min(least, alive[name].request())
            headers[name] = min(headers[name], alive[name].response_headers)
        return least

    early = {}
    for name in alive:
        times = [alive[name].request() for _ in range(WARM_SLOW if name in slow_ones else warm)]
        early[name] = sum(times[:EARLY]) / EARLY * 1e6 if len(times) >= EARLY else None
    turns: dict[str, Callable[[], float]] = {
        name: functools.partial(turn, name, TURN) for name in alive if name not in slow_ones
    }
    least = timing.best(turns, rounds)
    least |= {name: turn(name, 2) for name in alive if name in slow_ones}
    rows = [
        {
            "engine": name,
            "request_us": least[name] * 1e6,
            "response_headers_us": headers[name] * 1e6,
            "early_us": early[name],
        }
        for name in alive
    ]
    print(f"{'seed filter, us':20} {'request':>9} {'headers':>9} {'early':>9}")
    for row in rows:
        figures = (row["request_us"], row["response_headers_us"], row["early_us"] or math.nan)
        print(f"{row['engine']:20}", *(f"{figure:9.0f}" for figure in figures), flush=True)
    return rows


def cold(rounds: int = 8, slow: bool = True) -> list[Row]:
    """A row for each engine: milliseconds of loading, set-up, the first request, and all of it."""
    rows: list[Row] = []
    # pywasm3 leaves loading to the first use, and its adapter asks ours for the types: not comparable.
    loads = {name: load for name, load in _loads().items() if name != "pywasm3"}
    slow_ones = {peer.name for peer in engines.PEERS if peer.slow}
    phases = {name: {"load": math.inf, "setup": math.inf, "first": math.inf} for name in loads}

    def start(name: str) -> float:
        alive = life.Seed(loads[name])
        times = alive.times | {"first": alive.request()}
        for phase, seconds in times.items():
            phases[name][phase] = min(phases[name][phase], seconds)
        return sum(times.values())

    starts = {name: functools.partial(start, name) for name in loads}
    timing.best({"ours": starts["ours"]}, 1)  # not the imports
    least = timing.best({name: f for name, f in starts.items() if name not in slow_ones}, rounds)
    if slow:
        least |= timing.best({name: f for name, f in starts.items() if name in slow_ones}, 1)
    print(f"{'seed filter cold, ms':20} {'load':>9} {'set-up':>9} {'first':>9} {'total':>9}")
    for name, total in least.items():
        row = {"engine": name} | {f"{phase}_ms": s * 1e3 for phase, s in phases[name].items()}
        rows.append(row | {"total_ms": total * 1e3})
        figures = (rows[-1][f"{key}_ms"] for key in ("load", "setup", "first", "total"))
        print(f"{name:20}", *(f"{figure:9.1f}" for figure in figures), flush=True)
    return rows
