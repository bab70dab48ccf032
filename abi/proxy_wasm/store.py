"""`Store`: where shared data, queues and metrics are kept - the seam between one process and many.

Guests wait for every answer, so each operation is atomic, quick and bounded in time. `MemoryStore` is that of
one process; others bring their own (`pywasmproxy.stores`). One test suite holds all of them to the same
behaviour.

Source: proxy-wasm specification 0.2.1, "Shared data", "Shared queues", "Metrics"; Envoy 1.40 (measured) for
scopes (data and queues belong to a vm_id, metrics to the process), numbering and arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from abi.proxy_wasm.types import MetricType, Status

ENTRY_COST = 128
"""About what an empty entry takes; without it, empty entries would cost nothing."""

MASK = 0xFFFF_FFFF_FFFF_FFFF
"""Metrics are 64-bit unsigned numbers, and wrap."""

LAST_CAS = 0xFFFF_FFFF
"""The greatest number of a write; the next one is 1 again, since 0 would mean "any"."""

Cell = tuple[MetricType, bytes, int]
"""A number of a metric: kind, name, and which of its numbers. 0 is the value, of a histogram the sum of its
samples; from 1 on there are the counts of a histogram's buckets."""


class StoreError(Exception):
    """The store does not answer, or cannot do this now; the message says why.

    `away` says whether it is of no use to ask again at once.
    """

    def __init__(self, message: str, *, away: bool = True) -> None:
        super().__init__(message)
        self.away = away


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a store takes, since guests fill it and nothing of it ends with a request.

    `shared_data` and `queued` are bytes of keys and values, or of items, in all scopes together, with
    `ENTRY_COST` for each counted in; the others are numbers.
    """

    shared_data: int = 1 << 26
    queued: int = 1 << 26
    queues: int = 10_000
    notifications: int = 100_000
    metrics: int = 100_000


class Store(ABC):
    """What the VMs of one or more processes share.

    A `listener` is a process: any text that no other one has. Scopes are vm_ids. Every method may raise
    `StoreError`.
    """

    shared = False
    """Whether other processes write to it, too."""

    name = "memory"
    """How messages call it."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds if bounds is not None else Bounds()

    # --- shared data ----------------------------------------------------------------------------------------

    @abstractmethod
    def get(self, scope: bytes, key: bytes) -> tuple[bytes, int] | None:
        """Value and number of the write that made it (its "cas"); None when there is none."""

    @abstractmethod
    def set(self, scope: bytes, key: bytes, value: bytes, cas: int) -> Status:
        """Store a value. A `cas` other than 0 must be that of the present value, if there is one.

        Writes are numbered by one counter for all keys and scopes.
        """

    # --- shared queues --------------------------------------------------------------------------------------

    @abstractmethod
    def register(self, scope: bytes, name: bytes, listener: str) -> int | None:
        """Make a queue, or take over the notifications of one that exists; its token (1, 2, ...), None when
        there are too many. Who takes over from another listener is notified of every item that waits."""

    @abstractmethod
    def restore(self, scope: bytes, name: bytes, listener: str, token: int) -> None:
        """The store was away, and may have forgotten: make a queue again under its token, if that is free.
        Its listener is notified of every item that waits; notifications may have been lost."""

    @abstractmethod
    def resolve(self, scope: bytes, name: bytes) -> int | None:
        """The token of a queue; None when it does not exist."""

    @abstractmethod
    def enqueue(self, token: int, data: bytes) -> Status:
        """Put an item in, and notify the queue's listener once."""

    @abstractmethod
    def dequeue(self, token: int) -> bytes | Status:
        """Take the oldest item out: whoever asks first has it, and nobody else."""

    @abstractmethod
    def notifications(self, listener: str) -> list[int]:
        """Take what this listener is to be notified of: a token for each item, in order."""

    # --- metrics --------------------------------------------------------------------------------------------

    @abstractmethod
    def define(self, kind: MetricType, name: bytes) -> bool:
        """Make a metric, if it does not exist; False when there are too many."""

    @abstractmethod
    def add(self, changes: Mapping[Cell, int]) -> None:
        """Add to numbers of defined metrics, wrapping."""

    @abstractmethod
    def assign(self, name: bytes, value: int) -> None:
        """A gauge becomes a value."""

    @abstractmethod
    def value(self, kind: MetricType, name: bytes) -> int:
        """The value of a counter or gauge."""

    @abstractmethod
    def metrics(self) -> dict[Cell, int]:
        """Every number of every metric; cell 0 of each is there, empty buckets need not be."""

    def check(self) -> None:  # noqa: B027 - memory has nothing to check
        """Find out whether the store can be used at all."""

    def look(self) -> None:  # noqa: B027 - memory is always there
        """Look whether the store is still the one that was opened; costs next to nothing."""

    def close(self) -> None:  # noqa: B027 - memory holds nothing open
        """Let go of files and connections; what is stored stays."""


@dataclass(slots=True)
class _Queue:
    """One queue. `listener` registered it last."""

    listener: str
    items: deque[bytes] = field(default_factory=deque)


class MemoryStore(Store):
    """In this process, and gone with it."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        super().__init__(bounds)
        self._data: dict[tuple[bytes, bytes], tuple[bytes, int]] = {}
        self._last_cas = 0
        self._data_bytes = 0
        self._tokens: dict[tuple[bytes, bytes], int] = {}
        self._queues: dict[int, _Queue] = {}
        self._queued_bytes = 0
        self._notifications: deque[tuple[str, int]] = deque()
        self._numbers: dict[Cell, int] = {}
        self._metrics = 0

    def get(self, scope: bytes, key: bytes) -> tuple[bytes, int] | None:
        return self._data.get((scope, key))

    def set(self, scope: bytes, key: bytes, value: bytes, cas: int) -> Status:
        place = scope, key
        present = self._data.get(place)
        if present is not None and cas not in (0, present[1]):
            return Status.CAS_MISMATCH
        grows = len(value) + (ENTRY_COST + len(key) if present is None else -len(present[0]))
        if self._data_bytes + grows > self.bounds.shared_data:
            return Status.INTERNAL_FAILURE
        self._data_bytes += grows
        self._last_cas = self._last_cas % LAST_CAS + 1
        self._data[place] = value, self._last_cas
        return Status.OK

    def register(self, scope: bytes, name: bytes, listener: str) -> int | None:
        token = self._tokens.get((scope, name))
        if token is None:
            if len(self._queues) >= self.bounds.queues:
                return None
            token = self._tokens[scope, name] = max(self._queues, default=0) + 1
            self._queues[token] = _Queue(listener)
        elif self._queues[token].listener != listener:
            self._queues[token].listener = listener
            self._tell_again(token)
        return token

    def _tell_again(self, token: int) -> None:
        """The queue's listener is notified of what waits, and nobody of anything else in it."""
        queue = self._queues[token]
        kept = [note for note in self._notifications if note[1] != token]
        self._notifications = deque(kept + [(queue.listener, token)] * len(queue.items))

    def restore(self, scope: bytes, name: bytes, listener: str, token: int) -> None:
        known = self._tokens.get((scope, name))
        if known is None and token not in self._queues:
            self._tokens[scope, name] = token
            self._queues[token] = _Queue(listener)
        elif known == token and self._queues[token].listener == listener:
            self._tell_again(token)

    def resolve(self, scope: bytes, name: bytes) -> int | None:
        return self._tokens.get((scope, name))

    def enqueue(self, token: int, data: bytes) -> Status:
        queue = self._queues.get(token)
        if queue is None:
            return Status.NOT_FOUND
        cost = len(data) + ENTRY_COST
        if (
            self._queued_bytes + cost > self.bounds.queued
            or len(self._notifications) >= self.bounds.notifications
        ):
            return Status.INTERNAL_FAILURE
        self._queued_bytes += cost
        queue.items.append(data)
        self._notifications.append((queue.listener, token))
        return Status.OK

    def dequeue(self, token: int) -> bytes | Status:
        queue = self._queues.get(token)
        if queue is None:
            return Status.NOT_FOUND
        if not queue.items:
            return Status.EMPTY
        data = queue.items.popleft()
        self._queued_bytes -= len(data) + ENTRY_COST
        return data

    def notifications(self, listener: str) -> list[int]:
        taken = [token for who, token in self._notifications if who == listener]
        if len(taken) == len(self._notifications):
            self._notifications.clear()
        else:
            self._notifications = deque(note for note in self._notifications if note[0] != listener)
        return taken

    def define(self, kind: MetricType, name: bytes) -> bool:
        if (kind, name, 0) not in self._numbers:
            if self._metrics >= self.bounds.metrics:
                return False
            self._metrics += 1
            self._numbers[kind, name, 0] = 0
        return True

    def add(self, changes: Mapping[Cell, int]) -> None:
        for cell, change in changes.items():
            self._numbers[cell] = (self._numbers.get(cell, 0) + change) & MASK

    def assign(self, name: bytes, value: int) -> None:
        self._numbers[MetricType.GAUGE, name, 0] = value & MASK

    def value(self, kind: MetricType, name: bytes) -> int:
        return self._numbers.get((kind, name, 0), 0)

    def metrics(self) -> dict[Cell, int]:
        return dict(self._numbers)


def signed(number: int) -> int:
    """A 64-bit unsigned number as the signed one with its bits: what most stores can keep."""
    return ((number & MASK) ^ 1 << 63) - (1 << 63)


def scope_of(vm_id: str) -> bytes:
    """The scope of a vm_id; any text has one of its own."""
    return vm_id.encode("utf-8", "surrogatepass")


def numbers(rows: Iterable[tuple[int, bytes, int, int]]) -> dict[Cell, int]:
    """`Store.metrics` of rows (kind, name, cell, signed number)."""
    return {(MetricType(kind), bytes(name), cell): value & MASK for kind, name, cell, value in rows}
