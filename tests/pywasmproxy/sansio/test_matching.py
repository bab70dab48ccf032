"""Conditions on texts, headers and query parameters, evaluated."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model_match import Fraction, HeaderMatch, QueryMatch, StringMatch, StringRule
from pywasmproxy.sansio.matching import happens, header_test, query_of, query_test, text_test

EXACT, REGEX = StringRule.EXACT, StringRule.REGEX


@pytest.mark.parametrize(
    ("rule", "value", "good", "bad"),
    [
        (EXACT, "Ab", [b"Ab"], [b"ab", b"Abc", b""]),
        (StringRule.PREFIX, "Ab", [b"Ab", b"Abc"], [b"xAb", b"ab"]),
        (StringRule.SUFFIX, "Ab", [b"Ab", b"xAb"], [b"Abx"]),
        (StringRule.CONTAINS, "Ab", [b"Ab", b"xAby"], [b"xab"]),
        (REGEX, "a[0-9]+", [b"a1", b"a22"], [b"a", b"xa1", b"a1x"]),
    ],
)
def test_texts(rule: StringRule, value: str, good: list[bytes], bad: list[bytes]) -> None:
    test = text_test(StringMatch(rule, value))
    assert all(map(test, good))
    assert not any(map(test, bad))


def test_case_may_be_ignored() -> None:
    assert text_test(StringMatch(StringRule.CONTAINS, "aB", ignore_case=True))(b"xAby")


HEADERS = HeaderMap([("x-a", "1"), ("x-b", "one"), ("x-b", "two"), ("x-n", "-15"), ("x-empty", "")])


def text(value: str) -> StringMatch:
    return StringMatch(EXACT, value)


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (HeaderMatch("x-a"), True),
        (HeaderMatch("x-none"), False),
        (HeaderMatch("x-a", invert=True), False),
        (HeaderMatch("x-none", invert=True), True),
        (HeaderMatch("x-a", present=True), True),
        (HeaderMatch("x-a", present=False), False),
        (HeaderMatch("x-none", present=False), True),
        (HeaderMatch("x-none", present=False, invert=True), False),
        (HeaderMatch("x-a", text("1")), True),
        (HeaderMatch("x-a", text("2")), False),
        (HeaderMatch("x-a", text("2"), invert=True), True),
        (HeaderMatch("x-b", text("one,two")), False),
        (HeaderMatch("x-b", text("one")), True),
        (HeaderMatch("x-b", text("two")), True),
        (HeaderMatch("x-b", text("two"), invert=True), False),
        (HeaderMatch("x-b", text("three"), invert=True), True),
        (HeaderMatch("x-none", text("")), False),
        (HeaderMatch("x-none", text(""), missing_is_empty=True), True),
        (HeaderMatch("x-none", text("1"), invert=True, missing_is_empty=True), True),
        (HeaderMatch("x-empty", text("")), True),
        (HeaderMatch("x-n", range=(-20, -14)), True),
        (HeaderMatch("x-n", range=(-20, -15)), False),
        (HeaderMatch("x-a", range=(1, 2)), True),
        (HeaderMatch("x-b", range=(1, 2)), False),
    ],
)
def test_headers(match: HeaderMatch, expected: bool) -> None:
    assert header_test(match)(HEADERS) is expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (QueryMatch("a"), True),
        (QueryMatch("none"), False),
        (QueryMatch("a", present=True), True),
        (QueryMatch("none", present=False), True),
        (QueryMatch("a", text("1")), True),
        (QueryMatch("a", text("2")), False),
        (QueryMatch("b", text("x%20y")), True),
        (QueryMatch("flag", text("")), True),
        (QueryMatch("none", text("")), False),
        (QueryMatch("c", StringMatch(REGEX, "[0-9]")), False),
    ],
)
def test_query(match: QueryMatch, expected: bool) -> None:
    parameters = query_of(b"/p?a=1&a=2&b=x%20y&flag&c=12#d=1")
    assert query_test(match)(parameters) is expected


def test_chance() -> None:
    assert [happens(Fraction(2, 5), number) for number in range(6)] == [True, True, False, False, False, True]
    assert not happens(Fraction(0), 0)
    assert happens(Fraction(100), 99)
