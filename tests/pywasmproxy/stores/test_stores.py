"""One behaviour of all stores: in memory, in a file, in a Redis. Two `Services` stand for two processes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abi.proxy_wasm.services import BUCKETS, Services
from abi.proxy_wasm.store import ENTRY_COST, Bounds, Store
from abi.proxy_wasm.types import MetricType, Status
from pywasmproxy.stores import redis, sqlite
from tests.pywasmproxy.stores.conftest import Make, shared_stores

ROOT = Path(__file__).resolve().parents[3]
OK, MISSING, MISMATCH = Status.OK, Status.NOT_FOUND, Status.CAS_MISMATCH
EMPTY, FULL = Status.EMPTY, Status.INTERNAL_FAILURE
COUNTER, GAUGE, HISTOGRAM = MetricType
BIG = bytes(range(256)) * (1 << 14)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that a busy machine keeps waiting are still there; those that are not: `test_faults.py`."""
    for module in (redis, sqlite):
        monkeypatch.setattr(module, "PATIENCE", 20.0)


@pytest.fixture
def pair(make: Make) -> tuple[Services, Services]:
    return Services(make()), Services(make())


@pytest.fixture
def store(make: Make) -> Store:
    return make()


class Listener:
    """A plugin that takes everything out of a queue when it is told of it, one item each time."""

    failed = closed = False

    def __init__(
        self,
        services: Services,
        name: bytes = b"q",
        vm_id: str = "V",
        then: Callable[[int], object] | None = None,
    ) -> None:
        self.services, self.told = services, 0
        self.then = then if then is not None else self.take
        self.items: list[bytes | Status] = []
        plugin: Any = self
        token = services.queues.register(vm_id, name, plugin)
        assert not isinstance(token, Status)
        self.token = token

    def queue_ready(self, token: int) -> None:
        assert token == self.token
        self.told += 1
        self.then(token)

    def take(self, token: int) -> None:
        self.items.append(self.services.queues.dequeue(token))

    def deliver(self) -> int:
        """How often it is told."""
        before = self.told
        self.services.poll()
        self.services.queues.deliver()
        return self.told - before


# --- shared data --------------------------------------------------------------------------------------------


def test_what_one_stores_the_other_sees_at_once(pair: tuple[Services, Services]) -> None:
    one, two = (services.data for services in pair)
    assert two.get("V", b"k") is MISSING
    assert one.set("V", b"k", b"v", 0) is OK
    assert two.get("V", b"k") == (b"v", 1)
    assert two.get("W", b"k") is MISSING
    assert two.get("", b"Vk") is MISSING


def test_compare_and_swap_as_recorded(pair: tuple[Services, Services]) -> None:
    one, two = (services.data for services in pair)
    one.set("V", b"k", b"v1", 0)
    assert two.set("V", b"k", b"v2", 1) is OK
    assert one.set("V", b"k", b"v3", 1) is MISMATCH
    assert one.get("V", b"k") == (b"v2", 2)
    assert one.set("V", b"k", b"v4", 0) is OK
    assert one.set("V", b"new", b"n", 77) is OK
    # One counter for all keys and scopes; a write that was refused has no number.
    assert two.set("W", b"", b"x", 0) is OK
    assert [one.get("V", b"k"), one.get("V", b"new"), one.get("W", b"")] == [(b"v4", 3), (b"n", 4), (b"x", 5)]


@pytest.mark.parametrize("value", [b"", b"\0\xff\n", BIG], ids=["empty", "binary", "4 MB"])
def test_any_value_under_any_key(pair: tuple[Services, Services], value: bytes) -> None:
    one, two = (services.data for services in pair)
    for vm_id, key in (("\udc80\ud800ä", b"\0\xff"), ("1:", b""), ("", b"1:")):
        assert one.set(vm_id, key, value, 0) is OK
        found = two.get(vm_id, key)
        assert not isinstance(found, Status)
        assert found[0] == value


def test_shared_data_is_bounded(make: Make) -> None:
    store = make(Bounds(shared_data=1000))
    room = 1000 - ENTRY_COST - 1
    assert store.set(b"", b"k", bytes(room + 1), 0) is FULL
    assert store.get(b"", b"k") is None
    assert store.set(b"", b"k", bytes(room), 0) is OK
    assert store.set(b"", b"k", bytes(room), 0) is OK  # replacing takes no more
    assert store.set(b"", b"k", bytes(room), 2) is OK
    assert store.set(b"", b"l", b"", 0) is FULL
    assert store.set(b"", b"l", b"", 5) is FULL
    assert store.set(b"", b"k", b"", 0) is OK
    assert store.set(b"", b"l", b"", 0) is OK
    assert store.get(b"", b"l") == (b"", 5)


# --- queues -------------------------------------------------------------------------------------------------


def test_tokens(pair: tuple[Services, Services]) -> None:
    one, two = pair
    tokens = [Listener(one, name).token for name in (b"q1", b"q1", b"q2")]
    assert tokens == [1, 1, 2]
    assert Listener(two, b"q2").token == 2
    assert Listener(two, b"q1", "W").token == 3
    assert two.queues.resolve("V", b"q1") == 1
    assert [two.queues.resolve(*place) for place in (("V", b"none"), ("X", b"q1"))] == [MISSING, MISSING]
    for unknown in (0, 4, 0xFFFFFFFF):
        assert one.queues.enqueue(unknown, b"x") is MISSING
        assert one.queues.dequeue(unknown) is MISSING


def test_items_come_out_in_order_and_once(pair: tuple[Services, Services]) -> None:
    one, two = pair
    Listener(one)
    for item in (b"a", b"", BIG, b"d"):
        assert two.queues.enqueue(1, item) is OK
    taken = [services.queues.dequeue(1) for services in (one, two, two, one, two)]
    assert taken == [b"a", b"", BIG, b"d", EMPTY]


def test_the_process_that_registered_last_is_told_of_each_item(pair: tuple[Services, Services]) -> None:
    one, two = pair
    first, last = Listener(one), Listener(two)
    for item in (b"a", b"b"):
        one.queues.enqueue(1, item)
    if one.store.shared:
        assert first.deliver() == 0
    assert last.deliver() == 2
    assert last.items == [b"a", b"b"]
    assert last.deliver() == first.deliver() == 0


def test_queues_are_told_of_in_order(pair: tuple[Services, Services]) -> None:
    one, two = pair
    told: list[int] = []
    listeners = [Listener(one, name, then=told.append) for name in (b"q1", b"q2")]
    assert [listener.token for listener in listeners] == [1, 2]
    for token in (1, 2, 2, 1):
        two.queues.enqueue(token, b"x")
    one.poll()
    one.queues.deliver()
    assert told == [1, 2, 2, 1]


def test_items_put_in_while_told_wait_for_the_next_time(pair: tuple[Services, Services]) -> None:
    one, _ = pair
    listener = Listener(one, then=lambda token: one.queues.enqueue(token, b"again"))
    one.queues.enqueue(1, b"x")
    one.queues.deliver()
    assert listener.told == 1
    assert one.queues.pending
    assert one.queues.dequeue(1) == b"x"
    assert one.queues.dequeue(1) == b"again"
    assert one.queues.dequeue(1) is EMPTY


def test_who_takes_over_is_told_of_all_that_waits(store: Store) -> None:
    """The former listener may have died with notifications, or between one and taking its item out."""
    token = store.register(b"V", b"q", "dead")
    assert token == 1
    for item in (b"a", b"b", b"c"):
        assert store.enqueue(token, item) is OK
    assert store.notifications("dead") == [1, 1, 1]
    assert store.enqueue(token, b"d") is OK
    assert store.register(b"V", b"q", "dead") == 1  # it is the same one: nothing new
    assert store.dequeue(token) == b"a"
    assert store.register(b"V", b"q", "heir") == 1
    assert store.notifications("dead") == []
    assert store.notifications("heir") == [1, 1, 1]
    assert store.notifications("heir") == []


def test_restoring(store: Store) -> None:
    assert store.register(b"V", b"q", "one") == 1
    store.enqueue(1, b"a")
    store.restore(b"V", b"q", "other", 1)  # it is another's by now
    assert store.notifications("other") == []
    assert store.notifications("one") == [1]
    store.restore(b"V", b"q", "one", 1)
    assert store.notifications("one") == [1]
    store.restore(b"V", b"new", "one", 1)  # the token is taken
    assert store.resolve(b"V", b"new") is None
    store.restore(b"V", b"new", "one", 7)
    assert store.resolve(b"V", b"new") == 7
    assert store.enqueue(7, b"x") is OK
    assert store.notifications("one") == [7]


def test_queues_are_bounded(make: Make) -> None:
    store = make(Bounds(queues=1, queued=2 * ENTRY_COST))
    assert store.register(b"", b"a", "x") == 1
    assert store.register(b"", b"b", "x") is None
    assert store.register(b"", b"a", "x") == 1
    assert [store.enqueue(1, b"") for _ in range(3)] == [OK, OK, FULL]
    assert store.dequeue(1) == b""
    assert store.enqueue(1, b"") is OK
    assert store.dequeue(1) == b""
    assert store.enqueue(1, b"x") is FULL


def test_notifications_are_bounded(make: Make) -> None:
    store = make(Bounds(notifications=2))
    store.register(b"", b"a", "x")
    for answer in (OK, OK, FULL):
        assert store.enqueue(1, b"") is answer
        store.dequeue(1)
    assert store.notifications("x") == [1, 1]
    assert store.enqueue(1, b"") is OK


# --- metrics ------------------------------------------------------------------------------------------------


def defined(services: Services) -> list[Any]:
    return [services.metrics.define(kind, b"m") for kind in MetricType]


def test_all_three_kinds_are_those_of_all_processes(pair: tuple[Services, Services]) -> None:
    one, two = pair
    mine, theirs = defined(one), defined(two)
    for counter, gauge, histogram in (mine, theirs):
        assert counter.increment(3) is OK
        assert counter.record(4) is OK
        assert gauge.increment(2) is OK
        for value in (0, 7, 4_000_000):
            assert histogram.record(value) is OK
    one.poll()
    assert theirs[0].read() == 14
    assert theirs[1].read() == 4
    assert mine[1].record(1) is OK
    assert theirs[1].increment(-3) is OK
    assert mine[1].read() == 18446744073709551614
    two.poll()
    found = {metric.kind: metric for metric in one.metrics}
    assert found[COUNTER].value == 14
    histogram = found[HISTOGRAM].histogram
    assert (histogram.count, histogram.sum) == (6, 8_000_014)
    assert {n: count for n, count in enumerate(histogram.buckets) if count} == {0: 2, 3: 2, len(BUCKETS): 2}


def test_numbers_of_64_bits(pair: tuple[Services, Services]) -> None:
    one, two = pair
    [_, gauge, histogram], [counter, seen, _] = defined(one), defined(two)
    top = (1 << 64) - 1
    for set_to, change in (
        *((1 << 63, 0), (top, 2), (0, -1), (1 << 63, -1), ((1 << 63) - 1, 1)),
        *((1 << 63, -(1 << 63)), ((1 << 63) - 1, (1 << 63) - 1), (1 << 63, (1 << 63) - 1), (1, -(1 << 63))),
        *((1 << 62, 1 << 62), ((1 << 63) + 5, -(1 << 62))),
    ):
        assert gauge.record(set_to) is OK
        assert gauge.increment(change) is OK
        assert seen.read() == (set_to + change) & top
    for _ in range(3):
        assert counter.record(top) is OK
        assert histogram.record(top) is OK
        one.poll()
        two.poll()
    assert counter.read() == top - 2
    assert {metric.kind: metric.histogram.sum for metric in two.metrics}[HISTOGRAM] == top - 2


def test_metrics_are_bounded_and_may_have_any_name(make: Make) -> None:
    store = make(Bounds(metrics=2))
    assert store.define(GAUGE, b"")
    assert store.define(COUNTER, b"\0\xff")
    assert store.define(COUNTER, b"\0\xff")
    assert not store.define(COUNTER, b"")
    assert store.metrics() == {(GAUGE, b"", 0): 0, (COUNTER, b"\0\xff", 0): 0}


def test_many_metrics_at_once(store: Store) -> None:
    cells = {(COUNTER, b"%d" % number, 0): number for number in range(1, 700)}
    for kind, name, _ in cells:
        store.define(kind, name)
    store.add(cells)
    store.add(cells)
    assert store.metrics() == {cell: 2 * number for cell, number in cells.items()}


# --- several processes --------------------------------------------------------------------------------------


def begin(address: str, what: str, count: int, who: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.pywasmproxy.stores.contender", address, what, str(count), who]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


@shared_stores
def test_no_update_is_lost_under_contention(address: str, make: Make) -> None:
    services = Services(make())
    services.data.set("V", b"number", b"0", 0)
    tries = finish(*(begin(address, "raise", 100) for _ in range(4)))
    assert services.data.get("V", b"number") == (b"400", 401)
    assert sum(map(int, tries)) >= 400


@shared_stores
def test_every_item_is_delivered_exactly_once(address: str, make: Make) -> None:
    services = Services(make())
    listener = Listener(services)
    takers = [begin(address, "take", 0) for _ in range(2)]
    finish(*(begin(address, "put", 200, who) for who in ("a", "b")))
    for _ in takers:
        services.queues.enqueue(1, b"end")
    taken = [said.split() for said in finish(*takers)]
    assert Counter(taken[0] + taken[1]) == Counter(f"{who}{n}" for who in "ab" for n in range(200))
    for each in taken:  # and for each taker in the order of each putter
        for who in "ab":
            numbers = [int(item[1:]) for item in each if item[0] == who]
            assert numbers == sorted(numbers)
    assert listener.deliver() == 402


@shared_stores
def test_metrics_of_several_processes_are_summed(address: str, make: Make) -> None:
    services = Services(make())
    finish(*(begin(address, "measure", 100) for _ in range(3)))
    found = {metric.kind: metric for metric in services.metrics}
    assert found[COUNTER].value == 600
    assert found[GAUGE].value == 300
    assert (found[HISTOGRAM].histogram.count, found[HISTOGRAM].histogram.sum) == (300, 3 * 4950)
