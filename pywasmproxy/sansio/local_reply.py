"""Answers the proxy gives by itself: from filters, routes, limits and failures.

Source: Envoy 1.40 as measured (golden `local_response`): which fields such an answer gets, its gRPC form, and
the words of `response.code_details` and the bits of `response.flags` that say why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio.events import UpstreamFailure


class Flags(IntFlag):
    """Bits of property `response.flags`."""

    NONE = 0
    NO_HEALTHY_UPSTREAM = 0x2
    UPSTREAM_REQUEST_TIMEOUT = 0x4
    LOCAL_RESET = 0x8
    UPSTREAM_REMOTE_RESET = 0x10
    UPSTREAM_CONNECTION_FAILURE = 0x20
    UPSTREAM_CONNECTION_TERMINATION = 0x40
    UPSTREAM_OVERFLOW = 0x80
    NO_ROUTE_FOUND = 0x100
    DOWNSTREAM_CONNECTION_TERMINATION = 0x4000
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 0x8000
    STREAM_IDLE_TIMEOUT = 0x1_0000
    DOWNSTREAM_PROTOCOL_ERROR = 0x4_0000
    UPSTREAM_PROTOCOL_ERROR = 0x80_0000
    NO_CLUSTER_FOUND = 0x100_0000


class Details:
    """Values of property `response.code_details`."""

    VIA_UPSTREAM = "via_upstream"
    DIRECT_RESPONSE = "direct_response"
    ROUTE_NOT_FOUND = "route_not_found"
    CLUSTER_NOT_FOUND = "cluster_not_found"
    NO_HEALTHY_UPSTREAM = "no_healthy_upstream"
    UPGRADE_REFUSED = "upgrade_failed"
    UPSTREAM_TIMEOUT = "response_timeout"
    PER_TRY_TIMEOUT = "upstream_per_try_timeout"
    REQUEST_TIMEOUT = "request_overall_timeout"
    IDLE_TIMEOUT = "stream_idle_timeout"
    PATH_REFUSED = "path_normalization_failed"
    REQUEST_TOO_LARGE = "request_payload_too_large"
    RESPONSE_TOO_LARGE = "response_payload_too_large"
    DOWNSTREAM_CLOSED = "downstream_remote_disconnect"
    WASM_FAILED = "wasm_fail_stream"
    WASM_CLOSED = "wasm_close_stream"
    EARLY_RESET = "upstream_reset_before_response_started"
    LATE_RESET = "upstream_reset_after_response_started"
    REQUEST_HEADER_REMOVED = "filter_removed_required_request_headers"
    RESPONSE_HEADER_REMOVED = "filter_removed_required_response_headers"

    @staticmethod
    def because(what: str, reason: str) -> str:
        """`what{reason}`, with Envoy's underscores for blanks."""
        return f"{what}{{{unblanked(reason)}}}"


def unblanked(text: str) -> str:
    """Code details are one word: blanks become underscores."""
    return "_".join(text.split(" "))


@dataclass(frozen=True, slots=True)
class LocalReply:
    """What to answer. `headers` come before the ones made here; a `:status` among them is ignored."""

    status: int
    body: bytes = b""
    details: str = ""
    flags: Flags = Flags.NONE
    headers: HeaderMap = field(default_factory=HeaderMap)
    content_type: str = "text/plain"
    """Of a body, unless the headers have one."""
    grpc_status: int | None = None
    """For gRPC requests only; None: derived from the status."""


# --- what the proxy says by itself ----------------------------------------------------------------------

NO_ROUTE = LocalReply(404, details=Details.ROUTE_NOT_FOUND, flags=Flags.NO_ROUTE_FOUND)
NO_CLUSTER = LocalReply(503, details=Details.CLUSTER_NOT_FOUND, flags=Flags.NO_CLUSTER_FOUND)
REQUEST_TOO_LARGE = LocalReply(413, b"Payload Too Large", Details.REQUEST_TOO_LARGE)
RESPONSE_TOO_LARGE = LocalReply(500, b"Internal Server Error", Details.RESPONSE_TOO_LARGE)
ROUTE_TIMEOUT = LocalReply(
    504, b"upstream request timeout", Details.UPSTREAM_TIMEOUT, Flags.UPSTREAM_REQUEST_TIMEOUT
)
PER_TRY_TIMEOUT = LocalReply(
    504, b"upstream request timeout", Details.PER_TRY_TIMEOUT, Flags.UPSTREAM_REQUEST_TIMEOUT
)
REQUEST_TIMEOUT = LocalReply(408, b"request timeout", Details.REQUEST_TIMEOUT)
UPGRADE_REFUSED = LocalReply(403, details=Details.UPGRADE_REFUSED)
WASM_FAILED = LocalReply(503, details=Details.WASM_FAILED)


def idle_timeout(request_complete: bool) -> LocalReply:
    """Nothing moved: the client's fault as long as its request is not complete."""
    status = 504 if request_complete else 408
    return LocalReply(status, b"stream timeout", Details.IDLE_TIMEOUT, Flags.STREAM_IDLE_TIMEOUT)


def request_lacks(name: str) -> LocalReply:
    """The filters removed a pseudo-header without which no request can be sent."""
    text = f"missing required header: {name}"
    details = Details.because(Details.REQUEST_HEADER_REMOVED, text)
    return LocalReply(503, text.encode(), details, Flags.DOWNSTREAM_PROTOCOL_ERROR)


def response_lacks(name: str) -> LocalReply:
    """The filters removed a pseudo-header without which no response can be sent, or spoilt it."""
    text = f"missing required header: {name}"
    return LocalReply(502, text.encode(), Details.because(Details.RESPONSE_HEADER_REMOVED, text))


def upstream_failed(reason: UpstreamFailure, response_started: bool, *, retried: bool = False) -> LocalReply:
    """The upstream failed. Once a response has started, only details and flags of this matter."""
    flags = FAILURE_FLAGS[reason]
    if reason is UpstreamFailure.NO_CLUSTER:
        return NO_CLUSTER
    if reason is UpstreamFailure.NO_HEALTHY_UPSTREAM and not response_started:
        return LocalReply(503, reason.value.encode(), Details.NO_HEALTHY_UPSTREAM, flags)
    latest = "retried and the latest reset reason" if retried else "reset reason"
    text = f"upstream connect error or disconnect/reset before headers. {latest}: {reason.value}"
    status = 502 if reason is UpstreamFailure.PROTOCOL_ERROR else 503
    what = Details.LATE_RESET if response_started else Details.EARLY_RESET
    headers = HeaderMap([(b"x-envoy-overloaded", b"true")] if reason is UpstreamFailure.OVERFLOW else [])
    return LocalReply(status, text.encode(), Details.because(what, reason.value), flags, headers)


FAILURE_FLAGS = {
    UpstreamFailure.CONNECT_FAILURE: Flags.UPSTREAM_CONNECTION_FAILURE,
    UpstreamFailure.CONNECT_TIMEOUT: Flags.UPSTREAM_CONNECTION_FAILURE,
    UpstreamFailure.RESET: Flags.UPSTREAM_CONNECTION_TERMINATION,
    UpstreamFailure.PROTOCOL_ERROR: Flags.UPSTREAM_PROTOCOL_ERROR,
    UpstreamFailure.LOCAL_RESET: Flags.LOCAL_RESET,
    UpstreamFailure.REMOTE_RESET: Flags.UPSTREAM_REMOTE_RESET,
    UpstreamFailure.REMOTE_REFUSED: Flags.UPSTREAM_REMOTE_RESET,
    UpstreamFailure.OVERFLOW: Flags.UPSTREAM_OVERFLOW,
    UpstreamFailure.NO_HEALTHY_UPSTREAM: Flags.NO_HEALTHY_UPSTREAM,
    UpstreamFailure.NO_CLUSTER: Flags.NO_CLUSTER_FOUND,
}

# --- their form -----------------------------------------------------------------------------------------

GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""gRPC statuses of HTTP ones, where the protocol defines one; all others are UNKNOWN (2)."""

_GRPC_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}


def is_grpc(request: HeaderMap | None) -> bool:
    """Whether a request is gRPC, by its content-type."""
    kind = (request.first(b"content-type") if request is not None else None) or b""
    return kind == b"application/grpc" or kind.startswith((b"application/grpc+", b"application/grpc;"))


def render(reply: LocalReply, *, grpc: bool, to_head: bool) -> tuple[HeaderMap, bytes]:
    """Headers and body of a local reply. An empty body means that the response is its head alone."""
    extra = [line for line in reply.headers.lines if line[0] != b":status"]
    if grpc:
        return _render_grpc(reply, extra, to_head), b""
    headers = HeaderMap([(b":status", b"%d" % reply.status), *extra])
    if not reply.body:
        headers.remove(b"content-length")
        headers.remove(b"content-type")
        return headers, b""
    headers.set_in_place(b"content-length", b"%d" % len(reply.body))
    if headers.first(b"content-type") is None:
        headers.add(b"content-type", reply.content_type)
    return headers, b"" if to_head else reply.body


def _render_grpc(reply: LocalReply, extra: list[tuple[bytes, bytes]], to_head: bool) -> HeaderMap:
    """A trailers-only response: the status of the call is in the head, which is always a 200."""
    status = GRPC_STATUS.get(reply.status, 2) if reply.grpc_status is None else reply.grpc_status
    headers = HeaderMap([(b":status", b"200"), *extra])
    if headers.first(b"content-type") is None:
        headers.add(b"content-type", b"application/grpc")
    headers.add(b"grpc-status", b"%d" % status)
    if reply.body and not to_head:
        headers.add(b"grpc-message", _percent_encoded(reply.body))
    return headers


def _percent_encoded(message: bytes) -> bytes:
    """gRPC's encoding of messages: printable ASCII stays, all else becomes %XX."""
    return b"".join(bytes((byte,)) if byte in _GRPC_PLAIN else b"%%%02X" % byte for byte in message)
