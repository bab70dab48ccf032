"""Starts of plugins that are kept: for whom they are used, what is said and done again, what forbids them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.proxy_wasm import snapshots
from abi.proxy_wasm.contexts import Context
from abi.proxy_wasm.failures import PluginStartError
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.registry import VmRegistry
from abi.proxy_wasm.snapshots import Snapshots
from abi.proxy_wasm.started import MOST_LOGGED, Started
from abi.proxy_wasm.types import LogLevel
from abi.proxy_wasm.vm import Vm
from tests.support.wat import wat

#: Counts how often it was configured, asks for ticks, reads its configuration into memory, logs it; a request
#: logs the counter and the configuration.
FILTER = """(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  {imports}
  (memory (export "memory") 2)
  (data (i32.const 16) "\\10\\01\\00\\00\\04\\00\\00\\00")  (data (i32.const 272) "out\\n")
  (global $count (mut i32) (i32.const 48)) (global $next (mut i32) (i32.const 1024))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32)
    (global.get $next) (global.set $next (i32.add (global.get $next) (i32.const 256))))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) {vm_start} (i32.const 1))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (drop (call $tick (i32.const 250)))
    (drop (call $buffer (i32.const 7) (i32.const 0) (local.get 1) (i32.const 100) (i32.const 104)))
    (drop (call $log (i32.const 0) (i32.load (i32.const 100)) (i32.load (i32.const 104))))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 32)))
    {configure} (i32.const {answer}))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (i32.store8 (i32.const 40) (global.get $count))
    (drop (call $log (i32.const 2) (i32.const 40) (i32.const 1)))
    (drop (call $log (i32.const 2) (i32.load (i32.const 100)) (i32.load (i32.const 104))))
    (i32.const 0)))"""


def guest(imports: str = "", vm_start: str = "", configure: str = "", answer: int = 1) -> bytes:
    return wat(FILTER.format(imports=imports, vm_start=vm_start, configure=configure, answer=answer))


@pytest.fixture(autouse=True)
def every_start_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "WORTH", 0.0)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The callbacks that run from now on, by name."""
    names: list[str] = []
    original = Vm.call

    def call(vm: Vm, context: Context, name: str, *arguments: int, default: int = 0) -> int:
        names.append(name)
        return original(vm, context, name, *arguments, default=default)

    monkeypatch.setattr(Vm, "call", call)
    return names


def said(plugin: Plugin) -> list[tuple[LogLevel, str, str]]:
    return [(record.level, record.prefix, record.message) for record in plugin.logs]


def test_a_plugin_goes_on_from_where_the_other_was(called: list[str]) -> None:
    kept = Snapshots()
    for number in range(2):
        plugin = Plugin(guest(), config=b"abc", root_id="r", snapshots=kept)
        assert ("proxy_on_configure" in called) == (number == 0)
        assert plugin.tick_period_ms == 250
        assert said(plugin) == [(LogLevel.TRACE, "r", "abc"), (LogLevel.INFO, "r", "out")]
        with plugin.http_stream() as stream:
            stream.on_request_headers(HeaderMap([(":path", "/")]), True)
            assert stream.id == 2
        assert [line for *_, line in said(plugin)][2:] == ["1", "abc"]
        called.clear()


def test_a_host_that_writes_other_lines_has_a_start_of_its_own(called: list[str]) -> None:
    """The guest may have asked for the level."""
    kept = Snapshots()
    for host, lines in ((MemoryHost(log_level=LogLevel.INFO), ["out"]), (MemoryHost(), ["abc", "out"])):
        for _ in range(2):
            called.clear()
            host.records.clear()
            plugin = Plugin(guest(), config=b"abc", host=host, snapshots=kept)
            assert [line for *_, line in said(plugin)] == lines
        assert called == []


@pytest.mark.parametrize(
    "other",
    [
        {"config": b"abd"},
        {"name": "other"},
        {"root_id": "other"},
        {"vm_id": "other"},
        {"vm_config": b"other"},
        {"environment": {"A": "1"}},
        {"capabilities": frozenset({"proxy_log", "proxy_on_configure", "proxy_get_buffer_bytes"})},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_the_start_could_see_must_agree(other: dict[str, Any], called: list[str]) -> None:
    kept = Snapshots()
    Plugin(guest(), config=b"abc", snapshots=kept)
    called.clear()
    Plugin(guest(), **({"config": b"abc"} | other), snapshots=kept)
    assert "proxy_on_configure" in called
    called.clear()
    Plugin(guest(), **({"config": b"abc"} | other), snapshots=kept)
    assert called == []


def test_a_second_plugin_of_the_vm_is_started(called: list[str]) -> None:
    registry = VmRegistry(snapshots=Snapshots())
    for round_ in range(2):
        for number in range(2):
            called.clear()
            registry.plugin(guest(), name=str(number), config=b"abc")
            assert ("proxy_on_configure" in called) == (round_ == 0 or number == 1)
        registry.forget(registry.vms[0])


METRIC = '(import "env" "proxy_define_metric" (func $metric (param i32 i32 i32 i32) (result i32)))'
DEFINE = "(drop (call $metric (i32.const 0) (i32.const 272) (i32.const 3) (i32.const 64)))"
PROPERTY = '(import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))'
ASK = "(drop (call $property (i32.const 272) (i32.const 3) (i32.const 64) (i32.const 68)))"


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        (guest(METRIC, DEFINE), ["proxy_define_metric"]),
        (guest(METRIC, "", DEFINE), ["proxy_define_metric"]),
        (guest(PROPERTY, ASK, ASK), ["proxy_get_property"]),
    ],
    ids=["vm_start", "configure", "a question"],
)
def test_calls_that_cannot_be_repeated_forbid_it(code: bytes, calls: list[str], called: list[str]) -> None:
    notes: list[str] = []
    kept = Snapshots(note=notes.append)
    for _ in range(2):
        called.clear()
        Plugin(code, name="p", snapshots=kept)
        assert "proxy_on_configure" in called
    [note] = notes
    assert note.startswith("start of plugin 'p': no snapshot is made: the guest has ")
    assert "defined metrics" in note or calls[0] in note


def test_host_functions_are_themselves_again_after_the_start() -> None:
    plugin = Plugin(guest(METRIC, DEFINE), snapshots=Snapshots())
    [binding] = [b for b in plugin.vm._bindings._all if b.name == "proxy_define_metric"]
    assert binding.function.callable is binding.normal


def test_more_log_lines_than_are_kept() -> None:
    started = Started()
    started.log(LogLevel.INFO, bytes(MOST_LOGGED))
    assert (started.calls, len(started.lines)) == ({}, 1)
    started.log(LogLevel.INFO, b"x")
    assert (list(started.calls), len(started.lines)) == (["proxy_log"], 1)


def test_a_refused_start_is_not_kept(called: list[str]) -> None:
    kept = Snapshots()
    for _ in range(2):
        called.clear()
        with pytest.raises(PluginStartError):
            Plugin(guest(answer=0), snapshots=kept)
        assert "proxy_on_configure" in called


def test_a_short_start_is_not_worth_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(snapshots, "WORTH", 60.0)
    Plugin(guest(), snapshots=Snapshots(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1  # what `_initialize` left


def test_a_folder_outlives_the_process(tmp_path: Path, called: list[str]) -> None:
    first = Plugin(guest(), config=b"abc", snapshots=Snapshots(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    called.clear()
    second = Plugin(guest(), config=b"abc", snapshots=Snapshots(tmp_path))
    assert called == []
    assert said(second) == said(first)


@pytest.mark.parametrize(
    "extra", [b"", b"{}", b'{"lines":[[9,""]],"tick_period_ms":1}', b"[", b'{"lines":[],"tick_period_ms":-1}']
)
def test_what_is_damaged_is_made_again(extra: bytes, called: list[str]) -> None:
    notes: list[str] = []
    kept = Snapshots(note=notes.append)
    Plugin(guest(), config=b"abc", snapshots=kept)
    [(place, good)] = [(place, found) for place, found in kept._kept.items() if found.extra]
    kept._kept[place] = dataclasses.replace(good, extra=extra)
    called.clear()
    Plugin(guest(), config=b"abc", snapshots=kept)
    assert "proxy_on_configure" in called
    assert [note for note in notes if "what the start left is damaged" in note] == notes[:1] != []
    assert kept._kept[place] == good


@given(
    st.lists(st.tuples(st.sampled_from(list(LogLevel)), st.binary(max_size=20)), max_size=5),
    st.integers(0, (1 << 32) - 1),
)
def test_it_survives_the_file(lines: list[tuple[LogLevel, bytes]], period: int) -> None:
    started = Started(lines, period)
    again = Started.from_bytes(started.to_bytes())
    assert (again.lines, again.tick_period_ms) == (lines, period)
