"""Timers that are fair to the network when the event loop was held up.

Guest code runs on the loop's thread. After a long callback both a timer and the bytes it was waiting for are
due, and the loop runs timers without having looked at the sockets again. So a deadline that has passed is
only believed after the loop has gone round a few times more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

ROUNDS = 5
"""Turns of the loop that pending input gets. A new connection needs four until its request has been sent."""

PAUSE = 0.001
"""Seconds between them (at least)."""


class PatientTimer:
    """Calls back `delay` seconds from now, and then some rounds of the loop later; `cancel` prevents it."""

    __slots__ = ("_callback", "_handle", "_rounds")

    def __init__(self, delay: float, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._rounds = ROUNDS
        self._handle = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        if self._rounds:
            self._rounds -= 1
            self._handle = asyncio.get_running_loop().call_later(PAUSE, self._due)
        else:
            self._callback()

    def cancel(self) -> None:
        """Do not call back any more."""
        self._handle.cancel()


class Timer:
    """One of `Timers`; `cancel` prevents its call."""

    __slots__ = ("_argument", "_callback", "due")

    def __init__(self, due: float, callback: Callable[[Any], object], argument: Any) -> None:
        self.due = due
        self._callback: Callable[[Any], object] | None = callback
        self._argument = argument

    def cancel(self) -> None:
        """Do not call back any more."""
        self._callback = self._argument = None

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def fire(self) -> None:
        """Call back, once."""
        callback, argument = self._callback, self._argument
        self.cancel()
        if callback is not None:
            callback(argument)


class Timers:
    """Patient timers with few different delays, nearly all of which are cancelled: one per request.

    Those with one delay are due in the order in which they began, so a queue for each delay and one timer of
    the loop's per queue do. The loop's own heap would cost several times as much.
    """

    def __init__(self) -> None:
        self._queues: dict[float, deque[Timer]] = {}
        self._handles: dict[float, asyncio.TimerHandle] = {}

    def start(self, delay: float, callback: Callable[[Any], object], argument: Any) -> Timer:
        """Call `callback(argument)` in `delay` seconds, and then some rounds of the loop later."""
        queue = self._queues.get(delay)
        if queue is None:
            queue = self._queues[delay] = deque()
        while queue and queue[0].cancelled:
            queue.popleft()
        timer = Timer(monotonic() + delay, callback, argument)
        queue.append(timer)
        if delay not in self._handles:
            self._arm(delay, delay)
        return timer

    def _arm(self, delay: float, wait: float) -> None:
        self._handles[delay] = asyncio.get_running_loop().call_later(wait, self._look, delay)

    def _look(self, delay: float) -> None:
        """The oldest timer of a queue may be due."""
        queue, now = self._queues[delay], monotonic()
        while queue and (queue[0].cancelled or queue[0].due <= now):
            timer = queue.popleft()
            if not timer.cancelled:
                PatientTimer(0, timer.fire)
        if queue:
            self._arm(delay, max(queue[0].due - now, 0.001))
        else:
            del self._handles[delay], self._queues[delay]

    def close(self) -> None:
        """Nobody is called any more."""
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
        self._queues.clear()
