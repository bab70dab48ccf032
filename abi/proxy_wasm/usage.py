"""`Usage`: what guest code costs and how it fails, counted per callback. Adding to it costs next to nothing.

A VM counts into the usage it is given; its successors get the same one, so nothing is lost with a VM.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from pywasmvm.errors import Exhaustion

REMEMBERED = 10
"""Failures that are kept to be looked at."""


class CallbackUse:
    """One callback of a guest: calls, nanoseconds in them (host functions and nested calls included), and
    instructions where fuel is counted."""

    __slots__ = ("calls", "instructions", "nanoseconds")

    def __init__(self) -> None:
        self.calls = self.nanoseconds = self.instructions = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """A guest function that failed: when (seconds since 1970), which, and the lines about it."""

    time: float
    function: str
    report: str


class Usage:
    """All callbacks of one guest, and its failures. `exhausted`: those by running out of fuel, time, calls or
    memory."""

    __slots__ = ("callbacks", "exhausted", "failed", "last")

    def __init__(self) -> None:
        self.callbacks: dict[str, CallbackUse] = {}
        self.failed = self.exhausted = 0
        self.last: deque[Failed] = deque(maxlen=REMEMBERED)

    def callback(self, name: str) -> CallbackUse:
        """The counts of a callback."""
        found = self.callbacks.get(name)
        if found is None:
            found = self.callbacks[name] = CallbackUse()
        return found

    def failure(self, function: str, report: str, error: BaseException) -> None:
        """A guest function failed."""
        self.failed += 1
        self.exhausted += isinstance(error, Exhaustion)
        self.last.append(Failed(time.time(), function, report))

    def take(self, other: Usage) -> None:
        """Add what another one has counted."""
        for name, use in other.callbacks.items():
            mine = self.callback(name)
            mine.calls += use.calls
            mine.nanoseconds += use.nanoseconds
            mine.instructions += use.instructions
        self.failed += other.failed
        self.exhausted += other.exhausted
        self.last.extend(other.last)
