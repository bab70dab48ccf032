"""Answers to calls: what can be read in their callbacks, what becomes of them when somebody is gone."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm.callouts import FURTHER_CALL, Answer, Calls
from abi.proxy_wasm.contexts import Context
from abi.proxy_wasm.deferred import CallOut, CancelCall, ContinueStream, HttpCall
from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.tcp import TcpContext
from abi.proxy_wasm.types import Status, StreamType
from abi.proxy_wasm.wire import encode_map
from pywasmvm import Trap, TrapKind
from tests.abi.proxy_wasm.calls.test_http_call import call
from tests.abi.rig import BYTES, WORD, Rig

OK, MISSING, BAD = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT
ANSWERED = "proxy_on_http_call_response"
HEADERS = HeaderMap([(":status", "201"), ("x-up", "1")])


def calling(count: int = 1) -> Rig:
    """A rig with calls under way."""
    rig = Rig()
    rig.during("proxy_on_tick", lambda: [call(rig) for _ in range(count)])
    rig.plugin.tick()
    return rig


def look(rig: Rig) -> dict[str, Any]:
    """What can be seen of an answer."""
    return {
        "headers": rig.ask("proxy_get_header_map_pairs", 6, BYTES),
        "status": rig.ask("proxy_get_header_map_value", 6, b":status", BYTES),
        "trailers": rig.ask("proxy_get_header_map_pairs", 7, BYTES),
        "trailer": rig.ask("proxy_get_header_map_value", 7, b"x-t", BYTES),
        "body": rig.ask("proxy_get_buffer_bytes", 4, 0, 0xFFFFFFFF, BYTES),
        "part": rig.ask("proxy_get_buffer_bytes", 4, 1, 3, BYTES),
        "size": rig.ask("proxy_get_buffer_status", 4, WORD, WORD),
        "result": rig.ask("proxy_get_status", WORD, BYTES),
    }


NOTHING = {
    "headers": (OK, b""),
    "status": (BAD, None),
    "trailers": (OK, b""),
    "trailer": (BAD, None),
    "body": (MISSING, None),
    "part": (MISSING, None),
    "size": (MISSING, None, None),
    "result": (OK, 0, b""),
}


def test_a_response_can_be_read_in_its_callback_only() -> None:
    rig = calling()
    trailers = HeaderMap([("x-t", "9")])
    rig.during(ANSWERED, lambda: look(rig))
    rig.plugin.http_call_response(4, HEADERS, b"callbody", trailers)
    assert rig.results[ANSWERED] == {
        "headers": (OK, encode_map(HEADERS.lines)),
        "status": (OK, b"201"),
        "trailers": (OK, encode_map(trailers.lines)),
        "trailer": (OK, b"9"),
        "body": (OK, b"callbody"),
        "part": (OK, b"all"),
        "size": (OK, 8, 0),
        "result": (OK, 0, b""),
    }
    rig.during("proxy_on_tick", lambda: look(rig))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == NOTHING


def test_a_failure_has_nothing_but_a_status() -> None:
    rig = calling()
    rig.during(ANSWERED, lambda: look(rig))
    rig.plugin.http_call_failed(4)
    assert rig.results[ANSWERED] == NOTHING | {"result": (OK, 11, b"reset")}
    rig.during("proxy_on_tick", lambda: look(rig)["result"])
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == (OK, 11, b"reset")  # it is kept


def test_the_callbacks_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    rig = calling(2)
    run = rig.vm.run

    def noted(context: Context, name: str, *rest: int) -> int:
        seen.append((name, rest))
        return run(context, name, *rest)

    monkeypatch.setattr(rig.vm, "run", noted)
    rig.plugin.http_call_response(8, HEADERS, b"abc", HeaderMap([("t", "1")]))
    rig.plugin.http_call_failed(4)
    assert seen == [(ANSWERED, (1, 8, 2, 3, 1)), (ANSWERED, (1, 4, 0, 0, 0))]


def test_nothing_of_an_answer_can_be_changed() -> None:
    rig = calling()
    asked: list[tuple[Any, ...]] = [
        ("proxy_add_header_map_value", 6, b"a", b"b"),
        ("proxy_replace_header_map_value", 6, b"a", b"b"),
        ("proxy_remove_header_map_value", 6, b"x-up"),
        ("proxy_set_header_map_pairs", 7, b""),
        ("proxy_get_header_map_size", 6, WORD),
        ("proxy_set_buffer_bytes", 4, 0, 0, b"x"),
    ]
    rig.during(ANSWERED, lambda: [rig.ask(*one) for one in asked])
    rig.plugin.http_call_response(4, HEADERS, b"b")
    assert rig.results[ANSWERED] == [BAD, BAD, BAD, BAD, (BAD, None), BAD]
    assert HEADERS.line_count == 2


def test_an_answer_can_be_read_under_a_streams_context() -> None:
    rig = calling()
    rig.returns("proxy_on_request_headers", 1)
    stream = rig.plugin.http_stream()
    stream.on_request_headers(HeaderMap([(":path", "/")]), True)

    def act() -> list[Any]:
        before = rig.ask("proxy_get_header_map_value", 0, b":path", BYTES)
        rig.ask("proxy_set_effective_context", stream.id)
        after = rig.ask("proxy_get_header_map_value", 0, b":path", BYTES)
        return [before, after, look(rig)["status"], look(rig)["body"], rig.ask("proxy_continue_stream", 0)]

    rig.during(ANSWERED, act)
    rig.plugin.http_call_response(4, HEADERS, b"x")
    assert rig.results[ANSWERED] == [(BAD, None), (OK, b"/"), (OK, b"201"), (OK, b"x"), OK]
    assert rig.vm.deferred[-1] == ContinueStream(stream, StreamType.HTTP_REQUEST)


def test_a_stream_that_is_gone_cannot_be_acted_upon() -> None:
    rig = Rig()
    rig.during("proxy_on_request_headers", lambda: call(rig))
    with rig.plugin.http_stream() as stream:
        stream.on_request_headers(HeaderMap(), True)
    rig.during(ANSWERED, lambda: rig.ask("proxy_set_effective_context", stream.id))
    rig.plugin.http_call_response(4, HEADERS)
    assert rig.results[ANSWERED] == BAD


def test_another_plugin_in_the_vm_sees_nothing_and_gets_nothing() -> None:
    rig = calling()
    other = Plugin(rig.vm, name="other")

    def act() -> dict[str, Any]:
        rig.ask("proxy_set_effective_context", other.root.id)
        return look(rig)

    rig.during(ANSWERED, act)
    other.http_call_response(4, HEADERS)
    assert ANSWERED not in rig.called  # not its token
    rig.plugin.http_call_response(4, HEADERS, b"x")
    assert rig.results[ANSWERED] == NOTHING


def test_each_token_is_answered_once() -> None:
    rig = calling(2)
    for token in (8, 8, 8, 0, 12, 4):
        rig.plugin.http_call_response(token, HEADERS)
    assert rig.called.count(ANSWERED) == 2
    assert not len(rig.vm.calls)


def test_guests_without_the_callback() -> None:
    rig = Rig(capabilities=frozenset(("proxy_log", "proxy_http_call", "proxy_on_tick")))
    rig.during("proxy_on_tick", lambda: call(rig))
    rig.plugin.tick()
    rig.plugin.http_call_response(4, HEADERS)
    assert rig.plugin.answer is None
    assert not len(rig.vm.calls)


def test_an_answer_inside_of_guest_code_waits() -> None:
    rig = calling()
    depth: list[int] = []

    def act() -> None:
        rig.plugin.http_call_response(4, HEADERS, b"x")
        depth.append(rig.called.count(ANSWERED))

    rig.during("proxy_on_tick", act)
    rig.during(ANSWERED, lambda: look(rig)["body"])
    rig.plugin.tick()
    assert depth == [0]
    assert rig.results[ANSWERED] == (OK, b"x")


def test_a_guest_that_dies_of_an_answer() -> None:
    rig = calling(2)

    def die() -> None:
        raise Trap(TrapKind.UNREACHABLE)

    rig.during(ANSWERED, die)
    with pytest.raises(PluginFailure):
        rig.plugin.http_call_response(4, HEADERS)
    assert rig.plugin.answer is None
    with pytest.raises(PluginFailure, match="the VM is dead"):
        rig.plugin.http_call_response(8, HEADERS)
    assert rig.called.count(ANSWERED) == 1


def test_an_end_of_the_plugin_gives_its_calls_up() -> None:
    rig = calling(2)
    other = Plugin(rig.vm, name="other")
    rig.vm.deferred.clear()  # somebody carries them out
    assert rig.plugin.close()
    assert list(rig.vm.deferred) == [CancelCall(rig.plugin, 4), CancelCall(rig.plugin, 8)]
    rig.plugin.http_call_response(4, HEADERS)
    assert ANSWERED not in rig.called
    assert not other.closed


def test_a_plugin_that_waits_for_a_call_before_it_is_done() -> None:
    rig = Rig()
    rig.returns("proxy_on_done", 0)
    rig.during("proxy_on_done", lambda: call(rig))
    rig.during(ANSWERED, lambda: rig.ask("proxy_done"))
    assert not rig.plugin.close()
    assert [type(one) for one in rig.vm.deferred] == [HttpCall]
    rig.during("proxy_on_delete", lambda: look(rig))
    rig.plugin.http_call_response(4, HEADERS, b"x")
    assert rig.plugin.closed
    assert rig.called[-2:] == [ANSWERED, "proxy_on_delete"]
    assert rig.results["proxy_on_delete"] == NOTHING  # the answer went with its callback


def test_a_refused_start_gives_its_calls_up() -> None:
    rig = Rig()

    def refuse() -> None:
        call(rig)
        rig.returns("proxy_on_configure", 0)

    rig.during("proxy_on_configure", refuse)
    with pytest.raises(PluginStartError):
        Plugin(rig.vm, name="second")
    assert not len(rig.vm.calls)
    assert not [one for one in rig.vm.deferred if isinstance(one, HttpCall)]


# --- for those who build upon it --------------------------------------------------------------------------


class Ask(CallOut):
    """What an extension might bring."""


def test_a_kind_of_call_that_the_core_does_not_know() -> None:
    rig = Rig()
    token = rig.vm.calls.begin(FURTHER_CALL, rig.plugin, 10)
    assert token == 7
    rig.vm.deferred.append(Ask(rig.plugin, token))
    rig.during("proxy_on_queue_ready", lambda: rig.ask("proxy_get_buffer_bytes", 9, 0, 9, BYTES))
    answer = Answer(buffers={9: b"reply"})
    rig.plugin.deliver(token, "proxy_on_queue_ready", answer, ends=False)
    assert rig.results["proxy_on_queue_ready"] == (OK, b"reply")
    assert len(rig.vm.calls) == 1
    rig.plugin.deliver(token, "proxy_on_queue_ready", answer, ends=True, status=(5, b"why"))
    assert not len(rig.vm.calls)
    assert rig.plugin.call_status == (5, b"why")


def test_bytes_are_counted_once() -> None:
    calls = Calls()
    plugin: Any = object()
    token = calls.begin(2, plugin, 100)
    assert token is not None
    found = calls.find(plugin, token)
    assert found is not None
    assert calls.hold(found, 50)
    calls.release(found, 120)
    calls.release(found, 120)  # not below zero
    assert (found.held, calls._held) == (0, 0)
    assert calls.hold(found, 7)
    calls.end(token)
    calls.end(token)
    assert calls._held == 0
    assert calls.find(plugin, token) is None


def test_a_tcp_connection_waits_for_a_call() -> None:
    rig = Rig()
    rig.during("proxy_on_new_connection", lambda: call(rig))
    connection = TcpContext(rig.plugin)
    connection.on_new_connection()

    def act() -> list[Any]:
        rig.ask("proxy_set_effective_context", connection.id)
        return [look(rig)["status"], look(rig)["body"], rig.ask("proxy_continue_stream", 2)]

    rig.during(ANSWERED, act)
    rig.plugin.http_call_response(4, HEADERS, b"x")
    assert rig.results[ANSWERED] == [(OK, b"201"), (OK, b"x"), OK]
    assert rig.vm.deferred[-1] == ContinueStream(connection, StreamType.DOWNSTREAM)
