"""`Host`: the questions a plugin may ask its surroundings, and the in-memory host that answers by default.

Pure questions only: time, randomness, whether a cluster exists, where log lines go. What a guest *does*
leaves through `Vm.deferred`, never through this object: hosts stay free of I/O, and tests can repeat exactly.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from abi.proxy_wasm.types import LogLevel


class LogPrefix(str):
    """The prefix of a context's lines, and what it is made of, for logs that keep that apart."""

    __slots__ = ("plugin", "root_id", "vm_id")

    plugin: str
    root_id: str
    vm_id: str

    def __new__(cls, plugin: str, root_id: str, vm_id: str, *, named: bool = True) -> LogPrefix:
        shown = (plugin if named else "", root_id, vm_id)
        prefix = super().__new__(cls, " ".join(filter(None, shown)))
        prefix.plugin, prefix.root_id, prefix.vm_id = plugin, root_id, vm_id
        return prefix


class Host(Protocol):
    """What a VM needs from outside.

    Hosts may have five things more, used when they are there: `trace(message)` gets a line per call across
    the boundary when `log_level` is TRACE as the VM starts; `critical(message)` the last lines of a refused
    start instead of `error`; `node` is the proxy's identity for properties outside of a stream;
    `refuses_grpc()` says why no gRPC calls can be made here ("" when they can); and `cluster_hosts(name)`
    gives the addresses (`ip:port`) that a cluster has now.
    """

    @property
    def log_level(self) -> LogLevel:
        """The least severe level that is written; lines below it are dropped without a call to `log`."""

    def log(self, level: LogLevel, prefix: str, message: str) -> None:
        """A line of the guest. `prefix` names the context ("" outside of one, else a `LogPrefix`)."""

    def error(self, message: str) -> None:
        """A line of the host itself about a guest: traps and refusals. May have several lines of text."""

    def wall_clock_ns(self) -> int:
        """Nanoseconds since 1970."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of a clock that never goes back."""

    def random_bytes(self, count: int) -> bytes:
        """Bytes fit for cryptography."""

    def has_cluster(self, name: str) -> bool:
        """Whether call-outs can go to a cluster of this name."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line a guest wrote."""

    level: LogLevel
    prefix: str
    message: str

    def __str__(self) -> str:
        return f"wasm log {self.prefix}: {self.message}" if self.prefix else f"wasm log: {self.message}"


KEPT_RECORDS = 10_000
"""How many log records the in-memory host keeps; older ones go, so that a long life does not fill memory."""


class MemoryHost:
    """Keeps log lines in memory and takes time and randomness from the operating system.

    `clusters` are the names that guests may call; what they send there waits in `Vm.deferred`.
    """

    def __init__(self, log_level: LogLevel = LogLevel.TRACE, clusters: Iterable[str] = ()) -> None:
        self.log_level = log_level
        self.clusters = frozenset(clusters)
        self.records: deque[LogRecord] = deque(maxlen=KEPT_RECORDS)
        self.errors: deque[str] = deque(maxlen=KEPT_RECORDS)

    def log(self, level: LogLevel, prefix: str, message: str) -> None:
        self.records.append(LogRecord(level, prefix, message))

    def error(self, message: str) -> None:
        self.errors.append(message)

    def wall_clock_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def has_cluster(self, name: str) -> bool:
        return name in self.clusters
