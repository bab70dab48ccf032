"""Logging and clocks."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import LogLevel, Status
from tests.abi.rig import LONG, PAGES, WORD, Rig


def lines(rig: Rig) -> list[tuple[LogLevel, str, str]]:
    return [(r.level, r.prefix, r.message) for r in rig.host.records]


@pytest.mark.parametrize("level", range(6))
def test_every_level_is_logged_as_itself(level: int) -> None:
    rig = Rig()
    assert rig.ask("proxy_log", level, b"text") == Status.OK
    assert lines(rig) == [(LogLevel(level), "", "text")]


@pytest.mark.parametrize("level", [6, 99, 0xFFFFFFFF])
def test_unknown_levels_are_refused(level: int) -> None:
    rig = Rig()
    assert rig.ask("proxy_log", level, b"text") == Status.BAD_ARGUMENT
    assert lines(rig) == []


@pytest.mark.parametrize(
    ("message", "shown"), [(b"", ""), (b"two\nlines", "two\nlines"), (b"\0nul", "\0nul"), (b"\xff", "\\xff")]
)
def test_messages_pass_through(message: bytes, shown: str) -> None:
    rig = Rig()
    assert rig.ask("proxy_log", 2, message) == Status.OK
    assert lines(rig) == [(LogLevel.INFO, "", shown)]


def test_lines_below_the_level_are_dropped_without_an_error() -> None:
    rig = Rig(log_level=LogLevel.WARN)
    assert rig.ask("proxy_log", 2, b"quiet") == Status.OK
    assert rig.ask("proxy_log", 3, b"loud") == Status.OK
    assert [line[2] for line in lines(rig)] == ["loud"]


@pytest.mark.parametrize(("at", "size"), [(0xFFFFFFF0, 64), (0, 0xFFFFFFFF), (PAGES * 65536 + 1, 0)])
def test_a_message_outside_memory_is_refused(at: int, size: int) -> None:
    rig = Rig()
    assert rig.ask("proxy_log", 2, at, size) == Status.INVALID_MEMORY_ACCESS
    assert lines(rig) == []


@pytest.mark.parametrize("level", [LogLevel.TRACE, LogLevel.ERROR, LogLevel.OFF])
def test_get_log_level_tells_the_hosts_level(level: LogLevel) -> None:
    rig = Rig(log_level=level)
    assert rig.ask("proxy_get_log_level", WORD) == (Status.OK, level)


def test_the_wall_clock_is_the_hosts() -> None:
    rig = Rig()
    rig.host.wall_clock_ns = lambda: 1_600_000_000_123_456_789  # type: ignore[method-assign]
    assert rig.ask("proxy_get_current_time_nanoseconds", LONG) == (Status.OK, 1_600_000_000_123_456_789)


@pytest.mark.parametrize(
    ("names", "root", "stream"),
    [
        ({"name": "p", "root_id": "r", "vm_id": "v"}, "r v", "p r v"),
        ({"name": "only"}, "", "only"),
        ({"root_id": "r"}, "r", "r"),
        ({"vm_id": "v"}, "v", "v"),
        ({}, "", ""),
    ],
)
def test_the_prefix_names_the_context(names: dict[str, Any], root: str, stream: str) -> None:
    rig = Rig(**names)
    rig.during("proxy_on_tick", lambda: rig.ask("proxy_log", 2, b"root"))
    rig.during("proxy_on_request_headers", lambda: rig.ask("proxy_log", 2, b"stream"))
    rig.plugin.tick()
    rig.plugin.http_stream().on_request_headers(HeaderMap(), True)
    assert lines(rig) == [(LogLevel.INFO, root, "root"), (LogLevel.INFO, stream, "stream")]
