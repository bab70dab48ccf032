"""What the proxy does to heads before and after the filters."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model import RouteAction, ServerHeaderTransformation
from pywasmproxy.sansio.headers import (
    finish_request,
    finish_response,
    http_date,
    missing_from_request,
    prepare_request,
    prepare_response,
    status_of,
    uuid4,
)

PSEUDO = [(":authority", "a.test"), (":path", "/"), (":method", "GET")]


def prepared(*lines: tuple[str, str], tls: bool = False) -> list[tuple[str, str]]:
    headers = HeaderMap(lines)
    prepare_request(headers, tls=tls, request_id=lambda: b"id")
    return [(name.decode(), value.decode()) for name, value in headers.lines]


def test_the_order_that_filters_see() -> None:
    assert prepared(
        ("x-b", "1"), (":method", "GET"), (":path", "/"), ("x-a", "2"), (":authority", "a.test")
    ) == [
        (":authority", "a.test"),
        (":path", "/"),
        (":method", "GET"),
        (":scheme", "http"),
        ("x-b", "1"),
        ("x-a", "2"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "id"),
    ]


def test_what_the_client_sent_is_kept() -> None:
    lines = prepared(
        *PSEUDO, ("x-request-id", "mine"), ("x-forwarded-proto", "https"), ("x-forwarded-for", "1.2.3.4")
    )
    assert lines[3:] == [
        (":scheme", "https"),
        ("x-request-id", "mine"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "1.2.3.4"),
    ]


def test_a_strange_forwarded_proto_does_not_become_the_scheme() -> None:
    assert (":scheme", "http") in prepared(*PSEUDO, ("x-forwarded-proto", "gopher"))
    assert (":scheme", "https") in prepared(*PSEUDO, tls=True)


@pytest.mark.parametrize("name", ["connection", "keep-alive", "proxy-connection", "transfer-encoding"])
def test_fields_about_the_connection_go(name: str) -> None:
    assert name not in dict(prepared(*PSEUDO, (name, "x")))


@pytest.mark.parametrize("name", ["connection", "proxy-connection", "transfer-encoding", "upgrade"])
def test_fields_about_the_connection_go_behind_the_filters(name: str) -> None:
    response = HeaderMap([(":status", "200"), (name, "x")])
    finish_response(
        response, server_name="e", transformation=ServerHeaderTransformation.OVERWRITE, date=b"now"
    )
    assert name not in response


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("trailers", "trailers"),
        ("gzip, Trailers", "trailers"),
        ("gzip", None),
        ("trailers;q=0.5", None),
        ("", ""),
    ],
)
def test_te(value: str, kept: str | None) -> None:
    assert dict(prepared(*PSEUDO, ("te", value))).get("te") == kept


@pytest.mark.parametrize(("timeout", "header"), [(5.0, "5000"), (0.25, "250"), (0.0015, "2"), (None, None)])
def test_expected_timeout(timeout: float | None, header: str | None) -> None:
    headers = HeaderMap([*PSEUDO, ("x-envoy-expected-rq-timeout-ms", "1")] if timeout else PSEUDO)
    finish_request(headers, RouteAction("c", timeout=timeout), b"/", envoy_headers=True)
    assert headers.get("x-envoy-expected-rq-timeout-ms") == header


def test_a_filter_says_how_long_the_upstream_has() -> None:
    fields = [("x-envoy-upstream-rq-timeout-ms", "700"), ("x-envoy-retry-on", "5xx"), ("x-envoy-other", "1")]
    headers = HeaderMap([*PSEUDO, *fields])
    assert finish_request(headers, RouteAction("c", timeout=5.0), b"/", envoy_headers=True) == 0.7
    assert headers.get("x-envoy-expected-rq-timeout-ms") == "700"
    assert [name for name in headers if name.startswith("x-envoy")] == [
        "x-envoy-other",
        "x-envoy-expected-rq-timeout-ms",
    ]
    odd = HeaderMap([*PSEUDO, ("x-envoy-upstream-rq-timeout-ms", "soon")])
    assert finish_request(odd, RouteAction("c", timeout=5.0), b"/", envoy_headers=True) == 5.0


def test_what_only_an_envoy_may_say_is_taken_out() -> None:
    assert prepared(*PSEUDO, ("x-envoy-internal", "true"), ("x-envoy-upstream-rq-timeout-ms", "1")) == (
        prepared(*PSEUDO)
    )


def test_names_with_one_value_are_joined() -> None:
    lines = [("accept", "a"), ("x-a", "1"), ("accept", "b"), ("x-a", "2"), ("accept", "")]
    lines += [("via", ""), ("via", "v")]
    fields = [line for line in prepared(*PSEUDO, *lines) if line[0] in ("accept", "x-a", "via")]
    assert fields == [("accept", "a,b"), ("x-a", "1"), ("x-a", "2"), ("via", "v")]
    response = HeaderMap([(":status", "200"), ("vary", "x"), ("keep-alive", "1"), ("vary", "y")])
    prepare_response(response)
    assert response == HeaderMap([(":status", "200"), ("vary", "x,y")])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/a/b?c=d:e", True),
        ("http://a.example:81/b?c=d", True),
        ("ftp://a.example/", True),
        ("word", True),
        ("", True),
        ("http://u:p@a.example/", False),
        ("http://a.example/#f", False),
        ("/a#f", False),
        ("about:blank", False),
        ("/a b", False),
    ],
)
def test_a_referer_is_a_url(value: str, kept: bool) -> None:
    assert (("referer", value) in prepared(*PSEUDO, ("referer", value))) is kept


def test_an_empty_request_id_is_none() -> None:
    assert dict(prepared(*PSEUDO, ("x-request-id", "")))["x-request-id"]


def test_a_target_with_a_scheme_has_another_order() -> None:
    names = [name for name, _ in prepared(*PSEUDO, (":scheme", "http"))]
    assert names[:4] == [":authority", ":scheme", ":path", ":method"]


def test_a_host_rewrite_keeps_the_old_one() -> None:
    headers = HeaderMap(PSEUDO)
    action = RouteAction("c", timeout=None, host_rewrite_literal="new.test")
    finish_request(headers, action, b"/", envoy_headers=True)
    assert (headers[":authority"], headers["x-envoy-original-host"]) == ("new.test", "a.test")


def test_a_rewrite_without_envoy_headers() -> None:
    headers = HeaderMap(PSEUDO)
    finish_request(headers, RouteAction("c", timeout=1.0, prefix_rewrite="/x/"), b"/", envoy_headers=False)
    assert headers == HeaderMap([(":authority", "a.test"), (":path", "/x/"), (":method", "GET")])


@pytest.mark.parametrize(
    ("given_lines", "missing"),
    [(PSEUDO, None), (PSEUDO[:2], ":method"), ([PSEUDO[0], PSEUDO[2]], ":path"), ([], ":method")],
)
def test_missing_from_request(given_lines: list[tuple[str, str]], missing: str | None) -> None:
    assert missing_from_request(HeaderMap(given_lines)) == missing


@pytest.mark.parametrize(
    ("transformation", "server", "result"),
    [
        (ServerHeaderTransformation.OVERWRITE, "nginx", ["envoy"]),
        (ServerHeaderTransformation.OVERWRITE, None, ["envoy"]),
        (ServerHeaderTransformation.APPEND_IF_ABSENT, "nginx", ["nginx"]),
        (ServerHeaderTransformation.APPEND_IF_ABSENT, None, ["envoy"]),
        (ServerHeaderTransformation.PASS_THROUGH, "nginx", ["nginx"]),
        (ServerHeaderTransformation.PASS_THROUGH, None, []),
    ],
)
def test_server(transformation: ServerHeaderTransformation, server: str | None, result: list[str]) -> None:
    headers = HeaderMap([("server", server)] if server else [])
    finish_response(headers, server_name="envoy", transformation=transformation, date=b"now")
    assert headers.get_all("server") == result
    assert headers["date"] == "now"


def test_dates() -> None:
    assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"


@given(st.binary(min_size=16, max_size=16))
def test_uuids(random: bytes) -> None:
    parsed = uuid.UUID(uuid4(random).decode())
    assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
    assert parsed == uuid.UUID(bytes=random, version=4)


@pytest.mark.parametrize(
    ("value", "status"),
    [("200", 200), ("0", 0), ("999", 999), ("1000", None), ("", None), ("+1", None), ("²", None)],
)
def test_status(value: str, status: int | None) -> None:
    assert status_of(HeaderMap([(":status", value)])) == status
    assert status_of(HeaderMap()) is None
