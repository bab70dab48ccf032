"""One exchange from its first event to StreamDone: order, answers from here, failures, early ends, facts."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action
from pywasmproxy.config.model import (
    DirectResponse,
    Redirect,
    Route,
    RouteAction,
    RouteMatch,
    RouterFilter,
    ServerHeaderTransformation,
)
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.states import StreamStateError
from tests.pywasmproxy.sansio.driver import MS, SVC, Exchange, Scene, Scripted, Step, manager, request

LIFE_OF_TWO = ["one log", "two log", "one done", "one delete", "two done", "two delete"]


def deny(filter: Scripted) -> None:
    filter.send_local_response(403, b"body", [("x-l", "1")], details="not you")


def remove(name: str) -> Step:
    def step(filter: Scripted) -> None:
        filter.headers.remove(name)

    return step


# --- the ordinary way -----------------------------------------------------------------------------------


def test_get() -> None:
    scene = Scene({}, {})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"Hello ", b"World!", lines=[("content-length", "12")])
    assert exchange.kinds() == [
        "SendUpstreamHeaders",
        "StartRouteTimeout",
        "SendDownstreamHeaders",
        "SendDownstreamBody",
        "SendDownstreamBody",
        "SendDownstreamBody",
        "StreamDone",
    ]
    assert exchange.body == b"Hello World!"
    assert scene.calls == [
        "one reqh 6,1",
        "two reqh 6,1",
        "two resph 3,0",
        "one resph 3,0",
        "two respb 6,0",
        "one respb 6,0",
        "two respb 6,0",
        "one respb 6,0",
        "two respb 0,1",
        "one respb 0,1",
        *LIFE_OF_TWO,
    ]


def test_post_starts_the_route_timeout_when_all_is_sent() -> None:
    exchange = Scene({}).open()
    exchange.post(b"abc", end=False)
    assert "StartRouteTimeout" not in exchange.kinds()
    exchange.feed(ev.RequestBody(b"", True))
    assert exchange.only(do.StartRouteTimeout).seconds == 5.0
    assert exchange.only(do.SendUpstreamHeaders).cluster == "svc"
    assert exchange.only(do.SendUpstreamHeaders).route is SVC


def test_data_with_the_end_becomes_two_pieces() -> None:
    scene = Scene({})
    exchange = scene.open()
    exchange.feed(ev.RequestHeaders(request(method="POST")), ev.RequestBody(b"abc", True))
    exchange.feed(ev.ResponseHeaders(HeaderMap([(":status", "200")])), ev.ResponseBody(b"de", True))
    assert scene.calls[1:6] == [
        "one reqb 3,0",
        "one reqb 0,1",
        "one resph 2,0",
        "one respb 2,0",
        "one respb 0,1",
    ]
    assert exchange.stream.done


def test_without_filters() -> None:
    exchange = Scene().open()
    exchange.post(b"a")
    exchange.respond(b"b")
    assert (exchange.uploaded, exchange.body) == (b"a", b"b")


def test_a_response_without_body() -> None:
    scene = Scene({})
    exchange = scene.open()
    exchange.get(method="HEAD")
    exchange.respond(lines=[("content-length", "12")])
    assert scene.calls[1] == "one resph 3,1"
    assert exchange.only(do.SendDownstreamHeaders).end_of_stream
    assert exchange.response["content-length"] == "12"


def test_a_filter_left_out_by_its_factory() -> None:
    scene = Scene({})
    scene.chain.factories.insert(0, lambda callbacks, info: None)
    exchange = scene.open()
    exchange.get()
    exchange.respond()
    assert scene.calls[:2] == ["one reqh 6,1", "one resph 2,1"]


def test_headers_that_the_proxy_adds() -> None:
    scene = Scene({})
    exchange = scene.open()
    exchange.get("/", ("connection", "keep-alive, x"), ("te", "gzip"), ("keep-alive", "1"), ("x-a", "1"))
    scene.clock.advance(12)
    exchange.respond(lines=[("transfer-encoding", "chunked"), ("server", "nginx"), ("x-b", "2")])
    assert exchange.only(do.SendUpstreamHeaders).headers.lines == [
        (b":authority", b"test.local"),
        (b":path", b"/"),
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b"x-a", b"1"),
        (b"x-forwarded-proto", b"http"),
        (b"x-request-id", b"00000000-0000-4000-8000-000000000001"),
        (b"x-envoy-expected-rq-timeout-ms", b"5000"),
    ]
    assert exchange.response.lines == [
        (b":status", b"200"),
        (b"server", b"envoy"),
        (b"x-b", b"2"),
        (b"x-envoy-upstream-service-time", b"12"),
        (b"date", b"Tue, 14 Nov 2023 22:13:20 GMT"),
    ]


def test_manners_are_settings() -> None:
    http = manager(
        SVC,
        http_filters=(RouterFilter(suppress_envoy_headers=True),),
        server_header_transformation=ServerHeaderTransformation.PASS_THROUGH,
        generate_request_id=False,
    )
    exchange = Scene({}, http=http).open()
    exchange.get()
    exchange.respond(lines=[("date", "then")])
    assert "x-request-id" not in exchange.only(do.SendUpstreamHeaders).headers
    assert "x-envoy-expected-rq-timeout-ms" not in exchange.only(do.SendUpstreamHeaders).headers
    assert exchange.response.lines == [(b":status", b"200"), (b"date", b"then")]


def test_a_chain_without_settings() -> None:
    exchange = Exchange(FilterChain([]))
    exchange.get("/anything")
    exchange.respond(b"x")
    assert exchange.only(do.SendUpstreamHeaders).cluster == "upstream"
    assert "StartRouteTimeout" not in exchange.kinds()


@pytest.mark.parametrize(("protocol", "interim"), [("HTTP/1.1", 1), ("HTTP/1.0", 0)])
def test_expect_100_continue_is_met_here(protocol: str, interim: int) -> None:
    exchange = Scene({}).open(StreamInfo(protocol=protocol))
    exchange.post(b"a", lines=[("expect", "100-Continue")])
    found = [c for c in exchange.commands if isinstance(c, do.SendInformational)]
    assert [c.headers[":status"] for c in found] == ["100"] * interim
    assert ("expect" in exchange.only(do.SendUpstreamHeaders).headers) is (interim == 0)


def test_interim_responses_are_not_passed_on() -> None:
    exchange = Scene({}).open()
    exchange.get()
    assert exchange.feed(ev.ResponseInformational(HeaderMap([(":status", "103")]))) == []


# --- facts ----------------------------------------------------------------------------------------------


def test_facts_of_an_ordinary_exchange() -> None:
    scene = Scene({})
    exchange = scene.open(StreamInfo(protocol="HTTP/1.1"))
    exchange.post(b"abc")
    scene.clock.advance(3)
    exchange.feed(ev.UpstreamConnected("10.0.0.1:80", "10.0.0.2:5000"))
    scene.clock.advance(7)
    exchange.respond(b"Hello", status="201", trailers=[("x-t", "1")])
    info = exchange.info
    assert (info.start_time, info.request_duration) == (1_700_000_000_000_000_000, 10 * MS)
    assert (info.request_body_size, info.response_body_size) == (3, 5)
    assert (info.response_code, info.response_code_details, info.response_flags) == (201, "via_upstream", 0)
    assert (info.upstream_address, info.upstream_local_address) == ("10.0.0.1:80", "10.0.0.2:5000")
    assert (info.upstream_attempt_count, info.upstream_pool_ready_duration) == (1, 3 * MS)
    assert info.upstream_transport_failure_reason == ""
    assert info.backend_latency == 10 * MS
    assert (info.route_name, info.virtual_host_name, info.cluster_name) == (
        "svc_route",
        "local_service",
        "svc",
    )
    assert info.request_headers is not None
    assert info.response_headers is exchange.response
    assert info.response_trailers == HeaderMap([("x-t", "1")])


def test_the_route_follows_the_request_headers() -> None:
    other = Route(RouteMatch(prefix="/other"), RouteAction("other"), name="other_route", metadata={"a": {}})
    seen: list[str | None] = []

    def move(filter: Scripted) -> None:
        filter.headers.set_in_place(":path", "/other/x")
        seen.append(filter.info.route_name)
        filter.callbacks.clear_route_cache()

    def look(filter: Scripted) -> Action:
        seen.append(filter.info.route_name)
        return Action.STOP_ALL_AND_BUFFER

    scene = Scene({"reqh": move}, {"reqh": look}, http=manager(other, SVC))
    exchange = scene.open()
    exchange.get()
    assert seen == ["svc_route", "svc_route"]
    assert exchange.info.route_name == "other_route"  # cleared once the callbacks had returned
    scene.filters[1].continue_request()
    exchange.wake()
    assert exchange.only(do.SendUpstreamHeaders).cluster == "other"
    assert exchange.info.route_metadata == {"a": {}}
    scene.filters[1].headers.set_in_place(":path", "/")
    scene.filters[1].callbacks.clear_route_cache()
    exchange.wake()
    assert exchange.info.route_name == "other_route"  # too late


# --- answers from here ----------------------------------------------------------------------------------


def test_local_response_passes_the_filters_that_saw_the_request() -> None:
    scene = Scene({}, {"reqh": deny})
    exchange = scene.open()
    exchange.get()
    assert scene.calls == [
        "one reqh 6,1",
        "two reqh 6,1",
        "two resph 4,0",
        "one resph 4,0",
        "two respb 4,1",
        "one respb 4,1",
        *LIFE_OF_TWO,
    ]
    assert exchange.kinds() == ["SendDownstreamHeaders", "SendDownstreamBody", "StreamDone"]
    assert exchange.response.lines[:4] == [
        (b":status", b"403"),
        (b"x-l", b"1"),
        (b"content-length", b"4"),
        (b"content-type", b"text/plain"),
    ]
    assert (exchange.info.response_code, exchange.info.response_code_details) == (403, "not_you")


@pytest.mark.parametrize("where", ["reqh", "reqb0", "reqb1"])
def test_local_response_to_an_unfinished_request_is_the_last(where: str) -> None:
    scene = Scene({where: deny})
    exchange = scene.open()
    exchange.post(b"abc", end=where == "reqb1")
    assert exchange.only(do.SendDownstreamHeaders).close is (where != "reqb1")
    assert exchange.promises.done
    if where != "reqb1":  # what is still on its way means nothing
        assert exchange.feed(ev.RequestBody(b"more"), ev.RequestBody(b"", True)) == []
    assert ("ResetUpstream" in exchange.kinds()) is (where != "reqh")


def test_action_and_continue_mean_nothing_beside_a_local_response() -> None:
    def both(filter: Scripted) -> Action:
        filter.continue_request()
        deny(filter)
        filter.send_local_response(500)
        filter.close_stream()
        return Action.CONTINUE

    scene = Scene({"reqh": both}, {})
    exchange = scene.open()
    exchange.get()
    assert "two reqh 6,1" not in scene.calls
    assert exchange.status == "403"
    assert "SendUpstreamHeaders" not in exchange.kinds()


def test_local_response_while_paused() -> None:
    scene = Scene({"reqh": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.post(b"abc")
    deny(scene.filters[0])
    assert exchange.stream.pending
    exchange.wake()
    assert exchange.status == "403"
    assert not exchange.only(do.SendDownstreamHeaders).close
    deny(scene.filters[0])  # too late
    assert exchange.woken == []
    assert not exchange.stream.pending


def test_an_answer_that_waits_to_be_given_stops_everything_else() -> None:
    scene = Scene({"reqh": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.post(end=False)
    deny(scene.filters[0])
    exchange.feed(ev.RequestBody(b"abc"))  # before the driver came to feed Resumed
    assert exchange.status == "403"
    assert not any(" reqb" in call for call in scene.calls)
    assert exchange.wake() == []


def test_local_response_in_place_of_the_upstream_s() -> None:
    scene = Scene({}, {"resph": deny})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"Hello", lines=[("x-up", "1")], end=False)
    assert [call for call in scene.calls if " resp" in call] == ["two resph 3,0"]
    assert (exchange.status, exchange.body) == ("403", b"body")
    assert "x-up" not in exchange.response
    assert exchange.kinds()[2:] == [
        "ResetUpstream",
        "SendDownstreamHeaders",
        "SendDownstreamBody",
        "StreamDone",
    ]


def test_local_response_to_a_local_response_goes_out_directly() -> None:
    def other(filter: Scripted) -> None:
        filter.send_local_response(418, b"teapot")

    scene = Scene({"resph": other}, {"reqh": deny})
    exchange = scene.open()
    exchange.get()
    assert (exchange.status, exchange.body) == ("418", b"teapot")
    assert [call for call in scene.calls if " resp" in call] == ["two resph 4,0", "one resph 4,0"]


def test_local_response_after_the_head_cuts_off() -> None:
    scene = Scene({"respb": deny})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"Hello", end=False)
    assert exchange.kinds()[2:] == ["SendDownstreamHeaders", "ResetDownstream", "ResetUpstream", "StreamDone"]
    assert exchange.body == b""


def test_a_local_response_can_be_held() -> None:
    scene = Scene({"reqh": deny, "resph": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.get()
    assert exchange.commands == []
    scene.filters[0].continue_response()
    exchange.wake()
    assert (exchange.status, exchange.body) == ("403", b"body")


@pytest.mark.parametrize("where", ["reqh", "resph", "respb"])
def test_close(where: str) -> None:
    scene = Scene({where: lambda filter: filter.close_stream()})
    exchange = scene.open()
    exchange.get()
    if where != "reqh":
        exchange.respond(b"x", end=False)
    assert exchange.promises.client == "reset"
    assert scene.calls[-3:] == ["one log", "one done", "one delete"]


@pytest.mark.parametrize("status", ["", "abc", "-1", "1000"])
def test_a_response_without_status(status: str) -> None:
    def spoil(filter: Scripted) -> None:
        filter.headers.remove(":status")
        if status:
            filter.headers.add(":status", status)

    exchange = Scene({"resph": spoil}).open()
    exchange.get()
    exchange.respond(b"Hello", end=False)
    assert (exchange.status, exchange.body) == ("502", b"missing required header: :status")
    assert (
        exchange.info.response_code_details
        == "filter_removed_required_response_headers{missing_required_header:_:status}"
    )


@pytest.mark.parametrize("where", ["reqh", "resph"])
def test_a_local_response_with_an_impossible_status(where: str) -> None:
    scene = Scene({where: lambda filter: filter.send_local_response(1000, b"x")})
    exchange = scene.open()
    exchange.get()
    if where == "resph":
        exchange.respond(b"Hello")
    assert exchange.status == "502"


def test_a_request_without_method() -> None:
    exchange = Scene({"reqh": remove(":method")}).open()
    exchange.get()
    assert (exchange.status, exchange.body) == ("503", b"missing required header: :method")
    assert exchange.info.response_flags == 0x40000


@pytest.mark.parametrize("name", [":path", "x-forwarded-proto"])
def test_a_request_without_what_routes_need(name: str) -> None:
    exchange = Scene({"reqh": remove(name)}).open()
    exchange.get()
    assert (exchange.status, exchange.body) == ("404", b"")
    assert (exchange.info.response_code_details, exchange.info.response_flags) == ("route_not_found", 0x100)
    assert exchange.info.route_name is None


def test_direct_response() -> None:
    scene = Scene({}, http=manager(Route(RouteMatch(prefix="/"), DirectResponse(200, b"hi"))))
    exchange = scene.open()
    exchange.get()
    assert (exchange.status, exchange.body) == ("200", b"hi")
    assert exchange.response["content-type"] == "text/plain"
    assert (exchange.info.response_code_details, exchange.info.cluster_name) == ("direct_response", None)
    assert "one respb 2,1" in scene.calls


# --- what is no request ---------------------------------------------------------------------------------


def test_bytes_that_are_no_request_are_answered_past_the_filters() -> None:
    scene = Scene({}, {})
    exchange = scene.open()
    exchange.feed(ev.RequestRefused(400, b"Bad Request", "http1.codec_error"))
    assert (exchange.status, exchange.body) == ("400", b"Bad Request")
    assert exchange.only(do.SendDownstreamHeaders).close
    assert (exchange.info.response_code_details, exchange.info.response_flags) == (
        "http1.codec_error",
        0x40000,
    )
    assert exchange.info.request_headers is None
    assert scene.calls == LIFE_OF_TWO
    assert exchange.stream.done


def test_a_head_that_cannot_be_served_is_known_at_the_end() -> None:
    scene = Scene({})
    exchange = scene.open()
    headers = request(path="*", method="OPTIONS")
    exchange.feed(ev.RequestRefused(404, b"", "absolute_path_rejected", False, headers, True))
    assert (exchange.status, exchange.body) == ("404", b"")
    assert not exchange.only(do.SendDownstreamHeaders).close
    assert exchange.info.response_flags == 0
    assert exchange.info.request_headers == headers


def test_a_body_that_breaks_the_protocol_is_answered_through_the_filters() -> None:
    scene = Scene({})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    exchange.feed(ev.RequestRefused(400, b"Bad Request", "http1.codec_error"))
    assert (exchange.status, exchange.body) == ("400", b"Bad Request")
    assert "ResetUpstream" in exchange.kinds()
    assert "one resph 3,0" in scene.calls
    assert exchange.stream.done


def test_a_body_that_breaks_the_protocol_behind_the_response_cuts_it_off() -> None:
    exchange = Scene({}).open()
    exchange.post(b"abc", end=False)
    exchange.feed(ev.ResponseHeaders(HeaderMap([(":status", "200")])))
    exchange.feed(ev.RequestRefused(400, b"Bad Request", "http1.codec_error"))
    assert "ResetDownstream" in exchange.kinds()
    assert exchange.status == "200"


def test_a_tunnel_has_no_route() -> None:
    scene = Scene({})
    exchange = scene.open()
    exchange.feed(ev.RequestHeaders(HeaderMap([(":authority", "a:80"), (":method", "CONNECT")])))
    assert (exchange.status, exchange.info.response_code_details) == ("404", "route_not_found")
    assert scene.calls[0] == "one reqh 5,0"


def test_direct_response_to_head() -> None:
    scene = Scene({}, http=manager(Route(RouteMatch(prefix="/"), DirectResponse(200, b"hi"))))
    exchange = scene.open()
    exchange.get(method="HEAD")
    assert exchange.only(do.SendDownstreamHeaders).end_of_stream
    assert exchange.response["content-length"] == "2"


def test_redirect() -> None:
    http = manager(Route(RouteMatch(prefix="/"), Redirect(302, host_redirect="b.test")))
    exchange = Scene({}, http=http).open()
    exchange.get("/x?y=1")
    assert (exchange.status, exchange.response["location"]) == ("302", "http://b.test/x?y=1")


def test_a_route_without_cluster() -> None:
    exchange = Scene({}, http=manager(Route(RouteMatch(prefix="/"), RouteAction("")))).open()
    exchange.get()
    assert exchange.status == "503"
    assert exchange.info.response_code_details == "cluster_not_found"


def test_rewrites() -> None:
    action = RouteAction("svc", timeout=None, prefix_rewrite="/v2/", host_rewrite_literal="b.test")
    exchange = Scene({}, http=manager(Route(RouteMatch(prefix="/v1/"), action))).open()
    exchange.get("/v1/a?b=/v1/")
    headers = exchange.only(do.SendUpstreamHeaders).headers
    assert headers[":path"] == "/v2/a?b=/v1/"
    assert headers["x-envoy-original-path"] == "/v1/a?b=/v1/"
    assert headers[":authority"] == "b.test"
    assert "x-envoy-expected-rq-timeout-ms" not in headers


# --- failures -------------------------------------------------------------------------------------------

BEFORE = "upstream connect error or disconnect/reset before headers. reset reason: "


@pytest.mark.parametrize(
    ("reason", "status", "body", "flags"),
    [
        (UpstreamFailure.CONNECT_FAILURE, "503", BEFORE + "remote connection failure", 0x20),
        (UpstreamFailure.CONNECT_TIMEOUT, "503", BEFORE + "connection timeout", 0x20),
        (UpstreamFailure.RESET, "503", BEFORE + "connection termination", 0x40),
        (UpstreamFailure.PROTOCOL_ERROR, "502", BEFORE + "protocol error", 0x800000),
        (UpstreamFailure.LOCAL_RESET, "503", BEFORE + "local reset", 0x8),
        (UpstreamFailure.OVERFLOW, "503", BEFORE + "overflow", 0x80),
        (UpstreamFailure.NO_HEALTHY_UPSTREAM, "503", "no healthy upstream", 0x2),
    ],
)
def test_upstream_failure_before_the_response(
    reason: UpstreamFailure, status: str, body: str, flags: int
) -> None:
    scene = Scene({})
    exchange = scene.open()
    exchange.get()
    exchange.feed(ev.UpstreamFailed(reason, "why"))
    assert (exchange.status, exchange.body.decode(), exchange.info.response_flags) == (status, body, flags)
    assert "ResetUpstream" not in exchange.kinds()
    assert f"one respb {len(body)},1" in scene.calls


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("event", "details", "flags"),
    [
        (
            ev.UpstreamFailed(UpstreamFailure.RESET),
            "upstream_reset_after_response_started{connection_termination}",
            0x40,
        ),
        (ev.RouteTimeout(), "response_timeout", 0x4),
    ],
)
def test_failure_within_the_response(event: ev.Event, details: str, flags: int, held: bool) -> None:
    exchange = Scene({"resph": Action.STOP_ALL_AND_BUFFER if held else None}).open()
    exchange.get()
    exchange.respond(b"Hel", end=False)
    exchange.feed(event)
    assert exchange.promises.client == "reset"
    assert exchange.promises.done
    assert (exchange.info.response_code_details, exchange.info.response_flags) == (details, flags)


def test_route_timeout() -> None:
    exchange = Scene({}).open()
    exchange.get()
    exchange.feed(ev.RouteTimeout())
    assert (exchange.status, exchange.body) == ("504", b"upstream request timeout")
    assert exchange.promises.upstream == "reset"
    assert exchange.info.response_flags == 0x4


def test_route_timeout_while_the_filters_hold_a_complete_response() -> None:
    exchange = Scene({"resph": Action.STOP_ALL_AND_BUFFER}).open()
    exchange.get()
    exchange.respond(b"x")
    assert exchange.feed(ev.RouteTimeout()) == []


@pytest.mark.parametrize(("end", "status"), [(True, "504"), (False, "408")])
def test_idle_timeout(end: bool, status: str) -> None:
    exchange = Scene({"reqh": Action.STOP_ALL_AND_BUFFER}).open()
    exchange.post(b"abc", end=end)
    exchange.feed(ev.IdleTimeout())
    assert (exchange.status, exchange.body) == (status, b"stream timeout")
    assert (exchange.info.response_code_details, exchange.info.response_flags) == (
        "stream_idle_timeout",
        0x10000,
    )


def test_idle_timeout_within_the_response() -> None:
    exchange = Scene({}).open()
    exchange.get()
    exchange.respond(b"abc", end=False)
    exchange.feed(ev.IdleTimeout())
    assert exchange.promises.client == "reset"


@pytest.mark.parametrize("script", [{}, {"reqh": Action.STOP_ALL_AND_BUFFER}])
def test_the_client_leaves(script: dict[str, Any]) -> None:
    scene = Scene(script)
    exchange = scene.open()
    exchange.get()
    exchange.feed(ev.DownstreamClosed())
    assert exchange.kinds()[-1] == "StreamDone"
    assert ("ResetUpstream" in exchange.kinds()) is (not script)
    info = exchange.info
    assert (info.response_code, info.response_code_details) == (None, "downstream_remote_disconnect")
    assert info.response_flags == 0x4000
    assert scene.calls[-3:] == ["one log", "one done", "one delete"]


# --- early ends -----------------------------------------------------------------------------------------


def test_the_upstream_answers_before_the_request_ends() -> None:
    exchange = Scene({}).open()
    exchange.post(b"abc", end=False)
    exchange.respond(b"x", end=False)
    assert exchange.only(do.SendDownstreamHeaders).close
    exchange.feed(ev.RequestBody(b"de"))  # the upload goes on while the response is not complete
    assert exchange.uploaded == b"abcde"
    exchange.feed(ev.ResponseBody(b"", True))
    assert exchange.kinds()[-3:] == ["SendDownstreamBody", "ResetUpstream", "StreamDone"]
    assert "x-envoy-upstream-service-time" not in exchange.response


def test_the_upstream_completes_early_while_the_filters_hold_the_response() -> None:
    scene = Scene({"resph": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    exchange.respond(b"x")
    assert exchange.kinds()[-1] == "ResetUpstream"
    assert exchange.feed(ev.RequestBody(b"de"), ev.RequestBody(b"", True)) == []
    scene.filters[0].continue_response()
    exchange.wake()
    assert exchange.body == b"x"
    assert not exchange.only(do.SendDownstreamHeaders).close  # the request is complete by now


def test_events_on_their_way_when_the_upstream_was_given_up() -> None:
    scene = Scene({"reqb": deny, "resph": Action.STOP_ALL_AND_BUFFER})
    exchange = scene.open()
    exchange.post(b"abc", end=False)
    assert exchange.promises.upstream == "reset"
    late: list[ev.Event] = [
        ev.UpstreamConnected("10.0.0.1:80"),
        ev.ResponseHeaders(HeaderMap([(":status", "200")])),
        ev.ResponseBody(b"x"),
        ev.UpstreamFailed(UpstreamFailure.RESET),
        ev.RouteTimeout(),
        ev.RequestBody(b"x"),
    ]
    assert exchange.feed(*late) == []
    scene.filters[0].continue_response()
    exchange.wake()
    assert exchange.status == "403"


# --- wrong drivers --------------------------------------------------------------------------------------


def test_an_impossible_event_changes_nothing() -> None:
    exchange = Scene({}).open()
    with pytest.raises(StreamStateError, match=r"RequestBody cannot happen now: no request yet"):
        exchange.feed(ev.RequestBody(b"x"))
    exchange.get()
    with pytest.raises(StreamStateError, match=r"RequestHeaders \(end of stream\) cannot happen now"):
        exchange.get()
    exchange.respond(b"x")
    assert exchange.body == b"x"


def test_events_inside_of_events() -> None:
    def feed_another(filter: Scripted) -> None:
        exchange.get()

    scene = Scene({"reqh": feed_another})
    exchange = scene.open()
    with pytest.raises(StreamStateError, match="while another one"):
        exchange.get()


def test_a_broken_filter_costs_only_its_exchange() -> None:
    def break_it(filter: Scripted) -> None:
        raise RuntimeError("bug")

    scene = Scene({"resph": break_it})
    exchange = scene.open()
    exchange.get()
    with pytest.raises(RuntimeError, match="bug"):
        exchange.respond()
    exchange.promises.client = "gone"
    exchange.stream.feed(ev.DownstreamClosed())  # what the server does then
    assert exchange.stream.done
    assert scene.calls[-3:] == ["one log", "one done", "one delete"]


def test_nobody_has_to_be_woken() -> None:
    scene = Scene({"reqh": Action.STOP_ALL_AND_BUFFER})
    stream = scene.chain.open()
    stream.feed(ev.RequestHeaders(request(), True))
    scene.filters[0].continue_request()
    assert stream.pending
    assert [type(c).__name__ for c in stream.feed(ev.Resumed())] == [
        "SendUpstreamHeaders",
        "StartRouteTimeout",
    ]


def test_asks_of_a_filter_that_is_being_made_belong_to_no_place() -> None:
    def make(callbacks: Any, info: StreamInfo) -> None:
        assert not callbacks.waiting
        callbacks.continue_stream(0)

    scene = Scene({})
    scene.chain.factories.append(make)
    exchange = scene.open()
    assert not exchange.stream.pending
