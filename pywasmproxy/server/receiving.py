"""`Receiver`: a protocol whose connections all receive into one buffer: half the cost of asyncio's own way.

For each read asyncio's plain protocols allocate a quarter of a megabyte, and give nearly all of it back. What
has been read is handed on at once and copied, so one buffer does for all connections of a thread.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod

SIZE = 256 * 1024
"""Bytes that are read at a time at most, as asyncio has it."""


class _Buffer(threading.local):
    """Each thread's; loops of different threads read at the same time."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(SIZE))


_buffer = _Buffer()


class Receiver(asyncio.BufferedProtocol, ABC):
    """Calls `data_received` with what has been read."""

    def __init__(self) -> None:
        self._view = _buffer.view

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._view[:nbytes]))
