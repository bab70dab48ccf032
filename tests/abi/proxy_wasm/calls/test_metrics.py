"""Metrics: ids, arithmetic per kind, sharing by name."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.services import Histogram, Services
from abi.proxy_wasm.types import Status
from tests.abi.rig import LONG, WORD, Rig

OK, MISSING, BAD = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT
DEFINE, INCREMENT = "proxy_define_metric", "proxy_increment_metric"
RECORD, GET = "proxy_record_metric", "proxy_get_metric"
COUNTER, GAUGE, HISTOGRAM = 4, 5, 6


def u64(value: int) -> int:
    return value & 0xFFFFFFFFFFFFFFFF


@pytest.fixture
def rig() -> Rig:
    """A rig that knows one metric of each kind."""
    made = Rig()
    assert [made.ask(DEFINE, kind, b"m", WORD) for kind in range(3)] == [(OK, 4), (OK, 5), (OK, 6)]
    return made


def test_ids_have_the_kind_in_two_bits(rig: Rig) -> None:
    assert rig.ask(DEFINE, 0, b"second", WORD) == (OK, 8)
    assert rig.ask(DEFINE, 1, b"second", WORD) == (OK, 9)
    assert rig.ask(DEFINE, 0, b"", WORD) == (OK, 12)
    for kind in (3, 0xFFFFFFFF):
        assert rig.ask(DEFINE, kind, b"x", WORD) == (BAD, None)


def test_the_same_name_is_the_same_metric_under_another_id(rig: Rig) -> None:
    assert rig.ask(DEFINE, 0, b"m", WORD) == (OK, 8)
    rig.ask(INCREMENT, 8, 3)
    assert rig.ask(GET, COUNTER, LONG) == (OK, 3)


def test_counters(rig: Rig) -> None:
    assert rig.ask(INCREMENT, COUNTER, 3) == OK
    assert rig.ask(RECORD, COUNTER, 4) == OK
    assert rig.ask(INCREMENT, COUNTER, 0) == BAD
    assert rig.ask(INCREMENT, COUNTER, u64(-1)) == BAD
    assert rig.ask(GET, COUNTER, LONG) == (OK, 7)


def test_gauges(rig: Rig) -> None:
    assert rig.ask(INCREMENT, GAUGE, 3) == OK
    assert rig.ask(INCREMENT, GAUGE, u64(-5)) == OK
    assert rig.ask(GET, GAUGE, LONG) == (OK, 18446744073709551614)
    assert rig.ask(INCREMENT, GAUGE, 0) == OK
    assert rig.ask(RECORD, GAUGE, 9) == OK
    assert rig.ask(GET, GAUGE, LONG) == (OK, 9)


def test_histograms(rig: Rig) -> None:
    assert rig.ask(INCREMENT, HISTOGRAM, 1) == BAD
    assert rig.ask(GET, HISTOGRAM, LONG) == (BAD, None)
    for value in (0, 1, 7, 4_000_000):
        assert rig.ask(RECORD, HISTOGRAM, value) == OK
    histogram = next(m for m in rig.vm.services.metrics if m.kind == 2).histogram
    assert (histogram.count, histogram.sum) == (4, 4_000_008)
    assert {n: count for n, count in enumerate(histogram.buckets) if count} == {0: 1, 1: 1, 3: 1, 19: 1}


@pytest.mark.parametrize(
    ("number", "status"), [(0, MISSING), (8, MISSING), (9, MISSING), (10, BAD), (99, BAD), (0xFFFFFFFF, BAD)]
)
def test_unknown_ids(rig: Rig, number: int, status: Status) -> None:
    assert rig.ask(INCREMENT, number, 1) == status
    assert rig.ask(RECORD, number, 1) == MISSING
    assert rig.ask(GET, number, LONG) == (status, None)


def test_all_vms_share_metrics_but_not_ids() -> None:
    services = Services()
    one, two = Rig(services=services, vm_id="a"), Rig(services=services, vm_id="b")
    one.ask(DEFINE, 0, b"first", WORD)
    assert one.ask(DEFINE, 0, b"m", WORD) == (OK, 8)
    assert two.ask(DEFINE, 0, b"m", WORD) == (OK, 4)
    one.ask(INCREMENT, 8, 2)
    two.ask(INCREMENT, 4, 3)
    assert one.ask(GET, 8, LONG) == (OK, 5)


def test_what_a_plugin_shows(rig: Rig) -> None:
    rig.ask(DEFINE, 1, b"temperature", WORD)
    rig.ask(RECORD, 9, 21)
    rig.ask(RECORD, HISTOGRAM, 2)
    shown = rig.plugin.metrics
    assert shown["temperature"] == 21
    assert isinstance(shown["m"], Histogram)
    assert shown["m"].count == 1
