"""The memory contract, for every host function there is: what a guest points at, and where answers go.

Source: proxy-wasm specification 0.2.1, "Memory management". A function that is new must be added to `GOOD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from abi.higress import VERSION as HIGRESS
from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.protobuf import field
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.versions import VERSIONS, AbiVersion, HostFunction, host_functions
from abi.proxy_wasm.wire import encode_map
from tests.abi.rig import BYTES, HEAP, LONG, MALLOC, PAGES, POISON, WORD, Out, Rig
from tests.support.wat import wat

FAULT = Status.INVALID_MEMORY_ACCESS
V010, _, V021 = VERSIONS
OUTSIDE = 0xFFFFFFFE
OUTSIDE_RANGES = ((0xFFFFFFF0, 64), (PAGES * 65536 - 1, 2), (0, 0xFFFFFFFF))

HEADERS = encode_map([(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a")])
SERVICE = field(1, field(1, "svc"))
QUERY = b"*1\r\n$4\r\nPING\r\n"

GOOD: dict[str, tuple[Any, ...]] = {
    "proxy_log": (2, b"x"),
    "proxy_get_log_level": (WORD,),
    "proxy_get_current_time_nanoseconds": (LONG,),
    "proxy_set_tick_period_milliseconds": (0,),
    "proxy_set_effective_context": (0,),
    "proxy_done": (),
    "proxy_get_status": (WORD, BYTES),
    "proxy_get_configuration": (BYTES,),
    "proxy_get_property": (b"plugin_name", BYTES),
    "proxy_set_property": (b"k", b"v"),
    "proxy_get_buffer_bytes": (6, 0, 9, BYTES),
    "proxy_get_buffer_status": (6, WORD, WORD),
    "proxy_set_buffer_bytes": (6, 0, 0, b"x"),
    "proxy_get_header_map_size": (0, WORD),
    "proxy_get_header_map_pairs": (0, BYTES),
    "proxy_set_header_map_pairs": (0, HEADERS),
    "proxy_get_header_map_value": (0, b":path", BYTES),
    "proxy_add_header_map_value": (0, b"a", b"b"),
    "proxy_replace_header_map_value": (0, b"a", b"b"),
    "proxy_remove_header_map_value": (0, b"a"),
    "proxy_continue_stream": (0,),
    "proxy_close_stream": (2,),
    "proxy_continue_request": (),
    "proxy_continue_response": (),
    "proxy_clear_route_cache": (),
    "proxy_send_local_response": (200, b"d", b"b", encode_map([(b"a", b"b")]), 0xFFFFFFFF),
    "proxy_http_call": (b"svc", HEADERS, b"body", b"", 1000, WORD),
    "proxy_grpc_call": (SERVICE, b"s", b"m", encode_map([(b"a", b"b")]), b"msg", 1000, WORD),
    "proxy_grpc_stream": (SERVICE, b"s", b"m", encode_map([(b"a", b"b")]), WORD),
    "proxy_grpc_send": (6, b"msg", 0),
    "proxy_grpc_cancel": (6,),
    "proxy_grpc_close": (6,),
    "proxy_get_shared_data": (b"k", BYTES, WORD),
    "proxy_set_shared_data": (b"k", b"v", 0),
    "proxy_register_shared_queue": (b"q", WORD),
    "proxy_resolve_shared_queue": (b"", b"q", WORD),
    "proxy_enqueue_shared_queue": (1, b"item"),
    "proxy_dequeue_shared_queue": (1, BYTES),
    "proxy_define_metric": (0, b"m", WORD),
    "proxy_increment_metric": (4, 1),
    "proxy_record_metric": (4, 1),
    "proxy_get_metric": (4, LONG),
    "proxy_call_foreign_function": (b"compress", b"x", BYTES),
    "emscripten_notify_memory_growth": (0,),
    "pthread_equal": (1, 1),
    "proxy_redis_init": (b"svc", b"u", b"p", 1000),
    "proxy_redis_call": (b"svc", QUERY, WORD),
    "proxy_inject_encoded_data_to_filter_chain": (b"x", 0),
    "proxy_get_upstream_hosts": (BYTES,),
    "proxy_set_upstream_override_host": (b"1.2.3.4:5",),
}
"""A call of each function that succeeds, where it can in request headers of `prepared`."""

REFUSED = {
    "proxy_done": Status.NOT_FOUND,
    "proxy_set_buffer_bytes": Status.BAD_ARGUMENT,
    "proxy_continue_response": Status.BAD_ARGUMENT,
    "proxy_grpc_send": Status.OK,
}
"""What calls answer that cannot succeed there."""

OPTIONAL = {"proxy_call_foreign_function"}
NO_STATUS = {"emscripten_notify_memory_growth": None, "pthread_equal": 1}


def rows() -> Iterator[tuple[AbiVersion, HostFunction]]:
    """Every function of `env`, with a version that has it."""
    for version in (V021, V010, HIGRESS):
        for row in host_functions(version):
            if row.module == "env" and (version is V021 or not V021.within(row.versions)):
                yield version, row


ROWS = [pytest.param(version, row.name, id=row.name) for version, row in rows()]


def headers() -> HeaderMap:
    return HeaderMap([(":path", "/"), ("a", "1")])


def prepared(version: AbiVersion, malloc: str = MALLOC) -> Rig:
    """A guest that has a queue with items, data, a metric, a gRPC stream, and will see request headers."""
    rig = Rig(version, malloc=malloc, configuration=b"vm config", name="plugin")
    rig.host.cluster_hosts = lambda name: ["1.2.3.4:5"]

    def before() -> None:
        for name in (
            "proxy_register_shared_queue",
            "proxy_enqueue_shared_queue",
            "proxy_enqueue_shared_queue",
            "proxy_set_shared_data",
            "proxy_define_metric",
            "proxy_grpc_stream",
        ):
            answer = rig.ask(name, *GOOD[name])
            assert (answer[0] if isinstance(answer, tuple) else answer) == 0

    rig.during("proxy_on_tick", before)
    rig.plugin.tick()
    return rig


def asking(
    version: AbiVersion,
    name: str,
    *arguments: Any,
    malloc: str = MALLOC,
    sizes: list[int] | None = None,
) -> Any:
    """What a call gives in request headers; `sizes` gets the bytes of memory afterwards."""
    rig = prepared(version, malloc)
    rig.during("proxy_on_request_headers", lambda: rig.ask(name, *arguments))
    info = StreamInfo(cluster_name="svc")
    rig.plugin.http_stream(info).on_request_headers(headers(), True)
    if sizes is not None and rig.vm.guest.memory is not None:
        sizes.append(rig.vm.guest.memory.nbytes)
    answer = rig.results["proxy_on_request_headers"]
    assert rig.vm.failure is None
    return answer


def test_every_function_is_here() -> None:
    assert set(GOOD) == {row.name for _, row in rows()}


@pytest.mark.parametrize(("version", "name"), ROWS)
def test_a_good_call(version: AbiVersion, name: str) -> None:
    answer = asking(version, name, *GOOD[name])
    outs = [one for one in GOOD[name] if isinstance(one, Out)]
    status = answer[0] if outs else answer
    assert status == NO_STATUS.get(name, REFUSED.get(name, Status.OK))
    assert not outs or None not in answer


@pytest.mark.parametrize(("version", "name"), ROWS)
def test_what_is_pointed_at_must_be_in_memory(version: AbiVersion, name: str) -> None:
    good = GOOD[name]
    for place, argument in enumerate(good):
        if isinstance(argument, bytes):
            for outside in OUTSIDE_RANGES:
                bad = (*good[:place], *outside, *good[place + 1 :])
                answer = asking(version, name, *bad)
                assert (answer[0] if isinstance(answer, tuple) else answer) == FAULT


@pytest.mark.parametrize(("version", "name"), ROWS)
def test_where_answers_go_must_be_in_memory(version: AbiVersion, name: str) -> None:
    good = GOOD[name]
    for place, argument in enumerate(good):
        if not isinstance(argument, Out):
            continue
        slots = [0x30000 + 8 * number for number in range(len(argument.sizes))]
        for number in range(len(slots)):
            bad = [*slots[:number], OUTSIDE, *slots[number + 1 :]]
            answer = asking(version, name, *good[:place], *bad, *good[place + 1 :])
            assert (answer[0] if isinstance(answer, tuple) else answer) == FAULT


@pytest.mark.parametrize(("version", "name"), ROWS)
def test_nothing_may_be_given_from_anywhere_in_memory(version: AbiVersion, name: str) -> None:
    """What is empty is no fault at address 0 nor at memory's end, whatever else is wrong with it."""
    good = GOOD[name]
    for place, argument in enumerate(good):
        if isinstance(argument, bytes):
            for at in (0, PAGES * 65536):
                answer = asking(version, name, *good[:place], at, 0, *good[place + 1 :])
                assert (answer[0] if isinstance(answer, tuple) else answer) != FAULT


# --- the guest's allocator ----------------------------------------------------------------------------------

RETURNING = [row for row in ROWS if BYTES in GOOD[str(row.values[1])]]
ALLOCATING = [row for row in RETURNING if row.values[1] != "proxy_get_status"]
"""The status of calls is empty here, and what is empty is not allocated."""


@pytest.mark.parametrize("block", [0, 0xFFFFFFF0, PAGES * 65536])
@pytest.mark.parametrize(("version", "name"), ALLOCATING)
def test_an_allocator_that_fails(version: AbiVersion, name: str, block: int) -> None:
    """No block, or one outside of memory: the slots are left alone."""
    answer = asking(version, name, *GOOD[name], malloc=f"(i32.const {block})")
    assert answer[0] == FAULT
    assert set(answer[1:]) == {None}


@pytest.mark.parametrize(("version", "name"), ALLOCATING)
def test_an_allocator_that_traps(version: AbiVersion, name: str) -> None:
    """The callback goes on with a status; the VM is dead when it has returned."""
    rig = prepared(version, malloc="(unreachable)")
    rig.during("proxy_on_request_headers", lambda: rig.ask(name, *GOOD[name]))
    with pytest.raises(PluginFailure):
        rig.plugin.http_stream(StreamInfo(cluster_name="svc")).on_request_headers(headers(), True)
    answer = rig.results["proxy_on_request_headers"]
    assert (answer[0], set(answer[1:])) == (FAULT, {None})
    assert str(rig.vm.failure) == "Function: malloc failed: Uncaught RuntimeError: unreachable"


@pytest.mark.parametrize(("version", "name"), RETURNING)
def test_a_size_that_cannot_be_told_leaks_the_block(version: AbiVersion, name: str) -> None:
    """As in Envoy: the address has been written when its neighbour turns out to be outside of memory."""
    good = GOOD[name]
    rig = prepared(version)
    slot = 0x30000
    arguments: list[Any] = []
    for argument in good:
        arguments += [slot, OUTSIDE] if argument is BYTES else [slot + 64] if argument is WORD else [argument]

    def ask() -> tuple[Any, int]:
        rig.vm.guest.write_u32(slot, POISON)
        return rig.ask(name, *arguments), rig.vm.guest.read_u32(slot)

    rig.during("proxy_on_request_headers", ask)
    rig.plugin.http_stream(StreamInfo(cluster_name="svc")).on_request_headers(headers(), True)
    status, address = rig.results["proxy_on_request_headers"]
    assert status == FAULT
    assert (address == 0) if name == "proxy_get_status" else (HEAP <= address < PAGES * 65536)


@pytest.mark.parametrize(("version", "name"), RETURNING)
def test_the_allocator_may_grow_memory_and_log(version: AbiVersion, name: str) -> None:
    """Every block lies in memory that was not there when the call began; the answer is the same."""
    log = "(drop (call $i_proxy_log (i32.const 2) (i32.const 0x20000) (i32.const 0)))"
    malloc = f"{log} (i32.mul (memory.grow (i32.const 1)) (i32.const 65536))"
    growing: list[int] = []
    answer = asking(version, name, *GOOD[name], malloc=malloc, sizes=growing)
    assert answer == asking(version, name, *GOOD[name])
    assert growing == [PAGES * 65536 + (0 if name == "proxy_get_status" else 65536)]


NO_MEMORY = """(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_done" (func $done (result i32)))
  (global $statuses (export "statuses") (mut i32) (i32.const 0))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 8))
  (func (export "proxy_on_tick") (param i32)
    (global.set $statuses (i32.add (call $log (i32.const 2) (i32.const 0) (i32.const 1))
      (i32.add (i32.mul (i32.const 100) (call $get (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4)))
        (i32.mul (i32.const 10000) (call $done)))))))
"""


def test_a_guest_without_memory() -> None:
    """It runs; what needs memory is a fault, and what needs none works."""
    plugin = Plugin(wat(NO_MEMORY))
    plugin.tick()
    statuses = plugin.vm.instance.exports.statuses.value
    assert statuses == Status.NOT_FOUND * 10000 + FAULT * 100 + FAULT


GROWING = """(module
  (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "plugin_name")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param $size i32) (result i32)
    (drop (call $log (i32.const 2) (i32.const 16) (local.get $size)))
    (i32.mul (memory.grow (i32.const 40)) (i32.const 65536)))
  (func (export "proxy_on_tick") (param i32)
    (drop (call $get (i32.const 16) (i32.const 11) (i32.const 64) (i32.const 68)))
    (drop (call $log (i32.const 2) (i32.load (i32.const 64)) (i32.load (i32.const 68))))))
"""


def test_memory_may_grow_and_the_guest_may_log_while_a_block_is_made() -> None:
    plugin = Plugin(wat(GROWING), name="grown")
    for _ in range(3):
        plugin.tick()
    assert [(record.prefix, record.message) for record in plugin.logs] == [("", "plugi"), ("", "grown")] * 3
    assert plugin.vm.guest.memory is not None
    assert plugin.vm.guest.memory.nbytes == 121 * 65536
