"""What the proxy does to heads before and after the filters."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo, TlsFacts
from pywasmproxy.config.model import ServerHeaderTransformation
from pywasmproxy.config.model_manager import Forwarding
from pywasmproxy.sansio.arrival import Arrival
from pywasmproxy.sansio.headers import (
    finish_response,
    http_date,
    missing_from_request,
    prepare_request,
    prepare_response,
    status_of,
    uuid4,
)

PLAIN = Arrival(Forwarding())
PSEUDO = [(":authority", "a.test"), (":path", "/"), (":method", "GET")]


def prepared(*lines: tuple[str, str], tls: bool = False) -> list[tuple[str, str]]:
    headers = HeaderMap(lines)
    info = StreamInfo(downstream_tls=TlsFacts("TLSv1.3") if tls else None)
    prepare_request(headers, info, arrival=PLAIN, request_id=lambda: b"id")
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
    twice = prepared(*PSEUDO, ("x-forwarded-proto", "https"), ("x-forwarded-proto", "http"))
    assert twice[3:5] == [(":scheme", "http"), ("x-forwarded-proto", "https,http")]


@pytest.mark.parametrize("name", ["connection", "keep-alive", "proxy-connection", "transfer-encoding"])
def test_fields_about_the_connection_go(name: str) -> None:
    assert name not in dict(prepared(*PSEUDO, (name, "x")))


@pytest.mark.parametrize("name", ["connection", "proxy-connection", "transfer-encoding", "upgrade"])
def test_fields_about_the_connection_go_behind_the_filters(name: str) -> None:
    response = HeaderMap([(":status", "200"), (name, "x")])
    finish_response(
        response, server_name=b"e", transformation=ServerHeaderTransformation.OVERWRITE, date=b"now"
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
    finish_response(headers, server_name=b"envoy", transformation=transformation, date=b"now")
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
