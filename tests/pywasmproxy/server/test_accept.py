"""Connections spread over those that accept from one socket; two acceptors stand for two processes."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pywasmproxy.server import accept
from pywasmproxy.server.accept import Acceptor, Balance
from pywasmproxy.server.seat import copies


class Worker(asyncio.Protocol):
    """Somebody who accepts."""

    def __init__(self, index: int, balance: Balance) -> None:
        self.balance = copy.copy(balance)
        self.balance.index = index
        self.balance.sit()
        self.lines: list[str] = []

    def begin(self, sockets: list[socket.socket]) -> None:
        self.acceptor = Acceptor(
            copies(sockets), lambda: self, self.balance, backlog=100, report=self.lines.append
        )

    @property
    def connections(self) -> int | None:
        return self.balance[self.balance.index]

    def connection_made(self, transport: Any) -> None:
        transport.write(b"%d" % self.balance.index)


@contextlib.asynccontextmanager
async def workers(count: int) -> AsyncIterator[tuple[list[Worker], int]]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    balance = Balance(count)
    made = [Worker(index, balance) for index in range(count)]
    for worker in made:
        worker.begin([listening])
        await worker.acceptor.start_serving()
    try:
        yield made, listening.getsockname()[1]
    finally:
        for worker in made:
            worker.acceptor.close()
        listening.close()


async def clients(port: int, count: int) -> list[bytes]:
    """Who served each of so many connections that begin at once."""

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await asyncio.wait_for(reader.readexactly(1), 5)
        finally:
            writer.close()

    return await asyncio.gather(*(one() for _ in range(count)))


async def test_each_gets_the_same_number() -> None:
    async with workers(2) as (made, port):
        served = await clients(port, 20)
        assert sorted(served) == [b"0"] * 10 + [b"1"] * 10
        assert [worker.connections for worker in made] == [10, 10]


async def test_who_has_more_leaves_the_next_ones_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "MOMENT", 20.0)  # as long as a busy machine needs for the other one to come
    async with workers(2) as (made, port):
        made[0].balance.change(5)
        assert await clients(port, 5) == [b"1"] * 5


async def test_who_is_absent_does_not_count_and_who_does_not_come_is_not_waited_for() -> None:
    async with workers(2) as (made, port):
        made[1].acceptor.close()
        made[0].balance.change(5)
        assert await clients(port, 3) == [b"0"] * 3  # it sits there, and does not come
        made[0].balance.leave(1)
        assert made[0].connections == 8
        assert not made[0].balance.has_more
        made[1].balance.change(1)
        assert made[1].connections is None


async def test_no_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "OUT_OF_FILES", 0.01)
    async with workers(1) as ([worker], port):
        real = socket.socket.accept
        left = [errno.EMFILE, errno.ENFILE]

        def full(self: socket.socket) -> Any:
            if left:
                raise OSError(left.pop(), "Too many open files")
            return real(self)

        monkeypatch.setattr(socket.socket, "accept", full)
        assert await clients(port, 2) == [b"0", b"0"]
        assert worker.lines == ["cannot accept a connection: Too many open files"] * 2


async def test_a_connection_that_cannot_be_used() -> None:
    async with workers(1) as ([worker], port):
        loop, real = asyncio.get_running_loop(), worker.acceptor._loop
        assert loop is real

        async def fails(*_: Any) -> None:
            raise OSError("no")

        worker.acceptor._loop = type("Loop", (), {"connect_accepted_socket": fails})()
        worker.acceptor._loop.create_task = loop.create_task  # type: ignore[method-assign]
        worker.acceptor._loop.remove_reader = loop.remove_reader  # type: ignore[method-assign]
        with pytest.raises(asyncio.IncompleteReadError):
            await clients(port, 1)
        assert worker.connections == 0
        assert worker.lines == ["a connection was lost while it was accepted: no"]
