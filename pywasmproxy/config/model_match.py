"""Conditions on texts, headers, query parameters and chance, as routes and access logs state them.

After envoy.type.matcher.v3 and envoy.config.route.v3; evaluated by `pywasmproxy.sansio.matching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StringRule(Enum):
    """How a text is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "safe_regex"  # must match all of it


@dataclass(frozen=True, slots=True)
class StringMatch:
    """A condition on a text. `ignore_case` has no meaning for regular expressions."""

    rule: StringRule
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A condition on the header `name` (lower case); of several lines one must meet it.

    At most one of `text`, `range` (first number, and the one after the last) and `present` is set; with none
    of them the header must be there. Whatever is not `present` fails where the header is missing.
    """

    name: str
    text: StringMatch | None = None
    range: tuple[int, int] | None = None
    present: bool | None = None
    invert: bool = False
    missing_is_empty: bool = False


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """A condition on the first query parameter of this name; with neither part set it must be there."""

    name: str
    text: StringMatch | None = None
    present: bool | None = None


@dataclass(frozen=True, slots=True)
class Fraction:
    """So many of so many, at random."""

    numerator: int
    denominator: int = 100
