"""`Histogram`: how often which duration came up. Recording is an addition; quantiles are made on demand.

Buckets are those of Envoy's histograms: two significant digits, whole numbers here.
"""

from __future__ import annotations

from collections.abc import Iterator

QUANTILES = (0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100)
"""Per cent, as Envoy shows them."""

BOUNDS = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000),
    *(30000, 60000, 300000, 600000, 1800000, 3600000),
)
"""Upper bounds of the buckets that are shown: Envoy's default ones."""

_DECADES = 8  # above 100: up to 10^10
_LAST = 10**10 - 1


class Histogram:
    """Samples of whole numbers, zero and above: mostly milliseconds."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (100 + 90 * _DECADES)
        self.sum = 0

    def record(self, value: int) -> None:
        """Count a sample. What is below zero is zero, what is too large is the largest."""
        if 0 <= value < 100:
            self.buckets[value] += 1
            self.sum += value
            return
        value = min(max(value, 0), _LAST)
        self.sum += value
        first = 0
        while value >= 100:
            value //= 10
            first += 90
        self.buckets[first + value] += 1

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(self.buckets)

    def _filled(self) -> Iterator[tuple[float, float, int]]:
        """Lower end, width and number of samples of each bucket that has any."""
        for index, count in enumerate(self.buckets):
            if count:
                decade, digits = divmod(max(index - 10, 0), 90)
                if index < 10:
                    yield index, 0.1 if index else 0, count
                else:
                    yield (digits + 10) * 10**decade, 10**decade, count

    def quantile(self, percent: float) -> float:
        """The value below which so many per cent of the samples are; 0 without any."""
        rank, before, value = self.count * percent / 100, 0, 0.0
        for low, width, count in self._filled():
            value = low + width * min(max((rank - before) / count, 0), 1)
            before += count
            if before >= rank:
                break
        return value

    def cumulative(self) -> list[int]:
        """For each of `BOUNDS`, how many samples are not above it."""
        filled = list(self._filled())
        return [sum(count for low, _, count in filled if low <= bound) for bound in BOUNDS]
