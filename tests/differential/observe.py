"""One scene against one proxy: what came back, what the upstream saw and what was logged, per exchange.

What differs from run to run (dates, request ids, ports, durations) is replaced, so that two observations can
be compared as they are.
"""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.differential.scenes import Exchange, Scene
from tests.replay import client, proxy, render
from tests.replay.logs import Record, host_line
from tests.replay.upstream import Upstream

CALLBACK = re.compile(r"(on_\w+)\((\d+)")
CREATED = re.compile(r"on_context_create\((\d+), [1-9]\d*\)")
DELETED = re.compile(r"on_delete\((\d+)\)")
OVER_LIMIT = 20.0  # seconds to wait for the end of an exchange in the log

DATE = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
REQUEST_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
CLIENT_PORT = re.compile(r"127\.0\.0\.1:\d+")
# In the words of the probes: the serialised size of a map depends on how many digits the time has.
SERVICE_TIME = re.compile(r'("x-envoy-upstream-service-time"="|x-envoy-upstream-service-time -> 0 ")\d+"')
MAP_SIZE = re.compile(r" bytes=\d+ ")


@dataclass
class Observed:
    """All that was seen of one exchange; texts are steady."""

    response: dict[str, Any] = field(default_factory=dict)
    upstream: list[dict[str, Any]] = field(default_factory=list)
    guest: list[str] = field(default_factory=list)
    host: list[str] = field(default_factory=list)


class Steady:
    """Replaces what differs from run to run."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.ports = [(re.compile(rf"\b{ports[name]}\b"), f"<{name}>") for name in ports]

    def text(self, text: str) -> str:
        text = REQUEST_ID.sub("<request-id>", DATE.sub("<date>", text))
        for port, name in self.ports:
            text = port.sub(name, text)
        return CLIENT_PORT.sub("127.0.0.1:<port>", text)

    def line(self, record: Record) -> str:
        message = self.text(record.message)
        if SERVICE_TIME.search(message):
            message = MAP_SIZE.sub(" bytes=<n> ", SERVICE_TIME.sub(r'\1<ms>"', message))
        return f"[{record.level}] {record.prefix}: {message}"

    def message(self, seen: dict[str, Any]) -> dict[str, Any]:
        """A request or a response: header fields in an order of their own, as multisets."""
        steady: dict[str, Any] = {}
        for key, value in seen.items():
            if key in ("headers", "trailers"):
                steady[key] = sorted(self._header(name.lower(), text) for name, text in value)
            else:
                steady[key] = self.text(value) if isinstance(value, str) else value
        return steady

    def _header(self, name: str, value: str) -> str:
        if name == "x-envoy-upstream-service-time" and value.isdigit():
            value = "<ms>"
        return f"{name}: {self.text(value)}"


async def observe(scene: Scene, filters: Path, command: proxy.Command) -> dict[str, Observed]:
    """Run a scene from start to stop; `start` has what was logged before the first exchange.

    RuntimeError when the proxy does not start.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused, nobody takes the port
        async with Upstream({}) as upstream:
            ports = {
                "listener": proxy.free_port(),
                "upstream": upstream.port,
                "dead": dead.getsockname()[1],
            }
            config = Path(folder) / "envoy.yaml"
            config.write_text(render.render(scene.case, filters, ports), encoding="utf-8")
            level = scene.case.data.get("log_level", "trace")
            running = await proxy.RunningProxy.start(command, config, level, Path(folder))
            upstream.pause = running.pause
            try:
                if not await running.wait_until_listening(ports["listener"]):
                    raise RuntimeError(f"{command.words[0]} does not start: {running.last_words(30)}")
                return await _exchanges(scene, running, upstream, Steady(ports), ports["listener"])
            finally:
                await running.stop()


async def _exchanges(
    scene: Scene, running: proxy.RunningProxy, upstream: Upstream, steady: Steady, port: int
) -> dict[str, Observed]:
    seen: dict[str, Observed] = {}
    log = _Log(running, steady)
    await running.guest_lines(0, None)
    seen["start"] = log.take()
    for exchange in scene.exchanges:
        upstream.script = exchange.answer
        before = len(upstream.requests)
        await asyncio.sleep(exchange.request.get("sleep", 0))
        if running.process.returncode is not None:
            raise RuntimeError(f"the proxy died before {exchange.name}: {running.last_words(30)}")
        response = await client.exchange(exchange.request, port, running.pause)
        await log.wait(exchange)
        observed = log.take()
        observed.response = steady.message(response)
        observed.upstream = [steady.message(request) for request in upstream.requests[before:]]
        seen[exchange.name] = observed
    return seen


class _Log:
    """The lines of the proxy's log that are not taken yet."""

    def __init__(self, running: proxy.RunningProxy, steady: Steady) -> None:
        self.running = running
        self.steady = steady
        self.guest_taken = 0
        self.host_taken = 0

    async def wait(self, exchange: Exchange) -> None:
        """Until the exchange is over for the guests: every stream they saw begin has ended, and silence."""
        await asyncio.sleep(0.03)  # what was logged before the response came is in the pipe: read it
        give_up = time.monotonic() + OVER_LIMIT
        while not self._over(exchange) and time.monotonic() < give_up:
            await asyncio.sleep(0.005)
        await self.running.guest_lines(0, None)

    def _over(self, exchange: Exchange) -> bool:
        lines = [record.message for record in self.running.guest[self.guest_taken :]]
        if exchange.until is not None:
            return any(re.search(exchange.until, line) for line in lines)
        created = [match[1] for line in lines if (match := CREATED.fullmatch(line))]
        deleted = [match[1] for line in lines if (match := DELETED.fullmatch(line))]
        return set(created) <= set(deleted)

    def take(self) -> Observed:
        guest = self.running.guest[self.guest_taken :]
        host = [
            record
            for record in self.running.records[self.host_taken :]
            if record.is_host_error and not _of_another_thread(self.running, record)
        ]
        self.guest_taken += len(guest)
        self.host_taken = len(self.running.records)
        return Observed(
            guest=_numbered([self.steady.line(record) for record in guest]),
            host=[self.steady.text(host_line(record.message)) for record in host],
        )


def _of_another_thread(running: proxy.RunningProxy, record: Record) -> bool:
    """Envoy runs each VM once more for its main thread, which serves nothing."""
    return running.of_envoy and record.thread == running.records[0].thread


def _numbered(lines: list[str]) -> list[str]:
    """Streams by the order in which they began in the exchange: a missing one must not shift the rest."""
    numbers: dict[str, str] = {}
    for line in lines:
        if match := CREATED.search(line):
            numbers[match[1]] = f"#{len(numbers) + 1}"

    def name(match: re.Match[str]) -> str:
        return f"{match[1]}({numbers.get(match[2], match[2])}"

    return [CALLBACK.sub(name, line, count=1) for line in lines]
