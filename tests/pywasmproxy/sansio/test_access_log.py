"""Lines of access logs: what is written, and when."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
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
from pywasmproxy.config.model_match import Fraction, HeaderMatch
from pywasmproxy.sansio.access_log import LogLines, log_test
from pywasmproxy.sansio.format import Moment


def info() -> StreamInfo:
    return StreamInfo(
        request_headers=HeaderMap([(":method", "GET"), (":path", "/a"), (":authority", "h"), ("x-a", "1")]),
        protocol="HTTP/1.1",
        start_time=1_795_684_981_793_000_000,
        request_duration=12_000_000,
        response_code=503,
        response_flags=0x20,
    )


def test_the_line_without_a_format() -> None:
    line = LogLines(AccessLog("/dev/stdout")).line(info(), Moment(), 0)
    assert line == b'[2026-11-26T09:23:01.793Z] "GET /a HTTP/1.1" 503 UF 0 0 12 - "-" "-" "-" "h" "-"\n'


def test_a_text_has_no_line_break_but_its_own() -> None:
    assert LogLines(AccessLog("f", text="%RESPONSE_CODE%,")).line(info(), Moment(), 0) == b"503,"


def test_json_lines() -> None:
    config = AccessLog("f", json={"b": "%REQ(none)%", "a": "%RESPONSE_CODE%"}, omit_empty_values=True)
    assert LogLines(config).line(info(), Moment(), 0) == b'{"a":503}\n'


STATUS_503 = StatusIs(Comparison("EQ", 503))
STATUS_200 = StatusIs(Comparison("EQ", 200))


@pytest.mark.parametrize(
    ("filter", "wanted"),
    [
        (STATUS_503, True),
        (STATUS_200, False),
        (StatusIs(Comparison("GE", 503)), True),
        (StatusIs(Comparison("GE", 504)), False),
        (StatusIs(Comparison("LE", 502)), False),
        (StatusIs(Comparison("NE", 503)), False),
        (DurationIs(Comparison("GE", 12)), True),
        (DurationIs(Comparison("GE", 13)), False),
        (NoHealthCheck(), True),
        (ByChance(Fraction(51)), True),
        (ByChance(Fraction(50)), False),
        (All((STATUS_503, NoHealthCheck())), True),
        (All((STATUS_503, STATUS_200)), False),
        (AnyOf((STATUS_503, STATUS_200)), True),
        (AnyOf((STATUS_200, STATUS_200)), False),
        (RequestHeaderIs(HeaderMatch("x-a")), True),
        (RequestHeaderIs(HeaderMatch("x-b")), False),
        (HasFlags(frozenset()), True),
        (HasFlags(frozenset(("UF", "UO"))), True),
        (HasFlags(frozenset(("UO",))), False),
        (GrpcStatusIs(frozenset((0,))), True),
        (GrpcStatusIs(frozenset((0,)), exclude=True), False),
    ],
)
def test_filters(filter: LogFilter, wanted: bool) -> None:
    assert log_test(filter)(info(), 50) is wanted
    assert (LogLines(AccessLog("f", filter=filter)).line(info(), Moment(), 50) is not None) is wanted
