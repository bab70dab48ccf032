"""What VMs share, as one process sees it: key-value data, queues and metrics in a `Store`.

Here is what belongs to the process: which plugin is told of a queue, what was counted since the store was
told last, and what happens while the store does not answer. Guests then get INTERNAL_FAILURE, at once: a
store that is away is asked again once a second, and everybody else does not wait for it.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.store import MASK, Cell, MemoryStore, Store, StoreError, scope_of
from abi.proxy_wasm.types import MetricType, Status

if TYPE_CHECKING:
    from abi.proxy_wasm.plugin import Plugin

POLL = 0.05
"""Seconds between two calls of `Services.poll` where other processes write to the store."""

AWAY, LONGEST_AWAY = 1.0, 8.0
"""Seconds for which a store that does not answer is not asked again. The pause doubles where asking it takes
long: everything else stands still meanwhile."""

QUICK = 0.05
"""Seconds in which a store that cannot answer has said so, if it does not take long."""

COMPLAINT = 5.0
"""Seconds between two log lines about the same trouble."""

MAX_METRIC_IDS = 100_000
"""Metrics that one VM may know, those it defined twice counted twice."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Link:
    """The way to the store: what is tried, and what is said when it fails."""

    def __init__(self, store: Store, note: Callable[[str], None]) -> None:
        self.store = store
        self.recoveries = 0
        self._note = note
        self._away: StoreError | None = None
        self._ask_again = self._complained = 0.0
        self._pause = AWAY

    def ask(self, operation: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """The answer of one of the store's methods. StoreError."""
        away, begin = self._away, 0.0
        if self.store.shared:
            begin = time.monotonic()
            if away is not None and begin < self._ask_again:
                raise away.with_traceback(None)
        try:
            answer = operation(*args, **kwargs)
        except StoreError as error:
            now = time.monotonic()
            if error.away:
                self._pause = min(2 * self._pause, LONGEST_AWAY) if away and now - begin > QUICK else AWAY
                self._away, self._ask_again = error, now + self._pause
            if now - self._complained >= COMPLAINT or (error.away and away is None):
                self._complained = now
                what = "shared data, queues and metrics fail until it answers" if error.away else "refused"
                self._note(f"store {self.store.name}: {error}; {what}")
            raise
        if away is not None:
            self._away = None
            self.recoveries += 1
            self._note(f"store {self.store.name}: answers again")
        return answer


class SharedData:
    """Values by scope and key, each with the number of the write that made it (its "cas")."""

    def __init__(self, link: _Link) -> None:
        self._ask, self._store = link.ask, link.store

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | Status:
        """Value and cas; NOT_FOUND when there is none."""
        try:
            found = self._ask(self._store.get, scope_of(vm_id), key)
        except StoreError:
            return Status.INTERNAL_FAILURE
        return Status.NOT_FOUND if found is None else found

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int) -> Status:
        """Store a value. A `cas` other than 0 must be that of the present value, if there is one."""
        try:
            return self._ask(self._store.set, scope_of(vm_id), key, value, cas)
        except StoreError:
            return Status.INTERNAL_FAILURE


class SharedQueues:
    """Queues by scope and name, reached by token (1, 2, ...).

    Every item put in makes one notification of the process that registered the queue last, and there of the
    plugin that did. Notifications wait until somebody outside of guest code calls `deliver`; `pending` says
    whether there may be any.
    """

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._ask, self._store = link.ask, link.store
        self._listener = uuid.uuid4().hex
        # Weak: a plugin that has gone must not stay here until another one registers its queue.
        self._plugins: WeakValueDictionary[int, Plugin] = WeakValueDictionary()
        self._registered: dict[int, tuple[bytes, bytes]] = {}
        self._recoveries = 0
        self.pending = False

    @property
    def listening(self) -> bool:
        """Whether a plugin of this process has registered a queue."""
        return bool(self._plugins)

    def register(self, vm_id: str, name: bytes, plugin: Plugin) -> int | Status:
        """Make a queue, or take over the notifications of one that exists; its token."""
        scope = scope_of(vm_id)
        try:
            token = self._ask(self._store.register, scope, name, self._listener)
        except StoreError:
            return Status.INTERNAL_FAILURE
        if token is None:
            return Status.INTERNAL_FAILURE
        self._plugins[token] = plugin
        self._registered[token] = scope, name
        self.pending = True  # another process may have left something
        return token

    def resolve(self, vm_id: str, name: bytes) -> int | Status:
        """The token of a queue; NOT_FOUND when it does not exist."""
        try:
            token = self._ask(self._store.resolve, scope_of(vm_id), name)
        except StoreError:
            return Status.INTERNAL_FAILURE
        return Status.NOT_FOUND if token is None else token

    def enqueue(self, token: int, data: bytes) -> Status:
        try:
            status = self._ask(self._store.enqueue, token, data)
        except StoreError:
            return Status.INTERNAL_FAILURE
        if token in self._plugins:
            self.pending = True
        return status

    def dequeue(self, token: int) -> bytes | Status:
        try:
            return self._ask(self._store.dequeue, token)
        except StoreError:
            return Status.INTERNAL_FAILURE

    def deliver(self) -> list[Plugin]:
        """Notify the listeners of everything that waits, in order; which plugins were entered.

        Their VMs' `deferred` may hold something afterwards. Items put in meanwhile wait for the next time,
        so that two guests cannot keep the host busy for ever. A listener whose VM is dead is left out; one
        that dies here has reported it itself.
        """
        self.pending = False
        if not self._plugins:
            return []
        entered: list[Plugin] = []
        for token in self._taken():
            plugin = self._plugins.get(token)
            if plugin is None or plugin.failed or plugin.closed:
                continue
            entered.append(plugin)
            try:
                plugin.queue_ready(token)
            except PluginFailure:
                continue
        return entered

    def _taken(self) -> list[int]:
        try:
            taken = self._ask(self._store.notifications, self._listener)
            if self._link.recoveries != self._recoveries:
                # A reply with notifications may have been lost, or all the store had.
                for token, (scope, name) in self._registered.items():
                    self._ask(self._store.restore, scope, name, self._listener, token)
                self._recoveries = self._link.recoveries
                self.pending = True
        except StoreError:
            return []
        return taken


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


class Metric:
    """One metric, of all processes that share the store. Counters and gauges have a value, 64 bits without a
    sign."""

    __slots__ = ("_owner", "kind", "name")

    def __init__(self, owner: Metrics, kind: MetricType, name: bytes) -> None:
        self._owner, self.kind, self.name = owner, kind, name

    def increment(self, delta: int) -> Status:
        """Counters only go up; gauges wrap below zero."""
        if self.kind is MetricType.COUNTER and delta <= 0:
            return Status.BAD_ARGUMENT
        return self._owner.change((self.kind, self.name, 0), delta)

    def record(self, value: int) -> Status:
        """A counter adds the value, a gauge becomes it, a histogram takes it as a sample."""
        if self.kind is MetricType.GAUGE:
            return self._owner.assign(self.name, value)
        if self.kind is MetricType.HISTOGRAM:
            self._owner.change((self.kind, self.name, 1 + bisect_left(BUCKETS, value)), 1)
        return self._owner.change((self.kind, self.name, 0), value)

    def read(self) -> int | Status:
        """The value of a counter or gauge."""
        return self._owner.read(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric at one moment: a `value`, or a `histogram`."""

    kind: MetricType
    name: bytes
    value: int = 0
    histogram: Histogram = field(default_factory=Histogram)


class Metrics:
    """All metrics, by kind and name.

    What is counted goes to a store of other processes, too, with the next `flush`: it is the same whether
    each is told of or all together, and `read` flushes first. Gauges are written at once, since order
    matters. So a process that is killed takes the counts of the last `POLL` seconds with it.
    """

    def __init__(self, link: _Link) -> None:
        self._ask, self._store = link.ask, link.store
        self._changes: dict[Cell, int] = {}
        self._known: dict[tuple[MetricType, bytes], Metric] = {}

    def define(self, kind: MetricType, name: bytes) -> Metric | None:
        """The metric of this kind and name, made if necessary; None when there are too many, or the store
        does not answer."""
        found = self._known.get((kind, name))
        if found is None:
            try:
                if not self._ask(self._store.define, kind, name):
                    return None
            except StoreError:
                return None
            found = self._known[kind, name] = Metric(self, kind, name)
        return found

    def change(self, cell: Cell, change: int) -> Status:
        """Add to one of a metric's numbers."""
        if self._store.shared and cell[0] is not MetricType.GAUGE:
            self._changes[cell] = self._changes.get(cell, 0) + change
            return Status.OK
        try:
            self._ask(self._store.add, {cell: change})
        except StoreError:
            return Status.INTERNAL_FAILURE
        return Status.OK

    def assign(self, name: bytes, value: int) -> Status:
        """A gauge becomes a value."""
        try:
            self._ask(self._store.assign, name, value)
        except StoreError:
            return Status.INTERNAL_FAILURE
        return Status.OK

    def read(self, kind: MetricType, name: bytes) -> int | Status:
        """The value of a counter or gauge, of all processes."""
        if not self.flush():
            return Status.INTERNAL_FAILURE
        try:
            return self._ask(self._store.value, kind, name)
        except StoreError:
            return Status.INTERNAL_FAILURE

    def flush(self) -> bool:
        """Tell the store what was counted. False when it does not answer: then it is kept for later."""
        if not self._changes:
            return True
        changes, self._changes = self._changes, {}
        try:
            self._ask(self._store.add, changes)
        except StoreError:
            self._changes = changes
            return False
        return True

    def __iter__(self) -> Iterator[MetricValue]:
        """What all metrics are now. Without an answer of the store: what this process has not told it yet."""
        flushed = self.flush()
        try:
            cells = self._ask(self._store.metrics)
        except StoreError:
            cells = {}
        if not flushed:
            for cell, change in self._changes.items():
                cells[cell] = (cells.get(cell, 0) + change) & MASK
        return iter(_assemble(cells))


def _assemble(cells: dict[Cell, int]) -> list[MetricValue]:
    """Metrics from their numbers, in the order of the first one of each."""
    found: dict[tuple[MetricType, bytes], MetricValue] = {}
    for (kind, name, which), number in cells.items():
        metric = found.get((kind, name))
        if metric is None:
            metric = found[kind, name] = MetricValue(kind, name, cells.get((kind, name, 0), 0))
        if kind is MetricType.HISTOGRAM:
            histogram = metric.histogram
            if which == 0:
                histogram.sum = number
            elif which <= len(histogram.buckets):
                histogram.buckets[which - 1] = number
                histogram.count += number
    return list(found.values())


class MetricIds:
    """The numbers under which one VM knows metrics: two bits of kind, above them a sequence per kind."""

    def __init__(self) -> None:
        self._metrics: dict[int, Metric] = {}
        self._last = dict.fromkeys(MetricType, 0)

    def add(self, metric: Metric) -> int | None:
        """A new id, also for a metric that has one already; None when there are too many."""
        if len(self._metrics) >= MAX_METRIC_IDS:
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
    """Everything that VMs share, in a `store` (without one: in one of their own).

    `note` gets a line when the store does not answer, and when it does again. Where other processes write to
    the store, call `poll` every `POLL` seconds. A process must make its own after a fork.
    """

    def __init__(self, store: Store | None = None, *, note: Callable[[str], None] | None = None) -> None:
        self.store = store if store is not None else MemoryStore()
        self._link = link = _Link(self.store, note if note is not None else lambda line: None)
        self.data = SharedData(link)
        self.queues = SharedQueues(link)
        self.metrics = Metrics(link)

    def poll(self) -> None:
        """Look after what other processes did, and tell them what this one did. `queues.pending` says
        afterwards whether `queues.deliver` must be called."""
        with contextlib.suppress(StoreError):
            self._link.ask(self.store.look)
        self.metrics.flush()
        if self.queues.listening:
            self.queues.pending = True

    def close(self) -> None:
        """Tell the store what was counted, and let go of it."""
        self.metrics.flush()
        self.store.close()
