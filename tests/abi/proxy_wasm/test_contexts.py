"""`HttpContext`: actions, the life of a stream, arguments of the callbacks."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action
from abi.proxy_wasm.versions import VERSIONS, AbiVersion
from tests.abi.rig import BYTES, Rig
from tests.support.wat import wat

WATERMARK, BUFFER = Action.STOP_ALL_AND_WATERMARK, Action.STOP_ALL_AND_BUFFER


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize(
    ("value", "action"),
    [
        (0, Action.CONTINUE),
        (1, WATERMARK),
        (2, Action.CONTINUE),
        (3, BUFFER),
        (4, WATERMARK),
        (5, WATERMARK),
        (0xFFFFFFFF, WATERMARK),
    ],
)
def test_actions_of_headers(side: str, value: int, action: Action) -> None:
    rig = Rig()
    rig.returns(f"proxy_on_{side}_headers", value)
    assert getattr(rig.plugin.http_stream(), f"on_{side}_headers")(HeaderMap(), False) is action


def test_pause_may_hold_the_headers_only() -> None:
    rig = Rig(allow_on_headers_stop_iteration=True)
    rig.returns("proxy_on_request_headers", 1)
    assert rig.plugin.http_stream().on_request_headers(HeaderMap(), False) is Action.STOP_ITERATION


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize(
    ("value", "action"),
    [
        (0, Action.CONTINUE),
        (1, Action.STOP_AND_BUFFER),
        (2, Action.STOP_AND_WATERMARK),
        (3, Action.STOP_NO_BUFFER),
        (4, Action.STOP_NO_BUFFER),
        (0xFFFFFFFF, Action.STOP_NO_BUFFER),
    ],
)
def test_actions_of_bodies(side: str, value: int, action: Action) -> None:
    rig = Rig()
    rig.returns(f"proxy_on_{side}_body", value)
    assert getattr(rig.plugin.http_stream(), f"on_{side}_body")(bytearray(b"x"), False) is action


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize(
    ("value", "action"),
    [(0, Action.CONTINUE), (1, Action.STOP_ITERATION), (2, Action.STOP_ITERATION)],
)
def test_actions_of_trailers(side: str, value: int, action: Action) -> None:
    rig = Rig()
    rig.returns(f"proxy_on_{side}_trailers", value)
    assert getattr(rig.plugin.http_stream(), f"on_{side}_trailers")(HeaderMap()) is action


def test_paused_tells_whether_the_stream_stops() -> None:
    assert [action for action in Action if not action.paused] == [Action.CONTINUE]


def test_a_whole_exchange_in_order() -> None:
    rig = Rig()
    del rig.called[:]
    with rig.plugin.http_stream() as stream:
        assert stream.id == 0  # the guest hears of it with the first callback
        stream.on_request_headers(HeaderMap(), False)
        stream.on_request_body(bytearray(), False)
        stream.on_request_trailers(HeaderMap())
        stream.on_response_headers(HeaderMap(), False)
        stream.on_response_body(bytearray(), False)
        stream.on_response_trailers(HeaderMap())
        assert rig.vm.contexts[stream.id] is stream
    assert rig.called == [
        f"proxy_on_{name}"
        for name in (
            "context_create",
            "request_headers",
            "request_body",
            "request_trailers",
            "response_headers",
            "response_body",
            "response_trailers",
            "log",
            "done",
            "delete",
        )
    ]
    assert stream.id not in rig.vm.contexts


def test_log_makes_a_context_for_a_stream_the_filter_never_saw() -> None:
    rig = Rig()
    del rig.called[:]
    stream = rig.plugin.http_stream()
    stream.on_done()
    stream.on_delete()
    assert rig.called == []
    stream.on_log()
    stream.on_done()
    stream.on_delete()
    assert rig.called == ["proxy_on_context_create", "proxy_on_log", "proxy_on_done", "proxy_on_delete"]


def test_what_done_of_a_stream_answers_does_not_matter() -> None:
    rig = Rig()
    rig.returns("proxy_on_done", 0)
    with rig.plugin.http_stream() as stream:
        stream.on_request_headers(HeaderMap(), True)
    assert rig.called[-2:] == ["proxy_on_done", "proxy_on_delete"]


def test_nothing_follows_delete() -> None:
    rig = Rig()
    with rig.plugin.http_stream() as stream:
        stream.on_request_headers(HeaderMap(), True)
        stream.on_delete()
    stream.on_delete()
    assert rig.called.count("proxy_on_delete") == 1
    assert "proxy_on_log" not in rig.called
    with pytest.raises(RuntimeError, match="stream context 2 was deleted"):
        stream.on_log()


HEAD = (
    '(memory (export "memory") 1) (global $hp (mut i32) (i32.const 1024))'
    '(func (export "malloc") (param i32) (result i32) (global.get $hp))'
)


def logging(marker: str, callback: str, parameters: int) -> bytes:
    """A filter whose callback logs its arguments as digits."""
    digits = "".join(
        f"(i32.store8 (i32.const {n}) (i32.add (i32.const 48) (local.get {n})))" for n in range(parameters)
    )
    return wat(
        '(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))'
        f'{HEAD} (func (export "proxy_abi_version_{marker}"))'
        f'(func (export "{callback}") (param {"i32 " * parameters}) (result i32) {digits}'
        f"(drop (call $log (i32.const 2) (i32.const 0) (i32.const {parameters}))) (i32.const 0)))"
    )


LINES = HeaderMap([("a", "1"), ("b", "2"), ("a", "3")])


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("end", [False, True])
def test_arguments_of_headers(side: str, version: AbiVersion, end: bool) -> None:
    count = 2 if version is AbiVersion.V0_1_0 else 3
    plugin = Plugin(logging(version.value, f"proxy_on_{side}_headers", count))
    getattr(plugin.http_stream(), f"on_{side}_headers")(LINES.copy(), end)
    assert plugin.logs[0].message == f"23{int(end)}"[:count]


@pytest.mark.parametrize("side", ["request", "response"])
def test_arguments_of_bodies_and_trailers(side: str) -> None:
    plugin = Plugin(logging("0_2_1", f"proxy_on_{side}_body", 3))
    body = getattr(plugin.http_stream(), f"on_{side}_body")
    body(bytearray(b"12345"), False)
    body(bytearray(), True)
    assert [record.message for record in plugin.logs] == ["250", "201"]
    plugin = Plugin(logging("0_2_1", f"proxy_on_{side}_trailers", 2))
    getattr(plugin.http_stream(), f"on_{side}_trailers")(LINES.copy())
    assert plugin.logs[0].message == "23"


def test_a_guest_without_callbacks_lets_everything_pass() -> None:
    plugin = Plugin(wat(f'(module {HEAD} (func (export "proxy_abi_version_0_2_1")))'))
    headers = HeaderMap([("a", "1")])
    with plugin.http_stream() as stream:
        actions = {
            stream.on_request_headers(headers, False),
            stream.on_request_body(bytearray(b"x"), True),
            stream.on_request_trailers(headers),
            stream.on_response_headers(headers, False),
            stream.on_response_body(bytearray(b"x"), True),
            stream.on_response_trailers(headers),
        }
    assert actions == {Action.CONTINUE}


def test_the_live_maps_are_the_exchanges_facts() -> None:
    rig, facts = Rig(), StreamInfo()
    maps = [HeaderMap() for _ in range(4)]
    with rig.plugin.http_stream(facts) as stream:
        stream.on_request_headers(maps[0], False)
        stream.on_request_trailers(maps[1])
        stream.on_response_headers(maps[2], False)
        stream.on_response_trailers(maps[3])
    seen = [facts.request_headers, facts.request_trailers, facts.response_headers, facts.response_trailers]
    assert all(one is other for one, other in zip(seen, maps, strict=True))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("side", ["request", "response"])
def test_metadata(version: AbiVersion, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(version)
    name = f"proxy_on_{side}_metadata"
    seen: list[tuple[int, ...]] = []
    run = rig.vm.run

    def noted(context: Any, callback: str, *rest: int, **more: Any) -> int:
        if callback == name:
            seen.append(rest)
        return run(context, callback, *rest, **more)

    monkeypatch.setattr(rig.vm, "run", noted)
    rig.returns(name, 1)  # it does not matter
    stream = rig.plugin.http_stream()
    tell = getattr(stream, f"on_{side}_metadata")
    assert tell(3) is Action.CONTINUE
    assert seen == []  # before the headers
    stream.on_request_headers(HeaderMap([(":path", "/")]), True)
    if side == "response":
        tell(3)
        assert seen == []
        stream.on_response_headers(HeaderMap([(":status", "200")]), True)
    rig.during(name, lambda: rig.ask("proxy_get_header_map_pairs", 0, BYTES))
    assert tell(2) is Action.CONTINUE
    assert seen == [(stream.id, 2)]
    assert rig.results[name] == (0, b"")  # there is nothing to read
    stream.on_done()
    stream.on_delete()
    with pytest.raises(RuntimeError, match="was deleted"):
        tell(1)
