"""`Serving`: a `serve` process with two workers, its log as it comes, and clients of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.pywasmproxy.server.support import Client

ROOT = Path(__file__).resolve().parents[3]
DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "hello"}}}'


@dataclass
class Serving:
    """A `serve` process with workers, and its log, read as it comes."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append((time.monotonic(), line))

    def find(self, pattern: str) -> list[re.Match[str]]:
        return [found for _, line in list(self.lines) if (found := re.search(pattern, line))]

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """The match in the count-th line that has one."""
        end = time.monotonic() + 20
        while len(found := self.find(pattern)) < count:
            assert time.monotonic() < end, (pattern, [line for _, line in self.lines])
            time.sleep(0.01)
        return found[count - 1]

    @property
    def port(self) -> int:
        return int(self.wait_for(r"listener main: listening on 127\.0\.0\.1:(\d+)$")[1])

    def worker(self, index: int, life: int = 1) -> int:
        """The process that was the index-th worker in its first, second ... life."""
        pid = int(self.wait_for(rf"worker {index}: process (\d+)$", life)[1])
        self.wait_for(rf"\[{pid}\].*starting main dispatch loop")
        return pid

    def kill(self, index: int, life: int = 1) -> float:
        """Kill a worker; seconds until another one serves in its place."""
        pid = self.worker(index, life)
        begin = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        after = self.worker(index, life + 1)
        return next(at for at, line in self.lines if f"[{after}]" in line and "starting main" in line) - begin

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.wait(20)
        self.reader.join(5)
        return self.process.returncode


Start = Callable[..., Serving]


async def clients_of_both(serving: Serving, life: int = 1) -> list[Client]:
    """Connections, some with the one worker and some with the other, in their first, second ... life."""
    clients: list[Client] = []
    wanted, served = {serving.worker(0, life), serving.worker(1, life)}, set[int]()
    while served != wanted:
        assert len(clients) < 100
        clients += [await Client.open(serving.port) for _ in range(2)]
        await asyncio.sleep(0.05)
        found = serving.find(r"\[(\d+)\]\[debug\]\[http\].* new connection")
        served = wanted & {int(one[1]) for one in found}
    return clients


class AdminClient:
    """Asks the admin server of a proxy."""

    def __init__(self, serving: Serving) -> None:
        found = serving.wait_for(r"\[(\d+)\].*admin address: 127\.0\.0\.1:(\d+)$")
        self.pid, self.port = int(found[1]), int(found[2])

    async def ask(self, path: str, method: str = "GET") -> str:
        client = await Client.open(self.port)
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-length: 0\r\n\r\n"
        client.send(head.encode())
        response = await client.response()
        client.close()
        assert response.status == 200
        return response.body.decode()

    async def stats(self) -> dict[str, str]:
        lines = (await self.ask("/stats")).splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)


ADMIN = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n"
