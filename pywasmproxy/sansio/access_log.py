"""Access-log lines: `LogLines` says whether an exchange that is over is written down, and how. No files.

lines = LogLines(config, origin)
if (line := lines.line(info, Moment(now=...), random)) is not None: ...
"""

from __future__ import annotations

from collections.abc import Callable

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model_log import (
    AccessLog,
    All,
    AnyOf,
    ByChance,
    Comparison,
    DurationIs,
    GrpcStatusIs,
    HasFlags,
    LogFilter,
    NoHealthCheck,
    RequestHeaderIs,
    StatusIs,
)
from pywasmproxy.sansio.format import JsonTemplate, Moment, Need, Origin, Template
from pywasmproxy.sansio.format_operators import grpc_status_of
from pywasmproxy.sansio.matching import happens, header_test
from pywasmproxy.sansio.response_flags import SHORT_NAMES

Test = Callable[[StreamInfo, int], bool]


class LogLines:
    """One access log made ready."""

    def __init__(self, config: AccessLog, origin: Origin | None = None) -> None:
        self.config = config
        self._wanted = log_test(config.filter) if config.filter is not None else None
        self._json: JsonTemplate | None = None
        if config.json is not None:
            self._json = JsonTemplate(config.json, omit_empty=config.omit_empty_values, origin=origin)
        else:
            self._text = Template(config.text, omit_empty=config.omit_empty_values, origin=origin)

    @property
    def needs(self) -> Need:
        """What has to be gathered for it."""
        return self._text.needs if self._json is None else self._json.needs

    def line(self, info: StreamInfo, moment: Moment, random: int) -> bytes | None:
        """The line, its line break included, or None when there shall be none.

        `random` is a non-negative random number, at least a million times as many as not.
        """
        if self._wanted is not None and not self._wanted(info, random):
            return None
        if self._json is not None:
            return self._json.line(info, moment).encode("utf-8", "surrogateescape") + b"\n"
        return self._text.fill(info, moment).encode("utf-8", "surrogateescape")


def log_test(filter: LogFilter) -> Test:
    """Whether an exchange meets a filter; the second argument of the function is a random number."""
    match filter:
        case StatusIs(comparison):
            compare = _comparison(comparison)
            return lambda info, random: compare(info.response_code or 0)
        case DurationIs(comparison):
            compare = _comparison(comparison)
            return lambda info, random: compare((info.request_duration or 0) // 1_000_000)
        case ByChance(fraction):
            return lambda info, random: happens(fraction, random)
        case All(filters):
            tests = [log_test(one) for one in filters]
            return lambda info, random: all(test(info, random) for test in tests)
        case AnyOf(filters):
            tests = [log_test(one) for one in filters]
            return lambda info, random: any(test(info, random) for test in tests)
        case RequestHeaderIs(condition):
            meets = header_test(condition)
            return lambda info, random: info.request_headers is not None and meets(info.request_headers)
        case HasFlags(flags):
            wanted = sum(1 << SHORT_NAMES.index(name) for name in flags) or -1
            return lambda info, random: bool(info.response_flags & wanted)
        case GrpcStatusIs(statuses, exclude):
            return lambda info, random: ((grpc_status_of(info) or 0) in statuses) is not exclude
        case NoHealthCheck():
            return lambda info, random: True


def _comparison(comparison: Comparison) -> Callable[[int], bool]:
    value = comparison.value
    match comparison.op:
        case "GE":
            return lambda number: number >= value
        case "LE":
            return lambda number: number <= value
        case "NE":
            return lambda number: number != value
        case _:
            return lambda number: number == value
