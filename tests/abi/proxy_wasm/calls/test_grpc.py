"""gRPC: every function, every status, every phase; what guests are told, and when ids mean something."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm import callouts
from abi.proxy_wasm.callouts import SEND_COST
from abi.proxy_wasm.deferred import CancelCall, GrpcCall, GrpcClose, GrpcSend, GrpcStream
from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.grpc_service import GrpcTarget
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.protobuf import field
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.versions import VERSIONS, AbiVersion
from abi.proxy_wasm.wire import encode_map
from pywasmvm import Trap, TrapKind
from tests.abi.rig import BYTES, OUTPUT, WORD, Rig

OK, MISSING, BAD = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT
FAULT, FAILURE = Status.INVALID_MEMORY_ACCESS, Status.INTERNAL_FAILURE
CALL, STREAM = "proxy_grpc_call", "proxy_grpc_stream"
SEND, CLOSE, CANCEL = "proxy_grpc_send", "proxy_grpc_close", "proxy_grpc_cancel"
INITIAL, RECEIVE = "proxy_on_grpc_receive_initial_metadata", "proxy_on_grpc_receive"
TRAILING, CLOSED = "proxy_on_grpc_receive_trailing_metadata", "proxy_on_grpc_close"
SERVICE = field(1, field(1, "svc"))


def begin(rig: Rig, function: str, **given: Any) -> Any:
    """A call or stream; what is not given is as it should be."""
    arguments: dict[str, Any] = {"service": SERVICE, "name": b"s", "method": b"m", "metadata": b""}
    if function == CALL:
        arguments |= {"message": b"hi", "timeout": 1000}
    arguments |= given
    return rig.ask(function, *arguments.values(), WORD)


def in_tick(rig: Rig, *questions: tuple[Any, ...]) -> list[Any]:
    """Answers to host calls made in a tick."""
    rig.during("proxy_on_tick", lambda: [rig.ask(*one) for one in questions])
    rig.plugin.tick()
    answers: list[Any] = rig.results["proxy_on_tick"]
    return answers


def with_stream() -> Rig:
    """A rig with stream 6, whose opening somebody has taken."""
    rig = Rig()
    rig.during("proxy_on_tick", lambda: begin(rig, STREAM))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == (OK, 6)
    rig.vm.deferred.clear()
    return rig


def with_call() -> Rig:
    """A rig with call 5, likewise."""
    rig = Rig()
    rig.during("proxy_on_tick", lambda: begin(rig, CALL))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == (OK, 5)
    rig.vm.deferred.clear()
    return rig


# --- begin ----------------------------------------------------------------------------------------------


def test_what_leaves() -> None:
    rig = Rig()
    metadata = encode_map([(b"X-A", b"1"), (b"x-a", b"2")])
    rig.during(
        "proxy_on_tick",
        lambda: [begin(rig, CALL, metadata=metadata), begin(rig, STREAM, metadata=metadata)],
    )
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [(OK, 5), (OK, 6)]
    target, fields = GrpcTarget("svc", "svc"), HeaderMap([("x-a", "1"), ("x-a", "2")])
    assert list(rig.vm.deferred) == [
        GrpcCall(rig.plugin, 5, target, b"s", b"m", fields, b"hi", 1000),
        GrpcStream(rig.plugin, 6, target, b"s", b"m", fields),
    ]


def test_every_kind_counts_for_itself() -> None:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: [begin(rig, CALL)[1], begin(rig, STREAM)[1], begin(rig, CALL)[1]])
    rig.plugin.tick()
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [13, 10, 17]


@pytest.mark.parametrize(
    ("given", "of_service", "wanted"),
    [(0, b"", 0), (0, b"\x08\x02", 2000), (700, b"\x08\x02", 700), (0xFFFFFFFF, b"", 0xFFFFFFFF)],
)
def test_timeouts(given: int, of_service: bytes, wanted: int) -> None:
    rig = Rig()
    service = SERVICE + field(3, of_service)
    rig.during("proxy_on_tick", lambda: begin(rig, CALL, service=service, timeout=given))
    rig.plugin.tick()
    assert [one.timeout_ms for one in rig.vm.deferred if isinstance(one, GrpcCall)] == [wanted]


@pytest.mark.parametrize("function", [CALL, STREAM])
@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"service": b"nocluster"}, Status.PARSE_FAILURE),
        ({"service": b""}, BAD),
        ({"service": field(2, field(1, "a:1"))}, BAD),
        ({"service": field(1, field(1, "nocluster"))}, FAILURE),
        ({"name": b"a\r\nb"}, BAD),
        ({"method": b"a\0"}, BAD),
        ({"metadata": encode_map([(b"x", b"a\nb")])}, BAD),
        ({"service": SERVICE + field(5, field(1, "x\r") + field(2, "y"))}, BAD),
    ],
    ids=str,
)
def test_what_is_refused(function: str, given: dict[str, Any], status: Status) -> None:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: begin(rig, function, **given))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == (status, None)  # the id's slot is not touched, unlike HTTP's
    assert not rig.vm.deferred
    assert not len(rig.vm.calls)


@pytest.mark.parametrize("function", [CALL, STREAM])
def test_pointers_outside_memory(function: str) -> None:
    inputs = 5 if function == CALL else 4
    for bad in range(inputs):
        for address, size in ((0xFFFFFFF0, 64), (0, 0xFFFFFFFF), (0x300000, 1)):
            rig = Rig()
            words = [0, 0] * inputs
            words[2 * bad : 2 * bad + 2] = [address, size]
            rest = [1000, OUTPUT] if function == CALL else [OUTPUT]
            assert in_tick(rig, (function, *words, *rest)) == [FAULT]
            assert not rig.vm.deferred


@pytest.mark.parametrize("function", [CALL, STREAM])
@pytest.mark.parametrize("slot", [0x2FFFFD, 0xFFFFFFFF])
def test_what_cannot_be_told_is_not_begun(function: str, slot: int) -> None:
    rig = Rig()
    rest = (b"hi", 1000) if function == CALL else ()
    assert in_tick(rig, (function, SERVICE, b"s", b"m", b"", *rest, slot)) == [FAULT]
    assert not rig.vm.deferred
    assert not len(rig.vm.calls)


@pytest.mark.parametrize("function", [CALL, STREAM])
def test_too_many(function: str) -> None:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: [begin(rig, function)[0] for _ in range(callouts.MAX_CALLS + 1)])
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"][-2:] == [OK, FAILURE]


@pytest.mark.parametrize("function", [CALL, STREAM])
def test_outside_of_a_plugin(function: str) -> None:
    assert begin(Rig(), function) == (FAILURE, None)


@pytest.mark.parametrize("function", [CALL, STREAM])
def test_where_the_host_cannot(function: str) -> None:
    rig = Rig()
    rig.host.refuses_grpc = lambda: "no gRPC here"
    rig.during("proxy_on_tick", lambda: begin(rig, function))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == (FAILURE, None)
    assert list(rig.host.errors) == ["no gRPC here"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("function", [CALL, STREAM])
def test_every_version_has_them(version: AbiVersion, function: str) -> None:
    rig = Rig(version)
    rig.during("proxy_on_tick", lambda: begin(rig, function)[0])
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == OK


@pytest.mark.parametrize("function", [CALL, STREAM])
@pytest.mark.parametrize(
    "phase", ["proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure", "proxy_on_done"]
)
def test_in_the_plugins_phases(function: str, phase: str) -> None:
    rig = Rig(hooks={phase: lambda rig: begin(rig, function)})
    if phase == "proxy_on_done":
        rig.returns("proxy_on_done", 0)
        rig.plugin.close()
    assert rig.results[phase][0] == OK
    assert [type(one) for one in rig.vm.deferred] == [GrpcCall if function == CALL else GrpcStream]


@pytest.mark.parametrize(
    "phase",
    ["proxy_on_request_headers", "proxy_on_request_body", "proxy_on_response_headers", "proxy_on_log"],
)
@pytest.mark.parametrize("function", [CALL, STREAM])
def test_in_a_stream_that_ends_before_the_answer(function: str, phase: str) -> None:
    rig = Rig()
    rig.during(phase, lambda: begin(rig, function))
    with rig.plugin.http_stream() as stream:
        stream.on_request_headers(HeaderMap(), False)
        stream.on_request_body(bytearray(b"x"), True)
        stream.on_response_headers(HeaderMap(), True)
    rig.during(RECEIVE, lambda: rig.ask("proxy_set_effective_context", stream.id))
    rig.plugin.grpc_message(rig.results[phase][1], b"answer")
    assert rig.results[RECEIVE] == BAD


# --- send, close, cancel --------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [SEND, CLOSE, CANCEL])
def test_ids_that_mean_nothing(function: str) -> None:
    rig = Rig()
    rest = (b"m", 0) if function == SEND else ()
    of_kind = {0: BAD, 1: BAD if function == SEND else MISSING, 2: MISSING, 3: BAD}
    for token in (0, 1, 2, 3, 4, 5, 6, 7, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFC):
        assert in_tick(rig, (function, token, *rest)) == [of_kind[token & 3]]
    assert not rig.vm.deferred


@pytest.mark.parametrize("function", [SEND, CLOSE, CANCEL])
def test_an_http_calls_id_is_none_of_these(function: str) -> None:
    rig = Rig()
    headers = encode_map([(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a")])
    rest = (b"m", 0) if function == SEND else ()
    asked = [("proxy_http_call", b"svc", headers, b"", b"", 0, WORD), (function, 4, *rest)]
    assert in_tick(rig, *asked) == [(OK, 4), BAD]


def test_messages_leave_in_order() -> None:
    rig = with_stream()
    asked = [(SEND, 6, b"one", 0), (SEND, 6, b"", 0), (SEND, 6, b"two", 7), (SEND, 6, b"late", 0)]
    assert in_tick(rig, *asked, (CLOSE, 6), (CLOSE, 6)) == [OK] * 6
    assert list(rig.vm.deferred) == [
        GrpcSend(rig.plugin, 6, b"one", False),
        GrpcSend(rig.plugin, 6, b"", False),
        GrpcSend(rig.plugin, 6, b"two", True),
    ]


def test_closing_ends_our_side_once() -> None:
    rig = with_stream()
    assert in_tick(rig, (CLOSE, 6), (SEND, 6, b"x", 1), (CLOSE, 6)) == [OK, OK, OK]
    assert list(rig.vm.deferred) == [GrpcClose(rig.plugin, 6)]
    rig.plugin.grpc_message(6, b"still wanted")
    assert rig.called[-1] == RECEIVE


def test_sending_with_a_hostile_pointer() -> None:
    rig = with_stream()
    assert in_tick(rig, (SEND, 6, 0xFFFFFFF0, 64, 0), (SEND, 6, 0, 0xFFFFFFFF, 1)) == [FAULT, FAULT]
    assert not rig.vm.deferred


def test_what_waits_to_be_sent_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = with_stream()
    monkeypatch.setattr(callouts, "MAX_CALL_BYTES", rig.vm.calls._held + 2 * (1000 + SEND_COST))
    assert in_tick(rig, *[(SEND, 6, bytes(1000), 0)] * 3) == [OK, OK, FAILURE]
    sent = rig.vm.deferred.popleft()
    assert isinstance(sent, GrpcSend)
    rig.plugin.grpc_sent(sent)
    assert in_tick(rig, *[(SEND, 6, bytes(1000), 0)] * 2) == [OK, FAILURE]
    # Empty ones count, too.
    rig.vm.deferred.clear()
    assert in_tick(rig, (SEND, 6, b"", 0)) == [FAILURE]


@pytest.mark.parametrize("function", [CLOSE, CANCEL])
def test_giving_a_call_up(function: str) -> None:
    rig = with_call()
    assert in_tick(rig, (function, 5), (function, 5)) == [OK, MISSING]
    assert list(rig.vm.deferred) == [CancelCall(rig.plugin, 5)]
    rig.plugin.grpc_message(5, b"late")
    rig.plugin.grpc_closed(5, 0)
    assert RECEIVE not in rig.called
    assert CLOSED not in rig.called


def test_cancelling_a_stream_takes_back_what_waits() -> None:
    rig = with_stream()
    assert in_tick(rig, (SEND, 6, bytes(50_000), 0), (CANCEL, 6), (CANCEL, 6), (SEND, 6, b"", 0)) == [
        OK,
        OK,
        MISSING,
        MISSING,
    ]
    assert list(rig.vm.deferred) == [CancelCall(rig.plugin, 6)]
    assert rig.vm.calls._held == 0


def test_another_plugins_ids_mean_nothing() -> None:
    rig = with_stream()
    other = Plugin(rig.vm, name="other")
    effective = ("proxy_set_effective_context", other.root.id)
    asked = [effective, (SEND, 6, b"x", 0), (CLOSE, 6), (CANCEL, 6)]
    assert in_tick(rig, *asked) == [OK, MISSING, MISSING, MISSING]
    other.grpc_message(6, b"x")
    assert RECEIVE not in rig.called
    assert in_tick(rig, (CANCEL, 6)) == [OK]


# --- what comes back ------------------------------------------------------------------------------------


def look(rig: Rig) -> list[Any]:
    return [
        rig.ask("proxy_get_header_map_pairs", 4, BYTES),
        rig.ask("proxy_get_header_map_pairs", 5, BYTES),
        rig.ask("proxy_get_header_map_value", 4, b"x", BYTES),
        rig.ask("proxy_get_header_map_value", 5, b"x", BYTES),
        rig.ask("proxy_get_buffer_bytes", 5, 0, 0xFFFFFFFF, BYTES),
        rig.ask("proxy_get_buffer_status", 5, WORD, WORD),
        rig.ask("proxy_get_status", WORD, BYTES),
    ]


NOTHING = [(OK, b""), (OK, b""), (BAD, None), (BAD, None), (OK, b""), (OK, 0, 0), (OK, 0, b"")]
FIELDS = HeaderMap([(":status", "200"), ("x", "1")])


def test_a_streams_life() -> None:
    rig = with_stream()
    for callback in (INITIAL, RECEIVE, TRAILING, CLOSED, "proxy_on_tick"):
        rig.during(callback, lambda: look(rig))
    rig.plugin.grpc_initial_metadata(6, FIELDS)
    rig.plugin.grpc_message(6, b"message")
    rig.plugin.grpc_trailing_metadata(6, FIELDS)
    rig.plugin.tick()
    rig.plugin.grpc_closed(6, 7, b"why{via_upstream}")
    pairs = encode_map(FIELDS.lines)
    assert rig.results[INITIAL] == [(OK, pairs), (OK, b""), (OK, b"1"), *NOTHING[3:]]
    assert rig.results[RECEIVE] == [*NOTHING[:4], (OK, b"message"), (OK, 7, 0), NOTHING[6]]
    assert rig.results[TRAILING] == [(OK, b""), (OK, pairs), (BAD, None), (OK, b"1"), *NOTHING[4:]]
    assert rig.results["proxy_on_tick"] == NOTHING
    assert rig.results[CLOSED] == [*NOTHING[:6], (OK, 7, b"why{via_upstream}")]
    assert not len(rig.vm.calls)


def test_a_call_is_over_with_its_message() -> None:
    rig = with_call()
    rig.during(RECEIVE, lambda: [look(rig)[4], rig.ask(CANCEL, 5), rig.ask(CLOSE, 5)])
    rig.plugin.grpc_message(5, b"m")
    assert rig.results[RECEIVE] == [(OK, b"m"), OK, MISSING]
    rig.plugin.grpc_closed(5, 0)
    assert CLOSED not in rig.called


def test_a_call_that_failed() -> None:
    rig = with_call()
    rig.during(CLOSED, lambda: [look(rig)[6], rig.ask(CANCEL, 5), rig.ask(CLOSE, 5)])
    rig.plugin.grpc_closed(5, -1, b"x")
    assert rig.results[CLOSED] == [(OK, 0xFFFFFFFF, b"x"), OK, MISSING]


def test_a_stream_that_has_ended_takes_its_close_and_nothing_else() -> None:
    rig = with_stream()
    asked: list[tuple[Any, ...]] = [(SEND, 6, b"x", 0), (CLOSE, 6), (CLOSE, 6), (CANCEL, 6)]
    rig.during(CLOSED, lambda: [rig.ask(*one) for one in asked])
    rig.plugin.grpc_closed(6, 0)
    assert rig.results[CLOSED] == [OK, OK, MISSING, MISSING]
    assert not rig.vm.deferred
    assert in_tick(rig, (CLOSE, 6)) == [MISSING]


def test_metadata_cannot_be_changed() -> None:
    rig = with_stream()
    asked: list[tuple[Any, ...]] = [
        ("proxy_add_header_map_value", 4, b"a", b"b"),
        ("proxy_set_header_map_pairs", 5, b""),
        ("proxy_remove_header_map_value", 4, b"x"),
        ("proxy_set_buffer_bytes", 5, 0, 0, b"x"),
    ]
    rig.during(INITIAL, lambda: [rig.ask(*one) for one in asked])
    rig.plugin.grpc_initial_metadata(6, FIELDS)
    assert rig.results[INITIAL] == [BAD] * 4


def test_an_answer_inside_of_guest_code_waits() -> None:
    rig = with_stream()

    def act() -> bool:
        rig.plugin.grpc_message(6, b"x")
        rig.plugin.grpc_closed(6, 0)
        return RECEIVE in rig.called

    rig.during("proxy_on_tick", act)
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] is False
    assert rig.called[-2:] == [RECEIVE, CLOSED]


def test_a_guest_can_begin_again_in_every_callback() -> None:
    rig = with_stream()
    for callback in (INITIAL, RECEIVE, TRAILING, CLOSED):
        rig.during(callback, lambda: begin(rig, CALL)[0])
    rig.plugin.grpc_initial_metadata(6, FIELDS)
    rig.plugin.grpc_message(6, b"")
    rig.plugin.grpc_trailing_metadata(6, HeaderMap())
    rig.plugin.grpc_closed(6, 0)
    assert [one.token for one in rig.vm.deferred if isinstance(one, GrpcCall)] == [5, 9, 13, 17]


def test_the_end_of_the_plugin_and_of_the_vm() -> None:
    rig = with_stream()
    other = Plugin(rig.vm, name="other")
    rig.plugin.close()
    assert list(rig.vm.deferred) == [CancelCall(rig.plugin, 6)]
    rig.plugin.grpc_message(6, b"x")
    assert RECEIVE not in rig.called

    def die() -> None:
        raise Trap(TrapKind.UNREACHABLE)

    rig.during("proxy_on_tick", die)
    with pytest.raises(PluginFailure):
        other.tick()
    with pytest.raises(PluginFailure, match="the VM is dead"):
        other.grpc_closed(6, 0)


def test_sending_after_the_end_of_a_call_frees_nothing_twice() -> None:
    rig = with_stream()
    in_tick(rig, (SEND, 6, b"abc", 0))
    sent = rig.vm.deferred.popleft()
    assert isinstance(sent, GrpcSend)
    rig.plugin.grpc_closed(6, 0)
    rig.plugin.grpc_sent(sent)
    assert rig.vm.calls._held == 0
