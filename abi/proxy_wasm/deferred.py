"""What a guest asked for that happens after its callback returned.

Source: proxy-wasm specification 0.2.1 (continue, close, local response) and Envoy, which queues these
actions too: guest code never runs inside guest code, and the order of the calls is kept. Host functions
append to `Vm.deferred`; whoever entered the guest takes them out again once the callback has returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import StreamType

if TYPE_CHECKING:
    from abi.proxy_wasm.contexts import HttpContext


@dataclass(frozen=True, slots=True)
class ContinueStream:
    """Resume a paused direction; nothing happens when it is not paused."""

    context: HttpContext
    stream_type: StreamType


@dataclass(frozen=True, slots=True)
class CloseStream:
    """End the exchange without a (further) response: the client sees its connection close."""

    context: HttpContext
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


Deferred: TypeAlias = ContinueStream | CloseStream | LocalResponse | ClearRouteCache
