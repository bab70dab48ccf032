"""Replies of Redis: where each ends, however the bytes come, and what no server can do to us."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmproxy.server import resp
from pywasmproxy.server.resp import Replies, RespError

VALUES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":-12\r\n",
    b"$5\r\nhe\r\no\r\n",
    b"$0\r\n\r\n",
    b"$-1\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*2\r\n$1\r\na\r\n:1\r\n",
    b"*3\r\n*1\r\n+a\r\n*0\r\n*2\r\n*-1\r\n$1\r\n\n\r\n",
    b"+\r\n",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value(value: bytes) -> None:
    assert Replies().feed(value) == [value]
    replies = Replies()
    for byte in value[:-1]:
        assert replies.feed(bytes((byte,))) == []
        assert replies.held
    assert replies.feed(value[-1:]) == [value]
    assert replies.held == 0


def array(values: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(values) + b"".join(values)


trees = st.recursive(
    st.sampled_from(VALUES) | st.binary(max_size=40).map(lambda data: b"$%d\r\n%b\r\n" % (len(data), data)),
    lambda inner: st.lists(inner, max_size=4).map(array),
    max_leaves=12,
)


@given(st.lists(trees, max_size=6), st.data())
def test_any_replies_in_any_pieces(values: list[bytes], data: Any) -> None:
    whole, replies, got = b"".join(values), Replies(), []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        got += replies.feed(whole[:size])
        whole = whole[size:]
    assert got == values
    assert replies.held == 0


@pytest.mark.parametrize(
    "data",
    [
        b"?1\r\n",
        b"\r\n",
        b":x\r\n",
        b":\r\n",
        b"$x\r\n",
        b"$1\r\nabc",
        b"*x\r\n",
        b"*1\r\n%1\r\n",
        b"$99999999999999999999999\r\n",
        b"$99999999999\r\n",
        b"*99999999999999999999999\r\n",
        b"+" + b"a" * resp.MAX_LINE + b"a\r\n",
        b"+" + b"a" * (resp.MAX_LINE + 1),
        b"*1\r\n" * (resp.MAX_NESTING + 1),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_reply(data: bytes) -> None:
    with pytest.raises(RespError):
        Replies().feed(data)


def test_a_reply_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resp, "MAX_REPLY", 1000)
    replies = Replies()
    replies.feed(b"*1000000000\r\n")
    for _ in range(200):
        assert replies.feed(b":1\r\n") == []
    with pytest.raises(RespError, match="too long"):
        replies.feed(b":1\r\n" * 60)


def test_deep_but_not_too_deep() -> None:
    value = b"*1\r\n" * resp.MAX_NESTING + b":1\r\n"
    assert Replies().feed(value) == [value]
