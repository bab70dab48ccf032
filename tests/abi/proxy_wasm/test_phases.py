"""The ABI's availability table: every host function in every version and every phase."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.types import Errno, Status
from abi.proxy_wasm.versions import (
    CALLBACKS,
    WASI_MODULES,
    AbiVersion,
    HostFunction,
    callbacks,
    host_function,
    host_functions,
)
from tests.abi.availability import ROWS, Row
from tests.abi.phases import EVERY_VERSION, HIGRESS, PHASES, V010, Phase
from tests.abi.rig import START_UP, Rig
from tests.support.wat import wat

PREVIEW1, UNSTABLE = WASI_MODULES


def prepared(version: AbiVersion, wasi: str, **arguments: Any) -> Rig:
    """A guest with both configurations and an environment, in a place with a node and a cluster."""
    rig = Rig(
        version,
        wasi=wasi,
        name="plugin",
        config=b"plugin config",
        configuration=b"vm config",
        environment={"A": "b"},
        **arguments,
    )
    rig.host.node = {"id": "node-1"}
    rig.host.cluster_hosts = lambda name: ["10.0.0.1:5"]
    return rig


def ask(rig: Rig, row: Row) -> Any:
    arguments = [argument(rig) if callable(argument) else argument for argument in row.arguments]
    return rig.ask(row.function, *arguments)


def answers(rig: Rig, phase: Phase, rows: list[Row]) -> Iterator[tuple[Row, Any]]:
    """What the rows' calls give in a phase. `reach` may use the hooks up, so they are set each time."""
    together = [row for row in rows if not row.alone]
    for group in (together, *([row] for row in rows if row.alone)):
        rig.results.clear()
        rig.during(phase.callback, lambda group=group: [ask(rig, row) for row in group])  # type: ignore[misc]
        phase.reach(rig)
        rig.hooks.clear()
        yield from zip(group, rig.results[phase.callback], strict=True)
        rig.vm.deferred.clear()
        for call in list(rig.vm.calls.of(rig.plugin)):
            rig.vm.calls.end(call.token)


CELLS = [
    pytest.param(version, phase, id=f"{version}-{phase.name}")
    for version in EVERY_VERSION
    for phase in PHASES
    if version in phase.versions
]


@pytest.mark.parametrize(("version", "phase"), CELLS)
def test_every_function_answers_as_it_should(version: AbiVersion, phase: Phase) -> None:
    wrong = []
    for wasi in WASI_MODULES:
        rows = [row for row in ROWS if version in row.versions and row.module in ("env", wasi)]
        if wasi == UNSTABLE:
            rows = [row for row in rows if row.module == wasi]
        for row, answer in answers(prepared(version, wasi), phase, rows):
            if answer != row.expected(phase.name):
                wrong.append((row.function, row.case, answer, row.expected(phase.name)))
    assert wrong == []


def test_the_table_has_every_function_in_every_version_that_has_it() -> None:
    for version in EVERY_VERSION:
        there = {(row.module, row.name) for row in host_functions(version)}
        assert {(row.module, row.function) for row in ROWS if version in row.versions} == there


def test_the_phases_are_all_callbacks_of_every_version() -> None:
    for version in EVERY_VERSION:
        reached = {phase.callback for phase in PHASES if version in phase.versions}
        never = {"proxy_validate_configuration", *START_UP}
        assert reached == set(callbacks(version)) - never


ROOT, STREAM, TOKEN = "root", "stream", "token"

ARGUMENTS: dict[str, tuple[int | str, ...]] = {
    "plugin created": (ROOT, 0),
    "VM start": (ROOT, len(b"vm config")),
    "configure": (ROOT, len(b"plugin config")),
    "tick": (ROOT,),
    "queue ready": (ROOT, 1),
    "foreign function": (ROOT, 5, len(b"args")),
    "HTTP call response": (ROOT, TOKEN, 1, len(b"answer"), 1),
    "gRPC initial metadata": (ROOT, TOKEN, 1),
    "gRPC message": (ROOT, TOKEN, len(b"message")),
    "gRPC trailing metadata": (ROOT, TOKEN, 1),
    "gRPC close": (ROOT, TOKEN, 14),
    "Redis reply": (ROOT, TOKEN, 0, len(b"+PONG\r\n")),
    "plugin done": (ROOT,),
    "plugin deleted": (ROOT,),
    "stream created": (STREAM, 1),
    "request headers": (STREAM, 1, 0),
    "request metadata": (STREAM, 1),
    "request body": (STREAM, 4, 0),
    "request body's end": (STREAM, 4, 1),
    "request trailers": (STREAM, 1),
    "response headers": (STREAM, 1, 0),
    "response metadata": (STREAM, 1),
    "response body": (STREAM, 4, 0),
    "response body's end": (STREAM, 4, 1),
    "response trailers": (STREAM, 1),
    "log": (STREAM,),
    "done": (STREAM,),
    "deleted": (STREAM,),
    "connection created": (STREAM, 1),
    "new connection": (STREAM,),
    "downstream data": (STREAM, 4, 1),
    "upstream data": (STREAM, 4, 0),
    "upstream close": (STREAM, 0),
    "downstream close": (STREAM, 2),
    "connection done": (STREAM,),
    "connection log": (STREAM,),
    "connection deleted": (STREAM,),
}
"""What every callback is called with: contexts and tokens by what they are, the rest as numbers."""

TOKENS = {"HTTP call response": 4, "Redis reply": 11}
"""The first token of each kind of call; a gRPC stream's is 6. The low two bits tell the kind. Before 11 comes
that of the plugin's session with Redis."""


@pytest.mark.parametrize(("version", "phase"), CELLS)
def test_every_callback_gets_its_arguments(version: AbiVersion, phase: Phase) -> None:
    rig = prepared(version, PREVIEW1)
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    def look() -> None:
        context = rig.vm.current
        assert context.plugin is not None
        seen.append((context.id, context.plugin.root.id, rig.arguments(phase.callback)))

    rig.during(phase.callback, look)
    phase.reach(rig)
    context, root, given = seen[-1]
    meant = {ROOT: root, STREAM: context, TOKEN: TOKENS.get(phase.name, 6)}
    wanted = ARGUMENTS[phase.name]
    if version is V010 and phase.name.endswith("headers"):
        wanted = wanted[:2]  # 0.1.0 does not tell the end of the stream
    assert given == tuple(meant.get(one, one) if isinstance(one, str) else one for one in wanted)
    assert (context == root) is (phase.kind == "root")
    assert "proxy_validate_configuration" not in rig.called


# --- versions ---------------------------------------------------------------------------------------------

UNION = {(row.module, row.name): row for version in EVERY_VERSION for row in host_functions(version)}
MALLOC = '(func (export "malloc") (param i32) (result i32) (i32.const 4096))'


def types_of(signature: str) -> tuple[list[str], list[str]]:
    parameters, _, results = signature.partition("->")
    return parameters.split(), results.split()


def wat_type(signature: str) -> str:
    parameters, results = types_of(signature)
    return " ".join([*(f"(param {one})" for one in parameters), *(f"(result {one})" for one in results)])


def importing(rows: Iterable[HostFunction], version: AbiVersion, rest: str) -> bytes:
    """A module that imports functions as `$0`, `$1`, ... ."""
    imports = [
        f'(import "{row.module}" "{row.name}" (func ${number} {wat_type(row.signature)}))'
        for number, row in enumerate(rows)
    ]
    head = f'(memory (export "memory") 1) (func (export "{version.marker}"))'
    return wat(f"(module {' '.join(imports)} {head} {rest})")


@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_what_a_version_does_not_have_is_refused(version: AbiVersion) -> None:
    missing = [place for place in UNION if host_function(version, *place) is None]
    for place in missing:
        with pytest.raises(PluginStartError) as caught:
            Plugin(importing([UNION[place]], version, MALLOC))
        wanted = f"Failed to load Wasm module due to a missing import: {'.'.join(place)}"
        assert caught.value.host_errors[0] == wanted
    assert bool(missing)


@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_another_type_is_refused(version: AbiVersion) -> None:
    for row in host_functions(version):
        wrong = f'(import "{row.module}" "{row.name}" (func (param f64)))'
        head = f'(memory (export "memory") 1) (func (export "{version.marker}"))'
        with pytest.raises(PluginStartError) as caught:
            Plugin(wat(f"(module {wrong} {head} {MALLOC})"))
        assert (
            f"import type mismatch: {row.module}.{row.name}, want: f64 -> void" in caught.value.host_errors[0]
        )


@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_callbacks_of_another_type_are_refused(version: AbiVersion) -> None:
    """Those of other versions are the module's own business."""
    names = {row.name for row in CALLBACKS} | set(callbacks(HIGRESS))
    for name in sorted(names):
        malloc = "" if name == "malloc" else MALLOC
        text = f'(func (export "{name}") (param f64))'
        code = importing([], version, f"{malloc} {text}")
        if name not in callbacks(version):
            assert not Plugin(code).failed
            continue
        with pytest.raises(PluginStartError) as caught:
            Plugin(code)
        assert caught.value.host_errors[0].startswith(f"Bad function signature for: {name}, want: ")


# --- before there is a context ----------------------------------------------------------------------------

RUNTIME = {"emscripten_notify_memory_growth", "pthread_equal"}
ALLOCATOR_MAY = {"proxy_log", "fd_write", "clock_time_get", "poll_oneoff"} | RUNTIME
START_MAY = {"proxy_log"} | RUNTIME
"""Of `env`, while the module initialises itself; and all of WASI."""


def zeros(row: HostFunction) -> str:
    return " ".join(f"({one}.const 0)" for one in types_of(row.signature)[0])


def keeping(number: int, row: HostFunction) -> str:
    """Call a function with zeros, and keep its answer in the memory cell of its number."""
    call = f"(call ${number} {zeros(row)})"
    return f"(i32.store (i32.const {1024 + 4 * number}) {call})" if types_of(row.signature)[1] else call


def kept(plugin: Plugin, count: int) -> list[int]:
    return [plugin.vm.guest.read_u32(1024 + 4 * number) for number in range(count)]


def all_of(version: AbiVersion) -> list[HostFunction]:
    return list(host_functions(version))


def may_begin(row: HostFunction) -> bool:
    return row.module in WASI_MODULES or row.name in START_MAY


@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_the_start_section_gets_a_status_for_what_is_too_early(version: AbiVersion) -> None:
    rows = all_of(version)
    calls = " ".join(keeping(number, row) for number, row in enumerate(rows))
    again = f'(func (export "proxy_on_tick") (param i32) {calls})'
    plugin = Plugin(importing(rows, version, f"{MALLOC} (func $s {calls}) (start $s) {again}"))
    early = kept(plugin, len(rows))
    plugin.tick()
    later = kept(plugin, len(rows))
    for row, first, second in zip(rows, early, later, strict=True):
        failure = Status.INTERNAL_FAILURE if types_of(row.signature)[1] else 0
        assert first == (second if may_begin(row) else failure), row.name


REACTOR = '(func (export "_initialize"))'
ENTRY_POINTS = {
    "_initialize": '(func (export "_initialize") {})',
    "_start": '(func (export "_start") {})',
    "main": REACTOR + '(func (export "main") (param i32 i32) (result i32) {} i32.const 0)',
    "__main_void": REACTOR + '(func (export "__main_void") (result i32) {} i32.const 0)',
}


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_entry_points_may_call_wasi_and_log(version: AbiVersion, entry: str) -> None:
    rows = [row for row in all_of(version) if may_begin(row)]
    calls = " ".join(keeping(number, row) for number, row in enumerate(rows))
    again = f'(func (export "proxy_on_tick") (param i32) {calls})'
    plugin = Plugin(importing(rows, version, f"{MALLOC} {ENTRY_POINTS[entry].format(calls)} {again}"))
    early = kept(plugin, len(rows))
    plugin.tick()
    assert early == kept(plugin, len(rows))


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_entry_points_may_call_nothing_else(version: AbiVersion, entry: str) -> None:
    for row in all_of(version):
        if not may_begin(row):
            with pytest.raises(PluginStartError) as caught:
                Plugin(importing([row], version, f"{MALLOC} {ENTRY_POINTS[entry].format(keeping(0, row))}"))
            wanted = f"Function: {entry} failed: Uncaught Error: restricted_callback"
            assert caught.value.host_errors[0] == wanted, row.name


ALLOCATORS = ("malloc", "proxy_on_memory_allocate")
PROPERTY = UNION["env", "proxy_get_property"]
ASK = "(drop (call $0 (i32.const 16) (i32.const 12) (i32.const 32) (i32.const 36)))"


def allocating(row: HostFunction, version: AbiVersion, name: str) -> Plugin:
    """A plugin whose allocator calls a function while a tick asks for a property."""
    first = row if row.name == PROPERTY.name else PROPERTY
    rows = [first] if first is row else [first, row]
    code = importing(
        rows,
        version,
        f'(data (i32.const 16) "plugin_vm_id")'
        f'(func (export "{name}") (param i32) (result i32) {keeping(len(rows) - 1, row)} (i32.const 4096))'
        f'(func (export "proxy_on_tick") (param i32) {ASK})',
    )
    return Plugin(code, vm_id="vm")


@pytest.mark.parametrize("name", ALLOCATORS)
@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_what_the_allocator_may_call(version: AbiVersion, name: str) -> None:
    for row in all_of(version):
        plugin = allocating(row, version, name)
        if row.name in ALLOCATOR_MAY:
            plugin.tick()
            continue
        with pytest.raises(PluginFailure):
            plugin.tick()
        wanted = f"Function: {name} failed: Uncaught Error: restricted_callback"
        assert str(plugin.vm.failure) == wanted, row.name


# --- capabilities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_a_restriction_replaces_every_function(version: AbiVersion) -> None:
    names = {row.name for row in host_functions(version)}
    for wasi in WASI_MODULES:
        rig = prepared(version, wasi, capabilities=frozenset(("nothing",)))
        assert rig.called == []
        for name in sorted(names):
            row = host_function(version, "env", name) or host_function(version, wasi, name)
            assert row is not None
            parameters, results = types_of(row.signature)
            rig.host.errors.clear()
            refused = Status.INTERNAL_FAILURE if row.module == "env" else Errno.NOTCAPABLE
            assert rig.ask(name, *[0] * len(parameters)) == (refused if results else None)
            assert list(rig.host.errors) == [f"Attempted call to restricted proxy-wasm capability: {name}"]


@pytest.mark.parametrize("version", EVERY_VERSION, ids=str)
def test_a_restriction_keeps_every_callback_from_being_called(version: AbiVersion) -> None:
    functions = {row.name for row in host_functions(version)}
    for phase in PHASES:
        if version in phase.versions:
            others = functions | set(callbacks(version)) - {phase.callback}
            rig = prepared(version, PREVIEW1, capabilities=frozenset(others))
            rig.during(phase.callback, lambda: None)
            phase.reach(rig)
            assert phase.callback not in rig.called, phase.name
