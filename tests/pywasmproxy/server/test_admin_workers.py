"""The admin server with several workers: one of them answers, or its successor; some orders are for all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from pywasmproxy.server.workers import possible
from tests.pywasmproxy.server.support import Client, upstream
from tests.pywasmproxy.server.test_drain import Process, served

pytestmark = pytest.mark.skipif(not possible(), reason="this system cannot fork")


async def ask(proxy: Process, path: str, method: str = "GET") -> str:
    client = await Client.open(proxy.ports["admin"])
    client.send(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    response = await client.response()
    client.close()
    assert response.status == 200
    return response.body.decode()


async def test_one_answers_and_its_successor_does_too(tmp_path: Path) -> None:
    async with upstream() as up, served(tmp_path, up.port, "--concurrency", "2") as proxy:
        await proxy.read_until("all 2 workers serve")
        await proxy.read_until("admin address")
        # Its port is the system's choice here, and another one for the successor.
        info = json.loads(await ask(proxy, "/server_info"))
        assert info["command_line_options"]["concurrency"] == 2
        os.kill(info["process"]["pid"], signal.SIGKILL)
        proxy.lines.clear()
        await proxy.read_until("admin address")
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    if await ask(proxy, "/ready") == "LIVE\n":
                        break
                await asyncio.sleep(0.02)
        assert await ask(proxy, "/reload", "POST") == "OK\n"
        await proxy.read_until("reload (SIGHUP): the configuration has been loaded anew")
        assert await ask(proxy, "/quitquitquit", "POST") == "OK\n"
        async with asyncio.timeout(20):
            assert await proxy.process.wait() == 0
