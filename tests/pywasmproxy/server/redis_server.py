"""A real Redis server for tests marked `redis`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path


class Redis:
    """A running Redis server."""

    def __init__(self, folder: Path, *more: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        where = ["--port", str(self.port), "--bind", "127.0.0.1"]
        self._command = ["redis-server", *where, "--save", "", "--dir", str(folder), *more]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    async def ready(self) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.asynccontextmanager
async def redis(folder: Path, *more: str) -> AsyncIterator[Redis]:
    server = Redis(folder, *more)
    try:
        await server.ready()
        yield server
    finally:
        server.stop()
