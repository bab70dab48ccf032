"""What few filters ask for: body out of turn, a host of the cluster, the route as it is, longer waits."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Action, StreamType
from pywasmproxy.config.model import Route, RouteAction, RouteMatch
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from tests.pywasmproxy.sansio.driver import Exchange, Scene, Scripted, manager

DROP, HOLD, WAIT = Action.STOP_NO_BUFFER, Action.STOP_AND_BUFFER, Action.STOP_ALL_AND_WATERMARK


def inject(exchange: Exchange, filter: Scripted, data: bytes, end: bool = False) -> None:
    filter.callbacks.inject_response_body(data, end)
    exchange.wake()


def asked(scene: Scene) -> Exchange:
    exchange = scene.open()
    exchange.get()
    return exchange


def test_the_filters_behind_see_it_and_those_before_do_not() -> None:
    scene = Scene({}, {}, {})
    exchange = asked(scene)
    exchange.respond(b"up", end=False)
    scene.calls.clear()
    inject(exchange, scene.filters[1], b"own")
    assert scene.calls == ["one respb 3,0"]
    assert exchange.body == b"upown"
    exchange.feed(ev.ResponseBody(b"", True))
    assert exchange.body == b"upown"
    assert exchange.kinds()[-1] == "StreamDone"


def test_from_inside_of_the_body_callback_it_comes_behind_the_piece() -> None:
    def body(filter: Scripted) -> Action | None:
        filter.callbacks.inject_response_body(b"<%b>" % bytes(filter.body), False)
        return DROP if bytes(filter.body) == b"b" else None

    scene = Scene({"respb0": body})
    exchange = asked(scene)
    exchange.respond(b"a", b"b", b"c")
    assert exchange.body == b"a<a><b>c<c>"


def test_a_head_that_waits_goes_ahead() -> None:
    scene = Scene({}, {"resph": WAIT})
    exchange = asked(scene)
    exchange.respond(b"held", end=False)
    assert "SendDownstreamHeaders" not in exchange.kinds()
    inject(exchange, scene.filters[1], b"first")
    assert exchange.kinds().count("SendDownstreamHeaders") == 1
    assert exchange.body == b"first"  # what waits still does
    scene.filters[1].continue_response()
    exchange.wake()
    assert exchange.body == b"firstheld"
    assert exchange.kinds().count("SendDownstreamHeaders") == 1


def test_an_end_is_the_end() -> None:
    scene = Scene({}, {"respb": HOLD})
    exchange = asked(scene)
    exchange.respond(b"thrown away", end=False)
    inject(exchange, scene.filters[1], b"sorry", end=True)
    assert exchange.body == b"sorry"
    assert exchange.kinds()[-2:] == ["ResetUpstream", "StreamDone"]
    scene.filters[1].callbacks.inject_response_body(b"more", False)
    assert not exchange.stream.pending


def test_an_end_that_a_later_filter_holds() -> None:
    """What the upstream still sends is dropped meanwhile, and so is what the filter still sends."""
    scene = Scene({"respb": HOLD}, {"respb": DROP})
    exchange = asked(scene)
    exchange.respond(b"a", end=False)
    inject(exchange, scene.filters[1], b"own", end=True)
    exchange.feed(ev.ResponseBody(b"b"))
    inject(exchange, scene.filters[1], b"late")
    exchange.feed(ev.ResponseBody(b"c", True))
    assert exchange.body == b""
    scene.filters[0].continue_response()
    exchange.wake()
    assert exchange.body == b"own"
    assert exchange.kinds()[-1] == "StreamDone"


def test_trailers_after_an_end_are_dropped() -> None:
    scene = Scene({"respb": HOLD}, {"respb": DROP})
    exchange = asked(scene)
    exchange.respond(b"a", end=False)
    inject(exchange, scene.filters[1], b"own", end=True)
    scene.calls.clear()
    exchange.feed(ev.ResponseTrailers(HeaderMap([("t", "1")])))
    assert scene.calls == []
    scene.filters[0].continue_response()
    exchange.wake()
    assert exchange.body == b"own"
    assert "SendDownstreamTrailers" not in exchange.kinds()


def test_before_there_is_a_response_nothing_happens() -> None:
    scene = Scene({})
    exchange = asked(scene)
    inject(exchange, scene.filters[0], b"early", end=True)
    assert exchange.body == b""
    exchange.respond(b"body")
    assert exchange.body == b"body"


def test_before_the_head_has_come_to_the_filter_nothing_happens() -> None:
    scene = Scene({}, {"resph": WAIT})
    exchange = asked(scene)
    exchange.respond(b"body")
    inject(exchange, scene.filters[0], b"early", end=True)  # it waits at `two`, which comes first
    assert "SendDownstreamHeaders" not in exchange.kinds()
    scene.filters[1].continue_response()
    exchange.wake()
    assert exchange.body == b"body"


def test_nothing_at_all_and_no_end() -> None:
    scene = Scene({})
    exchange = asked(scene)
    exchange.respond(b"a", end=False)
    scene.calls.clear()
    inject(exchange, scene.filters[0], b"")
    assert scene.calls == []
    assert exchange.body == b"a"


def test_an_end_lets_the_sender_go_on() -> None:
    scene = Scene({"respb": HOLD}, {"respb": Action.STOP_AND_WATERMARK}, limit=10)
    exchange = asked(scene)
    exchange.respond(b"x" * 20, end=False)
    assert exchange.kinds().count("PauseResponse") == 1
    inject(exchange, scene.filters[1], b"e", end=True)
    assert exchange.kinds().count("ResumeResponse") == 1


# --- the host -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [WAIT, None])
def test_a_preferred_host_goes_with_the_request(waits: Action | None) -> None:
    def prefer(filter: Scripted) -> Action | None:
        filter.callbacks.override_host("10.0.0.1:80")
        filter.callbacks.override_host("10.0.0.2:80")
        return waits

    scene = Scene({"reqh": prefer})
    exchange = asked(scene)
    if waits:
        scene.filters[0].continue_request()
        exchange.wake()
    assert exchange.only(do.SendUpstreamHeaders).host == "10.0.0.2:80"


def test_too_late_a_preference_changes_nothing() -> None:
    scene = Scene({})
    exchange = asked(scene)
    scene.filters[0].callbacks.override_host("10.0.0.1:80")
    assert exchange.only(do.SendUpstreamHeaders).host == ""


# --- the route ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [WAIT, None])
def test_a_route_that_is_kept(waits: Action | None) -> None:
    """What the headers were counts, for the route and for what filters can ask; the first call does."""

    def keep(filter: Scripted) -> Action | None:
        kept = HeaderMap(filter.headers.lines)
        filter.headers.set("x-to", "other")
        filter.callbacks.keep_route(kept)
        filter.callbacks.keep_route(filter.headers)
        filter.callbacks.clear_route_cache()
        return waits

    route = Route(RouteMatch(prefix="/"), RouteAction("", cluster_header="x-to"))
    scene = Scene({"reqh": keep}, http=manager(route))
    exchange = scene.open()
    exchange.get("/", ("x-to", "first"))
    assert exchange.info.cluster_name == "first"
    if waits:
        scene.filters[0].continue_request()
        exchange.wake()
    sent = exchange.only(do.SendUpstreamHeaders)
    assert (sent.cluster, sent.headers.first(b"x-to")) == ("first", b"other")


# --- limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "status"), [(9, "413"), (10, "200"), (None, "413")])
def test_a_filter_lets_more_of_the_request_wait(limit: int | None, status: str) -> None:
    def change(filter: Scripted) -> None:
        filter.callbacks.limit_buffer(StreamType.HTTP_RESPONSE, 100)
        if limit is not None:
            filter.callbacks.limit_buffer(StreamType.HTTP_REQUEST, limit)

    scene = Scene({"reqh": change, "reqb": HOLD}, limit=5)
    exchange = scene.open()
    exchange.post(b"x" * 10)
    if status == "200":
        scene.filters[0].continue_request()
        exchange.wake()
        exchange.respond(b"fine")
    assert exchange.status == status


@pytest.mark.parametrize(("limit", "status"), [(9, "500"), (10, "200"), (None, "500")])
def test_a_filter_lets_more_of_the_response_wait(limit: int | None, status: str) -> None:
    def change(filter: Scripted) -> Action:
        if limit is not None:
            filter.callbacks.limit_buffer(StreamType.HTTP_RESPONSE, limit)
        return Action.STOP_ITERATION

    scene = Scene({"resph": change, "respb": HOLD}, limit=5)
    exchange = asked(scene)
    exchange.respond(b"x" * 10)
    if status == "200":
        scene.filters[0].continue_response()
        exchange.wake()
    assert exchange.status == status
