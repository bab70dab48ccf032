"""`Acceptor`: takes connections from sockets that several processes listen on. asyncio.

The kernel wakes all of them, and asyncio's own way takes all that wait at once, so that one worker would get
most connections. Here each takes one at a time, and a worker that has more connections than another one
leaves the next to it for a moment. That costs nothing where it matters: a worker that is busy comes later.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOMENT = 0.005
"""Seconds for which a connection is left to workers that have fewer."""

OUT_OF_FILES = 1.0
"""Seconds before the next attempt when this process can open no more files."""

ABSENT = 0xFFFF_FFFF
"""In the place of a number of connections: nobody sits there."""


class Balance:
    """How many connections each worker has, in memory that all of them see."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, 4 * count)
        self._numbers = memoryview(self._memory).cast("I")
        self.index = 0
        for index in range(count):
            self.leave(index)

    def __len__(self) -> int:
        return len(self._numbers)

    def leave(self, index: int) -> None:
        """Nobody sits there."""
        self._numbers[index] = ABSENT

    def sit(self) -> None:
        """This process sits in the place `index`."""
        self._numbers[self.index] = 0

    def change(self, by: int) -> None:
        """This process has more connections, or fewer."""
        if self._numbers[self.index] != ABSENT:
            self._numbers[self.index] += by

    @property
    def has_more(self) -> bool:
        """Whether some other process has fewer connections than this one."""
        return self._numbers[self.index] > min(self._numbers)

    def __getitem__(self, index: int) -> int | None:
        number = self._numbers[index]
        return None if number == ABSENT else number


class Acceptor:
    """In the place of an `asyncio.Server`, for the sockets of one port."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        accepted: Callable[[], Any],
        balance: Balance,
        *,
        backlog: int,
        report: Callable[[str], None],
        tls: Mapping[str, Any] | None = None,
    ) -> None:
        self.sockets = tuple(sockets)
        self.balance = balance
        self._accepted, self._backlog, self._report = accepted, backlog, report
        self._tls = tls or {}  # options of the event loop
        self._loop = asyncio.get_running_loop()
        self._making: set[asyncio.Task[Any]] = set()
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._serving = False

    async def start_serving(self) -> None:
        """Begin to accept."""
        self._serving = True
        for one in self.sockets:
            one.setblocking(False)
            one.listen(self._backlog)
            self._loop.add_reader(one.fileno(), self._ready, one)

    def close(self) -> None:
        """Accept no more; other processes go on."""
        if self._serving:
            self._serving = False
            for one in self.sockets:
                self._loop.remove_reader(one.fileno())
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        for one in self.sockets:
            one.close()

    def abandon(self) -> None:
        """The sockets are not listened on any more, in no process: what comes now is refused."""
        for one in self.sockets:
            with contextlib.suppress(OSError):  # some systems only do that to connections
                one.shutdown(socket.SHUT_RDWR)

    def _ready(self, one: socket.socket) -> None:
        if self.balance.has_more:
            self._wait(one, MOMENT)
        else:
            self._take(one)

    def _wait(self, one: socket.socket, seconds: float) -> None:
        """Look at the socket again after a while, and take what is there then."""
        self._loop.remove_reader(one.fileno())
        self._waiting[one] = self._loop.call_later(seconds, self._go_on, one)

    def _go_on(self, one: socket.socket) -> None:
        del self._waiting[one]
        self._loop.add_reader(one.fileno(), self._ready, one)
        self._take(one)

    def _take(self, one: socket.socket) -> None:
        try:
            connection, _ = one.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another one was quicker, or the client has gone
        except OSError as error:
            if error.errno == errno.EINVAL:  # abandoned by another process
                self._loop.remove_reader(one.fileno())
                return
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            self._report(f"cannot accept a connection: {error.strerror}")
            self._wait(one, OUT_OF_FILES)
            return
        connection.setblocking(False)
        # Counted at once: the connection's protocol hears of it only after a turn of the loop.
        self.balance.change(1)
        task = self._loop.create_task(self._make(connection))
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    async def _make(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._accepted, connection, **self._tls)
        except OSError as error:
            if not self._tls:  # else it is a client that broke its handshake off
                self._report(f"a connection was lost while it was accepted: {error}")
            connection.close()
            self.balance.change(-1)
