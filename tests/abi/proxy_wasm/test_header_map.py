"""`HeaderMap`: order, repeats, case, raw bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.proxy_wasm.header_map import HeaderMap

NAMES = st.sampled_from(["x-a", "X-A", "x-b", ":path", "cookie", ""])
VALUES = st.binary(max_size=8)
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def test_names_are_lower_case_and_order_is_kept() -> None:
    headers = HeaderMap([("X-B", "1"), ("x-a", "2"), ("x-B", "3")])
    assert headers.lines == [(b"x-b", b"1"), (b"x-a", b"2"), (b"x-b", b"3")]
    assert headers["X-B"] == "1"
    assert headers.get_all("x-b") == ["1", "3"]
    assert headers.all_bytes(b"x-b") == [b"1", b"3"]
    assert list(headers) == ["x-b", "x-a"]
    assert len(headers) == 2
    assert headers.line_count == 3


def test_any_bytes_survive_as_text() -> None:
    headers = HeaderMap([(b"x", b"\xff\x80caf\xc3\xa9")])
    text = headers["x"]
    assert text.endswith("café")
    headers["y"] = text
    assert headers.first("y") == b"\xff\x80caf\xc3\xa9"


def test_mapping_interface() -> None:
    headers = HeaderMap([("a", "1")])
    assert "A" in headers
    assert headers.__contains__(b"a")
    assert not headers.__contains__(1)
    assert headers.get("nope") is None
    with pytest.raises(KeyError, match="nope"):
        headers["nope"]
    with pytest.raises(KeyError, match="nope"):
        del headers["nope"]
    del headers["A"]
    assert not headers
    assert headers == HeaderMap()
    assert headers != {}
    with pytest.raises(TypeError):
        hash(headers)
    assert repr(HeaderMap([("a", "1")])) == "HeaderMap([('a', '1')])"


def test_set_moves_to_the_end_and_in_place_does_not() -> None:
    headers = HeaderMap([("a", "1"), ("b", "2"), ("a", "3")])
    other = headers.copy()
    headers.set("a", "4")
    assert headers.lines == [(b"b", b"2"), (b"a", b"4")]
    other.set_in_place("a", "4")
    assert other.lines == [(b"a", b"4"), (b"b", b"2")]
    other.set_in_place("c", "5")
    assert other.lines[-1] == (b"c", b"5")


def test_replace_all_and_byte_size() -> None:
    headers = HeaderMap([("a", "1")])
    headers.replace_all([("ABC", "12"), ("d", "")])
    assert headers.lines == [(b"abc", b"12"), (b"d", b"")]
    assert headers.byte_size == 6


def test_lines_is_a_copy() -> None:
    headers = HeaderMap([("a", "1")])
    headers.lines.clear()
    assert headers.line_count == 1


@given(LINES, NAMES, VALUES)
def test_add_then_get(lines: list[tuple[str, bytes]], name: str, value: bytes) -> None:
    headers = HeaderMap(lines)
    before = headers.all_bytes(name)
    headers.add(name, value)
    assert sorted(headers.all_bytes(name)) == sorted([*before, value])
    assert headers.line_count == len(lines) + 1


@given(LINES, NAMES, VALUES)
def test_set_leaves_one(lines: list[tuple[str, bytes]], name: str, value: bytes) -> None:
    headers = HeaderMap(lines)
    others = [line for line in headers.lines if line[0] != name.lower().encode()]
    headers.set(name, value)
    assert headers.all_bytes(name) == [value]
    assert [line for line in headers.lines if line[0] != name.lower().encode()] == others


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_pseudo_headers_lead_when_lines_are_added(lines: list[tuple[str, bytes]]) -> None:
    headers = HeaderMap()
    for name, value in lines:
        headers.add(name, value)
    kinds = [name.startswith(b":") for name, _ in headers.lines]
    assert kinds == sorted(kinds, reverse=True)
    pseudo = [(n.encode(), v) for n, v in lines if n.startswith(":")]
    assert headers.lines[: len(pseudo)] == pseudo


@given(LINES, NAMES)
def test_remove(lines: list[tuple[str, bytes]], name: str) -> None:
    headers = HeaderMap(lines)
    count = len(headers.all_bytes(name))
    assert headers.remove(name) == count
    assert name not in headers
    assert headers.line_count == len(lines) - count
