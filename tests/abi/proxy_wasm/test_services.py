"""What one process makes of a store: bounds, and a store that does not answer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest

from abi.proxy_wasm import services
from abi.proxy_wasm.services import Histogram, MetricIds, Services
from abi.proxy_wasm.store import Bounds, MemoryStore, Store, StoreError
from abi.proxy_wasm.types import MetricType, Status
from tests.abi.rig import BYTES, LONG, WORD, Rig

OK, FULL = Status.OK, Status.INTERNAL_FAILURE


class Anybody:
    """In the place of a plugin."""


LISTENER: Any = Anybody()


class Flaky(MemoryStore):
    """A store of other processes that goes away."""

    shared, name = True, "flaky"

    def __init__(self) -> None:
        super().__init__()
        self.fault: StoreError | None = None
        self.wait: Callable[[], None] = lambda: None
        self.asked = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in Store.__abstractmethods__:
            return found

        def asked(*args: Any) -> Any:
            self.asked += 1
            self.wait()
            if self.fault is not None:
                raise self.fault
            return found(*args)

        return asked


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(services, "time", made)
    return made


class Sharing:
    """Services over a flaky store, and a rig that uses them."""

    def __init__(self) -> None:
        self.store = Flaky()
        self.lines: list[str] = []
        self.services = Services(self.store, note=self.lines.append)
        hooks = {"proxy_on_configure": lambda rig: rig.ask("proxy_register_shared_queue", b"q", WORD)}
        self.rig = Rig(services=self.services, vm_id="V", hooks=hooks)
        for kind in range(3):
            self.rig.ask("proxy_define_metric", kind, b"m", WORD)


@pytest.fixture
def sharing(clock: Clock) -> Sharing:
    return Sharing()


def test_ids_of_metrics_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_METRIC_IDS", 1)
    shared, ids = Services(), MetricIds()
    metric = shared.metrics.define(MetricType.COUNTER, b"a")
    assert metric is not None
    assert shared.metrics.define(MetricType.COUNTER, b"a") is metric
    assert ids.add(metric) == 4
    assert ids.add(metric) is None


def test_full_stores_are_a_status() -> None:
    none = Bounds(shared_data=0, queued=0, queues=1, notifications=0, metrics=0)
    shared = Services(MemoryStore(none))
    assert shared.queues.register("", b"q", LISTENER) == 1
    assert shared.queues.register("", b"r", LISTENER) is FULL
    rig = Rig(services=shared)
    assert rig.ask("proxy_define_metric", 0, b"x", WORD) == (FULL, None)
    assert rig.ask("proxy_set_shared_data", b"k", b"v", 0) == FULL
    assert rig.ask("proxy_enqueue_shared_queue", 1, b"x") == FULL


def test_every_call_fails_with_a_status_while_the_store_is_away(sharing: Sharing) -> None:
    rig = sharing.rig
    sharing.store.fault = StoreError("gone")
    assert rig.ask("proxy_get_shared_data", b"k", BYTES, WORD) == (FULL, None, None)
    assert rig.ask("proxy_set_shared_data", b"k", b"v", 0) == FULL
    assert rig.ask("proxy_resolve_shared_queue", b"", b"q", WORD) == (FULL, None)
    assert rig.ask("proxy_enqueue_shared_queue", 1, b"x") == FULL
    assert rig.ask("proxy_dequeue_shared_queue", 1, BYTES) == (FULL, None)
    assert rig.ask("proxy_define_metric", 0, b"new", WORD) == (FULL, None)
    assert rig.ask("proxy_increment_metric", 5, 1) == FULL
    assert rig.ask("proxy_record_metric", 5, 1) == FULL
    assert rig.ask("proxy_get_metric", 5, LONG) == (FULL, None)
    sharing.services.poll()
    assert sharing.services.queues.deliver() == []
    assert not rig.plugin.failed


def test_nobody_waits_for_a_store_that_is_away(sharing: Sharing, clock: Clock) -> None:
    data = sharing.services.data
    sharing.store.fault = StoreError("connection refused")
    assert data.set("", b"k", b"v", 0) is FULL
    asked = sharing.store.asked
    assert [data.set("", b"k", b"v", 0) for _ in range(9)] == [FULL] * 9
    assert sharing.store.asked == asked
    clock.now += services.AWAY
    assert data.set("", b"k", b"v", 0) is FULL
    assert sharing.store.asked == asked + 1
    assert sharing.lines == [
        "store flaky: connection refused; shared data, queues and metrics fail until it answers"
    ]
    clock.now += services.AWAY
    sharing.store.fault = None
    assert data.set("", b"k", b"v", 0) is OK
    assert sharing.lines[1:] == ["store flaky: answers again"]


def test_a_store_that_takes_long_to_fail_is_asked_less_and_less(sharing: Sharing, clock: Clock) -> None:
    data, store = sharing.services.data, sharing.store
    store.fault = StoreError("timed out")
    pauses = []
    for takes in (*[0.25] * 6, 0.001, 0.25):
        store.wait = lambda seconds=takes: clock.sleep(seconds)  # type: ignore[misc]
        assert data.get("", b"k") is FULL
        begin, asked = clock.now, store.asked
        store.wait = lambda: None
        while store.asked == asked:
            clock.sleep(0.25)
            if clock.now - begin >= sharing.services._link._pause:
                break
            assert data.get("", b"k") is FULL
        pauses.append(clock.now - begin)
    assert pauses == [1, 2, 4, 8, 8, 8, 1, 2]


def test_a_full_disk_is_no_reason_not_to_ask(sharing: Sharing, clock: Clock) -> None:
    data = sharing.services.data
    sharing.store.fault = StoreError("disk is full", away=False)
    assert [data.set("", b"k", b"v", 0) for _ in range(3)] == [FULL] * 3
    sharing.store.fault = None
    assert data.set("", b"k", b"v", 0) is OK
    assert sharing.lines == ["store flaky: disk is full; refused"]


def test_what_is_counted_while_the_store_is_away_is_told_later(sharing: Sharing, clock: Clock) -> None:
    rig = sharing.rig
    rig.ask("proxy_increment_metric", 4, 2)
    sharing.store.fault = StoreError("gone")
    sharing.services.poll()
    assert rig.ask("proxy_increment_metric", 4, 3) == OK
    assert rig.ask("proxy_record_metric", 6, 7) == OK
    seen = {metric.kind: metric for metric in sharing.services.metrics}  # what this process knows by itself
    assert seen[MetricType.COUNTER].value == 5
    sharing.store.fault = None
    clock.now += services.AWAY
    sharing.services.poll()
    assert rig.ask("proxy_get_metric", 4, LONG) == (OK, 5)
    histogram = rig.plugin.metrics["m"]
    assert sharing.store.value(MetricType.HISTOGRAM, b"m") == 7
    assert isinstance(histogram, Histogram)
    assert (histogram.count, histogram.sum) == (1, 7)


def test_counters_are_told_together_and_gauges_at_once(sharing: Sharing) -> None:
    rig = sharing.rig
    asked = sharing.store.asked
    for _ in range(10):
        rig.ask("proxy_increment_metric", 4, 1)
    assert sharing.store.asked == asked
    rig.ask("proxy_increment_metric", 5, 1)
    assert sharing.store.asked == asked + 1
    assert sharing.store.value(MetricType.COUNTER, b"m") == 0
    sharing.services.poll()
    assert sharing.store.value(MetricType.COUNTER, b"m") == 10


def test_listeners_are_told_again_when_the_store_is_back(sharing: Sharing, clock: Clock) -> None:
    rig = sharing.rig
    rig.ask("proxy_enqueue_shared_queue", 1, b"x")
    sharing.services.queues.deliver()
    assert rig.called.count("proxy_on_queue_ready") == 1
    sharing.store.fault = StoreError("gone")
    assert sharing.services.queues.deliver() == []
    sharing.store.fault = None
    clock.now += services.AWAY
    sharing.services.poll()
    sharing.services.queues.deliver()
    assert sharing.services.queues.pending
    assert sharing.services.queues.deliver() == [rig.plugin]
    assert rig.called.count("proxy_on_queue_ready") == 2


def test_plugins_that_have_gone_are_not_kept_for_their_queues() -> None:
    shared = Services()
    listener: Any = Anybody()
    assert shared.queues.register("", b"q", listener) == 1
    gone = weakref.ref(listener)
    del listener
    assert gone() is None
    assert not shared.queues.listening
    assert shared.queues.enqueue(1, b"x") is OK
    assert shared.queues.deliver() == []
    assert shared.queues.dequeue(1) == b"x"


def test_a_store_that_forgot_has_its_queues_again(sharing: Sharing, clock: Clock) -> None:
    sharing.store.fault = StoreError("gone")
    sharing.services.queues.deliver()
    sharing.store._tokens.clear()
    sharing.store._queues.clear()
    sharing.store.fault = None
    clock.now += services.AWAY
    sharing.services.queues.deliver()
    assert sharing.rig.ask("proxy_enqueue_shared_queue", 1, b"x") == OK
    assert sharing.services.queues.deliver() == [sharing.rig.plugin]
