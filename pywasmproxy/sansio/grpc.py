"""gRPC on HTTP/2, without I/O: what a guest's call sends, and what it is told of what comes back.

Source: the gRPC protocol over HTTP/2 (length-prefixed messages, trailers-only responses). What guests are
told in which order, and the statuses of everything that goes wrong, is as measured on Envoy 1.40.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from abi.proxy_wasm.deferred import GrpcCall, GrpcStream
from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio.arrival import INTERNAL
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.headers import EXPECTED_TIMEOUT, HOP_BY_HOP
from pywasmproxy.sansio.local_reply import (
    GRPC_STATUS,
    ROUTE_TIMEOUT,
    Details,
    LocalReply,
    render,
    upstream_failed,
)

OK, UNKNOWN, RESOURCE_EXHAUSTED, INTERNAL_ERROR = 0, 2, 8, 13
LAST_STATUS = 16
NO_STATUS = -1
"""What a `grpc-status` means that is none of the protocol's."""

PREFIX = 5
"""Bytes in front of every message: flags, then its length."""

TIMED_OUT = replace(ROUTE_TIMEOUT, details="response_timeout")


# --- what is sent ---------------------------------------------------------------------------------------

_OURS = HOP_BY_HOP | {b"te", b"content-type", b"grpc-timeout", b"content-length", b"host", b"upgrade"}
"""Fields that guests cannot set: they belong to the protocol."""


def request_headers(effect: GrpcCall | GrpcStream) -> list[tuple[bytes, bytes]]:
    """The head of the request, in Envoy's order."""
    target = effect.target
    timeout = effect.timeout_ms if isinstance(effect, GrpcCall) else 0
    lines = [
        (b":method", b"POST"),
        (b":path", b"/%b/%b" % (effect.service, effect.method)),
        (b":authority", target.authority.encode("utf-8", "surrogateescape")),
        (b":scheme", b"http"),
        (b"te", b"trailers"),
    ]
    if timeout:
        lines.append((b"grpc-timeout", timeout_text(timeout)))
    lines.append((b"content-type", b"application/grpc"))
    given = (*target.metadata, *effect.metadata.lines)
    lines += [line for line in given if line[0] not in _OURS and line[0][:1] != b":"]
    lines.append((INTERNAL, b"true"))
    if timeout:
        lines.append((EXPECTED_TIMEOUT, b"%d" % timeout))
    return lines


def timeout_text(milliseconds: int) -> bytes:
    """`grpc-timeout`: at most eight digits and a unit."""
    if milliseconds < 100_000_000:
        return b"%dm" % milliseconds
    return b"%dS" % (milliseconds // 1000)


def framed(message: bytes) -> bytes:
    """A message as it is sent, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


# --- what comes back ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InitialMetadata:
    metadata: HeaderMap


@dataclass(frozen=True, slots=True)
class Message:
    data: bytes


@dataclass(frozen=True, slots=True)
class TrailingMetadata:
    metadata: HeaderMap


@dataclass(frozen=True, slots=True)
class Closed:
    """The end; nothing follows."""

    status: int
    message: bytes


Told: TypeAlias = InitialMetadata | Message | TrailingMetadata | Closed


class Reception:
    """What comes back for one call or stream, as its guest is told it.

    Of a call (`unary`) only the end is told: its last message, or how it failed. `limit` is the most bytes
    that a message may have.
    """

    def __init__(self, *, unary: bool, limit: int) -> None:
        self.unary, self.limit = unary, limit
        self.done = False
        self.waiting = bytearray()
        """What has come of a message that is not complete."""
        self._began = False
        self._answer: bytes | None = None

    @property
    def kept(self) -> int:
        """Bytes that wait here."""
        return len(self.waiting) + len(self._answer or b"")

    def headers(self, headers: HeaderMap, ends: bool, details: str = Details.VIA_UPSTREAM) -> list[Told]:
        """The head of the response. One that ends it has in it what else is in the trailers."""
        self._began = True
        status = grpc_status(headers)
        code = headers.first(b":status")
        told: list[Told] = [InitialMetadata(HeaderMap() if ends else headers)]
        if code != b"200" and not (ends and status is not None):
            http = int(code) if code is not None and code.isdigit() else 0
            return self._told([*told, *_error(GRPC_STATUS.get(http, UNKNOWN), details)])
        if ends:
            told += _trailers(headers, details)
        return self._told(told)

    def data(self, data: bytes, ends: bool) -> list[Told]:
        """A piece of the response's body."""
        told: list[Told] = []
        if self.done:
            return told
        self.waiting += data
        while len(self.waiting) >= PREFIX and not self.done:
            flags, size = self.waiting[0], int.from_bytes(self.waiting[1:PREFIX], "big")
            if size > self.limit:
                told += _error(RESOURCE_EXHAUSTED, Details.VIA_UPSTREAM)
            elif flags > 1 or (flags and size):  # compressed: never asked for
                told += _error(INTERNAL_ERROR, Details.VIA_UPSTREAM)
            elif len(self.waiting) < PREFIX + size:
                break
            else:
                told.append(Message(bytes(self.waiting[PREFIX : PREFIX + size])))
                del self.waiting[: PREFIX + size]
                continue
            return self._told(told)
        if ends:
            told += _error(UNKNOWN, Details.VIA_UPSTREAM)
        return self._told(told)

    def trailers(self, trailers: HeaderMap) -> list[Told]:
        """The end of the response."""
        return self._told(_trailers(trailers, Details.VIA_UPSTREAM))

    def failed(self, failure: UpstreamFailure) -> list[Told]:
        """The connection, or the stream on it, is lost."""
        return self._gave_up(upstream_failed(failure, self._began))

    def timed_out(self) -> list[Told]:
        """There was no end in time."""
        return self._gave_up(TIMED_OUT)

    def _gave_up(self, reply: LocalReply) -> list[Told]:
        """As a trailers-only response of the proxy's own, as long as there was none."""
        if self._began:
            return self._told(_error(INTERNAL_ERROR, reply.details))
        headers, _ = render(reply, grpc=True, to_head=False)
        return self.headers(headers, True, reply.details)

    def _told(self, told: list[Told]) -> list[Told]:
        """What of it the guest is told."""
        if self.done:
            return []
        self.done = bool(told) and isinstance(told[-1], Closed)
        if self.done:
            self.waiting.clear()
        if not self.unary:
            return told
        for one in told:
            if isinstance(one, Message):
                self._answer = one.data
            elif isinstance(one, Closed):
                return [self._outcome(one)]
        return []

    def _outcome(self, end: Closed) -> Told:
        if end.status != OK:
            return end
        return Closed(INTERNAL_ERROR, b"") if self._answer is None else Message(self._answer)


def grpc_status(headers: HeaderMap) -> int | None:
    """The status in trailers; None when there is none, `NO_STATUS` when it makes no sense."""
    text = headers.first(b"grpc-status")
    if not text:
        return None
    return int(text) if text.isdigit() and len(text) < 10 and int(text) <= LAST_STATUS else NO_STATUS


def _trailers(trailers: HeaderMap, details: str) -> list[Told]:
    status = grpc_status(trailers)
    message = trailers.first(b"grpc-message") or b""
    end = Closed(UNKNOWN if status is None else status, _with_details(message, details))
    return [TrailingMetadata(trailers), end]


def _error(status: int, details: str) -> list[Told]:
    return [TrailingMetadata(HeaderMap()), Closed(status, _with_details(b"", details))]


def _with_details(message: bytes, details: str) -> bytes:
    """The text of a status: the server's message as it came, and why the exchange ended."""
    return b"%b{%b}" % (message, details.encode()) if message else details.encode()
