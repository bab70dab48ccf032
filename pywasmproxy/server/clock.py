"""Time for the server: HTTP dates (RFC 9110, section 5.6.7), made once a second however many are needed."""

from __future__ import annotations

import time
from email.utils import formatdate


class Clock:
    """Wall clock and monotonic clock of one server."""

    __slots__ = ("_date", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._date = b""

    @staticmethod
    def wall_ns() -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    @staticmethod
    def monotonic_ns() -> int:
        """Nanoseconds of a clock that never goes back."""
        return time.monotonic_ns()

    def http_date(self) -> bytes:
        """The `date` field's value now."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._date = formatdate(second, usegmt=True).encode()
        return self._date
