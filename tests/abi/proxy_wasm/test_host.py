"""The in-memory host: what it keeps, where time and randomness come from."""

from __future__ import annotations

import time

from abi.proxy_wasm.host import KEPT_RECORDS, LogRecord, MemoryHost
from abi.proxy_wasm.types import LogLevel


def test_records() -> None:
    host = MemoryHost(LogLevel.INFO)
    host.log(LogLevel.WARN, "p r", "text")
    host.log(LogLevel.INFO, "", "bare")
    host.error("broken")
    assert host.log_level is LogLevel.INFO
    assert list(host.records) == [
        LogRecord(LogLevel.WARN, "p r", "text"),
        LogRecord(LogLevel.INFO, "", "bare"),
    ]
    assert [str(record) for record in host.records] == ["wasm log p r: text", "wasm log: bare"]
    assert list(host.errors) == ["broken"]


def test_only_the_last_lines_are_kept() -> None:
    host = MemoryHost()
    for number in range(KEPT_RECORDS + 5):
        host.log(LogLevel.INFO, "", str(number))
    assert len(host.records) == KEPT_RECORDS
    assert host.records[0].message == "5"


def test_clocks_and_randomness() -> None:
    host = MemoryHost()
    assert abs(host.wall_clock_ns() - time.time_ns()) < 60_000_000_000
    assert host.monotonic_ns() <= host.monotonic_ns()
    assert len(host.random_bytes(16)) == 16
    assert host.random_bytes(16) != host.random_bytes(16)
