"""What VMs share: key-value data, queues and metrics, kept in memory.

Source: proxy-wasm specification 0.2.1, "Shared data", "Shared queues", "Metrics"; Envoy 1.40 (measured) for
scopes (data and queues belong to a vm_id, metrics to the process), numbering and arithmetic. Everything has
a bound, since guests fill it and nothing of it ends with a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.types import MetricType, Status

if TYPE_CHECKING:
    from abi.proxy_wasm.plugin import Plugin

MAX_SHARED_DATA = 1 << 26
"""Most bytes of keys and values in all scopes together, `ENTRY_COST` for each counted in."""

MAX_QUEUED = 1 << 26
"""Most bytes waiting in all queues together, `ENTRY_COST` for each item counted in."""

ENTRY_COST = 128
"""About what an empty entry takes here; without it, empty entries would cost nothing."""

MAX_QUEUES = 10_000
MAX_NOTIFICATIONS = 100_000
MAX_METRICS = 100_000

_MASK = 0xFFFF_FFFF_FFFF_FFFF


class SharedData:
    """Values by scope and key, each with the number of the write that made it (its "cas")."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, bytes], tuple[bytes, int]] = {}
        self._last = 0  # one counter for all keys and scopes
        self._bytes = 0

    def get(self, scope: str, key: bytes) -> tuple[bytes, int] | None:
        """Value and cas; None when there is none."""
        return self._entries.get((scope, key))

    def set(self, scope: str, key: bytes, value: bytes, cas: int) -> Status:
        """Store a value. A `cas` other than 0 must be that of the present value, if there is one."""
        place = scope, key
        present = self._entries.get(place)
        if present is not None and cas not in (0, present[1]):
            return Status.CAS_MISMATCH
        grows = len(value) + (ENTRY_COST + len(key) if present is None else -len(present[0]))
        if self._bytes + grows > MAX_SHARED_DATA:
            return Status.INTERNAL_FAILURE
        self._bytes += grows
        self._last = self._last % 0xFFFF_FFFF + 1  # 0 would mean "any"
        self._entries[place] = value, self._last
        return Status.OK


@dataclass(slots=True)
class _Queue:
    """One queue. `listener` is the plugin that registered it last."""

    listener: Plugin
    items: deque[bytes] = field(default_factory=deque)


class SharedQueues:
    """Queues by scope and name, reached by token (1, 2, ...).

    Every item put in makes one notification of the listener. Notifications wait in `pending` until somebody
    outside of guest code calls `deliver`.
    """

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, bytes], int] = {}
        self._queues: dict[int, _Queue] = {}
        self._bytes = 0
        self.pending: deque[tuple[Plugin, int]] = deque()

    def register(self, scope: str, name: bytes, listener: Plugin) -> int | None:
        """Make a queue, or take over the notifications of one that exists; its token, None when full."""
        token = self._tokens.get((scope, name))
        if token is not None:
            self._queues[token].listener = listener
            return token
        if len(self._queues) >= MAX_QUEUES:
            return None
        token = self._tokens[scope, name] = len(self._queues) + 1
        self._queues[token] = _Queue(listener)
        return token

    def resolve(self, scope: str, name: bytes) -> int | None:
        """The token of a queue; None when it does not exist."""
        return self._tokens.get((scope, name))

    def enqueue(self, token: int, data: bytes) -> Status:
        queue = self._queues.get(token)
        if queue is None:
            return Status.NOT_FOUND
        cost = len(data) + ENTRY_COST
        if self._bytes + cost > MAX_QUEUED or len(self.pending) >= MAX_NOTIFICATIONS:
            return Status.INTERNAL_FAILURE
        self._bytes += cost
        queue.items.append(data)
        self.pending.append((queue.listener, token))
        return Status.OK

    def dequeue(self, token: int) -> bytes | Status:
        queue = self._queues.get(token)
        if queue is None:
            return Status.NOT_FOUND
        if not queue.items:
            return Status.EMPTY
        data = queue.items.popleft()
        self._bytes -= len(data) + ENTRY_COST
        return data

    def deliver(self) -> list[Plugin]:
        """Notify the listeners of everything that waits, in order; which plugins were entered.

        Their VMs' `deferred` may hold something afterwards. Items put in meanwhile wait for the next time,
        so that two guests cannot keep the host busy for ever. A listener whose VM is dead is left out; one
        that dies here has reported it itself.
        """
        entered = []
        for _ in range(len(self.pending)):
            plugin, token = self.pending.popleft()
            if plugin.failed or plugin.closed:
                continue
            entered.append(plugin)
            try:
                plugin.queue_ready(token)
            except PluginFailure:
                continue
        return entered


BUCKETS = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000),
    *(300000, 600000, 1800000, 3600000),
)
"""Upper bounds of a histogram's buckets, Envoy's default ones."""


@dataclass(slots=True)
class Histogram:
    """Samples, counted: in all, their sum, and per bucket (the last one has what is above all bounds)."""

    count: int = 0
    sum: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def record(self, value: int) -> None:
        self.count += 1
        self.sum += value
        self.buckets[bisect_left(BUCKETS, value)] += 1


@dataclass(slots=True)
class Metric:
    """One metric. `value` of counters and gauges is a 64-bit unsigned number."""

    kind: MetricType
    name: bytes
    value: int = 0
    histogram: Histogram = field(default_factory=Histogram)

    def increment(self, delta: int) -> Status:
        """Counters only go up; gauges wrap below zero."""
        if self.kind is MetricType.COUNTER and delta <= 0:
            return Status.BAD_ARGUMENT
        self.value = (self.value + delta) & _MASK
        return Status.OK

    def record(self, value: int) -> None:
        """A counter adds the value, a gauge becomes it, a histogram takes it as a sample."""
        if self.kind is MetricType.COUNTER:
            self.value = (self.value + value) & _MASK
        elif self.kind is MetricType.GAUGE:
            self.value = value
        else:
            self.histogram.record(value)


class Metrics:
    """All metrics of the process, by kind and name."""

    def __init__(self) -> None:
        self._metrics: dict[tuple[MetricType, bytes], Metric] = {}

    def define(self, kind: MetricType, name: bytes) -> Metric | None:
        """The metric of this kind and name, made if necessary; None when there are too many."""
        found = self._metrics.get((kind, name))
        if found is None and len(self._metrics) < MAX_METRICS:
            found = self._metrics[kind, name] = Metric(kind, name)
        return found

    def __iter__(self) -> Iterator[Metric]:
        return iter(list(self._metrics.values()))


class MetricIds:
    """The numbers under which one VM knows metrics: two bits of kind, above them a sequence per kind."""

    def __init__(self) -> None:
        self._metrics: dict[int, Metric] = {}
        self._last = dict.fromkeys(MetricType, 0)

    def add(self, metric: Metric) -> int | None:
        """A new id, also for a metric that has one already; None when there are too many."""
        if len(self._metrics) >= MAX_METRICS:
            return None
        self._last[metric.kind] += 1
        number = self._last[metric.kind] << 2 | metric.kind
        self._metrics[number] = metric
        return number

    def get(self, number: int) -> Metric | None:
        return self._metrics.get(number)

    def __len__(self) -> int:
        return len(self._metrics)


class Services:
    """Everything that VMs share."""

    def __init__(self) -> None:
        self.data = SharedData()
        self.queues = SharedQueues()
        self.metrics = Metrics()
