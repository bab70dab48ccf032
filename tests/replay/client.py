"""The client of a golden case: one raw HTTP/1.1 request on a new connection, and all that comes back.

Chunks of a chunked request go out 50 ms apart, as recorded, or when the proxy has taken the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.replay import wire

Pause = Callable[[float], Awaitable[object]]
CHUNK_GAP = 0.05
DEFAULT_TIMEOUT = 20.0  # seconds; no case is recorded with a client that waits in vain for the default


async def exchange(
    request: dict[str, Any], port: int, pause: Pause = asyncio.sleep, patience: float = 1.0
) -> dict[str, Any]:
    """Send `request` to 127.0.0.1:`port`: what came back, in the golden form.

    `pause(seconds)` is awaited before each chunk; `patience` is a factor on the default time limit.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sender = asyncio.create_task(_send(request, writer, pause))
    seen: dict[str, Any] = {}
    body = wire.Body()
    method = request.get("method", "GET")
    try:
        async with asyncio.timeout(request.get("timeout", DEFAULT_TIMEOUT * patience)):
            await _receive(reader, method, _interim(request), seen, body)
    except TimeoutError:
        if not seen:
            seen = {"no_response": "timeout"}
        else:
            seen["body"] = "<never completes>"
    except ConnectionError:
        if not seen:
            seen = {"no_response": "closed"}
        else:
            seen |= {"body": body.text, "truncated": True}
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        writer.close()
    return seen


def _interim(request: dict[str, Any]) -> set[str]:
    """Statuses after which the response is still to come. A 100 is one for who asked for it."""
    asked = any(name.lower() == "expect" for name, _ in request.get("headers", []))
    return {"102", "103"} | ({"100"} if asked else set())


async def _receive(
    reader: asyncio.StreamReader, method: str, interim: set[str], seen: dict[str, Any], body: wire.Body
) -> None:
    head = await wire.read_head(reader)
    while head is not None and head.start.split(" ")[1] in interim:
        head = await wire.read_head(reader)
    if head is None:
        seen["no_response"] = "closed"
        return
    status = int(head.start.split(" ")[1])
    seen |= {"status": status, "headers": head.headers}
    if method != "HEAD" and status not in (204, 304):
        await wire.read_body(reader, head, body)
    seen["body"] = body.text
    if not body.complete:
        seen["truncated"] = True
    if body.trailers:
        seen["trailers"] = body.trailers


async def _send(request: dict[str, Any], writer: asyncio.StreamWriter, pause: Pause) -> None:
    if "raw" in request:
        writer.write(request["raw"].encode("latin-1"))
        await writer.drain()
        return
    headers = [tuple(pair) for pair in request.get("headers", [])]
    if not any(name.lower() == "host" for name, _ in headers):
        headers.insert(0, ("host", "test.local"))
    body: bytes | None = None
    chunks: list[str] | None = request.get("chunks")
    trailers = [tuple(pair) for pair in request.get("trailers", [])]
    if "body" in request:
        body = request["body"].encode()
    elif "body_repeat" in request:
        unit, times = request["body_repeat"]
        body = unit.encode() * times
    if trailers and chunks is None:
        chunks, body = [request.get("body", "")], None
    if chunks is not None:
        headers.append(("transfer-encoding", "chunked"))
    elif body is not None:
        headers.append(("content-length", str(len(body))))
    start = f"{request.get('method', 'GET')} {request.get('path', '/')} HTTP/1.1"
    head = wire.head(start, headers)
    if chunks is None:
        writer.write(head + (body or b""))
    elif trailers:
        parts = b"".join(wire.chunk(part.encode()) for part in chunks)
        writer.write(head + parts + wire.last_chunk(trailers))
    else:
        writer.write(head)
        for part in chunks:
            await pause(CHUNK_GAP)
            writer.write(wire.chunk(part.encode()))
        await pause(CHUNK_GAP)
        writer.write(wire.last_chunk())
    await writer.drain()
