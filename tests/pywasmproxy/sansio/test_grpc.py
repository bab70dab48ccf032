"""gRPC without I/O. What guests are told in each situation was recorded on Envoy 1.40, with a guest that logs
all it is told and an upstream that answers as described here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from abi.proxy_wasm.deferred import GrpcCall, GrpcStream
from abi.proxy_wasm.grpc_service import GrpcTarget
from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.sansio.events import UpstreamFailure
from pywasmproxy.sansio.grpc import (
    Closed,
    InitialMetadata,
    Message,
    Reception,
    Told,
    TrailingMetadata,
    framed,
    grpc_status,
    request_headers,
    timeout_text,
)

Play = Callable[[Reception], list[Told]]

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
VIA = b"via_upstream"
NO_HEAD = b"upstream connect error or disconnect/reset before headers. reset reason: "
EARLY = b"{upstream_reset_before_response_started{%b}}"


def head(ends: bool = False, *more: tuple[str, str], status: str = "200") -> Play:
    lines = [(":status", status), *HEAD[1:], *more] if status == "200" else [(":status", status), *more]
    return lambda reception: reception.headers(HeaderMap(lines), ends)


def data(raw: bytes, ends: bool = False) -> Play:
    return lambda reception: reception.data(raw, ends)


def trailers(*lines: tuple[str, str]) -> Play:
    return lambda reception: reception.trailers(HeaderMap(lines))


def lost(failure: UpstreamFailure) -> Play:
    return lambda reception: reception.failed(failure)


def compressed(message: bytes, flags: int = 1) -> bytes:
    return bytes([flags]) + framed(message)[1:]


EMPTY = HeaderMap()
LOCAL = [":status", "content-type", "grpc-status", "grpc-message"]
R = UpstreamFailure

# name: what the upstream does; what a stream's guest is told (metadata by its names); what a call's is.
RECORDED: dict[str, tuple[list[Play], list[Any], Told]] = {
    "success": (
        [head(), data(framed(b"a")), trailers(("grpc-status", "0"), ("x-t", "2"))],
        [[":status", "content-type"], b"a", ["grpc-status", "x-t"], Closed(0, VIA)],
        Message(b"a"),
    ),
    "two messages": (
        [head(), data(framed(b"a") + framed(b"b")), trailers(("grpc-status", "0"))],
        [[":status", "content-type"], b"a", b"b", ["grpc-status"], Closed(0, VIA)],
        Message(b"b"),
    ),
    "no message": (
        [head(), trailers(("grpc-status", "0"))],
        [[":status", "content-type"], ["grpc-status"], Closed(0, VIA)],
        Closed(13, b""),
    ),
    "an error with a message": (
        [head(), data(framed(b"a")), trailers(("grpc-status", "7"), ("grpc-message", "no%20way"))],
        [
            [":status", "content-type"],
            b"a",
            ["grpc-status", "grpc-message"],
            Closed(7, b"no%20way{" + VIA + b"}"),
        ],
        Closed(7, b"no%20way{" + VIA + b"}"),
    ),
    "trailers only": (
        [head(True, ("grpc-status", "12"), ("grpc-message", "m"))],
        [[], [":status", "content-type", "grpc-status", "grpc-message"], Closed(12, b"m{" + VIA + b"}")],
        Closed(12, b"m{" + VIA + b"}"),
    ),
    "trailers only without a status": (
        [head(True)],
        [[], [":status", "content-type"], Closed(2, VIA)],
        Closed(2, VIA),
    ),
    "503 with a status": (
        [head(True, ("grpc-status", "5"), ("grpc-message", "m"), status="503")],
        [[], [":status", "grpc-status", "grpc-message"], Closed(5, b"m{" + VIA + b"}")],
        Closed(5, b"m{" + VIA + b"}"),
    ),
    "418": ([head(True, status="418")], [[], [], Closed(2, VIA)], Closed(2, VIA)),
    "403 with a body": (
        [head(False, ("x", "y"), status="403"), data(b"nope", True)],
        [[":status", "x"], [], Closed(7, VIA)],
        Closed(7, VIA),
    ),
    "no status in the trailers": (
        [head(), data(framed(b"a")), trailers(("x", "y"))],
        [[":status", "content-type"], b"a", ["x"], Closed(2, VIA)],
        Closed(2, VIA),
    ),
    "a status that is no number": (
        [head(), data(framed(b"a")), trailers(("grpc-status", "abc"))],
        [[":status", "content-type"], b"a", ["grpc-status"], Closed(-1, VIA)],
        Closed(-1, VIA),
    ),
    "a status beyond the last": (
        [head(), data(framed(b"a")), trailers(("grpc-status", "99"))],
        [[":status", "content-type"], b"a", ["grpc-status"], Closed(-1, VIA)],
        Closed(-1, VIA),
    ),
    "an end without trailers": (
        [head(), data(framed(b"a"), True)],
        [[":status", "content-type"], b"a", [], Closed(2, VIA)],
        Closed(2, VIA),
    ),
    "a compressed message": (
        [head(), data(compressed(b"a"))],
        [[":status", "content-type"], [], Closed(13, VIA)],
        Closed(13, VIA),
    ),
    "a compressed message of nothing": (
        [head(), data(compressed(b"")), trailers(("grpc-status", "0"))],
        [[":status", "content-type"], b"", ["grpc-status"], Closed(0, VIA)],
        Message(b""),
    ),
    "flags that do not exist": (
        [head(), data(compressed(b"a", 4))],
        [[":status", "content-type"], [], Closed(13, VIA)],
        Closed(13, VIA),
    ),
    "half a message": (
        [head(), data(framed(b"abc")[:-1]), trailers(("grpc-status", "0"))],
        [[":status", "content-type"], ["grpc-status"], Closed(0, VIA)],
        Closed(13, b""),
    ),
    "too long a message": (
        [head(), data(framed(b"ok") + framed(bytes(101))[:5])],
        [[":status", "content-type"], b"ok", [], Closed(8, VIA)],
        Closed(8, VIA),
    ),
    "connection refused": (
        [lost(R.CONNECT_FAILURE)],
        [
            [],
            LOCAL,
            Closed(14, NO_HEAD + b"remote connection failure" + EARLY % b"remote_connection_failure"),
        ],
        Closed(14, NO_HEAD + b"remote connection failure" + EARLY % b"remote_connection_failure"),
    ),
    "closed before the head": (
        [lost(R.RESET)],
        [[], LOCAL, Closed(14, NO_HEAD + b"connection termination" + EARLY % b"connection_termination")],
        Closed(14, NO_HEAD + b"connection termination" + EARLY % b"connection_termination"),
    ),
    "reset before the head": (
        [lost(R.REMOTE_RESET)],
        [[], LOCAL, Closed(14, NO_HEAD + b"remote reset" + EARLY % b"remote_reset")],
        Closed(14, NO_HEAD + b"remote reset" + EARLY % b"remote_reset"),
    ),
    "refused before the head": (
        [lost(R.REMOTE_REFUSED)],
        [
            [],
            LOCAL,
            Closed(14, NO_HEAD + b"remote refused stream reset" + EARLY % b"remote_refused_stream_reset"),
        ],
        Closed(14, NO_HEAD + b"remote refused stream reset" + EARLY % b"remote_refused_stream_reset"),
    ),
    "reset behind the head": (
        [head(), lost(R.REMOTE_RESET)],
        [[":status", "content-type"], [], Closed(13, b"upstream_reset_after_response_started{remote_reset}")],
        Closed(13, b"upstream_reset_after_response_started{remote_reset}"),
    ),
    "closed behind the head": (
        [head(), lost(R.RESET)],
        [
            [":status", "content-type"],
            [],
            Closed(13, b"upstream_reset_after_response_started{connection_termination}"),
        ],
        Closed(13, b"upstream_reset_after_response_started{connection_termination}"),
    ),
    "no end in time": (
        [Reception.timed_out],
        [[], LOCAL, Closed(14, b"upstream request timeout{response_timeout}")],
        Closed(14, b"upstream request timeout{response_timeout}"),
    ),
}


def brief(told: Told) -> Any:
    """Metadata as its names, a message as its bytes, an end as it is."""
    match told:
        case InitialMetadata(metadata) | TrailingMetadata(metadata):
            return [name.decode() for name, _ in metadata.lines]
        case Message(content):
            return content
    return told


@pytest.mark.parametrize("name", RECORDED)
def test_as_recorded(name: str) -> None:
    plays, stream, call = RECORDED[name]
    reception = Reception(unary=False, limit=100)
    told = [one for play in plays for one in play(reception)]
    assert [brief(one) for one in told] == stream
    assert isinstance(told[0], InitialMetadata)
    assert isinstance(told[-2], TrailingMetadata)
    assert reception.done
    assert reception.kept == 0
    reception = Reception(unary=True, limit=100)
    assert [one for play in plays for one in play(reception)] == [call]
    assert reception.done


@pytest.mark.parametrize("name", RECORDED)
def test_nothing_follows_the_end(name: str) -> None:
    for unary in (False, True):
        reception = Reception(unary=unary, limit=100)
        for play in RECORDED[name][0]:
            play(reception)
        later = [head(), data(framed(b"x"), True), trailers(), lost(R.RESET), Reception.timed_out]
        assert [one for play in later for one in play(reception)] == []


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_messages_in_pieces_of_any_size(size: int) -> None:
    messages = [b"", b"a", b"bc" * 50, b"", b"last"]
    raw = b"".join(map(framed, messages))
    reception = Reception(unary=False, limit=100)
    reception.headers(HeaderMap(HEAD), False)
    told = [one for at in range(0, len(raw), size) for one in reception.data(raw[at : at + size], False)]
    assert told == [Message(message) for message in messages]
    assert reception.kept == 0


def test_what_is_kept_is_counted() -> None:
    reception = Reception(unary=True, limit=100)
    reception.headers(HeaderMap(HEAD), False)
    reception.data(framed(b"abc") + framed(b"defg")[:7], False)
    assert reception.kept == 3 + 7


def effect(kind: type[GrpcCall] | type[GrpcStream], timeout: int = 0, **target: Any) -> Any:
    metadata = HeaderMap(
        [("x-a", "1"), (":path", "/evil"), ("te", "x"), ("content-type", "text/x"), ("connection", "close")]
    )
    to = GrpcTarget("svc", "auth", metadata=((b"x-svc", b"7"),), **target)
    plugin: Any = None
    if kind is GrpcCall:
        return GrpcCall(plugin, 5, to, b"s", b"m", metadata, b"", timeout)
    return GrpcStream(plugin, 6, to, b"s", b"m", metadata)


def test_the_requests_head_as_recorded() -> None:
    assert request_headers(effect(GrpcCall, 2000)) == [
        (b":method", b"POST"),
        (b":path", b"/s/m"),
        (b":authority", b"auth"),
        (b":scheme", b"http"),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"2000m"),
        (b"content-type", b"application/grpc"),
        (b"x-svc", b"7"),
        (b"x-a", b"1"),
        (b"x-envoy-internal", b"true"),
        (b"x-envoy-expected-rq-timeout-ms", b"2000"),
    ]
    names = [name for name, _ in request_headers(effect(GrpcStream))]
    assert b"grpc-timeout" not in names
    assert b"x-envoy-expected-rq-timeout-ms" not in names


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(1, b"1m"), (99_999_999, b"99999999m"), (100_000_000, b"100000S"), (0xFFFFFFFF, b"4294967S")],
)
def test_timeouts(milliseconds: int, text: bytes) -> None:
    assert timeout_text(milliseconds) == text


@pytest.mark.parametrize(
    ("text", "status"),
    [("0", 0), ("16", 16), ("17", -1), ("", None), ("-1", -1), ("1" * 5000, -1), ("٣", -1), (" 1", -1)],
)
def test_statuses(text: str, status: int | None) -> None:
    assert grpc_status(HeaderMap([("grpc-status", text)])) == status


def test_no_status() -> None:
    assert grpc_status(EMPTY) is None
