"""A proxy as a process of its own, the real Envoy or ours, with one configuration: for tests that compare.

The configuration has an admin server and an access log of one line per request: path, status, flags, details
and attempts. Both proxies get it word for word, but for the router's `typed_config`, which Envoy wants.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.pywasmproxy.server.support import Client, bootstrap, listener
from tests.replay.proxy import Command, RunningProxy, free_port

PROXIES = {"envoy": "envoy --file-flush-interval-msec 50", "ours": None}

_MARK = "LOGGED "
_LINE = (
    f"{_MARK}%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% "
    "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
)
_LOG = f"""
access_log:
- name: lines
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
    log_format: {{text_format_source: {{inline_string: "{_LINE}\\n"}}}}
"""
_ROUTER = '{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}'


@dataclass
class Beside:
    """The running process."""

    port: int
    admin_port: int
    process: RunningProxy

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a request on a connection of its own."""
        client = await Client.open(self.port)
        response = await client.get(path)
        client.close()
        return response.status, response.body

    async def post(self, path: str) -> int:
        """The status of a POST to the admin server."""
        client = await Client.open(self.admin_port)
        client.send(f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".encode())
        status = (await client.response()).status
        client.close()
        return status

    async def stats(self, pattern: str) -> dict[str, str]:
        """Statistics that are not zero, by the expression of `filter`."""
        client = await Client.open(self.admin_port)
        client.send(f"GET /stats?filter={pattern} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        lines = (await client.response()).body.decode().splitlines()
        client.close()
        pairs = (line.partition(": ") for line in lines)
        return {name: value for name, _, value in pairs if value not in ("0", "")}

    async def logged(self, count: int) -> list[list[str]]:
        """The access log's lines so far, in parts; waits until there are so many."""
        async with asyncio.timeout(20):
            while True:
                lines = [line for line in self.process.tail if line.startswith(_MARK)]
                if len(lines) >= count:
                    return [line.removeprefix(_MARK).split(" ") for line in lines]
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def beside(
    which: str,
    folder: Path,
    routes: str,
    clusters: str,
    *,
    socket: str = "",
    codec: str = "AUTO",
    fields: str = "",
) -> AsyncIterator[Beside]:
    """One of `PROXIES` with routes, clusters, a `transport_socket` and `fields` of its listener."""
    port, admin_port = free_port(), free_port()
    text = f"admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin_port}}}}}}}\n"
    one = listener(routes, port=port, options=f"codec_type: {codec}{_LOG}")
    if socket:
        one = one.replace("    - filters:", f"    - {socket}\n      filters:", 1)
    if fields:
        one = one.replace("    filter_chains:", f"    {fields}\n    filter_chains:", 1)
    text += bootstrap(one, clusters=clusters, node="{id: test, cluster: test}")
    config = folder / f"{which}-{port}.yaml"
    config.write_text(text.replace("typed_config: {}", f"typed_config: {_ROUTER}"))
    process = await RunningProxy.start(Command.parse(PROXIES[which]), config, "info", folder)
    try:
        assert await process.wait_until_listening(port), process.last_words(20)
        yield Beside(port, admin_port, process)
    finally:
        await process.stop()
