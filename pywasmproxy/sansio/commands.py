"""What leaves an exchange: one small dataclass per thing the driver has to do, in the order of the list.

Header maps are final: `server`, `date`, `x-envoy-*` are in them, hop-by-hop fields are not. What belongs to
the wire alone is the codec's: `transfer-encoding`, `content-length: 0` of an empty message, `connection`, and
cutting a body to the content-length that the head announced.

Nobody changes one that is made; `frozen` would say so, and cost four times as much for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model import Route
from pywasmproxy.sansio.retry import Retries

# --- to the upstream ------------------------------------------------------------------------------------


@dataclass(slots=True)
class SendUpstreamHeaders:
    """Start the exchange with a host of this cluster. Answered by UpstreamConnected or UpstreamFailed."""

    cluster: str
    route: Route
    headers: HeaderMap
    end_of_stream: bool
    host: str = ""  # preferred, if the cluster has it
    retries: Retries | None = None
    """It must not be sent again on the quiet: these count attempts. The driver may set their `counter`."""
    hash_key: int | None = None
    """The request's hash, by which a host may be chosen."""
    upgrade: bool = False
    """It asks for another protocol: its body is sent as it is, and 101 is a response."""


@dataclass(slots=True)
class SendUpstreamBody:
    """A piece of the request's body (may be empty when it only says that this was all)."""

    data: bytes
    end_of_stream: bool


@dataclass(slots=True)
class SendUpstreamTrailers:
    """The request's trailers; they end it."""

    trailers: HeaderMap


@dataclass(slots=True)
class ResetUpstream:
    """Give the upstream exchange up; no events from it are wanted any more."""


@dataclass(slots=True)
class StartRouteTimeout:
    """The request is complete: feed RouteTimeout in so many seconds unless StreamDone comes first."""

    seconds: float


@dataclass(slots=True)
class StartTryTimeout:
    """This attempt has the whole request: feed TryTimeout in so many seconds unless it is over before."""

    seconds: float


@dataclass(slots=True)
class WaitForRetry:
    """Feed RetryDue in so many seconds: the request is then sent once more."""

    seconds: float


# --- to the client --------------------------------------------------------------------------------------


@dataclass(slots=True)
class SendInformational:
    """An interim (1xx) response."""

    headers: HeaderMap


@dataclass(slots=True)
class SendDownstreamHeaders:
    """The head of the response. `close`: it is the last one on the connection, and its headers say so."""

    headers: HeaderMap
    end_of_stream: bool
    close: bool = False


@dataclass(slots=True)
class SendDownstreamBody:
    """A piece of the response's body (may be empty when it only says that this was all)."""

    data: bytes
    end_of_stream: bool


@dataclass(slots=True)
class SendDownstreamTrailers:
    """The response's trailers; they end it."""

    trailers: HeaderMap


@dataclass(slots=True)
class ResetDownstream:
    """Close the client's connection without completing the response."""


# --- flow control ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class PauseRequest:
    """Enough of the request's body is waiting here: read no more of it for now."""


@dataclass(slots=True)
class ResumeRequest:
    """Go on reading the request's body."""


@dataclass(slots=True)
class PauseResponse:
    """Enough of the response's body is waiting here: read no more of it for now."""


@dataclass(slots=True)
class ResumeResponse:
    """Go on reading the response's body."""


# --- the end --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class StreamDone:
    """Everything was sent and every callback has run: the last command, exactly once.

    The stream takes no further event. If the request is not complete, its rest is of no interest (the head of
    the response said `close`).
    """


Command: TypeAlias = (
    SendUpstreamHeaders
    | SendUpstreamBody
    | SendUpstreamTrailers
    | ResetUpstream
    | StartRouteTimeout
    | StartTryTimeout
    | WaitForRetry
    | SendInformational
    | SendDownstreamHeaders
    | SendDownstreamBody
    | SendDownstreamTrailers
    | ResetDownstream
    | PauseRequest
    | ResumeRequest
    | PauseResponse
    | ResumeResponse
    | StreamDone
)
