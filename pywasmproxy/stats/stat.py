"""`Stat`: one number, or histogram, with its Envoy name and with the name and labels Prometheus gets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pywasmproxy.stats.histogram import Histogram

Labels = tuple[tuple[str, str], ...]


class Kind(Enum):
    """What a number means. The value is Prometheus' word for it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram that another one has counted: samples not above each bound, all samples, their sum."""

    bounds: tuple[float, ...]
    cumulative: tuple[int, ...]
    count: int
    sum: float


@dataclass(frozen=True, slots=True)
class Stat:
    """One statistic. `short` is the name without what `labels` say; `value` is a histogram for that kind."""

    name: str
    kind: Kind
    value: int | Histogram | Buckets
    short: str
    labels: Labels = ()
    custom: bool = False
    """A guest's own: Prometheus gets its name without a prefix."""

    @property
    def used(self) -> bool:
        """Whether anything was ever counted."""
        return self.value != 0 if isinstance(self.value, int) else bool(self.value.count)


_RESPONSE_CODE = re.compile(r"^(.*_rq)_([1-9][0-9]{2})$")
_RESPONSE_CLASS = re.compile(r"^(.*_rq)_([1-9])xx$")


class Scope:
    """A place in the tree of names: `prefix` in Envoy's, `short` and `labels` for Prometheus."""

    def __init__(self, prefix: str, short: str | None = None, labels: Labels = ()) -> None:
        self.prefix, self.labels = prefix, labels
        self.short = prefix if short is None else short

    def inside(self, name: str, short: str = "", labels: Labels = ()) -> Scope:
        """A place further in. What is new in `labels` comes first, as Envoy writes it."""
        return Scope(f"{self.prefix}{name}.", f"{self.short}{short}", labels + self.labels)

    def stat(self, kind: Kind, name: str, value: int | Histogram) -> Stat:
        """A statistic of this place."""
        labels, short = self.labels, name
        if (found := _RESPONSE_CODE.match(name)) is not None:
            short, labels = found[1], (("envoy_response_code", found[2]), *labels)
        elif (found := _RESPONSE_CLASS.match(name)) is not None:
            short, labels = f"{found[1]}_xx", (("envoy_response_code_class", found[2]), *labels)
        return Stat(self.prefix + name, kind, value, self.short + short, labels)

    def counters(self, values: Iterable[tuple[str, int]]) -> list[Stat]:
        """Counters of this place."""
        return [self.stat(Kind.COUNTER, name, value) for name, value in values]

    def gauges(self, values: Iterable[tuple[str, int]]) -> list[Stat]:
        """Gauges of this place."""
        return [self.stat(Kind.GAUGE, name, value) for name, value in values]

    def histograms(self, values: Iterable[tuple[str, Histogram]]) -> list[Stat]:
        """Histograms of this place."""
        return [self.stat(Kind.HISTOGRAM, name, value) for name, value in values]

    def responses(self, stem: str, status: list[int], *, codes: bool) -> list[Stat]:
        """Responses by class (`codes`: and by status) and in all, as `stem_2xx`, `stem_200`, ..."""
        classes = [
            (f"{stem}_{first}xx", sum(status[100 * first : 100 * first + 100])) for first in range(1, 6)
        ]
        single = [(f"{stem}_{code}", count) for code, count in enumerate(status) if count] if codes else []
        if codes:
            classes = [one for one in classes if one[1]]
        return self.counters([*classes, *single, (f"{stem}_completed", sum(status))])


ROOT = Scope("")
