"""What may follow what in one exchange: two small tables, one per message. Anything else is an error.

The request comes from the client; the response (`upstream`) exists once the request has been sent on. Events
that may already have been on their way when their side ended are listed as such: they are accepted and
mean nothing. `HttpStream` keeps the states; filters' pauses are not states but holds (`passage.py`).
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from pywasmproxy.sansio import events as ev

Kind: TypeAlias = type[ev.Event]


class StreamStateError(Exception):
    """A driver fed an event that cannot happen now."""


class Request(Enum):
    """How far the client's request has come."""

    following: dict[tuple[Kind, bool], Request]  # what comes after it, by event and whether that ends

    IDLE = "no request yet"
    OPEN = "request not complete"
    COMPLETE = "request complete"
    IGNORED = "rest of the request ignored"  # answered already, or the exchange is over


class Upstream(Enum):
    """How far the upstream's response has come."""

    following: dict[tuple[Kind, bool], Upstream]

    IDLE = "nothing sent upstream"
    AWAITED = "response awaited"
    OPEN = "response not complete"
    COMPLETE = "response complete"
    BACK_OFF = "another attempt waits"
    RELEASED = "upstream given up"


REQUEST: dict[tuple[Request, Kind, bool], Request] = {
    # state, event, whether it ends the message -> next state
    (Request.IDLE, ev.RequestHeaders, False): Request.OPEN,
    (Request.IDLE, ev.RequestHeaders, True): Request.COMPLETE,
    (Request.IDLE, ev.RequestRefused, False): Request.IGNORED,
    (Request.IDLE, ev.RequestRefused, True): Request.COMPLETE,
    (Request.OPEN, ev.RequestRefused, False): Request.IGNORED,
    (Request.OPEN, ev.RequestBody, False): Request.OPEN,
    (Request.OPEN, ev.RequestBody, True): Request.COMPLETE,
    (Request.OPEN, ev.RequestTrailers, True): Request.COMPLETE,
    (Request.IGNORED, ev.RequestRefused, False): Request.IGNORED,
    (Request.IGNORED, ev.RequestBody, False): Request.IGNORED,
    (Request.IGNORED, ev.RequestBody, True): Request.IGNORED,
    (Request.IGNORED, ev.RequestTrailers, True): Request.IGNORED,
}

UPSTREAM: dict[tuple[Upstream, Kind, bool], Upstream] = {
    (Upstream.AWAITED, ev.UpstreamConnected, False): Upstream.AWAITED,
    (Upstream.AWAITED, ev.ResponseInformational, False): Upstream.AWAITED,
    (Upstream.AWAITED, ev.ResponseHeaders, False): Upstream.OPEN,
    (Upstream.AWAITED, ev.ResponseHeaders, True): Upstream.COMPLETE,
    (Upstream.AWAITED, ev.UpstreamFailed, True): Upstream.RELEASED,
    (Upstream.AWAITED, ev.RouteTimeout, False): Upstream.AWAITED,
    (Upstream.OPEN, ev.ResponseBody, False): Upstream.OPEN,
    (Upstream.OPEN, ev.ResponseBody, True): Upstream.COMPLETE,
    (Upstream.OPEN, ev.ResponseTrailers, True): Upstream.COMPLETE,
    (Upstream.OPEN, ev.UpstreamFailed, True): Upstream.RELEASED,
    (Upstream.OPEN, ev.RouteTimeout, False): Upstream.OPEN,
    # on their way when the response was complete
    (Upstream.COMPLETE, ev.UpstreamFailed, True): Upstream.COMPLETE,
    (Upstream.COMPLETE, ev.RouteTimeout, False): Upstream.COMPLETE,
    (Upstream.AWAITED, ev.TryTimeout, False): Upstream.AWAITED,
    (Upstream.OPEN, ev.TryTimeout, False): Upstream.OPEN,
    (Upstream.COMPLETE, ev.TryTimeout, False): Upstream.COMPLETE,
    (Upstream.BACK_OFF, ev.RetryDue, False): Upstream.AWAITED,
    (Upstream.BACK_OFF, ev.RouteTimeout, False): Upstream.BACK_OFF,
    # of the attempt before, on their way when it was given up
    (Upstream.BACK_OFF, ev.UpstreamConnected, False): Upstream.BACK_OFF,
    (Upstream.BACK_OFF, ev.ResponseInformational, False): Upstream.BACK_OFF,
    (Upstream.BACK_OFF, ev.ResponseHeaders, False): Upstream.BACK_OFF,
    (Upstream.BACK_OFF, ev.ResponseHeaders, True): Upstream.BACK_OFF,
    (Upstream.BACK_OFF, ev.ResponseBody, False): Upstream.BACK_OFF,
    (Upstream.BACK_OFF, ev.ResponseBody, True): Upstream.BACK_OFF,
    (Upstream.BACK_OFF, ev.ResponseTrailers, True): Upstream.BACK_OFF,
    (Upstream.BACK_OFF, ev.UpstreamFailed, True): Upstream.BACK_OFF,
    (Upstream.BACK_OFF, ev.TryTimeout, False): Upstream.BACK_OFF,
    # on their way when the upstream exchange was given up
    (Upstream.RELEASED, ev.TryTimeout, False): Upstream.RELEASED,
    (Upstream.RELEASED, ev.RetryDue, False): Upstream.RELEASED,
    (Upstream.RELEASED, ev.UpstreamConnected, False): Upstream.RELEASED,
    (Upstream.RELEASED, ev.ResponseInformational, False): Upstream.RELEASED,
    (Upstream.RELEASED, ev.ResponseHeaders, False): Upstream.RELEASED,
    (Upstream.RELEASED, ev.ResponseHeaders, True): Upstream.RELEASED,
    (Upstream.RELEASED, ev.ResponseBody, False): Upstream.RELEASED,
    (Upstream.RELEASED, ev.ResponseBody, True): Upstream.RELEASED,
    (Upstream.RELEASED, ev.ResponseTrailers, True): Upstream.RELEASED,
    (Upstream.RELEASED, ev.UpstreamFailed, True): Upstream.RELEASED,
    (Upstream.RELEASED, ev.RouteTimeout, False): Upstream.RELEASED,
}

ANY_TIME: frozenset[Kind] = frozenset((ev.DownstreamClosed, ev.IdleTimeout, ev.RequestTimeout, ev.Resumed))
"""Events that may come whenever there is a request, and after its end."""

ENDS: frozenset[Kind] = frozenset((ev.RequestTrailers, ev.ResponseTrailers, ev.UpstreamFailed))
"""Events that always end their message."""

# The same by state, so that an exchange asks no enumeration for its hash.
for state in Request:
    state.following = {(kind, ends): to for (at, kind, ends), to in REQUEST.items() if at is state}
    if state is not Request.IDLE:
        state.following |= {(kind, False): state for kind in ANY_TIME}
for up in Upstream:
    up.following = {(kind, ends): to for (at, kind, ends), to in UPSTREAM.items() if at is up}


def after(request: Request, upstream: Upstream, event: ev.Event) -> tuple[Request, Upstream]:
    """The states after an event. StreamStateError when it cannot happen in these states."""
    kind = type(event)
    ends = kind in ENDS or getattr(event, "end_of_stream", False)
    step = kind, ends
    next_request = request.following.get(step)
    if next_request is not None:
        return next_request, upstream
    next_upstream = upstream.following.get(step)
    if next_upstream is not None:
        return request, next_upstream
    raise impossible(request, upstream, event)


def impossible(request: Request, upstream: Upstream, event: ev.Event) -> StreamStateError:
    """The error that says that an event cannot happen in these states."""
    kind = type(event)
    ends = kind in ENDS or getattr(event, "end_of_stream", False)
    end = " (end of stream)" if ends else ""
    return StreamStateError(f"{kind.__name__}{end} cannot happen now: {request.value}, {upstream.value}")


# Under names of their own: 3.11 takes several times as long to find them in the classes.
REQUEST_IDLE, REQUEST_OPEN, REQUEST_COMPLETE, REQUEST_IGNORED = Request
NOT_SENT, AWAITED, RESPONDING, RESPONDED, BACK_OFF, RELEASED = Upstream
