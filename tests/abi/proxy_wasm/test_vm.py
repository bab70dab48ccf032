"""`Vm`: traps, dead VMs, limits, context ids, log lines."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.vm import EAGER_BYTES, Vm
from pywasmvm import StoreLimits, Trap, TrapKind
from tests.abi.rig import Rig
from tests.support.wat import wat

HEAD = '(memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))'
MALLOC = '(func (export "malloc") (param i32) (result i32) (i32.const 1024))'


def ticking(body: str, more: str = "") -> bytes:
    """A filter whose `proxy_on_tick` has this body."""
    return wat(f'(module {HEAD} {MALLOC} {more} (func $tick (export "proxy_on_tick") (param i32) {body}))')


@pytest.mark.parametrize(
    ("body", "kind", "phrase"),
    [
        ("unreachable", TrapKind.UNREACHABLE, "RuntimeError: unreachable"),
        (
            "(i32.store (i32.const -16) (i32.const 0))",
            TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS,
            "RuntimeError: memory access out of bounds",
        ),
        (
            "(drop (i32.div_u (i32.const 7) (i32.sub (local.get 0) (i32.const 1))))",
            TrapKind.INTEGER_DIVIDE_BY_ZERO,
            "RuntimeError: divide by zero",
        ),
        (
            "(call $tick (local.get 0))",
            TrapKind.CALL_STACK_EXHAUSTED,
            "RangeError: Maximum call stack size exceeded",
        ),
        ("(loop (br 0))", TrapKind.DEADLINE_EXCEEDED, "RuntimeError: deadline exceeded"),
    ],
)
def test_a_trap_kills_the_vm(body: str, kind: TrapKind, phrase: str) -> None:
    host = MemoryHost()
    plugin = Plugin(ticking(body), host=host, limits=StoreLimits(seconds=0.3), name="p")
    with pytest.raises(PluginFailure) as caught:
        plugin.tick()
    line = f"Function: proxy_on_tick failed: Uncaught {phrase}"
    assert caught.value.trap is not None
    assert caught.value.trap.kind is kind
    assert caught.value.function == "proxy_on_tick"
    assert str(caught.value) == line
    assert host.errors[0].split("\n")[0] == line
    assert plugin.failed
    assert plugin.vm.failure is caught.value


def test_known_names_are_in_the_backtrace() -> None:
    host = MemoryHost()
    code = ticking("(call $inner)", "(func $inner unreachable)")
    plugin = Plugin(code, host=host)
    with pytest.raises(PluginFailure):
        plugin.tick()
    lines = host.errors[0].split("\n")
    assert lines[1] == "Proxy-Wasm plugin in-VM backtrace:"
    assert lines[2].startswith("  0:  0x")
    assert lines[2].endswith(" - inner")
    assert lines[3].endswith(" - tick")


def test_no_callback_runs_in_a_dead_vm() -> None:
    rig = Rig()
    stream = rig.plugin.http_stream()
    stream.on_request_headers(HeaderMap(), True)

    def fail() -> None:
        raise Trap(TrapKind.UNREACHABLE)

    rig.during("proxy_on_response_headers", fail)
    with pytest.raises(PluginFailure, match="Function: proxy_on_response_headers failed"):
        stream.on_response_headers(HeaderMap(), True)
    called = list(rig.called)
    other = rig.plugin.http_stream()
    for callback in (
        lambda: stream.on_response_body(bytearray(), True),
        stream.on_log,
        stream.on_done,
        stream.on_delete,
        lambda: other.on_request_headers(HeaderMap(), True),
        rig.plugin.tick,
    ):
        with pytest.raises(
            PluginFailure, match="the VM is dead: Function: proxy_on_response_headers"
        ) as caught:
            callback()
        assert caught.value.trap is not None
    assert rig.plugin.close() is True
    with rig.plugin.http_stream():
        pass
    assert rig.called == called


def test_an_error_in_a_host_function_is_a_failure_with_its_cause() -> None:
    rig = Rig()

    def fail() -> None:
        raise KeyError("a bug of ours")

    rig.during("proxy_on_tick", fail)
    with pytest.raises(PluginFailure, match="Uncaught Error: KeyError: 'a bug of ours'") as caught:
        rig.plugin.tick()
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.trap is None


def test_interrupts_pass() -> None:
    rig = Rig()

    def interrupt() -> None:
        raise KeyboardInterrupt

    rig.during("proxy_on_tick", interrupt)
    with pytest.raises(KeyboardInterrupt):
        rig.plugin.tick()
    assert not rig.plugin.failed


def test_a_trap_in_context_create_of_a_stream() -> None:
    rig = Rig()

    def fail() -> None:
        raise Trap(TrapKind.UNREACHABLE)

    rig.during("proxy_on_context_create", fail)
    with pytest.raises(PluginFailure, match="proxy_on_context_create"):
        rig.plugin.http_stream().on_request_headers(HeaderMap(), True)


LOOP = (
    "(local $n i32) (loop (br_if 0 (i32.lt_u (i32.const 0)"
    " (local.tee $n (i32.rem_u (i32.add (local.get $n) (i32.const 1)) (i32.const 2000))))))"
)


def test_fuel_is_for_one_callback() -> None:
    plugin = Plugin(ticking(LOOP), limits=StoreLimits(fuel=20_000))
    for _ in range(5):
        plugin.tick()
    plugin = Plugin(ticking(LOOP), limits=StoreLimits(fuel=100))
    with pytest.raises(PluginFailure, match="out of fuel"):
        plugin.tick()


def test_start_up_has_limits_of_its_own() -> None:
    code = wat(f'(module {HEAD} {MALLOC} (func (export "_initialize") {LOOP}))')
    with pytest.raises(PluginStartError, match="out of fuel"):
        Plugin(code, limits=StoreLimits(fuel=100))
    plugin = Plugin(code, limits=StoreLimits(fuel=100), start_limits=StoreLimits(fuel=100_000))
    assert plugin.vm.store.limits.fuel == 100


def test_a_memory_limit_refuses_a_large_module() -> None:
    code = wat(f'(module (memory (export "memory") 64) (func (export "proxy_abi_version_0_2_1")) {MALLOC})')
    with pytest.raises(PluginStartError) as caught:
        Plugin(code, limits=StoreLimits(memory_pages=10), name="p")
    assert caught.value.reason == "Failed to initialize Wasm code"


INVALID = ticking("", "(func $bad (result i32) (i64.const 1))")


def test_an_invalid_module_is_refused_at_once() -> None:
    with pytest.raises(PluginStartError) as caught:
        Vm(INVALID)
    assert caught.value.host_errors[0] == "Wasm VM failed Failed to parse corrupted Wasm module"


def test_large_modules_are_validated_lazily() -> None:
    padding = b"\0" + _leb(EAGER_BYTES + 1) + b"\x01p" + bytes(EAGER_BYTES - 1)
    assert not Plugin(INVALID + padding).failed


def _leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_context_ids_count_up_and_go_round() -> None:
    rig = Rig()
    assert rig.plugin.root.id == 1
    first, second = rig.plugin.http_stream(), rig.plugin.http_stream()
    second.on_request_headers(HeaderMap(), True)
    first.on_request_headers(HeaderMap(), True)
    assert (second.id, first.id) == (2, 3)  # in the order of the first callbacks
    rig.vm._last_id = 0xFFFFFFFF
    third = rig.plugin.http_stream()
    third.on_request_headers(HeaderMap(), True)
    assert third.id == 4  # 1 to 3 are still in use


def test_a_shared_vm_numbers_all_its_contexts_in_one_sequence() -> None:
    rig = Rig(name="a", root_id="ra", vm_id="V")
    other = Plugin(rig.vm, name="b", root_id="rb")
    assert (rig.plugin.root.id, other.root.id) == (1, 2)
    one, two = rig.plugin.http_stream(), other.http_stream()
    one.on_request_headers(HeaderMap(), True)
    two.on_request_headers(HeaderMap(), True)
    assert (one.id, two.id) == (3, 4)
    assert (one.log_prefix, two.log_prefix) == ("a ra V", "b rb V")
    assert rig.vm.plugins == [rig.plugin, other]


def test_environment_and_identity_are_kept() -> None:
    vm = Vm(ticking(""), vm_id="v", configuration=b"c", environment={"A": "b"})
    assert (vm.vm_id, vm.configuration, vm.environment) == ("v", b"c", {"A": "b"})
    assert vm.has("proxy_on_tick")
    assert not vm.has("proxy_on_log")
