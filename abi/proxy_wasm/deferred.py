"""What a guest asked for that happens after its callback returned.

Source: proxy-wasm specification 0.2.1 (continue, close, local response, HTTP calls) and Envoy, which queues
these actions too: guest code never runs inside guest code, and the order of the calls is kept. Host functions
append to `Vm.deferred`; whoever entered the guest takes them out again once the callback has returned.

Effects are of two kinds: on a stream (they have its `context`), and call-outs (they have a `plugin`, which
gets the answers). Further kinds of both, also those of extensions, are subclasses of `StreamEffect` and
`CallOut`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import StreamType

if TYPE_CHECKING:
    from abi.proxy_wasm.contexts import HttpContext, StreamContext
    from abi.proxy_wasm.grpc_service import GrpcTarget
    from abi.proxy_wasm.plugin import Plugin


@dataclass(frozen=True, slots=True)
class ContinueStream:
    """Resume a paused direction; nothing happens when it is not paused."""

    context: StreamContext
    stream_type: StreamType


@dataclass(frozen=True, slots=True)
class CloseStream:
    """End the exchange without a (further) response, or the connection: the client sees it close."""

    context: StreamContext
    stream_type: StreamType


@dataclass(frozen=True, slots=True)
class LocalResponse:
    """Answer the client from here instead of from the upstream.

    `details` ends up in `response.code_details`; `headers` are the guest's additional ones (no `:status`);
    `grpc_status` is None when the guest gave -1. The first local response of an exchange wins, so a context
    queues one at most.
    """

    context: HttpContext
    status: int
    details: bytes
    body: bytes
    headers: HeaderMap
    grpc_status: int | None


@dataclass(frozen=True, slots=True)
class ClearRouteCache:
    """Choose the route again for the request headers as they are now."""

    context: HttpContext


@dataclass(frozen=True, slots=True)
class StreamEffect:
    """Something further that a guest wants of a stream. Extensions have subclasses, and bring to the proxy
    what carries each out."""

    context: StreamContext


@dataclass(frozen=True, slots=True)
class CallOut:
    """Something a plugin wants of the world outside; what comes of it goes to `plugin`, under `token`.

    It belongs to the plugin's root context: a stream that asked for it may be gone when an answer comes.
    """

    plugin: Plugin
    token: int


@dataclass(frozen=True, slots=True)
class HttpCall(CallOut):
    """Send a request to a cluster; `Plugin.http_call_response` or `http_call_failed` ends it.

    `headers` have `:method`, `:path` and `:authority`; `content-length` is set when there is a body.
    `timeout_ms` is 0 for no limit.
    """

    cluster: str
    headers: HeaderMap
    body: bytes
    trailers: HeaderMap
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class GrpcCall(CallOut):
    """Call a method with one message; `Plugin.grpc_message` or `grpc_closed` ends it.

    `timeout_ms` is 0 for no limit.
    """

    target: GrpcTarget
    service: bytes
    method: bytes
    metadata: HeaderMap
    message: bytes
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class GrpcStream(CallOut):
    """Open a stream of messages both ways; `Plugin.grpc_closed` ends it."""

    target: GrpcTarget
    service: bytes
    method: bytes
    metadata: HeaderMap


@dataclass(frozen=True, slots=True)
class GrpcSend(CallOut):
    """Send a message on a stream, and nothing after it when `end_of_stream`. `Plugin.grpc_sent` tells that
    it is no longer kept here."""

    message: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class GrpcClose(CallOut):
    """Send nothing more on a stream; what comes back is still wanted."""


@dataclass(frozen=True, slots=True)
class CancelCall(CallOut):
    """Give up what was begun under this token; no answer is wanted any more."""


Deferred: TypeAlias = ContinueStream | CloseStream | LocalResponse | ClearRouteCache | StreamEffect | CallOut
