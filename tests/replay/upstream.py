"""The scripted upstream of a golden case: raw HTTP/1.1 on asyncio, answering as the case says.

It records what arrived. A request is kept when its body was complete, or when it broke off inside a body of
known length; a chunked one that broke off was not kept when the cases were recorded, so not here either.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tests.replay import wire
from tests.replay.client import Pause


class Upstream:
    """Listens on `port` while the `async with` block runs, and records into `requests`."""

    def __init__(self, script: dict[str, Any]) -> None:
        self._script = script
        self._turn = 0
        self.pause: Pause = asyncio.sleep  # awaited with the script's delay before each chunk
        self.requests: list[dict[str, Any]] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def script(self) -> dict[str, Any]:
        """How requests are answered; one that has `turns` answers each request with the next of them."""
        return self._script

    @script.setter
    def script(self, script: dict[str, Any]) -> None:
        self._script, self._turn = script, 0

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is over."""
        head = await wire.read_head(reader)
        if head is None:
            return False
        method, path = head.start.split(" ")[:2]
        record: dict[str, Any] = {"method": method, "path": path, "headers": head.headers}
        body = wire.Body()
        if head.is_chunked or head.content_length is not None:
            await wire.read_body(reader, head, body)
        record["body"] = body.text
        if body.trailers:
            record["trailers"] = body.trailers
        if body.complete or not head.is_chunked:
            self.requests.append(record)
        if not body.complete:
            return False
        return await self._answer(writer, path, method)

    async def _answer(self, writer: asyncio.StreamWriter, path: str, method: str) -> bool:
        script = self.script
        if "by_path" in script:
            script = script["by_path"].get(path.partition("?")[0], script["default"])
        if "turns" in script:
            script = script["turns"][min(self._turn, len(script["turns"]) - 1)]
            self._turn += 1
        if "delay" in script:
            await asyncio.sleep(script["delay"])
        if script.get("reset"):
            return False
        if "raw" in script:
            writer.write(script["raw"].encode("latin-1"))
            await writer.drain()
            return bool(script.get("keep", False))
        headers = [tuple(pair) for pair in script.get("headers", [])]
        chunked = "chunks" in script or "trailers" in script
        body = script.get("body", "").encode()
        headers.append(("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body))))
        head = wire.head(f"HTTP/1.1 {script.get('status', 200)} OK", headers)
        if method == "HEAD":
            body, chunked = b"", False
        if not chunked:
            writer.write(head + body)  # one packet, as recorded: a TCP filter sees its size
            await writer.drain()
            return True
        writer.write(head)
        for chunk in script.get("chunks", [script.get("body", "")]):
            if script.get("chunk_delay"):
                await writer.drain()
                await self.pause(script["chunk_delay"])
            writer.write(wire.chunk(chunk.encode()))
        writer.write(wire.last_chunk([tuple(pair) for pair in script.get("trailers", [])]))
        await writer.drain()
        return True
