"""The form of answers the proxy gives by itself."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.local_reply import (
    FAILURE_FLAGS,
    NO_CLUSTER,
    LocalReply,
    is_grpc,
    render,
    upstream_failed,
)


def lines(
    reply: LocalReply, *, grpc: bool = False, to_head: bool = False
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    headers, body = render(reply, grpc=grpc, to_head=to_head)
    return headers.lines, body


def test_with_body() -> None:
    assert lines(LocalReply(403, b"body", headers=HeaderMap([("x-l", "1")]))) == (
        [(b":status", b"403"), (b"x-l", b"1"), (b"content-length", b"4"), (b"content-type", b"text/plain")],
        b"body",
    )


def test_given_headers_are_kept_where_they_are_true() -> None:
    given = HeaderMap(
        [(":status", "200"), ("content-length", "99"), ("content-type", "text/x"), ("set-cookie", "a")]
    )
    given.add("set-cookie", "b")
    assert lines(LocalReply(403, b"body", headers=given))[0] == [
        (b":status", b"403"),
        (b"content-length", b"4"),
        (b"content-type", b"text/x"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
    ]


def test_without_body() -> None:
    given = HeaderMap([("content-length", "99"), ("content-type", "text/x"), ("x-a", "1")])
    assert lines(LocalReply(204, headers=given)) == ([(b":status", b"204"), (b"x-a", b"1")], b"")


def test_to_head() -> None:
    headers, body = lines(LocalReply(200, b"body"), to_head=True)
    assert (b"content-length", b"4") in headers
    assert body == b""


@pytest.mark.parametrize(
    ("status", "given", "grpc"),
    [(403, None, b"7"), (200, 0, b"0"), (503, None, b"14"), (418, None, b"2"), (403, 16, b"16")],
)
def test_grpc(status: int, given: int | None, grpc: bytes) -> None:
    reply = LocalReply(status, "nö 5%".encode(), headers=HeaderMap([("x-a", "1")]), grpc_status=given)
    assert lines(reply, grpc=True) == (
        [
            (b":status", b"200"),
            (b"x-a", b"1"),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", grpc),
            (b"grpc-message", b"n%C3%B6 5%25"),
        ],
        b"",
    )


def test_grpc_with_its_own_content_type_and_no_message() -> None:
    reply = LocalReply(403, headers=HeaderMap([("content-type", "application/grpc+proto")]))
    assert lines(reply, grpc=True)[0] == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc+proto"),
        (b"grpc-status", b"7"),
    ]


@pytest.mark.parametrize(
    ("kind", "grpc"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc;charset=x", True),
        ("application/grpc-web", False),
        ("text/plain", False),
    ],
)
def test_which_requests_are_grpc(kind: str, grpc: bool) -> None:
    assert is_grpc(HeaderMap([("content-type", kind)])) is grpc
    assert not is_grpc(HeaderMap())
    assert not is_grpc(None)


def test_every_upstream_failure_has_words_and_flags() -> None:
    assert set(FAILURE_FLAGS) == set(UpstreamFailure)
    for reason in set(UpstreamFailure) - {UpstreamFailure.NO_CLUSTER}:
        assert reason.value.encode() in upstream_failed(reason, False).body
        assert " " not in upstream_failed(reason, True).details
    assert upstream_failed(UpstreamFailure.NO_CLUSTER, False) == NO_CLUSTER
