"""Bounds of what VMs share."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm import services
from abi.proxy_wasm.services import MetricIds, Metrics, Services, SharedData, SharedQueues
from abi.proxy_wasm.types import MetricType, Status

OK, FULL = Status.OK, Status.INTERNAL_FAILURE


def test_shared_data_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_SHARED_DATA", 1000)
    data = SharedData()
    room = 1000 - services.ENTRY_COST - 1
    assert data.set("", b"k", bytes(room + 1), 0) is FULL
    assert data.get("", b"k") is None
    assert data.set("", b"k", bytes(room), 0) is OK
    assert data.set("", b"k", bytes(room), 0) is OK  # replacing takes no more
    assert data.set("", b"l", b"", 0) is FULL
    assert data.set("", b"k", b"", 0) is OK
    assert data.set("", b"l", b"", 0) is OK


def test_the_write_counter_leaves_out_zero() -> None:
    data = SharedData()
    data._last = 0xFFFFFFFF
    data.set("", b"k", b"v", 0)
    assert data.get("", b"k") == (b"v", 1)


LISTENER: Any = object()


def test_queues_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_QUEUES", 1)
    monkeypatch.setattr(services, "MAX_QUEUED", 2 * services.ENTRY_COST)
    queues = SharedQueues()
    assert queues.register("", b"a", LISTENER) == 1
    assert queues.register("", b"b", LISTENER) is None
    assert queues.register("", b"a", LISTENER) == 1
    assert [queues.enqueue(1, b"") for _ in range(3)] == [OK, OK, FULL]
    assert queues.dequeue(1) == b""
    assert queues.enqueue(1, b"") is OK
    assert queues.enqueue(1, b"x") is FULL


def test_notifications_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_NOTIFICATIONS", 2)
    queues = SharedQueues()
    queues.register("", b"a", LISTENER)
    for answer in (OK, OK, FULL):
        assert queues.enqueue(1, b"") is answer
        queues.dequeue(1)


def test_metrics_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_METRICS", 1)
    metrics, ids = Metrics(), MetricIds()
    metric = metrics.define(MetricType.COUNTER, b"a")
    assert metric is not None
    assert metrics.define(MetricType.COUNTER, b"b") is None
    assert metrics.define(MetricType.COUNTER, b"a") is metric
    assert ids.add(metric) == 4
    assert ids.add(metric) is None


def test_full_metrics_are_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.abi.rig import WORD, Rig

    monkeypatch.setattr(services, "MAX_METRICS", 0)
    assert Rig(services=Services()).ask("proxy_define_metric", 0, b"x", WORD) == (FULL, None)
