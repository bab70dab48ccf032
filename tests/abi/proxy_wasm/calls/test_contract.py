"""The memory contract, for every host function there is: what a guest points at, and where answers go.

Source: proxy-wasm specification 0.2.1, "Memory management". A function that is new must be added to `GOOD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from abi.higress import VERSION as HIGRESS
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.protobuf import field
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.versions import VERSIONS, AbiVersion, HostFunction, host_functions
from abi.proxy_wasm.wire import encode_map
from tests.abi.rig import BYTES, LONG, PAGES, WORD, Out, Rig
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


def prepared(version: AbiVersion) -> Rig:
    """A guest that has a queue with items, data, a metric, a gRPC stream, and will see request headers."""
    rig = Rig(version, configuration=b"vm config", name="plugin")
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


def asking(version: AbiVersion, name: str, *arguments: Any) -> Any:
    """What a call gives in request headers."""
    rig = prepared(version)
    rig.during("proxy_on_request_headers", lambda: rig.ask(name, *arguments))
    info = StreamInfo(cluster_name="svc")
    rig.plugin.http_stream(info).on_request_headers(HeaderMap([(":path", "/"), ("a", "1")]), True)
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


@pytest.mark.parametrize(("version", "name"), [row for row in ROWS if BYTES in GOOD[str(row.values[1])]])
def test_an_allocator_that_fails(version: AbiVersion, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a block nor the slots are written; a result that is empty needs no block."""
    from abi.guest import GuestMemory

    monkeypatch.setattr(GuestMemory, "place", _no_block)
    answer = asking(version, name, *GOOD[name])
    if name == "proxy_get_status":
        assert answer == (Status.OK, 0, b"")
    else:
        assert answer[0] == FAULT
        assert answer[1] is None


def _no_block(memory: object, data: bytes) -> int:
    from abi.guest import GuestMemoryError

    raise GuestMemoryError("no block")


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
