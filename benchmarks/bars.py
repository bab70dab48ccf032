"""What must hold, in one table: a figure of a run, how large it may be, and whether it is.

A figure is ours over a peer's from the same run, or ours over ours; smaller is better. Those with `ci` are
checked in CI, against that looser number, since its machines are noisy; the rest is for a quiet machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import geomean

#: The results of one run, as `run.py` writes them.
Run = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """A row of the table. `figure` raises LookupError or ValueError where the run did not measure it."""

    name: str
    figure: Callable[[Run], float]
    bar: float
    ci: float | None = None


def _where(rows: Iterable[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    for row in rows:
        if all(row.get(key) == value for key, value in wanted.items()):
            return row
    raise LookupError(wanted)


def _kernels(
    tier: str, ours: str, other: str, join: Callable[[list[float]], float] = geomean
) -> Callable[[Run], float]:
    return lambda run: join([row[ours] / row[other] for row in run["tiers"][tier]])


def _engines(part: str, figure: str, ours: str = "ours", other: str = "pwasm") -> Callable[[Run], float]:
    return lambda run: float(_where(run[part], engine=ours)[figure] / _where(run[part], engine=other)[figure])


def _starts(filter_: str, ours: str, other: str, figure: str = "total") -> Callable[[Run], float]:
    return lambda run: float(
        _where(run["starts"], filter=filter_, start=ours)[figure]
        / _where(run["starts"], filter=filter_, start=other)[figure]
    )


def _first(filter_: str, start: str) -> Callable[[Run], float]:
    def figure(run: Run) -> float:
        row = _where(run["starts"], filter=filter_, start=start)
        return float(row["first"] / row["steady"])

    return figure


def _python(minor: str) -> Callable[[Run], float]:
    def figure(run: Run) -> float:
        rows = run["pythons"]
        base, other = (
            next((version for version in rows[0] if version.startswith(prefix)), "")
            for prefix in ("3.11.", minor)
        )
        return geomean(row[other] / row[base] for row in rows)

    return figure


def _one_worker_to_two(run: Run) -> float:
    one, two = (_where(run["workers"], workers=count)["per_second"] for count in (1, 2))
    return float(one / two)


def _request(ours: str, other: str = "") -> Callable[[Run], float]:
    """Microseconds of CPU of a request through a proxy, or how many times those of another one."""

    def figure(run: Run) -> float:
        mine = float(_where(run["proxy"], proxy=ours)["request_us"])
        return mine / float(_where(run["proxy"], proxy=other)["request_us"]) if other else mine

    return figure


def _longest(run: Run) -> float:
    return max(row["ratio"] for row in run["longrun"] if row["engine"] == "ours")


BARS = (
    Bar("interpreter, geomean : pwasm's", _kernels("interpreted", "ours", "pwasm"), 1.25, ci=1.25),
    Bar("translated code, geomean : pwasm's", _kernels("translated", "ours", "pwasm"), 0.667, ci=0.667),
    Bar("translated code, slowest kernel : pwasm's", _kernels("translated", "ours", "pwasm", max), 1.0),
    Bar("fuel on : off, geomean", _kernels("translated", "fuel", "limited"), 1.15),
    Bar("limits of the proxy : none, geomean", _kernels("translated", "limited", "unlimited"), 1.03),
    Bar(
        "limits of the proxy : none, worst kernel", _kernels("translated", "limited", "unlimited", max), 1.10
    ),
    Bar("seed filter, request : pwasm's", _engines("seed", "request_us"), 0.65),
    Bar("seed filter, response_headers : pwasm's", _engines("seed", "response_headers_us"), 0.65),
    Bar("seed filter, cold and validated : pwasm's", _engines("seed_cold", "total_ms"), 0.80),
    Bar("host call : pwasm's", _engines("boundary", "host call"), 0.40),
    Bar("call of an export : pwasm's", _engines("boundary", "export"), 0.55),
    Bar("set-header, cold : pwasm's", _starts("set-header", "ours", "pwasm"), 0.60),
    Bar("set-header, warm : pwasm's", _starts("set-header", "ours, warm", "pwasm, warm"), 0.45),
    Bar(
        "set-header, snapshot and warm : pwasm's, warm",
        _starts("set-header", "ours, snapshot, warm", "pwasm, warm"),
        0.45,
    ),
    Bar("ai-proxy, cold : pwasm's", _starts("ai-proxy", "ours", "pwasm"), 0.60),
    Bar("ai-proxy, warm : pwasm's", _starts("ai-proxy", "ours, warm", "pwasm, warm"), 0.45),
    Bar("seed filter, first request : steady, cold", _first("seed", "ours"), 20.0),
    Bar("seed filter, first request : steady, warm", _first("seed", "ours, warm"), 3.0),
    Bar("set-header, first request : steady, cold", _first("set-header", "ours"), 20.0),
    Bar("set-header, first request : steady, warm", _first("set-header", "ours, warm"), 3.0),
    Bar("long first call : later one, worst", _longest, 1.3),
    Bar("proxy without filters, us of CPU, h11", _request("ours, h11"), 400),
    Bar("proxy without filters, us of CPU, httptools", _request("ours, httptools"), 150),
    Bar("proxy without filters, httptools : aiohttp", _request("ours, httptools", "aiohttp"), 1.0),
    Bar("throughput, one worker : two", _one_worker_to_two, 1 / 1.7),
    Bar("Python 3.12 : 3.11, geomean", _python("3.12."), 1.3),
    Bar("Python 3.13 : 3.11, geomean", _python("3.13."), 1.3),
)


def judge(run: Run, ci: bool = False) -> list[dict[str, Any]]:
    """The table for what the run measured: name, figure, bar, met."""
    verdicts = []
    for bar in BARS:
        limit = bar.ci if ci else bar.bar
        if limit is None:
            continue
        try:
            figure = bar.figure(run)
        except (LookupError, ValueError):
            continue  # not measured: a part that was left out, an engine that is not installed
        verdicts.append({"name": bar.name, "figure": figure, "bar": limit, "met": figure <= limit})
    return verdicts
