"""Effective context, done, status, tick period."""

from __future__ import annotations

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Status
from tests.abi.rig import BYTES, WORD, Rig

HEADERS = [(":path", "/p")]


def path(rig: Rig) -> tuple[int, bytes | None]:
    answer: tuple[int, bytes | None] = rig.ask("proxy_get_header_map_value", 0, b":path", BYTES)
    return answer


def test_effective_context_moves_and_comes_back() -> None:
    rig = Rig(name="p", root_id="r")
    prefixes = []

    def action() -> list[object]:
        seen: list[object] = []
        for context in (1, 2, 999, 1, 0):
            seen.append(rig.ask("proxy_set_effective_context", context))
            seen.append(path(rig)[0])
            rig.ask("proxy_log", 2, b"x")
            prefixes.append(rig.host.records[-1].prefix)
        return seen

    rig.during("proxy_on_request_headers", action)
    rig.plugin.http_stream().on_request_headers(HeaderMap(HEADERS), True)
    ok, bad = Status.OK, Status.BAD_ARGUMENT
    assert rig.results["proxy_on_request_headers"] == [ok, bad, ok, ok, bad, ok, ok, bad, ok, ok]
    assert prefixes == ["r", "p r", "p r", "r", "p r"]


def test_effective_context_ends_with_the_callback() -> None:
    rig = Rig()
    stream = rig.plugin.http_stream()
    rig.during("proxy_on_request_headers", lambda: rig.ask("proxy_set_effective_context", 1))
    rig.during("proxy_on_request_body", lambda: rig.ask("proxy_get_buffer_status", 0, WORD, WORD))
    stream.on_request_headers(HeaderMap(HEADERS), False)
    stream.on_request_body(bytearray(b"abc"), True)
    assert rig.results["proxy_on_request_body"] == (Status.OK, 3, 0)


def test_a_deleted_stream_is_no_context() -> None:
    rig = Rig()
    with rig.plugin.http_stream() as stream:
        stream.on_request_headers(HeaderMap(HEADERS), True)
    rig.during("proxy_on_tick", lambda: rig.ask("proxy_set_effective_context", stream.id))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == Status.BAD_ARGUMENT


def test_a_tick_can_act_on_a_paused_stream() -> None:
    rig = Rig()
    rig.returns("proxy_on_request_headers", 1)
    stream = rig.plugin.http_stream()
    headers = HeaderMap(HEADERS)
    stream.on_request_headers(headers, True)

    def action() -> list[object]:
        before = path(rig)
        return [before, rig.ask("proxy_set_effective_context", stream.id), path(rig)]

    rig.during("proxy_on_tick", action)
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [(Status.BAD_ARGUMENT, None), Status.OK, (Status.OK, b"/p")]


def test_done_is_refused_unless_the_plugin_waits() -> None:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: rig.ask("proxy_done"))
    rig.during("proxy_on_done", lambda: rig.ask("proxy_done"))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == Status.NOT_FOUND
    rig.returns("proxy_on_done", 0)
    assert rig.plugin.close() is False
    assert rig.results["proxy_on_done"] == Status.NOT_FOUND  # too early inside proxy_on_done itself
    assert "proxy_on_delete" not in rig.called


def test_done_deletes_right_after_the_callback() -> None:
    rig = Rig()
    rig.returns("proxy_on_done", 0)
    assert rig.plugin.close() is False
    assert rig.plugin.close() is False
    rig.during("proxy_on_tick", lambda: [rig.ask("proxy_done"), rig.plugin.closed])
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [Status.OK, False]
    assert rig.called[-3:] == ["proxy_on_done", "proxy_on_tick", "proxy_on_delete"]
    assert rig.plugin.closed
    assert rig.plugin.close() is True
    assert rig.plugin not in rig.vm.plugins


def test_done_from_a_stream_is_not_the_plugins() -> None:
    rig = Rig()
    rig.returns("proxy_on_done", 0)
    rig.plugin.close()
    rig.during("proxy_on_request_headers", lambda: rig.ask("proxy_done"))
    rig.plugin.http_stream().on_request_headers(HeaderMap(), True)
    assert rig.results["proxy_on_request_headers"] == Status.NOT_FOUND


def test_done_from_a_stream_that_acts_for_the_plugin() -> None:
    rig = Rig()
    rig.returns("proxy_on_done", 0)
    rig.plugin.close()
    rig.during(
        "proxy_on_request_headers",
        lambda: [rig.ask("proxy_set_effective_context", 1), rig.ask("proxy_done"), rig.ask("proxy_done")],
    )
    rig.plugin.http_stream().on_request_headers(HeaderMap(), True)
    assert rig.results["proxy_on_request_headers"] == [Status.OK, Status.OK, Status.NOT_FOUND]
    assert rig.called[-1] == "proxy_on_delete"
    assert rig.plugin.closed


def test_status_is_zero_before_any_call() -> None:
    rig = Rig()
    assert rig.ask("proxy_get_status", WORD, BYTES) == (Status.OK, 0, b"")
    rig.during("proxy_on_tick", lambda: rig.ask("proxy_get_status", WORD, BYTES))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == (Status.OK, 0, b"")


def test_the_tick_period_is_the_roots() -> None:
    rig = Rig()
    rig.during("proxy_on_request_headers", lambda: rig.ask("proxy_set_tick_period_milliseconds", 100))
    rig.plugin.http_stream().on_request_headers(HeaderMap(), True)
    assert rig.results["proxy_on_request_headers"] == Status.OK
    assert rig.plugin.tick_period_ms == 100
    rig.during("proxy_on_tick", lambda: rig.ask("proxy_set_tick_period_milliseconds", 0))
    rig.plugin.tick()
    assert rig.plugin.tick_period_ms == 0


def test_runtimes_helpers() -> None:
    rig = Rig()
    assert rig.ask("emscripten_notify_memory_growth", 0) is None
    assert rig.ask("pthread_equal", 7, 7) == 1
    assert rig.ask("pthread_equal", 7, 8) == 0
