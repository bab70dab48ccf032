"""Writing heads and bodies: framing as Envoy chooses it, nothing unsafe ever written."""

from __future__ import annotations

import pytest

from pywasmproxy.server.wire import UnsafeHeader, head_bytes, request_bytes, response_bytes


@pytest.mark.parametrize("bad", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b"])
def test_line_breaks_never_reach_the_wire(bad: bytes) -> None:
    with pytest.raises(UnsafeHeader):
        head_bytes(b"GET / HTTP/1.1", [(b"x", bad)])
    with pytest.raises(UnsafeHeader):
        head_bytes(b"GET / HTTP/1.1", [(bad, b"x")])
    with pytest.raises(UnsafeHeader):
        request_bytes([], b"GET", b"/" + bad, True, False)
    with pytest.raises(UnsafeHeader):
        request_bytes([], b"G" + bad, b"/", True, False)


def test_blank_in_the_path_would_be_a_second_request_line_part() -> None:
    with pytest.raises(UnsafeHeader):
        request_bytes([], b"GET", b"/ HTTP/1.1", True, False)


def test_request_framing() -> None:
    head, writer = request_bytes([(b"host", b"a")], b"GET", b"/x", True, False)
    assert head == b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"
    assert writer.end() == b""
    assert not writer.short
    head, _ = request_bytes([(b"host", b"a")], b"POST", b"/x", True, False)
    assert head.endswith(b"\r\ncontent-length: 0\r\n\r\n")
    head, writer = request_bytes([(b"host", b"a"), (b"content-length", b"3")], b"POST", b"/", False, False)
    assert b"chunked" not in head
    assert writer.data(b"ab") + writer.data(b"cdef") == b"abc"
    head, writer = request_bytes([(b"content-length", b"many")], b"POST", b"/", False, True)
    assert head == b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    assert writer.data(b"0123456789abcdef!") == b"11\r\n0123456789abcdef!\r\n"
    assert writer.data(b"") == b""
    assert writer.end([(b"t", b"1")]) == b"0\r\nt: 1\r\n\r\n"


def test_trailers_only_where_enabled() -> None:
    _, writer = request_bytes([], b"POST", b"/", False, False)
    assert writer.end([(b"t", b"1")]) == b"0\r\n\r\n"
    _, writer = request_bytes([(b"content-length", b"1")], b"POST", b"/", False, True)
    assert writer.end([(b"t", b"1")]) == b""


def test_response_framing() -> None:
    head, writer = response_bytes([(b"x", b"1")], 200, to_head=False, end_of_stream=False)
    assert head == b"HTTP/1.1 200 OK\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    assert writer.data(b"ok") + writer.end() == b"2\r\nok\r\n0\r\n\r\n"
    head, writer = response_bytes([], 404, to_head=False, end_of_stream=True, close=True)
    assert head == b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    assert writer.end() == b""
    head, writer = response_bytes([(b"content-length", b"2")], 200, to_head=False, end_of_stream=False)
    assert writer.data(b"abc") == b"ab"
    assert not writer.short
    _, writer = response_bytes([(b"content-length", b"2")], 200, to_head=False, end_of_stream=False)
    writer.data(b"a")
    assert writer.short
    _, writer = response_bytes([(b"content-length", b"2")], 200, to_head=False, end_of_stream=True)
    assert writer.short


@pytest.mark.parametrize("status", [204, 304, 100])
def test_bodiless_statuses(status: int) -> None:
    head, writer = response_bytes([(b"x", b"1")], status, to_head=False, end_of_stream=False)
    assert writer.data(b"abc") + writer.end() == b""
    if status != 304:
        assert b"chunked" not in head
        assert b"content-length" not in head


def test_response_to_head() -> None:
    head, writer = response_bytes([(b"content-length", b"9")], 200, to_head=True, end_of_stream=True)
    assert b"content-length: 9\r\n" in head
    assert not writer.short
    assert writer.data(b"abc") == b""


def test_http_10_client_reads_to_the_end() -> None:
    head, writer = response_bytes([], 200, to_head=False, end_of_stream=False, minor=0)
    assert b"connection: keep-alive" in head
    assert b"chunked" not in head
    assert writer.data(b"abc") + writer.end() == b"abc"


def test_unusual_status() -> None:
    assert response_bytes([], 999, to_head=False, end_of_stream=True)[0].startswith(
        b"HTTP/1.1 999 Unknown\r\n"
    )
    assert response_bytes([], 0, to_head=False, end_of_stream=True)[0] == b"HTTP/1.1 0 Unknown\r\n\r\n"
