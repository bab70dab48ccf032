"""Version, imports, exports: what is refused, with which words."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.linking import type_text, version_of
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.types import LogLevel
from abi.proxy_wasm.versions import VERSIONS, AbiVersion
from abi.proxy_wasm.vm import Vm
from pywasmvm import FuncType, Module
from tests.support.wat import wat

MALLOC = '(func (export "malloc") (param i32) (result i32) (i32.const 1024))'
MEMORY = '(memory (export "memory") 1)'
LOADED = ["Plugin p failed to load", "Plugin configured to fail closed failed to load"]
INITIALIZE = ["Wasm VM failed Failed to initialize Wasm code", *LOADED]
LOAD = ["Wasm VM failed Failed to load Wasm code", *LOADED]


def filter_text(imports: str = "", rest: str = MALLOC, marker: str = "0_2_1", memory: str = MEMORY) -> str:
    return f'(module {imports} {memory} (func (export "proxy_abi_version_{marker}")) {rest})'


def refused(text: str) -> list[str]:
    with pytest.raises(PluginStartError) as caught:
        Plugin(wat(text), name="p")
    return caught.value.host_errors


@pytest.mark.parametrize("version", VERSIONS)
def test_a_module_with_nothing_but_marker_and_allocator_starts(version: AbiVersion) -> None:
    plugin = Plugin(wat(filter_text(marker=version.value)))
    assert plugin.vm.version is version
    assert not plugin.failed


def test_memory_may_be_missing() -> None:
    assert not Plugin(wat(filter_text(memory=""))).failed


def test_memory_may_have_another_name() -> None:
    code = wat(
        '(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))'
        '(memory (export "mem") 1) (data (i32.const 0) "hi")'
        f'(func (export "proxy_abi_version_0_2_1")) {MALLOC}'
        '(func (export "proxy_on_tick") (param i32)'
        "  (drop (call $log (i32.const 2) (i32.const 0) (i32.const 2)))))"
    )
    plugin = Plugin(code)
    plugin.tick()
    assert [record.message for record in plugin.logs] == ["hi"]


@pytest.mark.parametrize("marker", ["0_3_0", "0_x_x"])
def test_an_unknown_marker(marker: str) -> None:
    first = "Wasm VM failed Missing or unknown Proxy-Wasm ABI version"
    assert refused(filter_text(marker=marker)) == [first, *LOAD]


def test_a_marker_that_is_no_function() -> None:
    text = f'(module (global (export "proxy_abi_version_0_2_1") i32 (i32.const 0)) {MEMORY} {MALLOC})'
    assert refused(text)[0] == "Wasm VM failed Missing or unknown Proxy-Wasm ABI version"
    assert version_of(Module(wat(text))) is None


def test_garbage_and_nothing() -> None:
    with pytest.raises(PluginStartError) as caught:
        Plugin(b"not wasm at all", name="p")
    assert caught.value.reason == "Failed to load Wasm code"
    assert caught.value.host_errors == ["Wasm VM failed Failed to parse corrupted Wasm module", *LOAD]
    with pytest.raises(PluginStartError) as caught:
        Plugin(b"", name="p")
    assert caught.value.host_errors == LOADED


def test_no_allocator() -> None:
    first = "Wasm VM failed Wasm module is missing malloc function."
    assert refused(filter_text(rest="")) == [first, *INITIALIZE]


IMPORT = '(import "{}" "{}" (func {}))'
MISSING = "Failed to load Wasm module due to a missing import: {}"
MISMATCH = "Failed to load Wasm module due to an import type mismatch: {}, want: {}, but host exports: {}"


@pytest.mark.parametrize(
    ("module", "name", "marker"),
    [
        ("env", "proxy_no_such_call", "0_2_1"),
        ("env", "proxy_clear_route_cache", "0_2_0"),
        ("env", "proxy_get_configuration", "0_2_0"),
        ("env", "proxy_continue_request", "0_2_1"),
        ("env", "proxy_continue_response", "0_2_1"),
        ("env", "proxy_continue_stream", "0_1_0"),
        ("env", "proxy_get_log_level", "0_2_0"),
        ("env", "proxy_redis_init", "0_2_1"),
        ("env", "fd_write", "0_2_1"),
        ("wasi_snapshot_preview1", "proxy_log", "0_2_1"),
        ("wasi_snapshot_preview2", "fd_write", "0_2_1"),
    ],
)
def test_imports_that_are_not_there(module: str, name: str, marker: str) -> None:
    text = filter_text(IMPORT.format(module, name, "(result i32)"), marker=marker)
    assert refused(text) == [MISSING.format(f"{module}.{name}"), *INITIALIZE]


def test_only_functions_can_be_imported() -> None:
    text = '(import "env" "proxy_log" (global i32))'
    assert refused(filter_text(text)) == [MISSING.format("env.proxy_log"), *INITIALIZE]


def test_a_wrong_import_type() -> None:
    text = filter_text(IMPORT.format("env", "proxy_log", "(param i32 i32) (result i32)"))
    assert refused(text) == [
        MISMATCH.format("env.proxy_log", "i32 i32 -> i32", "i32 i32 i32 -> i32"),
        *INITIALIZE,
    ]
    text = filter_text(IMPORT.format("env", "proxy_done", ""))
    assert refused(text)[0] == MISMATCH.format("env.proxy_done", "void -> void", "void -> i32")


@pytest.mark.parametrize("result", ["", "(result i32)"])
@pytest.mark.parametrize(
    "name", ["proxy_continue_request", "proxy_continue_response", "proxy_clear_route_cache"]
)
def test_0_1_0_calls_with_and_without_result(name: str, result: str) -> None:
    drop = "(drop (call $f))" if result else "(call $f)"
    text = filter_text(
        IMPORT.format("env", name, f"$f {result}").replace("(func $f", "(func $f"),
        rest=f'{MALLOC} (func (export "proxy_on_tick") (param i32) {drop})',
        marker="0_1_0",
    )
    plugin = Plugin(wat(text))
    plugin.tick()
    assert not plugin.failed


@pytest.mark.parametrize(
    ("marker", "have", "want"),
    [
        ("0_1_0", "i32 i32 i32", "i32 i32"),
        ("0_2_0", "i32 i32", "i32 i32 i32"),
        ("0_2_1", "i32 i32", "i32 i32 i32"),
    ],
)
def test_a_wrong_callback_type(marker: str, have: str, want: str) -> None:
    rest = f'{MALLOC} (func (export "proxy_on_request_headers") (param {have}) (result i32) (i32.const 0))'
    assert refused(filter_text(rest=rest, marker=marker)) == [
        f"Bad function signature for: proxy_on_request_headers, want: {want} -> i32, "
        f"but the module exports: {have} -> i32",
        *INITIALIZE,
    ]


def test_a_wrong_allocator_type() -> None:
    text = filter_text(rest='(func (export "malloc") (result i32) (i32.const 0))')
    wanted = "Bad function signature for: malloc, want: i32 -> i32, but the module exports: void -> i32"
    assert refused(text)[0] == wanted


def test_exports_with_other_names_do_not_matter() -> None:
    assert not Plugin(wat(filter_text(rest=f'{MALLOC} (func (export "proxy_on_my_own") (param f64))'))).failed


def test_import_errors_come_before_export_errors() -> None:
    imports = IMPORT.format("env", "nope", "")
    text = filter_text(imports, rest='(func (export "malloc") (result i32) (i32.const 0))')
    assert refused(text) == [MISSING.format("env.nope"), *INITIALIZE]


def test_type_text() -> None:
    assert type_text(FuncType.parse("i32 i64 -> i32")) == "i32 i64 -> i32"
    assert type_text(FuncType.parse(" -> ")) == "void -> void"


# --- restricted phases ----------------------------------------------------------------------------------

LOG = '(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))'
TICK = '(import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))'
SAY = "(drop (call $log (i32.const 2) (i32.const 0) (i32.const 2)))"
CALL_TICK = "(drop (call $tick (i32.const 100)))"
TEXT = '(data (i32.const 0) "hi")'


def test_the_start_section_may_log() -> None:
    text = filter_text(LOG + TICK, f"{MALLOC} {TEXT} (func $s {SAY}) (start $s)")
    plugin = Plugin(wat(text), root_id="r")
    assert [(r.prefix, r.message) for r in plugin.logs] == [("", "hi")]


def test_other_calls_in_the_start_section_fail_with_a_status() -> None:
    body = "(global.set $g (call $tick (i32.const 100)))"
    text = filter_text(
        TICK,
        f'{MALLOC} (global $g (export "g") (mut i32) (i32.const 0)) (func $s {body}) (start $s)'
        '(func (export "get") (result i32) (global.get $g))',
    )
    plugin = Plugin(wat(text))
    assert plugin.vm.instance.exports["get"].raw() == 10
    assert plugin.tick_period_ms == 0


def test_resultless_calls_in_the_start_section_do_nothing() -> None:
    imports = '(import "env" "proxy_continue_request" (func $c))'
    assert not Plugin(wat(filter_text(imports, f"{MALLOC} (func $s (call $c)) (start $s)", "0_1_0"))).failed


def test_a_trap_in_the_start_section() -> None:
    errors = refused(filter_text(rest=f"{MALLOC} (func $s unreachable) (start $s)"))
    assert errors == ["Function: start failed: Uncaught RuntimeError: unreachable", *INITIALIZE]


@pytest.mark.parametrize(
    ("exports", "order"),
    [
        (["_start", "_initialize", "main"], ["_initialize", "main"]),
        (["_start", "main"], ["_start"]),
        (["_initialize", "__main_void"], ["_initialize", "__main_void"]),
        (["_initialize", "main", "__main_void"], ["_initialize", "main"]),
        (["main"], []),
    ],
)
def test_entry_points(exports: list[str], order: list[str]) -> None:
    types = {"main": "(param i32 i32) (result i32)", "__main_void": "(result i32)"}
    rest = MALLOC
    for number, name in enumerate(exports):
        at = 100 * (number + 1)
        result = "(i32.const 0)" if name in types else ""
        rest += f' (data (i32.const {at}) "{name}") (func (export "{name}") {types.get(name, "")}'
        rest += f" (drop (call $log (i32.const 2) (i32.const {at}) (i32.const {len(name)}))) {result})"
    plugin = Plugin(wat(filter_text(LOG, rest)), name="p", root_id="r")
    assert [(r.prefix, r.message) for r in plugin.logs] == [("", name) for name in order]


@pytest.mark.parametrize("name", ["_initialize", "_start"])
def test_restricted_calls_in_entry_points(name: str) -> None:
    text = filter_text(TICK, f'{MALLOC} (func (export "{name}") {CALL_TICK})')
    assert refused(text) == [f"Function: {name} failed: Uncaught Error: restricted_callback", *INITIALIZE]


def test_a_trap_in_an_entry_point() -> None:
    text = filter_text(rest=f'{MALLOC} (func (export "_start") unreachable)')
    assert refused(text) == ["Function: _start failed: Uncaught RuntimeError: unreachable", *INITIALIZE]


PROPERTY = '(import "env" "proxy_get_property" (func $prop (param i32 i32 i32 i32) (result i32)))'
ASK = "(call $prop (i32.const 16) (i32.const 11) (i32.const 32) (i32.const 36))"
NAME = '(data (i32.const 16) "plugin_name")'


def asking(malloc: str, imports: str = "", callback: str = "proxy_on_configure") -> str:
    """A filter that reads a property in a callback and logs the status as a digit."""
    types = "(param i32 i32) (result i32)" if callback == "proxy_on_configure" else "(param i32)"
    rest = (
        f'{NAME} {TEXT} (func (export "malloc") (param i32) (result i32) {malloc})'
        f'(func (export "{callback}") {types} (i32.store8 (i32.const 0) (i32.add (i32.const 48) {ASK}))'
        f"(drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))"
        f"{'(i32.const 1)' if callback == 'proxy_on_configure' else ''})"
    )
    return filter_text(LOG + PROPERTY + imports, rest)


def test_a_restricted_call_in_the_allocator_kills_the_vm_but_not_the_callback() -> None:
    plugin = Plugin(wat(asking(f"{CALL_TICK} (i32.const 8192)", TICK)), name="p")
    assert [record.message for record in plugin.logs] == ["6"]  # started, with INVALID_MEMORY_ACCESS
    assert plugin.failed
    assert plugin.tick_period_ms == 0
    assert str(plugin.vm.failure) == "Function: malloc failed: Uncaught Error: restricted_callback"


def test_a_callback_whose_allocator_died_fails_as_it_returns() -> None:
    text = asking(f"{CALL_TICK} (i32.const 8192)", TICK, "proxy_on_tick")
    plugin = Plugin(wat(text), name="p")
    with pytest.raises(PluginFailure, match="malloc failed"):
        plugin.tick()
    assert [record.message for record in plugin.logs] == ["6"]  # it ran to its end


def test_the_allocator_may_log_without_a_prefix() -> None:
    plugin = Plugin(wat(asking(f"{SAY} (i32.const 8192)")), name="p", root_id="r")
    assert [(r.prefix, r.message) for r in plugin.logs] == [("", "hi"), ("r", "0")]


def test_calls_are_free_again_after_the_allocator() -> None:
    text = asking("(i32.const 8192)", TICK, "proxy_on_tick")
    text = text.replace("(drop (call $log", f"{CALL_TICK} (drop (call $log")
    plugin = Plugin(wat(text), name="p")
    plugin.tick()
    assert plugin.tick_period_ms == 100


def test_an_allocator_that_fails() -> None:
    plugin = Plugin(wat(asking("(i32.const 0)")), name="p")
    assert [record.message for record in plugin.logs] == ["6"]
    assert not plugin.failed


def test_malloc_is_preferred() -> None:
    other = '(func (export "proxy_on_memory_allocate") (param i32) (result i32) (unreachable))'
    plugin = Plugin(wat(asking("(i32.const 8192)")[:-1] + other + ")"), name="p")
    assert [record.message for record in plugin.logs] == ["0"]


def test_proxy_on_memory_allocate_serves_alone() -> None:
    text = asking("(i32.const 8192)").replace('(export "malloc")', '(export "proxy_on_memory_allocate")')
    assert [record.message for record in Plugin(wat(text), name="p").logs] == ["0"]


# --- capabilities ---------------------------------------------------------------------------------------


def test_capabilities_restrict_calls_and_callbacks() -> None:
    rest = (
        f'{MALLOC} {TEXT} (func (export "proxy_on_vm_start") (param i32 i32) (result i32)'
        "  (i32.store8 (i32.const 0)"
        "    (i32.add (i32.const 48) (i32.rem_u (call $tick (i32.const 5)) (i32.const 10))))"
        "  (i32.store8 (i32.const 1) (i32.add (i32.const 48) (i32.rem_u (call $yield) (i32.const 10))))"
        "  (call $exit (i32.const 1))"
        f"  {SAY} (i32.const 1))"
        '(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0))'
    )
    wasi = '(import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))'
    wasi += '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
    code = wat(filter_text(LOG + TICK + wasi, rest))
    allowed = frozenset(("proxy_log", "proxy_on_vm_start"))
    vm = Vm(code, capabilities=allowed)
    plugin = Plugin(vm)
    assert [record.message for record in plugin.logs] == ["06"]  # 10 and 76, last digits
    assert list(vm.host.errors) == [  # type: ignore[attr-defined]
        f"Attempted call to restricted proxy-wasm capability: {name}"
        for name in ("proxy_set_tick_period_milliseconds", "sched_yield", "proc_exit")
    ]
    assert plugin.tick_period_ms == 0
    with pytest.raises(PluginStartError):  # without the restriction, proxy_on_configure refuses
        Plugin(code)


def test_no_capabilities_named_means_no_restriction() -> None:
    assert Vm(wat(filter_text()), capabilities=frozenset()).capabilities is None


# --- trace ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [LogLevel.TRACE, LogLevel.DEBUG])
def test_hosts_that_trace_see_every_call(level: LogLevel) -> None:
    from abi.proxy_wasm.host import MemoryHost

    class Tracing(MemoryHost):
        def __init__(self) -> None:
            super().__init__(level)
            self.traced: list[str] = []

        def trace(self, message: str) -> None:
            self.traced.append(message)

    host = Tracing()
    exit_import = '(import "wasi_unstable" "proc_exit" (func $exit (param i32)))'
    body = f'{MALLOC} {TEXT} (func (export "proxy_on_tick") (param i32) {SAY} (call $exit (i32.const 3)))'
    Plugin(wat(filter_text(LOG + exit_import, body)), host=host).tick()
    lines = [
        "[host->vm] proxy_on_tick(1)",
        "[vm->host] env.proxy_log(2, 0, 2)",
        "[vm<-host] env.proxy_log return: 0",
        "[vm->host] wasi_unstable.proc_exit(3)",
        "[vm<-host] wasi_unstable.proc_exit return: void",
        "[host<-vm] proxy_on_tick return: void",
    ]
    assert host.traced == (lines if level is LogLevel.TRACE else [])
