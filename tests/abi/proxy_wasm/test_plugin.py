"""`Plugin`: start-up sequence, refusals, ticks, the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from abi.proxy_wasm.failures import PluginStartError
from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.vm import Vm
from pywasmvm import Trap, TrapKind
from tests.abi.rig import BYTES, Rig
from tests.support.wat import wat

HEAD = (
    '(memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))'
    '(func (export "malloc") (param i32) (result i32) (i32.const 1024))'
)
LOADED = ["Plugin p failed to load", "Plugin configured to fail closed failed to load"]


def answering(**results: str) -> bytes:
    """A filter whose start-up callbacks have these bodies."""
    types = {
        "proxy_on_context_create": "(param i32 i32)",
        "proxy_on_vm_start": "(param i32 i32) (result i32)",
        "proxy_on_configure": "(param i32 i32) (result i32)",
    }
    functions = [f'(func (export "{name}") {types[name]} {body})' for name, body in results.items()]
    return wat(f"(module {HEAD} {' '.join(functions)})")


def test_start_up_sequence_and_arguments() -> None:
    calls: list[tuple[str, int, bytes]] = []

    def record(name: str, buffer: int) -> object:
        def hook(rig: Rig) -> None:
            calls.append((name, rig.vm.active.id, rig.ask("proxy_get_buffer_bytes", buffer, 0, 99, BYTES)[1]))

        return hook

    hooks = {
        "proxy_on_context_create": record("create", 6),
        "proxy_on_vm_start": record("start", 6),
        "proxy_on_configure": record("configure", 7),
    }
    Rig(hooks=hooks, configuration=b"vm", config=b"plugin")  # type: ignore[arg-type]
    assert calls == [("create", 1, b"vm"), ("start", 1, b"vm"), ("configure", 1, b"plugin")]


def test_sizes_are_passed() -> None:
    check = "(i32.and (i32.eq (local.get 0) (i32.const 1)) (i32.eq (local.get 1) (i32.const {})))"
    code = answering(proxy_on_vm_start=check.format(2), proxy_on_configure=check.format(5))
    assert Plugin(code, vm_config=b"ab", config=b"abcde")
    with pytest.raises(PluginStartError, match="Failed to start base Wasm"):
        Plugin(code, vm_config=b"a", config=b"abcde")
    with pytest.raises(PluginStartError, match="Failed to configure base Wasm plugin"):
        Plugin(code, vm_config=b"ab")


def test_configure_runs_without_a_configuration_too() -> None:
    assert Rig().called == ["proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"]


ZERO, TRAP = "(i32.const 0)", "(unreachable)"


@pytest.mark.parametrize(
    ("bodies", "errors"),
    [
        ({"proxy_on_vm_start": ZERO}, ["Wasm VM failed Failed to start base Wasm"]),
        ({"proxy_on_configure": ZERO}, ["Wasm VM failed Failed to configure base Wasm plugin"]),
        (
            {"proxy_on_vm_start": TRAP},
            [
                "Function: proxy_on_vm_start failed: Uncaught RuntimeError: unreachable",
                "Wasm VM failed Failed to start base Wasm",
            ],
        ),
        (
            {"proxy_on_configure": TRAP},
            [
                "Function: proxy_on_configure failed: Uncaught RuntimeError: unreachable",
                "Wasm VM failed Failed to configure base Wasm plugin",
            ],
        ),
        (
            {"proxy_on_context_create": TRAP, "proxy_on_vm_start": TRAP},
            [
                "Function: proxy_on_context_create failed: Uncaught RuntimeError: unreachable",
                "Function: proxy_on_vm_start failed: Uncaught RuntimeError: unreachable",
                "Wasm VM failed Failed to start base Wasm",
            ],
        ),
    ],
)
def test_refusals(bodies: dict[str, str], errors: list[str]) -> None:
    host = MemoryHost()
    with pytest.raises(PluginStartError) as caught:
        Plugin(answering(**bodies), name="p", host=host)
    assert caught.value.host_errors == [*errors, *LOADED]
    assert caught.value.reason in errors[-1]
    assert [line.split("\n")[0] for line in host.errors] == [*errors, *LOADED]


def test_a_trap_in_context_create_alone_does_not_refuse_but_kills() -> None:
    plugin = Plugin(answering(proxy_on_context_create=TRAP))
    assert plugin.failed


def test_the_deprecated_boolean_changes_the_last_line() -> None:
    with pytest.raises(PluginStartError) as caught:
        Plugin(answering(proxy_on_configure=ZERO), name="p", fail_open=True)
    assert caught.value.host_errors[-1] == "Plugin p failed to load"


def test_a_refused_plugin_leaves_a_shared_vm_as_it_was() -> None:
    host = MemoryHost()
    config = "(i32.ne (local.get 1) (i32.const 3))"
    vm = Vm(answering(proxy_on_configure=config), host=host)
    first = Plugin(vm, name="first")
    with pytest.raises(PluginStartError) as caught:
        Plugin(vm, name="p", config=b"bad")
    assert caught.value.host_errors == ["Wasm VM failed Failed to configure base Wasm plugin", *LOADED]
    assert list(host.errors) == caught.value.host_errors
    assert vm.plugins == [first]
    assert list(vm.contexts) == [1]
    assert not first.failed
    assert Plugin(vm, name="third").root.id == 3


def test_lines_of_earlier_failures_are_not_told_again() -> None:
    vm = Vm(answering(proxy_on_configure="(i32.ne (local.get 1) (i32.const 3))"))
    for _ in range(2):
        with pytest.raises(PluginStartError) as caught:
            Plugin(vm, name="p", config=b"bad")
        assert len(caught.value.host_errors) == 3


def test_a_shared_vm_has_its_settings_already() -> None:
    vm = Vm(answering())
    with pytest.raises(TypeError, match="a shared Vm was given"):
        Plugin(vm, vm_id="other")


def test_from_file(tmp_path: Path) -> None:
    path = tmp_path / "filter.wasm"
    path.write_bytes(answering())
    assert Plugin.from_file(path, name="n", root_id="r").name == "n"
    with pytest.raises(FileNotFoundError):
        Plugin.from_file(tmp_path / "nope.wasm")


def test_logs_without_a_host_and_with_one_that_keeps_none() -> None:
    assert Plugin(answering()).logs == []

    class Silent(MemoryHost):
        def __init__(self) -> None:
            super().__init__()
            del self.records

    assert Plugin(answering(), host=Silent()).logs == []


def test_ticks() -> None:
    rig = Rig()
    rig.plugin.tick()
    rig.plugin.tick()
    assert rig.called[-2:] == ["proxy_on_tick", "proxy_on_tick"]
    Plugin(answering()).tick()  # no callback: nothing happens


def test_the_end() -> None:
    rig = Rig()
    assert rig.plugin.close() is True
    assert rig.called[-2:] == ["proxy_on_done", "proxy_on_delete"]
    assert rig.plugin.closed
    assert rig.plugin.close() is True
    assert rig.called.count("proxy_on_done") == 1
    assert rig.vm.contexts == {}
    assert rig.vm.plugins == []
    assert Plugin(answering()).close() is True


def test_a_plugin_whose_vm_died_while_it_waited_is_over() -> None:
    rig = Rig()
    rig.returns("proxy_on_done", 0)
    assert rig.plugin.close() is False

    def fail() -> None:
        rig.ask("proxy_done")
        raise Trap(TrapKind.UNREACHABLE)

    rig.during("proxy_on_tick", fail)
    with pytest.raises(Exception, match="unreachable"):
        rig.plugin.tick()
    assert rig.plugin.close() is True
    assert "proxy_on_delete" not in rig.called
