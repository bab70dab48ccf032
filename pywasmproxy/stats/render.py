"""Statistics written down as Envoy's admin does: lines of text, JSON, and Prometheus' text format.

Sources: Envoy 1.40 (measured); Prometheus' text-based format, version 0.0.4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pywasmproxy.stats.histogram import BOUNDS, QUANTILES, Histogram
from pywasmproxy.stats.stat import Buckets, Kind, Stat


class BadFilter(ValueError):
    """A filter that is no regular expression."""


def select(
    stats: Iterable[Stat],
    *,
    used_only: bool = False,
    pattern: str = "",
    inverted: bool = False,
    kinds: frozenset[Kind] = frozenset(Kind),
) -> list[Stat]:
    """Those that are asked for. `pattern` is found anywhere in a name. BadFilter."""
    try:
        expression = re.compile(pattern) if pattern else None
    except (re.error, RecursionError, OverflowError) as error:
        raise BadFilter(f"Invalid regex: {error}: {pattern}") from None
    return [
        stat
        for stat in stats
        if (stat.used or not used_only)
        and stat.kind in kinds
        and (expression is None or bool(expression.search(stat.name)) is not inverted)
    ]


def _number(value: float) -> str:
    """A number as short as it can be written."""
    return str(int(value)) if value == int(value) else repr(round(value, 6))


def _bounds(value: Histogram | Buckets) -> tuple[Sequence[float], Sequence[int]]:
    if isinstance(value, Buckets):
        return value.bounds, value.cumulative
    return BOUNDS, value.cumulative()


def _quantile(value: Histogram | Buckets, percent: float) -> float:
    """Of what is only known by its bounds: the bound of the bucket that the quantile is in."""
    if isinstance(value, Histogram):
        return value.quantile(percent)
    rank = value.count * percent / 100
    pairs = zip(value.bounds, value.cumulative, strict=True)
    return next((bound for bound, count in pairs if count and count >= rank), value.bounds[-1])


def text(stats: Iterable[Stat], *, cumulative: bool = False) -> str:
    """`name: value` lines, sorted; histograms after the others. Of Envoy's two numbers, of the last interval
    and of all times, the first is `nan`: there are no intervals here."""
    plain, histograms = [], []
    for stat in sorted(stats, key=lambda stat: stat.name):
        value = stat.value
        if isinstance(value, int):
            plain.append(f"{stat.name}: {value}\n")
        elif not value.count:
            histograms.append(f"{stat.name}: No recorded values\n")
        elif cumulative:
            parts = (f"B{bound:g}({count},{count})" for bound, count in zip(*_bounds(value), strict=True))
            histograms.append(f"{stat.name}: {' '.join(parts)}\n")
        else:
            parts = (f"P{percent}(nan,{_number(_quantile(value, percent))})" for percent in QUANTILES)
            histograms.append(f"{stat.name}: {' '.join(parts)}\n")
    return "".join(plain + histograms)


def as_json(stats: Iterable[Stat]) -> str:
    """Envoy's JSON: numbers one by one, and one entry for all histograms."""
    entries: list[Any] = []
    computed = []
    for stat in sorted(stats, key=lambda stat: stat.name):
        value = stat.value
        if isinstance(value, int):
            entries.append({"name": stat.name, "value": value})
            continue
        quantiles = [_quantile(value, percent) if value.count else None for percent in QUANTILES]
        values = [{"cumulative": quantile, "interval": None} for quantile in quantiles]
        computed.append({"name": stat.name, "values": values})
    if computed:
        entries.append(
            {"histograms": {"supported_quantiles": list(QUANTILES), "computed_quantiles": computed}}
        )
    return json.dumps({"stats": entries}, separators=(",", ":"))


_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")


def prometheus_name(stat: Stat) -> str:
    """`envoy_` and the name with underscores; a guest's own name stays its own."""
    name = _NOT_IN_NAMES.sub("_", stat.short)
    if not stat.custom:
        return f"envoy_{name}"
    return f"_{name}" if not name or name[0].isdigit() else name


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def prometheus(stats: Iterable[Stat]) -> str:
    """Prometheus' text format: every name once with its type, then its numbers."""
    families: dict[tuple[int, str], list[Stat]] = {}
    order = {kind: index for index, kind in enumerate(Kind)}
    taken: dict[str, Kind] = {}
    for stat in stats:
        name = prometheus_name(stat)
        if taken.setdefault(name, stat.kind) is stat.kind:  # a name has one type: the first one has it
            families.setdefault((order[stat.kind], name), []).append(stat)
    lines: list[str] = []
    for (_, name), members in sorted(families.items()):
        lines.append(f"# TYPE {name} {members[0].kind.value}")
        seen: set[object] = set()
        for stat in sorted(members, key=lambda stat: stat.name):
            if stat.labels in seen:  # names that differ in dots only
                continue
            seen.add(stat.labels)
            labels = ",".join(
                f'{_NOT_IN_NAMES.sub("_", key)}="{_escaped(value)}"' for key, value in stat.labels
            )
            lines += _samples(name, labels, stat.value)
    return "".join(f"{line}\n" for line in lines)


def _samples(name: str, labels: str, value: int | Histogram | Buckets) -> list[str]:
    if isinstance(value, int):
        return [f"{name}{{{labels}}} {value}"]
    comma = "," if labels else ""
    lines = [
        f'{name}_bucket{{{labels}{comma}le="{_number(bound)}"}} {count}'
        for bound, count in zip(*_bounds(value), strict=True)
    ]
    return [
        *lines,
        f'{name}_bucket{{{labels}{comma}le="+Inf"}} {value.count}',
        f"{name}_sum{{{labels}}} {_number(value.sum)}",
        f"{name}_count{{{labels}}} {value.count}",
    ]
