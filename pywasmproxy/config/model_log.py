"""Access logs: which lines go to which file, and when. After envoy.config.accesslog.v3.

`pywasmproxy.sansio.access_log` makes the lines; the server writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pywasmproxy.config.model_match import Fraction, HeaderMatch

DEFAULT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" '
    '"%UPSTREAM_HOST%"\n'
)
"""Envoy's line where a configuration gives no format."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`op` is EQ, GE, LE or NE: how a number compares with `value`."""

    op: str
    value: int


@dataclass(frozen=True, slots=True)
class StatusIs:
    """The response's status."""

    comparison: Comparison


@dataclass(frozen=True, slots=True)
class DurationIs:
    """How many milliseconds the exchange took."""

    comparison: Comparison


@dataclass(frozen=True, slots=True)
class NoHealthCheck:
    """Everything but health checks that this proxy answers: there are none, so everything."""


@dataclass(frozen=True, slots=True)
class ByChance:
    """Some of them."""

    fraction: Fraction


@dataclass(frozen=True, slots=True)
class All:
    """All of these."""

    filters: tuple[LogFilter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of these at least."""

    filters: tuple[LogFilter, ...]


@dataclass(frozen=True, slots=True)
class RequestHeaderIs:
    """A condition on a header of the request."""

    match: HeaderMatch


@dataclass(frozen=True, slots=True)
class HasFlags:
    """One of these response flags (short names) is set; none named: any flag is."""

    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class GrpcStatusIs:
    """The status of a gRPC call is one of these numbers, or (`exclude`) none of them."""

    statuses: frozenset[int]
    exclude: bool = False


LogFilter: TypeAlias = (
    StatusIs | DurationIs | NoHealthCheck | ByChance | All | AnyOf | RequestHeaderIs | HasFlags | GrpcStatusIs
)


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Lines about exchanges, appended to a file: `json` if it is set, else `text`.

    `/dev/stdout` and `/dev/stderr` are this process's own. Strings are format strings
    (`pywasmproxy.sansio.format`), valid ones; `text` has its line break in it.
    """

    path: str
    text: str = DEFAULT_FORMAT
    json: Mapping[str, object] | None = None
    omit_empty_values: bool = False
    filter: LogFilter | None = None
