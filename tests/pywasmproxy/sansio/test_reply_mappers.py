"""Local replies as a configuration wants them. Expectations measured on Envoy 1.40."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model import Route, RouteAction, RouteMatch
from pywasmproxy.config.model_log import Comparison, RequestHeaderIs, StatusIs
from pywasmproxy.config.model_manager import BodyFormat, LocalReplies, ReplyMapper
from pywasmproxy.config.model_match import HeaderMatch
from pywasmproxy.config.model_routes import AppendAction, DirectResponse, HeaderAddition
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.events import UpstreamFailed, UpstreamFailure
from pywasmproxy.sansio.native import NativeFilter
from tests.pywasmproxy.sansio.driver import Clock, Exchange, manager

REPLIES = LocalReplies(
    (
        ReplyMapper(
            StatusIs(Comparison("EQ", 403)),
            status=401,
            body=b"mapped",
            headers=(
                HeaderAddition("x-map", "was %RESPONSE_CODE%"),
                HeaderAddition("content-type", "x/y", AppendAction.OVERWRITE_IF_EXISTS_OR_ADD),
            ),
        ),
        ReplyMapper(
            StatusIs(Comparison("EQ", 503)),
            format=BodyFormat(
                json={"code": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%"},
                content_type="application/json",
            ),
        ),
        ReplyMapper(RequestHeaderIs(HeaderMatch("x-h")), status=299),
    ),
    BodyFormat("<%LOCAL_REPLY_BODY%|%RESPONSE_CODE%>", content_type="text/html"),
)

ROUTES = (
    Route(RouteMatch(path="/denied"), DirectResponse(403, b"denied")),
    Route(RouteMatch(path="/ok"), DirectResponse(200, b"fine")),
    Route(RouteMatch(path="/up"), RouteAction("svc")),
)


def exchange(
    path: str, *lines: tuple[str, str], replies: LocalReplies = REPLIES, method: str = "GET"
) -> Exchange:
    chain = FilterChain([], http=manager(*ROUTES, local_replies=replies), surroundings=Clock())
    found = Exchange(chain)
    found.get(path, *lines, method=method)
    return found


def test_a_mapper() -> None:
    found = exchange("/denied")
    assert (found.status, found.body) == ("401", b"<mapped|401>")
    assert (found.response["x-map"], found.response["content-type"]) == ("was 403", "x/y")
    assert found.response["content-length"] == "12"
    assert found.info.response_code == 401


@pytest.mark.parametrize(
    ("path", "lines", "status", "body"),
    [
        ("/ok", (), "200", b"<fine|200>"),
        ("/none", (), "404", b"<|404>"),
        ("/none", (("x-h", "1"),), "299", b"<|299>"),
    ],
)
def test_the_format_of_all_others(
    path: str, lines: tuple[tuple[str, str], ...], status: str, body: bytes
) -> None:
    found = exchange(path, *lines)
    assert (found.status, found.body, found.response["content-type"]) == (status, body, "text/html")


def test_json_for_failures() -> None:
    found = exchange("/up")
    found.feed(UpstreamFailed(UpstreamFailure.NO_HEALTHY_UPSTREAM))
    assert found.response["content-type"] == "application/json"
    assert found.body == b'{"code":503,"text":"no healthy upstream"}\n'


def test_responses_of_upstreams_are_left_alone() -> None:
    found = exchange("/up")
    found.respond(b"own", status="403")
    assert (found.status, found.body) == ("403", b"own")


def test_a_head_has_no_body() -> None:
    found = exchange("/denied", method="HEAD")
    assert (found.status, found.body, found.response["content-length"]) == ("401", b"", "12")


def test_answers_to_grpc_keep_their_type() -> None:
    found = exchange("/denied", ("content-type", "application/grpc"))
    assert found.response["content-type"] == "application/grpc"
    assert (found.response["grpc-status"], found.response["grpc-message"]) == ("16", "<mapped|401>")


def test_without_a_format_bodies_stay() -> None:
    only = LocalReplies((ReplyMapper(StatusIs(Comparison("EQ", 403)), status=401),))
    found = exchange("/denied", replies=only)
    assert (found.status, found.body, found.response["content-type"]) == ("401", b"denied", "text/plain")


def test_answers_of_filters_are_local_replies() -> None:
    class Denies(NativeFilter):
        def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> None:
            self.send_local_response(403, b"no", [("x-own", "1")])

    chain = FilterChain([Denies], http=manager(*ROUTES, local_replies=REPLIES), surroundings=Clock())
    found = Exchange(chain)
    found.get("/ok")
    assert (found.status, found.body, found.response["x-own"]) == ("401", b"<mapped|401>", "1")
