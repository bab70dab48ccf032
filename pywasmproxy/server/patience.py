"""Timers that are fair to the network when the event loop was held up.

Guest code runs on the loop's thread. After a long callback both a timer and the bytes it was waiting for are
due, and the loop runs timers without having looked at the sockets again. So a deadline that has passed is
only believed after the loop has gone round a few times more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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
