"""What is noted of a run: calls with their phases, callbacks with their results, and nothing else."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from tests.abi.recording import OUTSIDE, START_SECTION, TRAP, Recorder
from tests.abi.rig import BYTES, Rig
from tests.support.wat import wat


def noted(recorder: Recorder, name: str) -> list[tuple[str, str, int | None]]:
    return [(one.kind, one.phase, one.answer) for one in recorder.calls if one.function == name]


def test_calls_are_noted_with_their_phases() -> None:
    recorder = Recorder()
    with recorder._noting():
        rig = Rig()
        rig.ask("proxy_done")
        for name in ("proxy_on_tick", "proxy_on_request_headers", "proxy_on_new_connection"):
            rig.during(name, lambda: rig.ask("proxy_get_property", b"plugin_name", BYTES))
        rig.plugin.tick()
        rig.plugin.http_stream().on_request_headers(HeaderMap(), True)
        rig.plugin.tcp_stream().on_new_connection()
    assert noted(recorder, "proxy_done") == [("", OUTSIDE, 1)]
    assert noted(recorder, "proxy_get_property") == [
        ("root", "proxy_on_tick", 0),
        ("http", "proxy_on_request_headers", 0),
        ("tcp", "proxy_on_new_connection", 0),
    ]
    assert noted(recorder, "proxy_log") == []  # only the rig itself has logged
    entered = [(one.kind, one.callback, one.answer) for one in recorder.callbacks]
    assert ("root", "proxy_on_configure", 1) in entered
    assert ("http", "proxy_on_request_headers", 0) in entered


def test_early_calls_and_traps_are_noted() -> None:
    text = """(module
      (import "env" "proxy_done" (func $done (result i32)))
      (import "wasi_unstable" "sched_yield" (func $yield (result i32)))
      (memory (export "memory") 1)
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 64))
      (func $start (drop (call $done)) (drop (call $yield)))
      (start $start)
      (func (export "_initialize") (drop (call $done))))"""
    recorder = Recorder()
    with recorder._noting(), pytest.raises(Exception, match="Failed to initialize"):
        Plugin(wat(text))
    assert noted(recorder, "proxy_done") == [("", START_SECTION, 10), ("", "_initialize", TRAP)]
    assert noted(recorder, "sched_yield") == [("", START_SECTION, 0)]
    assert [(one.callback, one.answer) for one in recorder.callbacks] == [("_initialize", TRAP)]


def test_nothing_is_noted_afterwards() -> None:
    recorder = Recorder()
    with recorder._noting():
        pass
    Rig().ask("proxy_done")
    assert not recorder.calls
