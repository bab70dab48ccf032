"""Log lines: Envoy's shape, levels per component, guests' lines verbatim."""

from __future__ import annotations

import os
import re

import pytest

from abi.proxy_wasm.types import LogLevel
from pywasmproxy.server.log import Log, WasmHost, parse_component_levels

SHAPE = re.compile(
    r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\]\[(?P<pid>\d+)\]\[(?P<level>\w+)\]\[(?P<component>\w+)\] "
    r"\[(?P<file>[\w/]+\.py):\d+\] (?P<text>.*)\n",
    re.DOTALL,
)


def test_shape_of_a_line() -> None:
    lines: list[str] = []
    Log(sink=lines.append)["http"].warning("something\nin two lines")
    (line,) = lines
    found = SHAPE.fullmatch(line)
    assert found is not None
    assert found["pid"] == str(os.getpid())
    assert (found["level"], found["component"]) == ("warning", "http")
    assert found["file"].endswith("test_log.py")
    assert found["text"] == "something\nin two lines"


def test_levels() -> None:
    lines: list[str] = []
    log = Log(LogLevel.INFO, {"wasm": LogLevel.TRACE, "http": LogLevel.OFF}, sink=lines.append)
    for name in "main", "wasm", "http":
        logger = log[name]
        for write in (
            logger.trace,
            logger.debug,
            logger.info,
            logger.warning,
            logger.error,
            logger.critical,
        ):
            write(name)
    shown = [(match["component"], match["level"]) for match in map(SHAPE.fullmatch, lines) if match]
    assert shown == [("main", level) for level in ("info", "warning", "error", "critical")] + [
        ("wasm", level) for level in ("trace", "debug", "info", "warning", "error", "critical")
    ]
    lines.clear()
    log.set_level(LogLevel.ERROR)
    log.set_level(LogLevel.DEBUG, "http")
    log["wasm"].info("no")
    log["http"].debug("yes")
    assert len(lines) == 1


def test_guest_lines() -> None:
    lines: list[str] = []
    logger = Log(LogLevel.DEBUG, sink=lines.append)["wasm"]
    host = WasmHost(logger)
    host.log(LogLevel.DEBUG, "add_header add_header my_vm_id", "text")
    host.log(LogLevel.INFO, "", "")
    host.log(LogLevel.TRACE, "", "not shown")
    host.error("Function: f failed: unreachable")
    assert [line.split("] ", 2)[-1] for line in lines] == [
        "wasm log add_header add_header my_vm_id: text\n",
        "wasm log: \n",
        "Function: f failed: unreachable\n",
    ]
    assert host.log_level is LogLevel.DEBUG
    logger.level = LogLevel.WARN
    assert host.log_level is LogLevel.WARN
    assert len(host.random_bytes(7)) == 7
    assert host.wall_clock_ns() > 1_600_000_000 * 10**9
    assert host.monotonic_ns() <= host.monotonic_ns()


def test_lone_surrogates_do_not_cost_the_line() -> None:
    lines: list[str] = []
    Log(sink=lines.append)["wasm"].info("a\udcffb")
    assert lines[0].endswith("a?b\n")


def test_standard_error_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    Log()["main"].info("hello")
    assert capfd.readouterr().err.endswith("hello\n")


def test_component_levels() -> None:
    assert parse_component_levels("") == {}
    assert parse_component_levels("wasm:debug, http:warn") == {"wasm": LogLevel.DEBUG, "http": LogLevel.WARN}
    for text, complaint in [
        ("nosuch:debug", "unknown log component 'nosuch'"),
        ("wasm", "not COMPONENT:LEVEL"),
        ("wasm:loud", "levels: trace"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            parse_component_levels(text)
