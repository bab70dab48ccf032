"""Scripted TCP connections of a golden case: both ends do what `steps` say, and tell what they received.

A step is `WHO VERB [ARGUMENT]`: `client` or `upstream`, and `send TEXT`, `eof` (shut down the sending side),
`close`, `reset`, or `ends` (the other side has ended: wait for it); or `wait SECONDS`. After each step the
proxy's filter gets time to log.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from tests.replay.client import Pause
from tests.replay.proxy import RunningProxy

STEP_GAP = 0.05
END_LIMIT = 10.0
STEP_LIMIT = 5.0


class End(asyncio.Protocol):
    """One end of a connection: what came, and how it ended (`open`, `eof`, `closed`, `reset`).

    It joins `others` as soon as it can send.
    """

    def __init__(self, others: list[End] | None = None) -> None:
        self.others = others
        self.received = bytearray()
        self.state = "open"
        self.over = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.others is not None:
            self.others.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.state = "eof"
        return True  # this end closes when its script says so

    def connection_lost(self, exc: Exception | None) -> None:
        if self.state == "open":
            self.state = "reset" if isinstance(exc, ConnectionError) else "closed"
        self.transport = None
        self.over.set()

    def do(self, verb: str, argument: str) -> None:
        transport = self.transport
        if transport is None:
            return
        match verb:
            case "send":
                transport.write(argument.encode())
            case "eof":
                with contextlib.suppress(OSError):  # the connection is gone already
                    transport.write_eof()
            case "close":
                transport.close()
            case "reset":
                linger = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()
            case _:
                raise ValueError(f"no such step: {verb}")

    @property
    def text(self) -> str:
        return self.received.decode("utf-8", "surrogateescape")


class Upstream:
    """Listens on `port` while the `async with` block runs; `ends` has one per connection."""

    def __init__(self) -> None:
        self.pause: Pause = asyncio.sleep
        self.requests: list[dict[str, Any]] = []  # none: what arrives is part of the responses
        self.ends: list[End] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for end in self.ends:
            if end.transport is not None:
                end.transport.abort()

    def _accept(self) -> End:
        return End(self.ends)


async def connection(
    steps: list[str], expected: dict[str, Any], port: int, upstream: Upstream, proxy: RunningProxy
) -> dict[str, Any]:
    """Play one connection to 127.0.0.1:`port`: what both ends saw before they were closed.

    What is `expected` is waited for, for a while.
    """
    before, lines = len(upstream.ends), len(proxy.records)
    _, client = await asyncio.get_running_loop().create_connection(End, "127.0.0.1", port)
    await proxy.pause(STEP_GAP, lines)
    for step in steps:
        who, verb, *rest = step.split(" ", 2)
        if who == "wait":
            await asyncio.sleep(float(verb))
            continue
        if who == "client":
            end = client
        else:
            await _until(lambda: len(upstream.ends) > before)
            end = upstream.ends[-1]
        if verb == "ends":
            await _until(partial(_has_ended, end))
            continue
        lines = len(proxy.records)
        end.do(verb, rest[0] if rest else "")
        await proxy.pause(STEP_GAP, lines)
    with contextlib.suppress(TimeoutError):
        await _until(lambda: not expected or _seen(client, upstream.ends[before:]) == expected)
    seen = _seen(client, upstream.ends[before:])
    far = upstream.ends[-1] if len(upstream.ends) > before else None
    for one in (client, far):
        if one is not None and one.transport is not None:
            lines = len(proxy.records)
            one.transport.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(one.over.wait(), END_LIMIT)
            if not expected:  # a recording: nobody knows how many lines there will be
                await proxy.pause(STEP_GAP, lines)
    return seen


def _has_ended(end: End) -> bool:
    return end.state != "open"


def _seen(client: End, upstream: list[End]) -> dict[str, Any]:
    far = upstream[-1] if upstream else None
    return {
        "client": client.text,
        "client_end": client.state,
        "upstream": None if far is None else far.text,
        "upstream_end": None if far is None else far.state,
    }


async def _until(condition: Callable[[], bool]) -> None:
    give_up = asyncio.get_running_loop().time() + STEP_LIMIT
    while not condition():
        if asyncio.get_running_loop().time() > give_up:
            raise TimeoutError("a step of the script has waited in vain")
        await asyncio.sleep(0.005)
