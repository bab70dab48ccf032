"""TCP contexts: order of callbacks, buffers, what host functions answer on a connection."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm.deferred import CloseStream, ContinueStream
from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.tcp import TcpContext
from abi.proxy_wasm.types import Action, PeerType, Status, StreamType
from abi.proxy_wasm.wire import encode_map
from tests.abi.rig import BYTES, LONG, WORD, Rig

OK, BAD, NOT_FOUND = Status.OK, Status.BAD_ARGUMENT, Status.NOT_FOUND
NEW, DOWN, UP = "proxy_on_new_connection", "proxy_on_downstream_data", "proxy_on_upstream_data"
GET, SET, STATUS = "proxy_get_buffer_bytes", "proxy_set_buffer_bytes", "proxy_get_buffer_status"
ALL = 0xFFFFFFFF


def connection(rig: Rig) -> TcpContext:
    return rig.plugin.tcp_stream(StreamInfo(source_address="10.0.0.1:5", connection_id=7))


def in_downstream_data(rig: Rig, *questions: tuple[Any, ...], data: bytes = b"hello") -> list[object]:
    rig.during(DOWN, lambda: [rig.ask(*q) for q in questions])
    connection(rig).on_downstream_data(bytearray(data), False)
    answers: list[object] = rig.results[DOWN]
    return answers


def test_the_life_of_a_connection() -> None:
    rig = Rig()
    rig.called.clear()
    tcp = connection(rig)
    assert tcp.on_new_connection() is Action.CONTINUE
    assert tcp.id == 2
    assert rig.vm.contexts[2] is tcp
    tcp.on_downstream_data(bytearray(b"a"), False)
    tcp.on_upstream_data(bytearray(b"b"), False)
    tcp.on_downstream_data(bytearray(), True)
    tcp.on_upstream_data(bytearray(), True)
    tcp.on_downstream_connection_close(PeerType.LOCAL)
    tcp.on_done()
    tcp.on_log()
    tcp.on_delete()
    assert rig.called == [
        "proxy_on_context_create",
        NEW,
        DOWN,
        UP,
        DOWN,
        UP,
        "proxy_on_upstream_connection_close",
        "proxy_on_downstream_connection_close",
        "proxy_on_done",
        "proxy_on_log",
        "proxy_on_delete",
    ]
    assert 2 not in rig.vm.contexts
    with pytest.raises(RuntimeError, match="was deleted"):
        tcp.on_downstream_data(bytearray(b"x"), False)


def test_a_connection_ends_itself() -> None:
    rig = Rig()
    rig.called.clear()
    with connection(rig) as tcp:
        tcp.on_new_connection()
    with connection(rig):
        pass  # the guest never heard of it
    assert rig.called[2:] == [
        "proxy_on_downstream_connection_close",
        "proxy_on_done",
        "proxy_on_log",
        "proxy_on_delete",
    ]


@pytest.mark.parametrize("result", [0, 1, 2, 3, 4, 77, 0x8000_0000])
def test_only_zero_goes_on(result: int) -> None:
    rig = Rig()
    wanted = Action.STOP_ITERATION if result else Action.CONTINUE
    for name in (NEW, DOWN, UP):
        rig.returns(name, result)
    tcp = connection(rig)
    assert tcp.on_new_connection() is wanted
    assert tcp.on_downstream_data(bytearray(b"x"), False) is wanted
    assert tcp.on_upstream_data(bytearray(b"x"), True) is wanted
    assert rig.called[-1] == "proxy_on_upstream_connection_close"


def test_log_lines_have_the_plugins_name() -> None:
    rig = Rig(name="n", root_id="r", vm_id="v")
    in_downstream_data(rig, ("proxy_log", 2, b"line"))
    assert str(rig.host.records[-1]) == "wasm log n r v: line"


# --- buffers ----------------------------------------------------------------------------------------------


def test_buffers_of_both_directions() -> None:
    rig = Rig()
    tcp = connection(rig)

    def ask() -> list[Any]:
        return [rig.ask(GET, kind, 0, ALL, BYTES) for kind in (2, 3)]

    rig.during(DOWN, ask)
    rig.during(UP, ask)
    tcp.on_downstream_data(bytearray(b"down"), False)
    assert rig.results[DOWN] == [(OK, b"down"), (OK, b"")]
    tcp.on_upstream_data(bytearray(b"up"), False)
    assert rig.results[UP] == [(OK, b""), (OK, b"up")]
    rig.returns(DOWN, 1)
    tcp.on_downstream_data(bytearray(b"stays"), False)
    tcp.on_upstream_data(bytearray(b"up"), False)
    assert rig.results[UP] == [(OK, b"stays"), (OK, b"up")]


def test_data_that_waits_can_be_changed_from_a_tick() -> None:
    rig = Rig()
    rig.returns(DOWN, 1)
    tcp, data = connection(rig), bytearray(b"hello")
    tcp.on_downstream_data(data, False)
    rig.during(
        "proxy_on_tick",
        lambda: [
            rig.ask("proxy_set_effective_context", tcp.id),
            rig.ask(SET, 2, 0, 0, b"P"),
            rig.ask("proxy_continue_stream", 2),
        ],
    )
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [OK, OK, OK]
    assert data == b"Phello"
    assert list(rig.vm.deferred) == [ContinueStream(tcp, StreamType.DOWNSTREAM)]


def test_ranges_of_data_that_can_be_set() -> None:
    rig = Rig()
    answers = in_downstream_data(
        rig,
        (SET, 2, 0, 0, b"P"),
        (SET, 2, 100, 0, b"S"),
        (SET, 2, 0, 3, b"Z"),
        (SET, 2, 2, 1, b"Q"),
        (GET, 2, 0, ALL, BYTES),
        (GET, 2, 1, 2, BYTES),
        (STATUS, 2, WORD, WORD),
    )
    assert answers == [OK, OK, OK, BAD, (OK, b"ZlloS"), (OK, b"ll"), (OK, 5, 0)]


def test_nothing_is_left_of_buffers_at_the_end() -> None:
    rig = Rig()
    rig.returns(DOWN, 1)
    tcp = connection(rig)
    tcp.on_downstream_data(bytearray(b"x"), False)
    ends = ("proxy_on_downstream_connection_close", "proxy_on_done", "proxy_on_log", "proxy_on_delete")
    for name in ends:
        rig.during(name, lambda: (rig.ask(GET, 2, 0, ALL, BYTES), rig.ask(SET, 2, 0, 0, b"x")))
    tcp.on_downstream_connection_close(PeerType.REMOTE)
    tcp.on_done()
    tcp.on_log()
    tcp.on_delete()
    assert [rig.results[name] for name in ends] == [((OK, b""), BAD)] * 4


# --- streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "deferred"),
    [(0, OK, 0), (1, OK, 0), (2, OK, 1), (3, Status.UNIMPLEMENTED, 0), (4, BAD, 0), (ALL, BAD, 0)],
)
def test_continue(kind: int, status: Status, deferred: int) -> None:
    rig = Rig()
    assert in_downstream_data(rig, ("proxy_continue_stream", kind)) == [status]
    assert [type(effect) for effect in rig.vm.deferred] == [ContinueStream] * deferred


@pytest.mark.parametrize(
    ("kind", "status", "deferred"), [(0, OK, 0), (1, OK, 0), (2, OK, 1), (3, OK, 1), (4, BAD, 0)]
)
def test_close(kind: int, status: Status, deferred: int) -> None:
    rig = Rig()
    assert in_downstream_data(rig, ("proxy_close_stream", kind)) == [status]
    assert [type(effect) for effect in rig.vm.deferred] == [CloseStream] * deferred


def test_a_local_response_is_ignored() -> None:
    rig = Rig()
    assert in_downstream_data(rig, ("proxy_send_local_response", 403, b"d", b"b", b"", ALL)) == [OK]
    assert not rig.vm.deferred


def test_every_function_of_a_connection_answers_as_envoy_does() -> None:
    rig = Rig()
    pairs = encode_map([(b"a", b"b")])
    table: list[tuple[tuple[object, ...], object]] = []
    for kind in range(8):
        table += [
            (("proxy_get_header_map_value", kind, b"x", BYTES), (BAD, None)),
            (("proxy_get_header_map_pairs", kind, BYTES), (OK, b"")),
            (("proxy_get_header_map_size", kind, WORD), (BAD, None)),
            (("proxy_add_header_map_value", kind, b"x", b"y"), BAD),
            (("proxy_replace_header_map_value", kind, b"x", b"y"), BAD),
            (("proxy_remove_header_map_value", kind, b"x"), BAD),
            (("proxy_set_header_map_pairs", kind, pairs), BAD),
        ]
    for kind, data in {0: b"", 1: b"", 2: b"hello", 3: b"", 5: b"", 6: b"", 8: b""}.items():
        table.append(((GET, kind, 0, ALL, BYTES), (OK, data)))
        table.append(((STATUS, kind, WORD, WORD), (OK, len(data), 0)))
    for kind in (4, 7):
        table.append(((GET, kind, 0, ALL, BYTES), (NOT_FOUND, None)))
        table.append(((SET, kind, 0, 0, b"x"), NOT_FOUND))
    table += [
        ((SET, 0, 0, 0, b"x"), BAD),
        ((SET, 3, 0, 0, b"x"), BAD),
        ((GET, 9, 0, ALL, BYTES), (BAD, None)),
        (("proxy_done",), NOT_FOUND),
        (("proxy_get_status", WORD, BYTES), (OK, 0, b"")),
        (("proxy_set_tick_period_milliseconds", 5), OK),
        (("proxy_get_property", b"source\0address", BYTES), (OK, b"10.0.0.1:5")),
        (("proxy_get_property", b"connection\0id", BYTES), (OK, (7).to_bytes(8, "little"))),
        (("proxy_get_property", b"request\0path", BYTES), (NOT_FOUND, None)),
        (("proxy_get_property", b"request\0protocol", BYTES), (NOT_FOUND, None)),
        (("proxy_get_property", b"request", BYTES), (Status.SERIALIZATION_FAILURE, None)),
        (("proxy_set_property", b"k", b"v"), OK),
        (("proxy_get_property", b"k", BYTES), (OK, b"v")),
        (("proxy_get_log_level", WORD), (OK, 0)),
        (("proxy_set_shared_data", b"key", b"value", 0), OK),
        (("proxy_get_shared_data", b"key", BYTES, WORD), (OK, b"value", 1)),
        (("proxy_register_shared_queue", b"q", WORD), (OK, 1)),
        (("proxy_define_metric", 0, b"m", WORD), (OK, 4)),
        (("proxy_get_metric", 4, LONG), (OK, 0)),
        (("proxy_set_effective_context", 77), BAD),
    ]
    answers = in_downstream_data(rig, *(question for question, _ in table))
    for (question, expected), answer in zip(table, answers, strict=True):
        assert answer == expected, question
    assert rig.plugin.tick_period_ms == 5


def test_the_effective_context_of_a_connection() -> None:
    rig = Rig(root_id="r", name="n")
    answers = in_downstream_data(
        rig,
        ("proxy_set_effective_context", 1),
        (GET, 2, 0, ALL, BYTES),
        ("proxy_get_property", b"source\0address", BYTES),
        ("proxy_log", 2, b"as root"),
        ("proxy_set_effective_context", 0),
        (GET, 2, 0, ALL, BYTES),
    )
    assert answers == [OK, (OK, b""), (NOT_FOUND, None), OK, OK, (OK, b"hello")]
    assert str(rig.host.records[-1]) == "wasm log r: as root"


# --- failures ---------------------------------------------------------------------------------------------


def test_a_trap_is_the_end_of_the_guest() -> None:
    rig = Rig()
    tcp = connection(rig)
    tcp.on_new_connection()

    def boom() -> None:
        raise ZeroDivisionError("in a host function")

    rig.during(DOWN, boom)
    with pytest.raises(PluginFailure):
        tcp.on_downstream_data(bytearray(b"x"), False)
    rig.called.clear()
    for callback in (tcp.on_done, tcp.on_log, tcp.on_delete):
        with pytest.raises(PluginFailure):
            callback()
    assert rig.called == []
