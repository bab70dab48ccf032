"""Times in format strings: Envoy's patterns, the points of an exchange, and what is between two of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo

from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.sansio.format_parts import FormatError, Make, Moment, Origin, Read, Value, plain

_TIME = re.compile(r"%(?:([1-9])?f|E([0-9])S|E\*S|Ez|s|.)", re.DOTALL)
DEFAULT_TIME = "%Y-%m-%dT%H:%M:%E3SZ"
_DEFAULT_LOCAL = "%Y-%m-%dT%H:%M:%E3S%z"


def format_time(ns: int, pattern: str, zone: tzinfo | None) -> str:
    """A time (ns since 1970) by a pattern of strftime with Envoy's additions; zone None is the local one."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    moment = moment.astimezone(zone) if zone is not None else moment.astimezone()
    digits = f"{fraction:09d}"

    def directive(found: re.Match[str]) -> str:
        text = found[0]
        if text == "%s":
            return str(seconds)
        if text.endswith("f"):
            return digits[: int(found[1] or 9)]
        if text == "%E*S":
            return f"{moment:%S}.{digits.rstrip('0') or '0'}"
        if found[2] is not None:
            places = int(found[2])
            return f"{moment:%S}" + (f".{digits[:places]}" if places else "")
        if text == "%Ez":
            zone_text = f"{moment:%z}"
            return f"{zone_text[:3]}:{zone_text[3:5]}"
        return moment.strftime(text)

    return _TIME.sub(directive, pattern)


def _time(which: Callable[[StreamInfo, Moment], int | None], local: bool) -> Make:
    def make(argument: str | None, origin: Origin) -> Read:
        pattern = argument or (_DEFAULT_LOCAL if local else DEFAULT_TIME)
        zone = None if local else UTC

        def read(info: StreamInfo, moment: Moment) -> Value:
            ns = which(info, moment)
            return None if ns is None else format_time(ns, pattern, zone)

        return read

    return make


_POINTS: Mapping[str, Callable[[StreamInfo], int | None]] = {
    "DS_RX_BEG": lambda info: 0,
    "DS_RX_END": lambda info: info.request_received_after,
    "US_TX_BEG": lambda info: info.upstream_request_began_after if info.upstream_local_address else None,
    "US_TX_END": lambda info: info.upstream_request_sent_after if info.upstream_local_address else None,
    "US_RX_BEG": lambda info: info.upstream_response_began_after,
    "US_RX_END": lambda info: info.upstream_response_received_after,
    "DS_TX_BEG": lambda info: info.response_began_after,
    "DS_TX_END": lambda info: None if info.protocol is None else info.request_duration,  # of HTTP alone
}
_UNITS = {"ms": 1_000_000, "us": 1_000, "ns": 1}


def _between(begin: str, end: str, unit: int) -> Callable[[StreamInfo], int | None]:
    def read(info: StreamInfo) -> int | None:
        first, last = _POINTS[begin](info), _POINTS[end](info)
        return None if first is None or last is None or last < first else (last - first) // unit

    return read


def _common_duration(argument: str | None, origin: Origin) -> Read:
    begin, _, rest = (argument or "").partition(":")
    end, _, unit = rest.partition(":")
    if begin not in _POINTS or end not in _POINTS or (unit or "ms") not in _UNITS:
        known = ", ".join(_POINTS)
        raise FormatError(f"COMMON_DURATION takes two points of time and ms, us or ns; points: {known}")
    read = _between(begin, end, _UNITS[unit or "ms"])
    return lambda info, moment: read(info)


def _duration(begin: str, end: str) -> Make:
    return plain(_between(begin, end, _UNITS["ms"]))


def _so_far(info: StreamInfo, moment: Moment) -> Value:
    """How long the exchange took, or takes already."""
    took = info.request_duration
    if took is None and info.start_time is not None and moment.now:
        took = max(0, moment.now - info.start_time)
    return None if took is None else took // 1_000_000


TIMES: Mapping[str, Make] = {
    "START_TIME": _time(lambda info, moment: info.start_time, False),
    "START_TIME_LOCAL": _time(lambda info, moment: info.start_time, True),
    "EMIT_TIME": _time(lambda info, moment: moment.now, False),
    "EMIT_TIME_LOCAL": _time(lambda info, moment: moment.now, True),
    "DURATION": lambda argument, origin: _so_far,
    "REQUEST_DURATION": _duration("DS_RX_BEG", "DS_RX_END"),
    "REQUEST_TX_DURATION": _duration("DS_RX_BEG", "US_TX_END"),
    "RESPONSE_DURATION": _duration("DS_RX_BEG", "US_RX_BEG"),
    "RESPONSE_TX_DURATION": _duration("US_RX_BEG", "DS_TX_END"),
    "COMMON_DURATION": _common_duration,
}
"""Operator -> what makes its reader of its argument."""
