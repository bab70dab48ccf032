"""SIGTERM: readiness turns false, nothing new is accepted, what is in flight ends in time, with status 0."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.pywasmproxy.server.support import Client, bootstrap, cluster, listener, upstream

ADMIN = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM on Windows")


class Process:
    """A proxy of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.ports: dict[str, int] = {}

    async def read_until(self, text: str) -> None:
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            while not any(text in line for line in self.lines):
                line = (await self.process.stderr.readline()).decode()
                assert line, self.lines
                self.lines.append(line)
                if (found := re.search(r"listener main: listening on \S+:(\d+)", line)) is not None:
                    self.ports["main"] = int(found[1])
                if (found := re.search(r"admin address: \S+:(\d+)", line)) is not None:
                    self.ports["admin"] = int(found[1])


@contextlib.asynccontextmanager
async def served(folder: Path, upstream_port: int, *options: str) -> AsyncIterator[Process]:
    config = folder / "proxy.yaml"
    log = f'access_log: [{{name: x, typed_config: {{"@type": {FILE}, path: {folder}/access.log}}}}]'
    config.write_text(ADMIN + bootstrap(listener(options=log), clusters=cluster(upstream_port)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pywasmvm", "serve", "-c", str(config), *options, stderr=asyncio.subprocess.PIPE
    )
    one = Process(process)
    try:
        await one.read_until("starting main dispatch loop")
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


FILE = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"


async def test_requests_in_flight_end_well(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def patient(visit: Any) -> None:
        while True:
            await visit.head()
            await go_on.wait()
            visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")

    async with upstream(patient) as up, served(tmp_path, up.port, "--drain-time-s", "20") as proxy:
        idle = await Client.open(proxy.ports["main"])
        busy = await Client.open(proxy.ports["main"])
        busy.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        admin = await Client.open(proxy.ports["admin"])
        admin.send(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await admin.response()).body == b"LIVE\n"
        async with asyncio.timeout(20):
            while not up.heads:
                await asyncio.sleep(0.005)
        proxy.process.send_signal(signal.SIGTERM)
        assert await idle.closed()
        admin.send(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        ready = await admin.response()
        assert (ready.status, ready.body) == (503, b"DRAINING\n")
        with pytest.raises(ConnectionRefusedError):
            await Client.open(proxy.ports["main"])
        go_on.set()
        answer = await busy.response()
        assert (answer.status, answer.body, answer.one("connection")) == (200, b"done", "close")
        async with asyncio.timeout(15):
            assert await proxy.process.wait() == 0
    assert '"GET / HTTP/1.1" 200' in (tmp_path / "access.log").read_text()


async def test_what_takes_too_long_is_cut_off(tmp_path: Path) -> None:
    async def silent(visit: Any) -> None:
        await visit.head()
        await asyncio.sleep(60)

    async with upstream(silent) as up, served(tmp_path, up.port, "--drain-time-s", "0.3") as proxy:
        busy = await Client.open(proxy.ports["main"])
        busy.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(20):
            while not up.heads:
                await asyncio.sleep(0.005)
        proxy.process.send_signal(signal.SIGTERM)
        assert await busy.closed()
        async with asyncio.timeout(15):
            assert await proxy.process.wait() == 0
    assert '"GET / HTTP/1.1" 0 DC' in (tmp_path / "access.log").read_text()


async def test_quitquitquit_ends_the_process(tmp_path: Path) -> None:
    async with upstream() as up, served(tmp_path, up.port, "--log-format", "json") as proxy:
        admin = await Client.open(proxy.ports["admin"])
        admin.send(b"POST /quitquitquit HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await admin.response()).body == b"OK\n"
        async with asyncio.timeout(15):
            assert await proxy.process.wait() == 0
