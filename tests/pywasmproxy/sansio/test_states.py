"""The transition table: what is listed goes where it says, what is not listed is an error."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.states import ANY_TIME, REQUEST, UPSTREAM, Request, StreamStateError, Upstream, after

KINDS = get_args(ev.Event)
MAP = HeaderMap()


def make(kind: Any, end: bool) -> Any:
    """An event of a kind; `end` where it can say so."""
    if kind in (ev.RequestHeaders, ev.ResponseHeaders):
        return kind(MAP, end)
    if kind in (ev.RequestBody, ev.ResponseBody):
        return kind(b"", end)
    if kind in (ev.RequestTrailers, ev.ResponseTrailers, ev.ResponseInformational):
        return kind(MAP)
    if kind is ev.RequestRefused:
        return ev.RequestRefused(400, b"", "", end_of_stream=end)
    if kind is ev.UpstreamConnected:
        return ev.UpstreamConnected("")
    if kind is ev.UpstreamFailed:
        return ev.UpstreamFailed(ev.UpstreamFailure.RESET)
    return kind()


@pytest.mark.parametrize(("state", "kind", "end"), list(REQUEST))
def test_request_rows(state: Request, kind: type, end: bool) -> None:
    assert after(state, Upstream.AWAITED, make(kind, end)) == (REQUEST[state, kind, end], Upstream.AWAITED)


@pytest.mark.parametrize(("state", "kind", "end"), list(UPSTREAM))
def test_upstream_rows(state: Upstream, kind: type, end: bool) -> None:
    assert after(Request.OPEN, state, make(kind, end)) == (Request.OPEN, UPSTREAM[state, kind, end])


def test_everything_else_is_an_error() -> None:
    # How an event of a kind looks to the table: trailers and failures always end, others may or never do.
    always = (ev.RequestTrailers, ev.ResponseTrailers, ev.UpstreamFailed)
    refused = 0
    for request, upstream, kind, flag in itertools.product(Request, Upstream, KINDS, (False, True)):
        end = True if kind in always else flag and hasattr(make(kind, True), "end_of_stream")
        listed = (request, kind, end) in REQUEST or (upstream, kind, end) in UPSTREAM
        if listed or (kind in ANY_TIME and request is not Request.IDLE):
            continue
        with pytest.raises(StreamStateError):
            after(request, upstream, make(kind, flag))
        refused += 1
    assert refused > 100


def test_every_event_is_possible_somewhere() -> None:
    assert {kind for _, kind, _ in [*REQUEST, *UPSTREAM]} | ANY_TIME == set(KINDS)


def test_a_closed_request_stays_closed() -> None:
    for (state, _, _), following in REQUEST.items():
        if state is Request.IGNORED:
            assert following is Request.IGNORED
    for (up, _, _), up_following in UPSTREAM.items():
        if up in (Upstream.COMPLETE, Upstream.RELEASED):
            assert up_following is up
