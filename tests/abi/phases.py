"""Every phase a guest can be called in, and how to get there: the columns of the ABI's availability table.

A phase is a callback, told apart by whose context it is for. `Phase.reach` brings a `Rig` into it once, with
a context that is new; what the test asks there is the rig's hook for that callback.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from abi import higress
from abi.proxy_wasm.contexts import HttpContext
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.tcp import TcpContext
from abi.proxy_wasm.types import PeerType
from abi.proxy_wasm.versions import VERSIONS, AbiVersion
from abi.proxy_wasm.wire import encode_map
from tests.abi.rig import WORD, Rig

V010, V020, V021 = VERSIONS
HIGRESS = higress.VERSION
EVERY_VERSION = (*VERSIONS, HIGRESS)
SINCE_0_2_0 = (V020, V021, HIGRESS)

CLUSTER = "svc"
CALL_HEADERS = encode_map([(b":method", b"GET"), (b":path", b"/"), (b":authority", b"a")])
REDIS_QUERY = b"*1\r\n$4\r\nPING\r\n"


@dataclass(frozen=True, slots=True)
class Phase:
    """`kind` is whose context it is: a plugin's root context, an HTTP stream, a TCP connection."""

    name: str
    kind: str
    callback: str
    reach: Callable[[Rig], None]
    versions: tuple[AbiVersion, ...] = EVERY_VERSION


def lines() -> HeaderMap:
    """What every map holds where it is available."""
    return HeaderMap([("x", "v")])


# --- root contexts --------------------------------------------------------------------------------------


def _another_plugin(rig: Rig) -> None:
    Plugin(rig.vm, name=rig.plugin.name, config=rig.plugin.config)


def _end(rig: Rig) -> None:
    Plugin(rig.vm, name=rig.plugin.name).close()


def _token(rig: Rig, name: str, *arguments: int | bytes) -> int:
    """The token of a call that the guest begins in a tick."""
    kept = dict(rig.hooks)
    rig.during("proxy_on_tick", lambda: rig.ask(name, *arguments, WORD))
    rig.plugin.tick()
    status, token = rig.results.pop("proxy_on_tick")
    rig.hooks = kept
    if status != 0:
        raise AssertionError(f"{name} could not be called in a tick: {status}")
    return int(token)


def _http_call(rig: Rig) -> None:
    token = _token(rig, "proxy_http_call", CLUSTER.encode(), CALL_HEADERS, b"", b"", 1000)
    rig.plugin.http_call_response(token, lines(), b"answer", lines())


def _stream(rig: Rig) -> int:
    return _token(rig, "proxy_grpc_stream", CLUSTER.encode(), b"s", b"m", b"")


def _redis_call(rig: Rig) -> None:
    token = _token(rig, "proxy_redis_call", CLUSTER.encode(), REDIS_QUERY)
    higress.answered(rig.plugin, token, b"+PONG\r\n")


PLUGIN = (
    Phase("plugin created", "root", "proxy_on_context_create", _another_plugin),
    Phase("VM start", "root", "proxy_on_vm_start", _another_plugin),
    Phase("configure", "root", "proxy_on_configure", _another_plugin),
    Phase("tick", "root", "proxy_on_tick", lambda rig: rig.plugin.tick()),
    Phase("queue ready", "root", "proxy_on_queue_ready", lambda rig: rig.plugin.queue_ready(1)),
    Phase(
        "foreign function",
        "root",
        "proxy_on_foreign_function",
        lambda rig: rig.plugin.on_foreign_function(5, b"args"),
        SINCE_0_2_0,
    ),
    Phase("HTTP call response", "root", "proxy_on_http_call_response", _http_call),
    Phase(
        "gRPC initial metadata",
        "root",
        "proxy_on_grpc_receive_initial_metadata",
        lambda rig: rig.plugin.grpc_initial_metadata(_stream(rig), lines()),
    ),
    Phase(
        "gRPC message",
        "root",
        "proxy_on_grpc_receive",
        lambda rig: rig.plugin.grpc_message(_stream(rig), b"message"),
    ),
    Phase(
        "gRPC trailing metadata",
        "root",
        "proxy_on_grpc_receive_trailing_metadata",
        lambda rig: rig.plugin.grpc_trailing_metadata(_stream(rig), lines()),
    ),
    Phase(
        "gRPC close",
        "root",
        "proxy_on_grpc_close",
        lambda rig: rig.plugin.grpc_closed(_stream(rig), 14, b"gone"),
    ),
    Phase("Redis reply", "root", "proxy_on_redis_call_response", _redis_call, (HIGRESS,)),
    Phase("plugin done", "root", "proxy_on_done", _end),
    Phase("plugin deleted", "root", "proxy_on_delete", _end),
)


# --- HTTP streams -----------------------------------------------------------------------------------------


def facts() -> StreamInfo:
    """What is known of an exchange or a connection."""
    return StreamInfo(protocol="HTTP/1.1", connection_id=7, source_address="10.0.0.1:5", cluster_name=CLUSTER)


def _response_begins(stream: HttpContext) -> None:
    stream.info.response_code = 200
    stream.on_response_headers(lines(), False)


HTTP_STEPS: tuple[tuple[str, str, Callable[[HttpContext], object]], ...] = (
    ("request headers", "proxy_on_request_headers", lambda s: s.on_request_headers(lines(), False)),
    ("request metadata", "proxy_on_request_metadata", lambda s: s.on_request_metadata(1)),
    ("request body", "proxy_on_request_body", lambda s: s.on_request_body(bytearray(b"body"), False)),
    ("request body's end", "proxy_on_request_body", lambda s: s.on_request_body(bytearray(b"body"), True)),
    ("request trailers", "proxy_on_request_trailers", lambda s: s.on_request_trailers(lines())),
    ("response headers", "proxy_on_response_headers", _response_begins),
    ("response metadata", "proxy_on_response_metadata", lambda s: s.on_response_metadata(1)),
    ("response body", "proxy_on_response_body", lambda s: s.on_response_body(bytearray(b"body"), False)),
    ("response body's end", "proxy_on_response_body", lambda s: s.on_response_body(bytearray(b"body"), True)),
    ("response trailers", "proxy_on_response_trailers", lambda s: s.on_response_trailers(lines())),
    ("log", "proxy_on_log", lambda s: s.on_log()),
    ("done", "proxy_on_done", lambda s: s.on_done()),
    ("deleted", "proxy_on_delete", lambda s: s.on_delete()),
)


def _exchange_until(name: str, callback: str) -> Callable[[Rig], None]:
    """All steps of an exchange before one, then that one; only in it the rig has its hook."""

    def reach(rig: Rig) -> None:
        hook = rig.hooks.pop(callback)
        stream = rig.plugin.http_stream(facts())
        for step, _, run in HTTP_STEPS:
            if step == name:
                rig.hooks[callback] = hook
                run(stream)
                return
            run(stream)

    return reach


def _new_exchange(rig: Rig) -> None:
    rig.plugin.http_stream(facts()).on_request_headers(lines(), False)


HTTP = (
    Phase("stream created", "http", "proxy_on_context_create", _new_exchange),
    *(Phase(name, "http", callback, _exchange_until(name, callback)) for name, callback, _ in HTTP_STEPS),
)


# --- TCP connections --------------------------------------------------------------------------------------

TCP_STEPS: tuple[tuple[str, str, Callable[[TcpContext], object]], ...] = (
    ("new connection", "proxy_on_new_connection", lambda s: s.on_new_connection()),
    ("downstream data", "proxy_on_downstream_data", lambda s: s.on_downstream_data(bytearray(b"body"), True)),
    ("upstream data", "proxy_on_upstream_data", lambda s: s.on_upstream_data(bytearray(b"body"), False)),
    (
        "upstream close",
        "proxy_on_upstream_connection_close",
        lambda s: s.on_upstream_data(bytearray(), True),
    ),
    (
        "downstream close",
        "proxy_on_downstream_connection_close",
        lambda s: s.on_downstream_connection_close(PeerType.REMOTE),
    ),
    ("connection done", "proxy_on_done", lambda s: s.on_done()),
    ("connection log", "proxy_on_log", lambda s: s.on_log()),
    ("connection deleted", "proxy_on_delete", lambda s: s.on_delete()),
)


def _connection_until(name: str, callback: str) -> Callable[[Rig], None]:
    def reach(rig: Rig) -> None:
        hook = rig.hooks.pop(callback)
        connection = rig.plugin.tcp_stream(facts())
        for step, _, run in TCP_STEPS:
            if step == name:
                rig.hooks[callback] = hook
                run(connection)
                return
            run(connection)

    return reach


def _new_connection(rig: Rig) -> None:
    rig.plugin.tcp_stream(facts()).on_new_connection()


TCP = (
    Phase("connection created", "tcp", "proxy_on_context_create", _new_connection),
    *(Phase(name, "tcp", callback, _connection_until(name, callback)) for name, callback, _ in TCP_STEPS),
)

PHASES: tuple[Phase, ...] = (*PLUGIN, *HTTP, *TCP)
"""All of them, but for those before there is a context (`Phase` in `abi/proxy_wasm/versions.py`)."""

KINDS = {"root": "Plugin (root context)", "http": "HTTP stream", "tcp": "TCP connection"}
