"""Matchers of texts, headers and query parameters, and fractions.

Field tables after envoy.type.matcher.v3 (string.proto, regex.proto), envoy.type.v3 and envoy.config.route.v3.
"""

from __future__ import annotations

import re
from typing import Any

from pywasmproxy.config.model_match import Fraction, HeaderMatch, QueryMatch, StringMatch, StringRule
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    anything,
    boolean,
    enum,
    integer,
    text,
)

REGEX = Message(
    "envoy.type.matcher.v3.RegexMatcher", {"regex": text, "google_re2": anything}, required="regex"
)


def regex(cursor: Cursor) -> str:
    """A regular expression in the part of RE2's syntax that Python shares, to be matched against bytes."""
    pattern: str = REGEX.read(cursor)["regex"]
    check_pattern(pattern, cursor)
    return pattern


def check_pattern(pattern: str, cursor: Cursor) -> None:
    """An error for a pattern that Python cannot use."""
    if re.search(r"\[:\^?\w+:\]", pattern):
        cursor.fail(f"regular expression {pattern!r}: Python has no classes such as [:alpha:]")
    try:
        re.compile(pattern.encode())
    except re.error as error:
        cursor.fail(f"regular expression {pattern!r}: {error}")


SUBSTITUTE = Message(
    "envoy.type.matcher.v3.RegexMatchAndSubstitute",
    {"pattern": regex, "substitution": text},
    required="pattern",
)

_RULES = {rule.value: rule for rule in StringRule}

STRING_MATCHER = Message(
    "envoy.type.matcher.v3.StringMatcher",
    {
        "exact": text,
        "prefix": text,
        "suffix": text,
        "contains": text,
        "safe_regex": regex,
        "ignore_case": boolean,
    },
    ignored="custom",
    one_of=("exact prefix suffix contains safe_regex custom",),
)


def string_match(cursor: Cursor) -> StringMatch:
    """A `StringMatcher`."""
    values = STRING_MATCHER.read(cursor)
    for name, rule in _RULES.items():
        if name in values:
            return StringMatch(rule, values[name], values.get("ignore_case", False))
    cursor.fail("a text is matched by one of exact, prefix, suffix, contains, safe_regex")


INT64 = integer(-(1 << 63), (1 << 63) - 1)
RANGE = Message("envoy.type.v3.Int64Range", {"start": INT64, "end": INT64})

HEADER_MATCHER = Message(
    "envoy.config.route.v3.HeaderMatcher",
    {
        "name": text,
        "exact_match": text,
        "safe_regex_match": regex,
        "range_match": RANGE.read,
        "present_match": boolean,
        "prefix_match": text,
        "suffix_match": text,
        "contains_match": text,
        "string_match": string_match,
        "invert_match": boolean,
        "treat_missing_header_as_empty": boolean,
        "regex_match": text,
    },
    one_of=(
        "exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match "
        "string_match regex_match",
    ),
    required="name",
    legacy="regex_match",
)

_OLDER = {
    "exact_match": StringRule.EXACT,
    "prefix_match": StringRule.PREFIX,
    "suffix_match": StringRule.SUFFIX,
    "contains_match": StringRule.CONTAINS,
    "safe_regex_match": StringRule.REGEX,
    "regex_match": StringRule.REGEX,
}


def header_match(cursor: Cursor) -> HeaderMatch:
    """A `HeaderMatcher`."""
    values = HEADER_MATCHER.read(cursor)
    if "regex_match" in values:
        check_pattern(values["regex_match"], cursor)
    found: StringMatch | None = values.get("string_match")
    for name, rule in _OLDER.items():
        if name in values:
            found = StringMatch(rule, values[name])
    wanted: dict[str, Any] | None = values.get("range_match")
    return HeaderMatch(
        name=values["name"].lower(),
        text=found,
        range=None if wanted is None else (wanted.get("start", 0), wanted.get("end", 0)),
        present=values.get("present_match"),
        invert=values.get("invert_match", False),
        missing_is_empty=values.get("treat_missing_header_as_empty", False),
    )


QUERY_MATCHER = Message(
    "envoy.config.route.v3.QueryParameterMatcher",
    {"name": text, "string_match": string_match, "present_match": boolean, "value": text, "regex": boolean},
    one_of=("string_match present_match",),
    required="name",
    legacy="value regex",
)


def query_match(cursor: Cursor) -> QueryMatch:
    """A `QueryParameterMatcher`; `value` and `regex` are API v2's."""
    values = QUERY_MATCHER.read(cursor)
    found: StringMatch | None = values.get("string_match")
    if values.get("value"):
        rule = StringRule.REGEX if values.get("regex") else StringRule.EXACT
        if rule is StringRule.REGEX:
            check_pattern(values["value"], cursor)
        found = StringMatch(rule, values["value"])
    return QueryMatch(values["name"], found, values.get("present_match"))


_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}

FRACTIONAL_PERCENT = Message(
    "envoy.type.v3.FractionalPercent",
    {"numerator": UINT32, "denominator": enum("denominator", " ".join(_DENOMINATORS))},
)


def fraction(cursor: Cursor) -> Fraction:
    """A `FractionalPercent`."""
    values = FRACTIONAL_PERCENT.read(cursor)
    return Fraction(values.get("numerator", 0), _DENOMINATORS[values.get("denominator", "HUNDRED")])


RUNTIME_FRACTION = Message(
    "envoy.config.core.v3.RuntimeFractionalPercent", {"default_value": fraction, "runtime_key": anything}
)


def runtime_fraction(cursor: Cursor) -> Fraction:
    """A `RuntimeFractionalPercent`: there is no runtime that could overrule it."""
    values = RUNTIME_FRACTION.read(cursor)
    found: Fraction = values.get("default_value", Fraction(0))
    return found
