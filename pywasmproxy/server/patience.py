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

FEW = 256
"""Timers of one delay that may be kept, cancelled or not."""


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


class _Queue:
    """Timers of one delay, in the order in which they are due. Those cancelled at its end go first, and when
    it has grown to twice what it was, all others."""

    __slots__ = ("handle", "most", "timers")

    def __init__(self, handle: asyncio.TimerHandle) -> None:
        self.handle = handle
        self.timers: deque[Timer] = deque()
        self.most = FEW

    def append(self, timer: Timer) -> None:
        timers = self.timers
        while timers and timers[0].cancelled:
            timers.popleft()
        timers.append(timer)
        if len(timers) > self.most:
            self.timers = deque(one for one in timers if not one.cancelled)
            self.most = max(FEW, 2 * len(self.timers))


class Timers:
    """Patient timers with few different delays, nearly all of which are cancelled: one per request.

    Those with one delay are due in the order in which they began, so a queue for each delay and one timer of
    the loop's per queue do. The loop's own heap would cost several times as much.
    """

    def __init__(self) -> None:
        self._queues: dict[float, _Queue] = {}

    def __len__(self) -> int:
        """Timers that are kept, cancelled ones among them."""
        return sum(len(queue.timers) for queue in self._queues.values())

    def start(self, delay: float, callback: Callable[[Any], object], argument: Any) -> Timer:
        """Call `callback(argument)` in `delay` seconds, and then some rounds of the loop later."""
        queue = self._queues.get(delay)
        if queue is None:
            loop = asyncio.get_running_loop()
            queue = self._queues[delay] = _Queue(loop.call_later(delay, self._look, delay))
        timer = Timer(monotonic() + delay, callback, argument)
        queue.append(timer)
        return timer

    def _look(self, delay: float) -> None:
        """The oldest timer of a queue may be due."""
        queue, now = self._queues[delay], monotonic()
        timers = queue.timers
        while timers and (timers[0].cancelled or timers[0].due <= now):
            timer = timers.popleft()
            if not timer.cancelled:
                PatientTimer(0, timer.fire)
        if timers:
            wait = max(timers[0].due - now, 0.001)
            queue.handle = asyncio.get_running_loop().call_later(wait, self._look, delay)
        else:
            del self._queues[delay]

    def close(self) -> None:
        """Nobody is called any more."""
        for queue in self._queues.values():
            queue.handle.cancel()
        self._queues.clear()
