"""Higress' host functions: every status, what leaves as which effect, what can be read in the callback."""

from __future__ import annotations

import json
from typing import Any

import pytest

from abi import higress
from abi.higress import (
    VERSION,
    InjectBody,
    KeepRoute,
    OverrideHost,
    RedisCall,
    RedisInit,
    answered,
    failed,
    is_command,
)
from abi.proxy_wasm import callouts
from abi.proxy_wasm.calls.buffers import MAX_BODY
from abi.proxy_wasm.deferred import CancelCall
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.tcp import TcpContext
from abi.proxy_wasm.types import Action, LogLevel, Status, StreamType
from abi.proxy_wasm.versions import VERSIONS, callbacks, detect, host_function, host_functions
from abi.proxy_wasm.wire import decode_map
from tests.abi.rig import BYTES, WORD, Rig

OK, MISSING, BAD, FULL = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT, Status.INTERNAL_FAILURE
ANSWERED = "proxy_on_redis_call_response"
GET = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"


def rig(**arguments: Any) -> Rig:
    return Rig(VERSION, **arguments)


def ticking(made: Rig, *calls: tuple[Any, ...]) -> list[Any]:
    """What calls give in a tick."""
    made.during("proxy_on_tick", lambda: [made.ask(*call) for call in calls])
    made.plugin.tick()
    answers: list[Any] = made.results["proxy_on_tick"]
    return answers


def effects(made: Rig) -> list[Any]:
    """What the guest has asked for; the test knows of which kind it is."""
    return list(made.vm.deferred)


def call(target: bytes = b"svc", query: bytes = GET) -> tuple[Any, ...]:
    return "proxy_redis_call", target, query, WORD


def init(
    target: bytes = b"svc", user: bytes = b"", password: bytes = b"", timeout: int = 500
) -> tuple[Any, ...]:
    return "proxy_redis_init", target, user, password, timeout


# --- the version ------------------------------------------------------------------------------------------


def test_it_is_an_add_on() -> None:
    names = {row.name for row in host_functions(VERSION)}
    base = {row.name for row in host_functions(VERSIONS[-1])}
    assert names - base == {
        "proxy_redis_init",
        "proxy_redis_call",
        "proxy_inject_encoded_data_to_filter_chain",
        "proxy_get_upstream_hosts",
        "proxy_set_upstream_override_host",
    }
    assert base <= names
    assert detect(["memory", "proxy_abi_version_0_2_100"]) == VERSION
    assert detect(["proxy_abi_version_0_2_100", "proxy_abi_version_0_1_0"]) == VERSION
    assert detect(["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_100"]) is VERSIONS[0]
    assert (str(VERSION), VERSION.base) == ("0.2.100", VERSIONS[-1])


@pytest.mark.parametrize("version", VERSIONS)
def test_other_versions_have_nothing_of_it(version: Any) -> None:
    assert ANSWERED not in callbacks(version)
    assert host_function(version, "env", "proxy_redis_call") is None
    made = Rig(version)
    assert made.ask("proxy_get_buffer_bytes", higress.REDIS_CALL_RESPONSE, 0, 9, BYTES) == (BAD, None)


@pytest.mark.parametrize("row", higress.EXTENSION.functions, ids=lambda row: row.name)
def test_the_tables_signature_is_the_implementations(row: Any) -> None:
    assert row.call.signature.split() == row.signature.split()


# --- Redis ------------------------------------------------------------------------------------------------


def test_a_call() -> None:
    made = rig()
    assert ticking(made, init(b"svc?db=3", b"me", b"secret", 700), call(b"svc?db=3"), call()) == [
        OK,
        (OK, 11),
        (OK, 15),
    ]
    first, second, third = made.vm.deferred
    assert first == RedisInit(made.plugin, 7, "svc", b"me", b"secret", 700, 3)
    assert second == RedisCall(made.plugin, 11, 7, GET)
    assert third == RedisCall(made.plugin, 15, 7, GET)
    assert {token & 3 for token in (7, 11, 15)} == {3}


def test_a_call_without_init_has_defaults() -> None:
    made = rig()
    assert ticking(made, call()) == [(OK, 11)]
    assert list(made.vm.deferred) == [RedisInit(made.plugin, 7, "svc"), RedisCall(made.plugin, 11, 7, GET)]
    assert effects(made)[0].timeout_ms == 1000


def test_the_last_init_counts() -> None:
    made = rig()
    ticking(made, *[init(timeout=number) for number in range(100)], init(b"other"))
    assert [(one.cluster, one.timeout_ms) for one in effects(made)] == [("svc", 99), ("other", 500)]
    made.vm.deferred.clear()
    ticking(made, init(timeout=7))
    assert list(made.vm.deferred) == [RedisInit(made.plugin, 7, "svc", timeout_ms=7)]  # the same session


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (init(b"nosuch"), BAD),
        (init(b""), BAD),
        (init(b"svc?db=x"), BAD),
        (init(b"svc?db=-1"), BAD),
        (init(b"svc?db=1234567890"), BAD),
        (init(b"svc?db="), OK),
        (init(b"svc?buffer_flush_timeout=3&db=2"), OK),
        (init(password=bytes(higress.MAX_SETTING + 1)), FULL),
        (call(b"nosuch"), (BAD, 0)),
        (call(b"?db=1"), (BAD, 0)),
        (call(query=b""), (BAD, 0)),
        (call(query=b"PING\r\n"), (BAD, 0)),
        (call(query=GET + GET), (BAD, 0)),
    ],
)
def test_statuses(asked: tuple[Any, ...], status: Any) -> None:
    made = rig()
    assert ticking(made, asked) == [status]
    assert len(made.vm.deferred) == (status == OK)


def test_outside_of_a_plugin() -> None:
    made = rig()
    assert made.ask(*init()) == FULL
    assert made.ask(*call()) == (FULL, 0)


def test_a_cluster_without_hosts() -> None:
    made = rig()
    made.host.cluster_hosts = lambda name: []
    assert ticking(made, call()) == [(FULL, 0)]


def test_places_outside_memory() -> None:
    made = rig()
    fault = Status.INVALID_MEMORY_ACCESS
    assert (
        ticking(
            made,
            ("proxy_redis_init", 0xFFFFFFF0, 64, b"", b"", 1),
            ("proxy_redis_init", b"svc", 0xFFFFFFF0, 64, b"", 1),
            ("proxy_redis_init", b"svc", b"", 0xFFFFFFF0, 64, 1),
            ("proxy_redis_call", 0xFFFFFFF0, 64, GET, 0x30000),
            ("proxy_redis_call", b"svc", 0xFFFFFFF0, 64, 0x30000),
            ("proxy_redis_call", b"svc", GET, 0xFFFFFFFE),
            ("proxy_inject_encoded_data_to_filter_chain", 0xFFFFFFF0, 64, 0),
            ("proxy_set_upstream_override_host", 0xFFFFFFF0, 64),
        )
        == [fault] * 8
    )
    assert not made.vm.deferred
    assert not len(made.vm.calls)


def test_calls_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callouts, "MAX_CALLS", 3)
    made = rig()
    answers = ticking(made, call(), call(), call())
    assert answers == [(OK, 11), (OK, 15), (FULL, 0)]
    monkeypatch.setattr(callouts, "MAX_CALLS", 0)
    assert ticking(made, init(b"other"), call(b"other")) == [FULL, (FULL, 0)]


def test_what_is_refused_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for a session no call is begun; a session that was made is set up, whatever came next."""
    made = rig()
    monkeypatch.setattr(callouts, "MAX_CALL_BYTES", 3 * higress.MAX_SETTING - 1)
    assert ticking(made, call()) == [(FULL, 0)]
    assert not len(made.vm.calls)
    monkeypatch.setattr(callouts, "MAX_CALL_BYTES", 3 * higress.MAX_SETTING + len(GET))
    assert ticking(made, call(), call()) == [(OK, 11), (FULL, 0)]
    made.vm.deferred.clear()
    monkeypatch.setattr(callouts, "MAX_CALL_BYTES", 6 * higress.MAX_SETTING + len(GET))
    assert ticking(made, call(b"other")) == [(FULL, 0)]
    assert [type(one) for one in made.vm.deferred] == [RedisInit]


@pytest.mark.parametrize(
    "query",
    [GET, b"*1\r\n$4\r\nPING\r\n", b"*1\r\n$0\r\n\r\n", b"*2\r\n$3\r\nSET\r\n$4\r\n\r\n\r\n\r\n"],
)
def test_commands(query: bytes) -> None:
    assert is_command(query)
    assert not is_command(query[:-1])
    assert not is_command(query + b"\r\n")


@pytest.mark.parametrize(
    "query",
    [
        b"*0\r\n",
        b"*-1\r\n",
        b"*",
        b"*1\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$4\r\nPIN\r\n",
        b"*1\r\n$2\r\nPING\r\n",
        b"*1\r\n$9999999999\r\nPING\r\n",
        b"*9999999\r\n$4\r\nPING\r\n",
        b"$4\r\nPING\r\n",
        b"*1\r\n$4\r\nPINGxx",
        b"*1\n$4\nPING\n",
    ],
)
def test_what_is_no_command(query: bytes) -> None:
    assert not is_command(query)


def look(made: Rig) -> list[Any]:
    return [
        made.ask("proxy_get_buffer_bytes", 9, 0, 0xFFFFFFFF, BYTES),
        made.ask("proxy_get_buffer_status", 9, WORD, WORD),
        made.ask("proxy_set_buffer_bytes", 9, 0, 0, b"x"),
        made.ask("proxy_get_status", WORD, BYTES),
    ]


def test_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig()
    ticking(made, call())
    seen: list[tuple[int, ...]] = []
    run = made.vm.run

    def noted(context: Any, name: str, *rest: int, **more: Any) -> int:
        seen.append((context.id, *rest))
        return run(context, name, *rest, **more)

    monkeypatch.setattr(made.vm, "run", noted)
    made.during(ANSWERED, lambda: look(made))
    answered(made.plugin, 11, b"$1\r\nv\r\n")
    assert seen == [(1, 1, 11, 0, 7)]
    assert made.results[ANSWERED] == [(OK, b"$1\r\nv\r\n"), (OK, 7, 0), BAD, (OK, 0, b"")]
    made.during("proxy_on_tick", lambda: look(made))
    made.plugin.tick()
    assert made.results["proxy_on_tick"][:2] == [(OK, b""), (OK, 0, 0)]
    answered(made.plugin, 11, b"+again\r\n")
    assert made.called.count(ANSWERED) == 1


def test_a_failure() -> None:
    made = rig()
    ticking(made, call())
    made.during(ANSWERED, lambda: look(made))
    failed(made.plugin, 11)
    assert made.results[ANSWERED] == [(OK, b""), (OK, 0, 0), BAD, (OK, 11, b"reset")]


def test_nobody_waits_for_a_session_and_it_ends_with_its_plugin() -> None:
    made = rig()
    other = Plugin(made.vm, name="other")
    ticking(made, call())
    assert made.vm.calls.expected(made.plugin)
    answered(made.plugin, 11, b"+OK\r\n")
    assert not made.vm.calls.expected(made.plugin)
    assert not made.vm.calls.of(other)
    made.vm.deferred.clear()
    assert made.plugin.close()
    assert list(made.vm.deferred) == [CancelCall(made.plugin, 7)]


# --- the exchange -----------------------------------------------------------------------------------------

INJECT, OVERRIDE = "proxy_inject_encoded_data_to_filter_chain", "proxy_set_upstream_override_host"


def in_a_request(made: Rig, *calls: tuple[Any, ...], info: StreamInfo | None = None) -> list[Any]:
    made.during("proxy_on_request_headers", lambda: [made.ask(*one) for one in calls])
    made.plugin.http_stream(info).on_request_headers(HeaderMap(), True)
    answers: list[Any] = made.results["proxy_on_request_headers"]
    return answers


def test_injections_and_hosts_leave_in_order() -> None:
    made = rig()
    calls = [
        (INJECT, b"a", 0),
        (INJECT, b"b", 0),
        (OVERRIDE, b"1.2.3.4:5"),
        (INJECT, b"c", 1),
        (INJECT, b"", 7),
    ]
    assert in_a_request(made, *calls) == [OK] * 5
    told = [
        (bytes(one.data), one.end_of_stream) if isinstance(one, InjectBody) else one.address
        for one in effects(made)
    ]
    assert told == [(b"ab", False), "1.2.3.4:5", (b"c", True), (b"", True)]
    assert isinstance(made.vm.deferred[1], OverrideHost)


def test_injections_go_to_the_stream_that_is_acted_on() -> None:
    made = rig()
    stream = made.plugin.http_stream()
    stream.on_request_headers(HeaderMap(), True)
    ticking(made, ("proxy_set_effective_context", stream.id), (INJECT, b"late", 1))
    assert list(made.vm.deferred) == [InjectBody(stream, bytearray(b"late"), True)]


def test_outside_of_an_exchange_nothing_happens() -> None:
    made = rig()
    assert ticking(made, (INJECT, b"x", 0), (OVERRIDE, b"x"), ("proxy_get_upstream_hosts", BYTES)) == [
        OK,
        OK,
        (MISSING, None),
    ]
    made.during("proxy_on_new_connection", lambda: [made.ask(INJECT, b"x", 0), made.ask(OVERRIDE, b"x")])
    TcpContext(made.plugin).on_new_connection()
    assert made.results["proxy_on_new_connection"] == [OK, OK]
    assert not made.vm.deferred


def test_what_waits_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig()
    monkeypatch.setattr(higress, "MAX_BODY", 300)
    calls = [(INJECT, bytes(100), 0)] * 4 + [(INJECT, b"x", 1)]
    assert in_a_request(made, *calls) == [OK, OK, OK, FULL, FULL]
    assert MAX_BODY == 1 << 26
    made = rig()
    many = in_a_request(made, *[(OVERRIDE, b"x")] * 1100)
    assert (many.count(OK), many.count(FULL)) == (1025, 75)
    made = rig()
    assert in_a_request(made, (OVERRIDE, bytes(higress.MAX_SETTING + 1))) == [FULL]


def test_the_hosts_of_the_routes_cluster() -> None:
    made = rig()
    made.host.cluster_hosts = lambda name: ["10.0.0.1:80", "[::1]:8"] if name == "svc" else []
    ask = ("proxy_get_upstream_hosts", BYTES)
    [(status, data)] = in_a_request(made, ask, info=StreamInfo(cluster_name="svc"))
    assert status == OK
    pairs = decode_map(data)
    assert [host for host, _ in pairs] == [b"10.0.0.1:80", b"[::1]:8"]
    assert json.loads(pairs[0][1]) == {"health_status": "Healthy", "metrics": ""}
    assert in_a_request(made, ask, info=StreamInfo(cluster_name="empty")) == [(OK, b"")]
    assert in_a_request(made, ask, info=StreamInfo(cluster_name="")) == [(MISSING, None)]
    assert in_a_request(made, ask) == [(MISSING, None)]
    assert in_a_request(rig(), ask, info=StreamInfo(cluster_name="svc")) == [(MISSING, None)]


# --- settings by property ---------------------------------------------------------------------------------


def set_in_a_request(made: Rig, *pairs: tuple[bytes, bytes]) -> list[Any]:
    """What the guest has asked for that sets these properties of an exchange with one header."""
    info, headers = StreamInfo(), HeaderMap([("x-to", "first")])
    asked = [("proxy_set_property", *pair) for pair in pairs]
    made.during("proxy_on_request_headers", lambda: [made.ask(*one) for one in asked])
    made.plugin.http_stream(info).on_request_headers(headers, True)
    assert made.results["proxy_on_request_headers"] == [OK] * len(pairs)
    assert [info.filter_state.get(b"wasm." + name) for name, _ in dict(pairs).items()] == list(
        dict(pairs).values()
    )
    headers.set("x-to", "changed afterwards")
    return effects(made)


def test_the_route_is_kept_as_it_is_when_the_guest_asks() -> None:
    off = (b"clear_route_cache", b"off")
    [kept] = set_in_a_request(rig(), off, off)
    assert isinstance(kept, KeepRoute)
    assert kept.headers.lines == [(b"x-to", b"first")]
    assert set_in_a_request(rig(), (b"clear_route_cache", b"on")) == []


@pytest.mark.parametrize(
    ("name", "side"),
    [
        (b"set_decoder_buffer_limit", StreamType.HTTP_REQUEST),
        (b"set_encoder_buffer_limit", StreamType.HTTP_RESPONSE),
    ],
)
def test_limits_of_what_may_wait(name: bytes, side: StreamType) -> None:
    pairs = [(name, value) for value in (b"70", b"0", b"70", b"104857600", b"9999999999")]
    limits = set_in_a_request(rig(), *pairs)
    assert [(one.stream_type, one.size) for one in limits] == [(side, 70), (side, 0), (side, MAX_BODY)]
    for odd in (b"", b"-1", b"7k", b"1" * 11, b"0x10"):
        assert set_in_a_request(rig(), (name, odd)) == []


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_for_other_guests_they_are_properties_and_nothing_more(version: Any) -> None:
    settings = [(name, b"off") for name in higress.COMMANDS]
    assert set_in_a_request(Rig(version), *settings) == []


def test_settings_outside_of_an_exchange() -> None:
    assert ticking(rig(), ("proxy_set_property", b"clear_route_cache", b"off")) == [MISSING]


@pytest.mark.parametrize("level", [LogLevel.TRACE, LogLevel.WARN])
def test_the_level_that_is_logged(level: LogLevel) -> None:
    ask = ("proxy_call_foreign_function", b"get_log_level", b"", BYTES)
    for version, answer in ((VERSION, (OK, bytes((level, 0, 0, 0)))), (VERSIONS[-1], (MISSING, None))):
        made = Rig(version)

        def tick(made: Rig = made) -> Any:
            made.host.log_level = level
            return made.ask(*ask)

        made.during("proxy_on_tick", tick)
        made.plugin.tick()
        assert made.results["proxy_on_tick"] == answer


@pytest.mark.parametrize(("version", "alone"), [(VERSION, True), (VERSIONS[-1], False)], ids=str)
@pytest.mark.parametrize("name", ["request", "response"])
def test_headers_that_stop_stop_alone(version: Any, alone: bool, name: str) -> None:
    """What Envoy does with `allow_on_headers_stop_iteration`, Higress always does: the body still comes."""
    made = Rig(version)
    stream = made.plugin.http_stream()
    if name == "response":
        stream.on_request_headers(HeaderMap(), False)
    made.returns(f"proxy_on_{name}_headers", 1)
    action = getattr(stream, f"on_{name}_headers")(HeaderMap(), False)
    assert action is (Action.STOP_ITERATION if alone else Action.STOP_ALL_AND_WATERMARK)
