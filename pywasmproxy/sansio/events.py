"""What enters an exchange: one small dataclass per thing that can happen outside of it.

A driver (the asyncio server, an adapter, a test's list) translates its world into these and feeds them to
`HttpStream.feed`. Header maps carry pseudo-headers (`:authority :path :method`, `:status`) as ordinary lines
in front; all other lines are as they came, also `connection` and `transfer-encoding` (filters see those of a
response).

Nobody changes one that is made; `frozen` would say so, and cost four times as much for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from abi.proxy_wasm.header_map import HeaderMap

# --- from the client ------------------------------------------------------------------------------------


@dataclass(slots=True)
class RequestHeaders:
    """The head of the request. `end_of_stream`: neither body nor trailers follow.

    `upgrade`: the protocol that it asks for (lower case), if there is a route that would allow it. Then the
    body is what is said in that protocol, and a response 101 has one, too.
    """

    headers: HeaderMap
    end_of_stream: bool = False
    upgrade: bytes = b""


@dataclass(slots=True)
class RequestRefused:
    """What the client sends is no request that can be served: it is answered without looking further.

    Before a head, filters see nothing but the end of the stream; behind one they see the response. `headers`
    is the head, as far as there is one; `malformed`: the bytes were no HTTP. `end_of_stream`: the request was
    complete, so that the connection can go on.
    """

    status: int
    body: bytes
    details: str
    malformed: bool = True
    headers: HeaderMap | None = None
    end_of_stream: bool = False


@dataclass(slots=True)
class RequestBody:
    """A piece of the request's body. The end may come with it or as an empty piece of its own."""

    data: bytes
    end_of_stream: bool = False


@dataclass(slots=True)
class RequestTrailers:
    """The request's trailers; they end it. Drivers that do not pass trailers on feed an empty end instead."""

    trailers: HeaderMap


@dataclass(slots=True)
class DownstreamClosed:
    """The client is gone. Nothing can be sent to it any more."""


# --- from the upstream ----------------------------------------------------------------------------------


@dataclass(slots=True)
class UpstreamConnected:
    """The request has a connection; addresses are `ip:port`."""

    address: str
    local_address: str | None = None


@dataclass(slots=True)
class ResponseInformational:
    """An interim (1xx) response."""

    headers: HeaderMap


@dataclass(slots=True)
class ResponseHeaders:
    """The head of the response. `end_of_stream`: neither body nor trailers follow (HEAD, 204, 304, ...)."""

    headers: HeaderMap
    end_of_stream: bool = False


@dataclass(slots=True)
class ResponseBody:
    """A piece of the response's body. The end may come with it or as an empty piece of its own."""

    data: bytes
    end_of_stream: bool = False


@dataclass(slots=True)
class ResponseTrailers:
    """The response's trailers; they end it."""

    trailers: HeaderMap


class UpstreamFailure(Enum):
    """Why there will be no (complete) response. The value is Envoy's text for it (`reset reason: ...`)."""

    CONNECT_FAILURE = "remote connection failure"
    CONNECT_TIMEOUT = "connection timeout"
    RESET = "connection termination"
    PROTOCOL_ERROR = "protocol error"
    LOCAL_RESET = "local reset"
    REMOTE_RESET = "remote reset"  # of one stream of several on a connection
    REMOTE_REFUSED = "remote refused stream reset"  # likewise, and nothing was done with it
    OVERFLOW = "overflow"
    NO_HEALTHY_UPSTREAM = "no healthy upstream"
    NO_CLUSTER = "no cluster"  # of the name that the route, or the request, gave


@dataclass(slots=True)
class UpstreamFailed:
    """The upstream exchange broke, before or within the response. `detail` is for properties and logs."""

    reason: UpstreamFailure
    detail: str = ""


# --- time and other contexts ----------------------------------------------------------------------------


@dataclass(slots=True)
class RouteTimeout:
    """The time asked for with `StartRouteTimeout` is over and the response is not complete."""


@dataclass(slots=True)
class TryTimeout:
    """The time asked for with `StartTryTimeout` is over and there is no response yet."""


@dataclass(slots=True)
class RetryDue:
    """The time asked for with `WaitForRetry` is over."""


@dataclass(slots=True)
class RequestTimeout:
    """The client took longer for its request than it may."""


@dataclass(slots=True)
class IdleTimeout:
    """Nothing moved in this exchange for the idle time."""


@dataclass(slots=True)
class Resumed:
    """A filter asked for something while no event of this exchange was being worked on (guest code ran in a
    tick, or in another exchange). Feed it when `wake` was called for the stream."""


Event: TypeAlias = (
    RequestHeaders
    | RequestRefused
    | RequestBody
    | RequestTrailers
    | DownstreamClosed
    | UpstreamConnected
    | ResponseInformational
    | ResponseHeaders
    | ResponseBody
    | ResponseTrailers
    | UpstreamFailed
    | RouteTimeout
    | TryTimeout
    | RetryDue
    | RequestTimeout
    | IdleTimeout
    | Resumed
)
