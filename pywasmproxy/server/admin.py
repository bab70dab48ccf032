"""The admin server: looks into a running proxy, and changes it, over HTTP on an address of its own. asyncio.

Here are sockets, limits and who may ask; what is answered is in `admin_pages.py`. It serves people and
scrapers, not load: few connections, small requests, one at a time on each. Browsers are kept from being
used by other sites: the host asked for must be this machine's (unless the address is open to others
anyway), and what changes something must not come from another site's page.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qsl, urlsplit

from pywasmproxy.config.model import Address
from pywasmproxy.server.codec import Data, EndOfMessage, HeadParser, ProtocolError, RequestHead
from pywasmproxy.server.log import Logger
from pywasmproxy.server.readers import RequestReader
from pywasmproxy.server.wire import response_bytes

MOST_CONNECTIONS = 64
MOST_HEADER_BYTES = 16 * 1024
MOST_BODY_BYTES = 64 * 1024

REQUEST_TIME = 10.0
"""Seconds in which a request must have come, and in which the next one must have begun."""

SEND_TIME = 60.0
"""Seconds in which an answer must have been taken."""

TEXT = "text/plain; charset=UTF-8"
JSON = "application/json"
HTML = "text/html; charset=UTF-8"

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """What was asked. `query` has the parameters of the path and, of a form, those of the body."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AdminResponse:
    """What is answered. `afterwards` is done when it has been sent."""

    body: str
    status: int = 200
    content_type: str = TEXT
    location: str = ""
    afterwards: Callable[[], None] | None = None


Answer = Callable[[AdminRequest], Awaitable[AdminResponse]]


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine and can mean nothing else."""
    name = host.lower().removeprefix("[").removesuffix("]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(authority: str) -> str:
    """The host in `host:port`."""
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.rpartition(":")[0] if authority.count(":") == 1 else authority


class AdminServer:
    """A port that answers for a proxy."""

    def __init__(self, where: Address, answer: Answer, parser: HeadParser, logger: Logger) -> None:
        self.where, self.answer, self.parser, self.logger = where, answer, parser, logger
        self.address: Address | None = None
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Take the port and serve. OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), self.where.host, self.where.port, reuse_address=True
        )
        name = self._server.sockets[0].getsockname()
        self.address = Address(name[0], name[1])

    async def close(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.end()
        await asyncio.sleep(0)

    def refusal(self, head: RequestHead) -> str:
        """Why a request is none of ours; "" if it is."""
        authority = head.authority.decode("latin-1")
        if is_loopback(self.where.host) and not is_loopback(host_of(authority)):
            return f"this server is asked as localhost, not as {authority!r}"
        if head.method in (b"GET", b"HEAD"):
            return ""
        for name, value in head.headers:
            said = value.decode("latin-1")
            if name == b"sec-fetch-site" and said not in ("same-origin", "none"):
                return "changes are not made for other sites"
            if name == b"origin" and urlsplit(said).netloc.lower() != authority.lower():
                return "changes are not made for other sites"
        return ""


class _Connection(asyncio.Protocol):
    """One client of the admin server."""

    def __init__(self, server: AdminServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(server.parser, max_bytes=MOST_HEADER_BYTES, accept_http_10=True)
        self._head: RequestHead | None = None
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    # --- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._server.connections) >= MOST_CONNECTIONS:
            self._transport.abort()
            return
        self._server.connections.add(self)
        self._within(REQUEST_TIME)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._reader.feed(data)
        self._pump()

    def eof_received(self) -> bool:
        self._reader.feed_eof()
        return self._task is not None  # the answer can still be sent

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        """Close, without an answer if there is none yet."""
        if self._transport is not None:
            self._transport.abort()

    def _within(self, seconds: float) -> None:
        """Something must be done in that time, or the connection ends."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self.end)

    # --- requests -------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Read until a request is complete."""
        try:
            while self._task is None and not self._closing:
                event = self._reader.next_event()
                if event is None:
                    return
                complete = isinstance(event, EndOfMessage)
                if isinstance(event, RequestHead):
                    self._head = event
                elif isinstance(event, Data):
                    self._body += event.data
                    complete = event.ends
                    if len(self._body) > MOST_BODY_BYTES:
                        raise ProtocolError(413, "too large a body")
                if complete:
                    self._begin()
        except ProtocolError as error:
            self._closing = True
            self._send(AdminResponse(f"{error.detail}\n", error.status))

    def _begin(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._task = self._loop.create_task(self._answered())

    async def _answered(self) -> None:
        head, body, self._body = self._head, bytes(self._body), bytearray()
        if head is None:
            return
        if not head.keep_alive:
            self._closing = True
        try:
            refusal = self._server.refusal(head)
            if refusal:
                response = AdminResponse(f"{refusal}\n", 403)
            else:
                response = await self._server.answer(_request(head, body))
        except Exception:
            self._server.logger.error(f"admin request failed: {traceback.format_exc().rstrip()}")
            response = AdminResponse("the request failed; the log says why\n", 500)
        self._task = None
        self._send(response, head)
        if response.afterwards is not None:
            response.afterwards()
        if not self._closing:
            self._pump()

    def _send(self, response: AdminResponse, head: RequestHead | None = None) -> None:
        transport = self._transport
        if transport is None:
            return
        body = response.body.encode("utf-8", "replace")
        lines = [
            (b"content-type", response.content_type.encode()),
            (b"cache-control", b"no-cache, max-age=0"),
            (b"x-content-type-options", b"nosniff"),
            (b"content-security-policy", POLICY.encode()),
            (b"date", email.utils.formatdate(usegmt=True).encode()),
            (b"server", b"envoy"),
            (b"content-length", b"%d" % len(body)),
        ]
        if response.location:
            lines.append((b"location", response.location.encode()))
        to_head = head is not None and head.method == b"HEAD"
        start, writer = response_bytes(
            lines,
            response.status,
            to_head=to_head,
            end_of_stream=not body,
            minor=head.minor if head is not None else 1,
            close=self._closing,
        )
        transport.write(start + writer.data(body))
        if self._closing:
            self._within(SEND_TIME)
            transport.close()
            return
        self._within(SEND_TIME if transport.get_write_buffer_size() else REQUEST_TIME)
        transport.resume_reading()


def _request(head: RequestHead, body: bytes) -> AdminRequest:
    parts = urlsplit(head.path.decode("latin-1"))
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    types = [value for name, value in head.headers if name == b"content-type"]
    if types and types[0].startswith(b"application/x-www-form-urlencoded"):
        query |= dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    return AdminRequest(head.method.decode("latin-1"), parts.path or "/", query)
