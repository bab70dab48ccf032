"""Foreign functions: who answers a name, what is written, and what a hostile guest cannot do with them.

What Envoy's own functions give is replayed from recordings (tests/replay/golden/foreign.json).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from abi.proxy_wasm import expressions, foreign
from abi.proxy_wasm.contexts import Context
from abi.proxy_wasm.deferred import ClearRouteCache
from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.filter_state import FilterState, LifeSpan, Values
from abi.proxy_wasm.foreign import BUILT_IN, MAX_DECLARED, MAX_NAME, MAX_UNCOMPRESSED
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.protobuf import field, varint
from abi.proxy_wasm.registry import VmRegistry
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.versions import AbiVersion
from pywasmvm import StoreLimits, Trap, TrapKind
from tests.abi.rig import BYTES, WORD, Rig

OK, MISSING, BAD, FULL = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT, Status.INTERNAL_FAILURE


def ask(rig: Rig, name: bytes, arguments: bytes = b"") -> Any:
    return rig.ask("proxy_call_foreign_function", name, arguments, BYTES)


def in_a_stream(rig: Rig, *calls: tuple[bytes, bytes], info: StreamInfo | None = None) -> list[Any]:
    """What calls give while request headers are looked at."""
    rig.during("proxy_on_request_headers", lambda: [ask(rig, *one) for one in calls])
    rig.plugin.http_stream(info).on_request_headers(HeaderMap([(":path", "/a")]), True)
    answers: list[Any] = rig.results["proxy_on_request_headers"]
    return answers


def in_the_root(rig: Rig, *calls: tuple[bytes, bytes]) -> list[Any]:
    """What calls give in a tick."""
    rig.during("proxy_on_tick", lambda: [ask(rig, *one) for one in calls])
    rig.plugin.tick()
    answers: list[Any] = rig.results["proxy_on_tick"]
    return answers


def test_an_unknown_name_writes_nothing() -> None:
    rig = Rig()
    assert ask(rig, b"nosuch", b"x") == (MISSING, None)
    assert ask(rig, b"", b"x") == (MISSING, None)
    assert ask(rig, b"\xff\xfe", b"x") == (MISSING, None)


def test_a_failure_of_a_known_one_writes_zeros() -> None:
    assert ask(Rig(), b"uncompress", b"garbage") == (Status.SERIALIZATION_FAILURE, b"")


@pytest.mark.parametrize("wanted", [(0, 0), (0x30000, 0), (0, 0x30000)])
def test_a_guest_need_not_want_the_result(wanted: tuple[int, int]) -> None:
    rig = Rig()
    rig.vm.guest.write(0x30000, bytes(4))
    assert rig.ask("proxy_call_foreign_function", b"compress", b"hello", *wanted) == OK
    written = rig.vm.guest.read_u32(0x30000)
    if wanted[1]:
        assert written == len(zlib.compress(b"hello"))
    else:
        assert bool(written) is bool(wanted[0])
    assert rig.ask("proxy_call_foreign_function", b"uncompress", b"x", *wanted) == 3


def test_places_outside_memory() -> None:
    rig = Rig()
    fault = Status.INVALID_MEMORY_ACCESS
    call = "proxy_call_foreign_function"
    assert rig.ask(call, 0xFFFFFFF0, 64, b"", BYTES)[0] == fault
    assert rig.ask(call, b"compress", 0xFFFFFFF0, 64, BYTES)[0] == fault
    assert rig.ask(call, b"compress", b"x", 0xFFFFFFF0, 0) == fault
    assert rig.ask(call, b"compress", b"x", 0, 0xFFFFFFFE) == fault


# --- Envoy's own, case by case ------------------------------------------------------------------------------

BODY = bytes(range(256))
PACKED = zlib.compress(BODY)


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


ENVOYS: list[tuple[str, list[tuple[bytes, bytes]], list[tuple[Status, bytes]]]] = [
    ("uncompress", [(b"uncompress", PACKED)], [(OK, BODY)]),
    ("uncompress what is cut short", [(b"uncompress", PACKED[:-6])], [(Status.SERIALIZATION_FAILURE, b"")]),
    ("clear_route_cache", [(b"clear_route_cache", b"")], [(OK, b"")]),
    (
        "tokens of expressions",
        [(b"expr_create", b"1"), (b"expr_create", b"request.path"), (b"expr_evaluate", u32(1))],
        [(OK, u32(0)), (OK, u32(1)), (OK, b"/a")],
    ),
    ("an expression that is none", [(b"expr_create", b"1 +")], [(BAD, b"")]),
    ("an unknown expression", [(b"expr_evaluate", u32(7))], [(MISSING, b"")]),
    ("a token that is none", [(b"expr_evaluate", b"\0\0\0")], [(BAD, b"")]),
    (
        "an expression that fails",
        [(b"expr_create", b"1 / 0"), (b"expr_evaluate", u32(0))],
        [(OK, u32(0)), (FULL, b"")],
    ),
    (
        "expr_delete",
        [(b"expr_create", b"1"), *[(b"expr_delete", u32(0))] * 2, (b"expr_evaluate", u32(0))],
        [(OK, u32(0)), (OK, b""), (OK, b""), (MISSING, b"")],
    ),
    (
        "a property that is declared twice",
        [(b"declare_property", field(1, "p"))] * 2,
        [(OK, b""), (BAD, b"")],
    ),
    (
        "filter state that nobody knows",
        [(b"set_envoy_filter_state", field(1, "nosuch") + field(2, "v"))],
        [(MISSING, b"")],
    ),
    (
        "filter state that has another form",
        [(b"set_envoy_filter_state", field(1, "envoy.ratelimit.hits_addend") + field(2, "no number"))],
        [(BAD, b"")],
    ),
]


@pytest.mark.parametrize(
    ("calls", "answers"), [case[1:] for case in ENVOYS], ids=[case[0] for case in ENVOYS]
)
def test_envoys_own(calls: list[tuple[bytes, bytes]], answers: list[tuple[Status, bytes]]) -> None:
    assert in_a_stream(Rig(), *calls) == answers


def test_compress_can_be_undone() -> None:
    status, packed = ask(Rig(), b"compress", BODY)
    assert (status, zlib.decompress(packed)) == (OK, BODY)


@pytest.mark.parametrize("name", [b"sign", b"verify_signature"])
def test_signatures_are_not_there(name: bytes) -> None:
    assert ask(Rig(), name, b"x") == (MISSING, None)


# --- whose functions ----------------------------------------------------------------------------------------


def test_functions_of_the_embedder() -> None:
    seen: list[tuple[Context, bytes]] = []

    def echo(context: Context, arguments: bytes) -> bytes:
        seen.append((context, arguments))
        return arguments[::-1]

    rig = Rig(foreign_functions={"echo": echo, "none": lambda *_: None, "sorry": lambda *_: Status.EMPTY})
    assert in_a_stream(rig, (b"echo", b"abc"), (b"none", b""), (b"sorry", b"")) == [
        (OK, b"cba"),
        (OK, b""),
        (Status.EMPTY, b""),
    ]
    [(context, arguments)] = seen
    assert (context.plugin, arguments) == (rig.plugin, b"abc")
    assert context.info is not None


def test_the_embedders_come_before_envoys() -> None:
    rig = Rig(foreign_functions={"compress": lambda *_: b"mine"})
    assert ask(rig, b"compress", b"x") == (OK, b"mine")
    assert zlib.decompress(ask(Rig(), b"compress", b"x")[1]) == b"x"


def test_a_registry_gives_its_functions_to_all_its_plugins() -> None:
    from tests.abi.rig import module_text
    from tests.support.wat import wat

    registry = VmRegistry(foreign_functions={"mine": lambda *_: b"1"})
    code = wat(module_text(AbiVersion.V0_2_1))
    plugins = [registry.plugin(code, vm_id=name) for name in "ab"]
    assert [foreign.find(plugin.vm, "mine") is None for plugin in plugins] == [False, False]


def test_a_shared_vm_has_its_functions_already() -> None:
    with pytest.raises(TypeError, match="shared Vm"):
        Plugin(Rig().vm, foreign_functions={"x": lambda *_: None})


def fail(context: Context, arguments: bytes) -> bytes:
    raise RuntimeError("broken")


def test_a_fault_of_the_embedder_is_not_the_guests() -> None:
    functions: dict[str, Any] = {"fail": fail, "odd": lambda *_: 7}  # the second is wrong on purpose
    rig = Rig(foreign_functions=functions)
    assert ask(rig, b"fail") == (FULL, b"")
    assert ask(rig, b"odd") == (FULL, b"")
    errors = list(rig.host.errors)
    assert "foreign function fail failed" in errors[0]
    assert "RuntimeError: broken" in errors[0]
    assert "gave int" in errors[1]
    assert rig.vm.failure is None


def test_a_trap_of_the_embedder_ends_the_guest() -> None:
    def die(context: Context, arguments: bytes) -> bytes:
        raise Trap(TrapKind.UNREACHABLE)

    rig = Rig(foreign_functions={"die": die})
    rig.during("proxy_on_tick", lambda: ask(rig, b"die"))
    with pytest.raises(PluginFailure):
        rig.plugin.tick()


class _Entry:
    name = "brought"

    @staticmethod
    def load() -> foreign.ForeignFunction:
        return lambda context, arguments: b"by a package"


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that brings a function."""
    foreign._installed.cache_clear()
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: [_Entry] if "foreign" in group else []
    )
    yield
    foreign._installed.cache_clear()


def test_functions_of_other_packages(package: None) -> None:
    assert ask(Rig(), b"brought") == (OK, b"by a package")


def test_a_broken_package_is_not_the_guests_fault(package: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> foreign.ForeignFunction:
        raise ImportError("no such module")

    monkeypatch.setattr(_Entry, "load", broken)
    rig = Rig()
    assert ask(rig, b"brought") == (FULL, b"")
    assert rig.plugin.vm.failure is None
    assert "foreign function brought failed" in rig.host.errors[0]


def test_a_capability_restriction_holds_here_too() -> None:
    rig = Rig(capabilities=frozenset(("proxy_log",)))
    assert ask(rig, b"compress", b"x")[0] == FULL


# --- bounds ---------------------------------------------------------------------------------------------


def test_a_bomb_is_a_status() -> None:
    bomb = zlib.compress(bytes(MAX_UNCOMPRESSED + 1), 9)
    assert len(bomb) < 100_000
    assert ask(Rig(), b"uncompress", bomb) == (FULL, b"")


def test_compression_looks_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (b"compress", b"uncompress"):
        rig = Rig()
        data = bytes(1000) if name == b"compress" else zlib.compress(bytes(1000))

        def late() -> None:
            raise Trap(TrapKind.DEADLINE_EXCEEDED)

        monkeypatch.setattr(rig.vm.store, "check_deadline", late)
        rig.during("proxy_on_tick", partial(ask, rig, name, data))
        with pytest.raises(PluginFailure):
            rig.plugin.tick()


def test_declarations_have_a_bound() -> None:
    rig = Rig()
    declare = BUILT_IN["declare_property"]
    root = rig.plugin.root
    assert declare(root, field(1, b"x" * (MAX_NAME + 1))) == FULL
    for number in range(MAX_DECLARED):
        assert declare(root, field(1, b"%d" % number)) is None
    assert declare(root, field(1, b"more")) == FULL
    assert declare(root, field(1, b"7")) == BAD


@pytest.mark.parametrize(
    "message",
    [b"\xff", varint(1 << 3) + b"\x01", field(2, b"x"), field(5, b"x"), varint(4 << 3) + b"\x01"],
    ids=["no message", "name", "readonly", "span", "schema"],
)
def test_declarations_that_are_none(message: bytes) -> None:
    assert ask(Rig(), b"declare_property", message) == (BAD, b"")


def test_filter_state_has_a_bound() -> None:
    rig = Rig()
    text = field(1, b"envoy.string")
    answers = in_a_stream(
        rig,
        (b"set_envoy_filter_state", text + field(2, bytes(50_000))),
        (b"set_envoy_filter_state", field(1, b"envoy.upstream.dynamic_host") + field(2, b"x")),
        info=_nearly_full(),
    )
    assert answers == [(FULL, b""), (OK, b"")]


def _nearly_full() -> StreamInfo:
    info = StreamInfo()
    assert info.filter_state.put(b"k", bytes((1 << 20) - 40_000))
    return info


def test_a_connections_values_are_seen_by_its_exchanges() -> None:
    connection = Values()
    one, two = FilterState(connection), FilterState(connection)
    assert one.put(b"a", b"1", LifeSpan.CONNECTION)
    assert one.put(b"b", b"2")
    assert (two.get(b"a"), two.get(b"b")) == (b"1", None)
    assert two.put(b"a", b"3")  # of another span: it stays
    assert (one.get(b"a"), two.get(b"a")) == (b"1", b"1")
    assert two.put(b"a", b"4", LifeSpan.CONNECTION)
    assert one.get(b"a") == b"4"


def test_a_declared_connection_property_outlives_its_exchange() -> None:
    rig = Rig()
    assert ask(rig, b"set_envoy_filter_state", field(1, b"envoy.string"))[0] == MISSING  # no exchange
    declare = BUILT_IN["declare_property"]
    assert declare(rig.plugin.root, field(1, b"c") + varint(5 << 3) + b"\x02") is None
    connection = Values()
    rig.during("proxy_on_request_headers", lambda: rig.ask("proxy_set_property", b"c", b"v"))
    rig.plugin.http_stream(StreamInfo(connection_values=connection)).on_request_headers(HeaderMap(), True)
    rig.during("proxy_on_request_headers", lambda: rig.ask("proxy_get_property", b"c", BYTES))
    for values, answer in ((connection, (OK, b"v")), (None, (MISSING, None))):
        rig.plugin.http_stream(StreamInfo(connection_values=values)).on_request_headers(HeaderMap(), True)
        assert rig.results["proxy_on_request_headers"] == answer


def test_clear_route_cache() -> None:
    rig = Rig()
    assert in_a_stream(rig, (b"clear_route_cache", b"")) == [(OK, b"")]
    [effect] = rig.vm.deferred
    assert isinstance(effect, ClearRouteCache)
    rig.vm.deferred.clear()
    rig.during("proxy_on_tick", lambda: ask(rig, b"clear_route_cache"))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == (OK, b"")
    assert not rig.vm.deferred


# --- expressions ----------------------------------------------------------------------------------------


def test_expressions_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "abi.proxy_wasm.cel", None)
    monkeypatch.delattr("abi.proxy_wasm.cel", raising=False)
    rig = Rig(name="p")
    assert in_the_root(rig, *[(b"expr_create", b"1")] * 2) == [(Status.UNIMPLEMENTED, b"")] * 2
    assert list(rig.host.errors) == [f"plugin p: {expressions.MISSING}"]  # said once
    assert "pywasmvm[cel]" in expressions.MISSING
    assert ask(rig, b"expr_evaluate", bytes(4)) == (MISSING, b"")


def test_a_plugin_cannot_have_expressions_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "MAX_EXPRESSIONS", 3)
    rig = Rig()
    answers = in_the_root(rig, *[(b"expr_create", b"1")] * 4)
    assert [status for status, _ in answers] == [OK, OK, OK, FULL]
    answers = in_the_root(rig, (b"expr_delete", bytes(4)), (b"expr_create", b"1"))
    assert answers == [(OK, b""), (OK, b"\3\0\0\0")]  # tokens are not given twice


def test_the_vm_itself_has_no_expressions() -> None:
    own = Rig().vm.own_context
    assert BUILT_IN["expr_create"](own, b"1") == FULL
    assert BUILT_IN["expr_evaluate"](own, bytes(4)) == MISSING
    assert BUILT_IN["expr_delete"](own, bytes(4)) is None


# --- the other direction ----------------------------------------------------------------------------------


CALLED = "proxy_on_foreign_function"


def test_the_embedder_calls_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    entered: list[tuple[int, ...]] = []
    run = rig.vm.run

    def noted(context: Any, name: str, *rest: int, **more: Any) -> int:
        entered.append(rest)
        return run(context, name, *rest, **more)

    monkeypatch.setattr(rig.vm, "run", noted)

    def look() -> list[Any]:
        return [
            rig.ask("proxy_get_buffer_bytes", 8, 1, 3, BYTES),
            rig.ask("proxy_get_buffer_status", 8, WORD, WORD),
            rig.ask("proxy_set_buffer_bytes", 8, 0, 0, b"x"),
        ]

    rig.during(CALLED, look)
    rig.plugin.on_foreign_function(7, b"hello")
    assert rig.results[CALLED] == [(OK, b"ell"), (OK, 5, 0), BAD]
    assert entered == [(rig.plugin.root.id, 7, 5)]
    rig.during("proxy_on_tick", look)
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [(OK, b""), (OK, 0, 0), BAD]


def test_a_call_from_inside_of_the_guest_waits() -> None:
    rig = Rig()
    order: list[str] = []
    rig.during(CALLED, lambda: order.append("called"))

    def tick() -> None:
        rig.plugin.on_foreign_function(1)
        order.append("tick")

    rig.during("proxy_on_tick", tick)
    rig.plugin.tick()
    assert order == ["tick", "called"]


def test_the_first_version_has_no_such_callback() -> None:
    rig = Rig(AbiVersion.V0_1_0)
    rig.plugin.on_foreign_function(1, b"x")
    assert CALLED not in rig.called


def test_a_guest_that_dies_of_it() -> None:
    rig = Rig()

    def die() -> None:
        raise Trap(TrapKind.UNREACHABLE)

    rig.during(CALLED, die)
    with pytest.raises(PluginFailure):
        rig.plugin.on_foreign_function(1, b"x")
    assert rig.plugin.answer is None
    with pytest.raises(PluginFailure, match="the VM is dead"):
        rig.plugin.on_foreign_function(1)


def test_arguments_are_gone_before_the_plugin_ends() -> None:
    rig = Rig()
    rig.returns("proxy_on_done", 0)
    assert not rig.plugin.close()
    rig.during(CALLED, lambda: rig.ask("proxy_done"))
    rig.during("proxy_on_delete", lambda: rig.ask("proxy_get_buffer_bytes", 8, 0, 9, BYTES))
    rig.plugin.on_foreign_function(1, b"secret")
    assert rig.results["proxy_on_delete"] == (OK, b"")


def test_limits_hold_while_a_function_runs() -> None:
    """A function that never comes back to the guest in time is the guest's end, not the host's."""
    import time

    rig = Rig(foreign_functions={"slow": lambda *_: time.sleep(0.3)}, limits=StoreLimits(seconds=0.05))

    def tick() -> None:
        ask(rig, b"slow")
        rig.vm.store.check_deadline()

    rig.during("proxy_on_tick", tick)
    with pytest.raises(PluginFailure, match="time"):
        rig.plugin.tick()
