"""Stores for tests: a memory, a file, a database of a real Redis."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from abi.proxy_wasm.store import Bounds, MemoryStore, Store
from pywasmproxy.stores.sqlite import SqliteStore

Make = Callable[..., Store]
"""Another process's view of the same store; may be given bounds."""


class Redis:
    """A Redis server that a test may end and begin anew, on one port."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.folder, self.options = folder, options
        self.process: subprocess.Popen[bytes] | None = None
        self.begin()

    def begin(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [
                *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                *("--dir", str(self.folder), *self.options, *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as one:
                one.sendall(b"PING\r\n")
                if one.recv(7) == b"+PONG\r\n":
                    return
            if time.monotonic() > deadline:
                raise TimeoutError("redis-server does not begin")
            time.sleep(0.02)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def address(self, prefix: str = "") -> str:
        return f"redis://127.0.0.1:{self.port}/0" + (f"?prefix={prefix}" if prefix else "")


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.end()


KINDS = ["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)]

shared_stores = pytest.mark.parametrize("address", KINDS[1:], indirect=True)
"""For tests with processes of their own."""


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What names a store of its own for this test."""
    kind = request.param
    if kind == "sqlite":
        return f"sqlite:{tmp_path / 'store'}"
    if kind == "redis":
        server: Redis = request.getfixturevalue("redis_server")
        return server.address(tmp_path.name)
    return "memory"


@pytest.fixture
def make(address: str) -> Iterator[Make]:
    made: list[Store] = []

    def another(bounds: Bounds | None = None) -> Store:
        if address == "memory":
            made[1:] = made[:1] or [MemoryStore(bounds)]  # all processes are one
            return made[-1]
        if address.startswith("sqlite:"):
            made.append(SqliteStore(address.removeprefix("sqlite:"), bounds))
        else:
            from pywasmproxy.stores.redis import RedisStore

            made.append(RedisStore(address, bounds))
        return made[-1]

    yield another
    for one in made:
        one.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "address" in metafunc.fixturenames and "address" not in chosen:
        metafunc.parametrize("address", KINDS, indirect=True)
