"""Conditions made ready: matchers of texts, headers and query parameters as functions. Pure.

Source: Envoy 1.40's matchers as measured: of several lines of a header one must meet the condition (inverted:
none may); a condition on a missing header fails whether it is inverted or not, but for `present`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from abi.proxy_wasm.header_map import HeaderMap
from pywasmproxy.config.model_match import Fraction, HeaderMatch, QueryMatch, StringMatch, StringRule

TextTest = Callable[[bytes], bool]
HeadersTest = Callable[[HeaderMap], bool]


def text_test(match: StringMatch) -> TextTest:
    """Whether a text meets a condition."""
    wanted = match.value.encode()
    if match.rule is StringRule.REGEX:
        pattern = re.compile(wanted)
        return lambda text: pattern.fullmatch(text) is not None
    compare = _COMPARE[match.rule]
    if not match.ignore_case:
        return lambda text: compare(text, wanted)
    folded = wanted.lower()
    return lambda text: compare(text.lower(), folded)


_COMPARE: dict[StringRule, Callable[[bytes, bytes], bool]] = {
    StringRule.EXACT: lambda text, wanted: text == wanted,
    StringRule.PREFIX: lambda text, wanted: text.startswith(wanted),
    StringRule.SUFFIX: lambda text, wanted: text.endswith(wanted),
    StringRule.CONTAINS: lambda text, wanted: wanted in text,
}

_INTEGER = re.compile(rb"-?[0-9]{1,19}")


def header_test(match: HeaderMatch) -> HeadersTest:
    """Whether the headers meet a condition on one of them."""
    name = match.name.encode()
    if match.present is not None or (match.text is None and match.range is None):
        wanted = (match.present is not False) is not match.invert
        return lambda headers: (headers.first(name) is not None) is wanted
    test = text_test(match.text) if match.text is not None else _range_test(match.range or (0, 0))
    invert, missing_is_empty = match.invert, match.missing_is_empty

    def meets(headers: HeaderMap) -> bool:
        values = headers.all_bytes(name)
        if not values:
            return missing_is_empty and test(b"") is not invert
        return any(map(test, values)) is not invert

    return meets


def _range_test(limits: tuple[int, int]) -> TextTest:
    low, high = limits
    return lambda text: _INTEGER.fullmatch(text) is not None and low <= int(text) < high


def query_test(match: QueryMatch) -> Callable[[dict[bytes, bytes]], bool]:
    """Whether the query's parameters (the first value of each name) meet a condition on one of them."""
    name = match.name.encode()
    if match.text is None:
        wanted = match.present is not False
        return lambda parameters: (name in parameters) is wanted
    test = text_test(match.text)
    return lambda parameters: name in parameters and test(parameters[name])


def query_of(path: bytes) -> dict[bytes, bytes]:
    """The query's parameters as they are written, the first value of each name."""
    found: dict[bytes, bytes] = {}
    for part in path.partition(b"#")[0].partition(b"?")[2].split(b"&"):
        name, _, value = part.partition(b"=")
        found.setdefault(name, value)
    return found


def happens(fraction: Fraction, random: int) -> bool:
    """Whether one of so many cases is meant by a random number."""
    return random % fraction.denominator < fraction.numerator
