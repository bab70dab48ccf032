"""Words for failures: every trap kind has a phrase, backtraces, refusal lines."""

from __future__ import annotations

import pytest

from abi.proxy_wasm import failures
from abi.proxy_wasm.failures import RestrictedCall
from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from pywasmvm import Frame, Module, Trap, TrapKind, WasmException
from pywasmvm.debug.lines import attach
from tests.support.wat import wat

OURS = {TrapKind.OUT_OF_FUEL, TrapKind.DEADLINE_EXCEEDED, TrapKind.UNKNOWN_IMPORT}


@pytest.mark.parametrize("kind", TrapKind)
def test_every_kind_of_trap_has_words(kind: TrapKind) -> None:
    phrase = failures.phrase(Trap(kind))
    if kind in OURS:
        assert phrase == f"Uncaught RuntimeError: {kind.value}"
    else:
        assert phrase == f"Uncaught {failures.TRAP_PHRASES[kind]}"
    assert failures.function_failed("f", Trap(kind)) == f"Function: f failed: {phrase}"


def test_other_errors() -> None:
    assert failures.phrase(RestrictedCall("x")) == "Uncaught Error: restricted_callback"
    assert failures.phrase(WasmException(None, ())) == "Uncaught [object WebAssembly.Exception]"
    assert failures.phrase(ValueError("v")) == "Uncaught Error: ValueError: v"


def trap(*frames: Frame) -> Trap:
    made = Trap(TrapKind.UNREACHABLE)
    made.frames = frames
    return made


def test_backtraces_need_names() -> None:
    assert failures.backtrace(trap()) == ""
    assert failures.backtrace(ValueError("v")) == ""
    assert failures.backtrace(trap(Frame("m", "", 1, 2, None))) == ""


def test_a_backtrace() -> None:
    text = failures.backtrace(
        trap(Frame("m", "f", 1, 0x2A, "unreachable"), Frame("m", "env.g", 0, None, None))
    )
    assert text == "\nProxy-Wasm plugin in-VM backtrace:\n  0:  0x2a - f\n  1:  host - env.g"


def test_a_backtrace_with_lines_of_the_source() -> None:
    module = Module(
        wat("""(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 0))
      (func (export "proxy_on_configure") (param i32 i32) (result i32) (unreachable)))""")
    )
    # Everything from offset 0 on is line 12.
    source_map = b'{"version": 3, "sources": ["assembly/index.ts"], "mappings": "AAWA"}'
    attach(module, lambda: source_map)
    host = MemoryHost()
    with pytest.raises(failures.PluginStartError):
        Plugin(module, host=host)
    [report] = [line for line in host.errors if "proxy_on_configure failed" in line]
    assert report.split("\n")[1] == "Proxy-Wasm plugin in-VM backtrace:"
    assert report.endswith(" - proxy_on_configure (assembly/index.ts:12)")


def test_a_very_deep_backtrace_is_cut() -> None:
    lines = failures.backtrace(trap(*[Frame("m", "f", 1, n, None) for n in range(5000)])).split("\n")
    assert len(lines) == 2 + failures.MOST_FRAMES + 1
    assert lines[-1] == f"  ... {5000 - failures.MOST_FRAMES} more"


def test_refusal_lines() -> None:
    assert failures.load_failed_lines("p", False) == [
        "Plugin p failed to load",
        "Plugin configured to fail closed failed to load",
    ]
    assert failures.load_failed_lines("", True) == ["Plugin  failed to load"]
    error = failures.PluginStartError("reason", ["a", "b"])
    assert str(error) == "reason; a; b"
