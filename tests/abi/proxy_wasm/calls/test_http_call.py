"""`proxy_http_call`: what is refused, what leaves, and from where it may be called."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm import callouts
from abi.proxy_wasm.deferred import CancelCall, ContinueStream, HttpCall
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.versions import VERSIONS, AbiVersion
from abi.proxy_wasm.wire import encode_map
from tests.abi.rig import OUTPUT, WORD, Rig

OK, BAD, FAULT = Status.OK, Status.BAD_ARGUMENT, Status.INVALID_MEMORY_ACCESS
CALL = "proxy_http_call"
HEAD = [(b":method", b"GET"), (b":path", b"/p"), (b":authority", b"a.b")]
HEADERS = encode_map(HEAD)


def call(rig: Rig, **given: Any) -> Any:
    """One call; what is not given is as it should be."""
    arguments: dict[str, Any] = {
        "cluster": b"svc",
        "headers": HEADERS,
        "body": b"",
        "trailers": b"",
        "timeout": 1000,
    }
    arguments |= given
    return rig.ask(CALL, *arguments.values(), WORD)


def effects(rig: Rig) -> list[HttpCall]:
    return [one for one in rig.vm.deferred if isinstance(one, HttpCall)]


def in_tick(**given: Any) -> tuple[Rig, Any]:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: call(rig, **given))
    rig.plugin.tick()
    return rig, rig.results["proxy_on_tick"]


def test_what_leaves() -> None:
    headers = [*HEAD, (b"X-A", b"1"), (b"x-a", b"2"), (b"content-length", b"99")]
    rig, answer = in_tick(
        headers=encode_map(headers), body=b"BODY", trailers=encode_map([(b"x-t", b"3")]), timeout=200
    )
    assert answer == (OK, 4)
    sent = HeaderMap([*HEAD, (b"x-a", b"1"), (b"x-a", b"2"), (b"content-length", b"4")])
    expected = HttpCall(rig.plugin, 4, "svc", sent, b"BODY", HeaderMap([("x-t", "3")]), 200)
    assert list(rig.vm.deferred) == [expected]


def test_host_is_the_authority_and_names_are_lower_case() -> None:
    rig, answer = in_tick(headers=encode_map([(b"Host", b"h"), (b":method", b"GET"), (b":path", b"/")]))
    assert answer == (OK, 4)
    assert effects(rig)[0].headers.first(":authority") == b"h"


@pytest.mark.parametrize(
    "given",
    [
        {"cluster": b"nocluster"},
        {"cluster": b""},
        {"cluster": b"\xff\x00"},
        {"headers": b""},
        {"headers": b"garbage"},
        {"headers": encode_map(HEAD) + b"x"},
        {"headers": encode_map([*HEAD[:2]])},
        {"headers": encode_map([*HEAD[1:]])},
        {"headers": encode_map([HEAD[0], HEAD[2]])},
        {"headers": encode_map([(b":method", b""), *HEAD[1:]])},
        {"headers": encode_map([*HEAD, (b"x", b"a\r\nb: c")])},
        {"headers": encode_map([*HEAD, (b"x\n", b"a")])},
        {"trailers": encode_map([(b"x", b"a\0")])},
        {"timeout": 0xFFFFFFFF},
        {"timeout": 0x80000000},
    ],
    ids=str,
)
def test_what_is_refused(given: dict[str, Any]) -> None:
    rig, answer = in_tick(**given)
    assert answer == (BAD, 0)  # the token's slot is written first, as in Envoy
    assert not rig.vm.deferred
    assert not len(rig.vm.calls)


def test_a_timeout_of_zero_is_none_and_the_longest_is_taken() -> None:
    for timeout in (0, 0x7FFFFFFF):
        rig, answer = in_tick(timeout=timeout)
        assert answer == (OK, 4)
        assert effects(rig)[0].timeout_ms == timeout


@pytest.mark.parametrize("bad", range(4))
@pytest.mark.parametrize(
    ("address", "size"), [(0xFFFFFFF0, 64), (0, 0xFFFFFFFF), (0x300000, 1), (1, 0x300000)]
)
def test_pointers_outside_memory(bad: int, address: int, size: int) -> None:
    rig = Rig()
    inputs = [[0, 0] for _ in range(4)]
    inputs[bad] = [address, size]
    slot = OUTPUT + 64
    rig.vm.guest.write_u32(slot, 77)
    assert rig.ask(CALL, *(word for pair in inputs for word in pair), 1000, slot) == FAULT
    assert rig.vm.guest.read_u32(slot) == 77
    assert not rig.vm.deferred


@pytest.mark.parametrize("slot", [0x2FFFFD, 0xFFFFFFFF])
def test_a_call_whose_token_cannot_be_told_is_not_begun(slot: int) -> None:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: rig.ask(CALL, b"svc", HEADERS, b"", b"", 1000, slot))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == FAULT
    assert not rig.vm.deferred
    assert not len(rig.vm.calls)


def test_tokens_are_multiples_of_four_and_never_used_twice_at_a_time() -> None:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: [call(rig) for _ in range(3)])
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [(OK, 4), (OK, 8), (OK, 12)]
    rig.vm.calls._last[0] = 0x3FFF_FFFF - 1
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [(OK, 0xFFFF_FFFC), (OK, 16), (OK, 20)]


def test_too_many_calls() -> None:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: [call(rig)[0] for _ in range(callouts.MAX_CALLS + 2)])
    rig.plugin.tick()
    statuses = rig.results["proxy_on_tick"]
    assert statuses == [OK] * callouts.MAX_CALLS + [Status.INTERNAL_FAILURE] * 2
    rig.during("proxy_on_tick", lambda: call(rig)[0])
    rig.plugin.http_call_failed(4)
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == OK


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callouts, "MAX_CALL_BYTES", 10_000)
    rig = Rig()
    rig.during("proxy_on_tick", lambda: [call(rig, body=bytes(4000)) for _ in range(3)])
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [(OK, 4), (OK, 8), (Status.INTERNAL_FAILURE, 0)]
    rig.plugin.http_call_response(4, HeaderMap())
    rig.during("proxy_on_tick", lambda: call(rig, body=bytes(4000)))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"][0] == OK


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_it(version: AbiVersion) -> None:
    rig = Rig(version)
    rig.during("proxy_on_tick", lambda: call(rig))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == (OK, 4)


# --- from every phase -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure"])
def test_while_starting(phase: str) -> None:
    rig = Rig(hooks={phase: call})
    assert rig.results[phase] == (OK, 4)
    assert [one.plugin for one in effects(rig)] == [rig.plugin]


STREAM = [
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_response_trailers",
    "proxy_on_log",
    "proxy_on_done",
    "proxy_on_delete",
]


@pytest.mark.parametrize("phase", STREAM)
def test_in_a_stream(phase: str) -> None:
    rig = Rig()
    rig.during(phase, lambda: call(rig))
    with rig.plugin.http_stream() as stream:
        stream.on_request_headers(HeaderMap(), False)
        stream.on_request_body(bytearray(b"x"), False)
        stream.on_request_trailers(HeaderMap())
        stream.on_response_headers(HeaderMap(), False)
        stream.on_response_body(bytearray(b"x"), False)
        stream.on_response_trailers(HeaderMap())
    assert rig.results[phase] == (OK, 4)
    rig.plugin.http_call_response(4, HeaderMap([(":status", "200")]))  # the stream is gone, the plugin is not
    assert rig.called[-1] == "proxy_on_http_call_response"


def test_in_a_queues_callback_and_in_anothers_response() -> None:
    rig = Rig()
    rig.during("proxy_on_queue_ready", lambda: call(rig))
    rig.plugin.queue_ready(1)
    rig.during("proxy_on_http_call_response", lambda: call(rig))
    rig.plugin.http_call_response(4, HeaderMap())
    assert rig.results["proxy_on_http_call_response"] == (OK, 8)
    assert [one.token for one in effects(rig)] == [4, 8]


def test_in_the_plugins_done_and_delete() -> None:
    rig = Rig()
    rig.during("proxy_on_done", lambda: call(rig))
    rig.during("proxy_on_delete", lambda: call(rig))
    rig.plugin.close()
    assert (rig.results["proxy_on_done"], rig.results["proxy_on_delete"]) == ((OK, 4), (OK, 8))
    assert not effects(rig)  # neither is begun: the plugin is over
    assert list(rig.vm.deferred) == [CancelCall(rig.plugin, 4), CancelCall(rig.plugin, 8)]


def test_outside_of_a_plugin() -> None:
    rig = Rig()
    assert call(rig) == (Status.INTERNAL_FAILURE, 0)


def test_under_another_effective_context_the_plugin_is_that_ones() -> None:
    rig = Rig()
    other = Plugin(rig.vm, name="other")

    def act() -> Any:
        rig.ask("proxy_set_effective_context", other.root.id)
        return call(rig)

    rig.during("proxy_on_tick", act)
    rig.plugin.tick()
    assert [one.plugin for one in effects(rig)] == [other]


def test_order_with_other_effects_is_kept() -> None:
    rig = Rig()
    rig.during(
        "proxy_on_request_headers",
        lambda: [call(rig), rig.ask("proxy_continue_stream", 0), call(rig)],
    )
    rig.plugin.http_stream().on_request_headers(HeaderMap(), True)
    assert [type(one) for one in rig.vm.deferred] == [HttpCall, ContinueStream, HttpCall]


def test_where_capabilities_leave_it_out() -> None:
    rig = Rig(capabilities=frozenset(("proxy_log", "proxy_on_tick")))
    rig.during("proxy_on_tick", lambda: call(rig)[0])
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == Status.INTERNAL_FAILURE
    assert not rig.vm.deferred
