"""What the start of a plugin leaves with the host besides the guest's memory, so that it can be repeated.

A few filters do all their work when they are configured: they build tables for minutes. A snapshot taken
afterwards spares that, if whatever the guest has seen is part of its key, and whatever it has done outside of
itself is known. So the calls of a start are watched. Reading the configurations, logging, asking for time,
randomness or a timer can be repeated; after any other call no snapshot is made
(docs/adr/0014-snapshot.md).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from abi.proxy_wasm.types import LogLevel
from pywasmvm import SnapshotError

REPEATABLE = frozenset({
    "emscripten_notify_memory_growth",
    "proxy_get_buffer_bytes",
    "proxy_get_buffer_status",
    "proxy_get_configuration",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_log_level",
    "proxy_get_status",
    "proxy_log",
    "proxy_set_tick_period_milliseconds",
    "pthread_equal",
})  # fmt: skip
"""Host functions of the module `env` that see nothing but the key and leave nothing but what is recorded.
Those of WASI all do so: there are no files and no sockets."""

MOST_LOGGED = 1 << 20
"""Bytes of log lines; a start that logs more is not kept."""


@dataclass(slots=True)
class Started:
    """A start that was watched. `calls` names the host functions that forbid a snapshot; `lines` are the log
    lines with their levels; `seconds` is the CPU time it took."""

    lines: list[tuple[LogLevel, bytes]] = field(default_factory=list)
    tick_period_ms: int = 0
    calls: dict[str, None] = field(default_factory=dict)
    seconds: float = 0.0
    _logged: int = 0

    def log(self, level: LogLevel, message: bytes) -> None:
        """The guest logs a line."""
        self._logged += len(message)
        if self._logged > MOST_LOGGED:
            self.calls["proxy_log"] = None
        else:
            self.lines.append((level, message))

    def to_bytes(self) -> bytes:
        """What is kept with the snapshot."""
        lines = [[int(level), message.decode("latin-1")] for level, message in self.lines]
        return json.dumps({"lines": lines, "tick_period_ms": self.tick_period_ms}).encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> Started:
        """Read what `to_bytes` wrote. Raises `SnapshotError`."""
        try:
            found = json.loads(data)
            lines = [(LogLevel(level), str(text).encode("latin-1")) for level, text in found["lines"]]
            period = int(found["tick_period_ms"])
            if not 0 <= period < 1 << 32:
                raise ValueError(period)
        except (ValueError, TypeError, KeyError) as error:
            raise SnapshotError(f"what the start left is damaged: {error!r}") from error
        return cls(lines, period)
