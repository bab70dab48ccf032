"""Continue, close, local response, route cache."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.deferred import ClearRouteCache, CloseStream, ContinueStream, LocalResponse
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Status, StreamType
from abi.proxy_wasm.versions import AbiVersion
from abi.proxy_wasm.wire import encode_map
from tests.abi.rig import BYTES, Rig

OK, BAD = Status.OK, Status.BAD_ARGUMENT
CONTINUE, CLOSE, LOCAL = "proxy_continue_stream", "proxy_close_stream", "proxy_send_local_response"
NO_GRPC = 0xFFFFFFFF


def in_request(rig: Rig, *questions: tuple[object, ...]) -> list[object]:
    rig.during("proxy_on_request_headers", lambda: [rig.ask(*q) for q in questions])  # type: ignore[arg-type]
    rig.plugin.http_stream().on_request_headers(HeaderMap([(":path", "/")]), False)
    answers: list[object] = rig.results["proxy_on_request_headers"]
    return answers


@pytest.mark.parametrize(
    ("kind", "status", "deferred"),
    [(0, OK, 1), (1, BAD, 0), (2, OK, 0), (3, Status.UNIMPLEMENTED, 0), (4, BAD, 0), (0xFFFFFFFF, BAD, 0)],
)
def test_continue_in_request_headers(kind: int, status: Status, deferred: int) -> None:
    # Continuing a response that has not begun crashes Envoy; here it is an error.
    rig = Rig()
    assert in_request(rig, (CONTINUE, kind)) == [status]
    assert len(rig.vm.deferred) == deferred


def test_continue_takes_the_request_headers_away() -> None:
    rig = Rig()
    get, pairs = "proxy_get_header_map_value", "proxy_get_header_map_pairs"
    add = "proxy_add_header_map_value"
    answers = in_request(
        rig, (CONTINUE, 0), (get, 0, b":path", BYTES), (pairs, 0, BYTES), (add, 0, b"x", b"y")
    )
    assert answers == [OK, (BAD, None), (OK, b""), BAD]


def test_continue_of_a_response() -> None:
    rig = Rig()
    stream = rig.plugin.http_stream()
    rig.during("proxy_on_response_headers", lambda: rig.ask(CONTINUE, 1))
    stream.on_response_headers(HeaderMap(), True)
    assert rig.results["proxy_on_response_headers"] == OK
    assert list(rig.vm.deferred) == [ContinueStream(stream, StreamType.HTTP_RESPONSE)]


def test_continue_of_a_paused_stream_from_a_tick() -> None:
    rig = Rig()
    rig.returns("proxy_on_request_headers", 1)
    stream = rig.plugin.http_stream()
    stream.on_request_headers(HeaderMap(), True)
    rig.during(
        "proxy_on_tick", lambda: [rig.ask("proxy_set_effective_context", stream.id), rig.ask(CONTINUE, 0)]
    )
    rig.plugin.tick()
    assert list(rig.vm.deferred) == [ContinueStream(stream, StreamType.HTTP_REQUEST)]


@pytest.mark.parametrize(
    ("kind", "status", "closes"), [(0, OK, 1), (1, OK, 1), (2, OK, 0), (3, OK, 0), (4, BAD, 0)]
)
def test_close(kind: int, status: Status, closes: bool) -> None:
    rig = Rig()
    assert in_request(rig, (CLOSE, kind)) == [status]
    assert [type(wish) for wish in rig.vm.deferred] == ([CloseStream] if closes else [])


def test_the_spellings_of_0_1_0() -> None:
    rig = Rig(AbiVersion.V0_1_0)
    answers = in_request(
        rig, ("proxy_continue_request",), ("proxy_continue_response",), ("proxy_clear_route_cache",)
    )
    assert answers == [OK, BAD, OK]
    assert [type(wish) for wish in rig.vm.deferred] == [ContinueStream, ClearRouteCache]


def test_a_local_response_is_queued_and_remembered() -> None:
    rig = Rig()
    stream = rig.plugin.http_stream()
    headers = encode_map([(b"X-L", b"1"), (b":status", b"200"), (b"set-cookie", b"a"), (b"set-cookie", b"b")])
    rig.during("proxy_on_request_headers", lambda: rig.ask(LOCAL, 403, b"why not", b"body", headers, NO_GRPC))
    stream.on_request_headers(HeaderMap(), True)
    assert rig.results["proxy_on_request_headers"] == OK
    local = LocalResponse(
        stream,
        403,
        b"why not",
        b"body",
        HeaderMap([("x-l", "1"), ("set-cookie", "a"), ("set-cookie", "b")]),
        None,
    )
    assert list(rig.vm.deferred) == [local]
    assert stream.local_response == local


@pytest.mark.parametrize(("given", "seen"), [(NO_GRPC, None), (0, 0), (7, 7), (0xFFFFFFFE, -2)])
def test_grpc_status_is_signed(given: int, seen: int | None) -> None:
    rig = Rig()
    in_request(rig, (LOCAL, 200, b"", b"", b"", given))
    wish = rig.vm.deferred[0]
    assert isinstance(wish, LocalResponse)
    assert wish.grpc_status == seen


@pytest.mark.parametrize("status", [0, 100, 204, 600, 999])
def test_any_status_is_taken(status: int) -> None:
    rig = Rig()
    assert in_request(rig, (LOCAL, status, b"", b"", b"", NO_GRPC)) == [OK]
    assert rig.vm.deferred[0].status == status  # type: ignore[union-attr]


def test_the_first_local_response_wins() -> None:
    rig = Rig()
    calls = [(LOCAL, status, b"", b"", b"", NO_GRPC) for status in (403, 404)]
    assert in_request(rig, *calls) == [OK, OK]
    assert [wish.status for wish in rig.vm.deferred] == [403]  # type: ignore[union-attr]


def test_order_of_wishes_is_kept() -> None:
    rig = Rig()
    in_request(rig, (CONTINUE, 0), (LOCAL, 403, b"", b"", b"", NO_GRPC), (CLOSE, 1))
    assert [type(wish) for wish in rig.vm.deferred] == [ContinueStream, LocalResponse, CloseStream]


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\0b", b"a\nb"])
def test_a_local_response_cannot_smuggle_lines(value: bytes) -> None:
    rig = Rig()
    assert in_request(rig, (LOCAL, 200, b"", b"", encode_map([(b"x", value)]), NO_GRPC)) == [BAD]
    assert not rig.vm.deferred


def test_a_local_response_in_context_create_is_honoured() -> None:
    rig = Rig()
    rig.during("proxy_on_context_create", lambda: rig.ask(LOCAL, 403, b"d", b"b", b"", NO_GRPC))
    rig.plugin.http_stream().on_request_headers(HeaderMap(), True)
    assert rig.called[-2:] == ["proxy_on_context_create", "proxy_on_request_headers"]
    assert [type(wish) for wish in rig.vm.deferred] == [LocalResponse]


def test_root_contexts_have_no_stream() -> None:
    rig = Rig()
    rig.during(
        "proxy_on_tick",
        lambda: [
            rig.ask(CONTINUE, 0),
            rig.ask(CLOSE, 0),
            rig.ask(LOCAL, 403, b"", b"", b"", NO_GRPC),
        ],
    )
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [OK, OK, OK]
    assert not rig.vm.deferred


def test_clear_route_cache_of_a_root_context_is_harmless() -> None:
    rig = Rig(AbiVersion.V0_1_0)
    assert rig.ask("proxy_clear_route_cache") == OK
    assert not rig.vm.deferred
