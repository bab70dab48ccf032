"""Histograms: what is counted, and what can be said about it afterwards."""

from __future__ import annotations

import pytest

from pywasmproxy.stats.histogram import BOUNDS, Histogram


def of(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def test_count_and_sum() -> None:
    histogram = of(0, 1, 99, 100, 12345, -5, 10**12)
    assert histogram.count == 7
    assert histogram.sum == 0 + 1 + 99 + 100 + 12345 + 0 + (10**10 - 1)


@pytest.mark.parametrize("value", [0, 1, 5, 9, 10, 42, 99, 100, 101, 999, 1000, 1234, 98765, 10**9])
def test_every_value_is_found_again_with_two_digits(value: int) -> None:
    histogram = of(value)
    low, high = histogram.quantile(0), histogram.quantile(100)
    assert low <= value <= high
    assert high - low <= max(value / 10, 1)


def test_quantiles_go_up_and_split_the_samples() -> None:
    histogram = of(*range(1, 1001))
    assert histogram.quantile(50) == pytest.approx(500, rel=0.03)
    assert histogram.quantile(99) == pytest.approx(990, rel=0.03)
    found = [histogram.quantile(percent) for percent in range(0, 101, 5)]
    assert found == sorted(found)


def test_cumulative_counts_what_is_not_above_each_bound() -> None:
    values = [0, 1, 1, 5, 6, 250, 10**7]
    expected = [sum(value <= bound for value in values) for bound in BOUNDS]
    assert of(*values).cumulative() == expected


def test_nothing_recorded() -> None:
    assert Histogram().quantile(50) == 0
    assert Histogram().cumulative() == [0] * len(BOUNDS)
