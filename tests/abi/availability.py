"""What every host function answers in every phase: the specification's and Envoy's word, not the code's.

Written after the specification's texts and the recordings of Envoy 1.40; `test_phases.py` asks the host all
of it, in every version, and `docs/abi.md` shows it. A row is one call; `elsewhere` is its answer in all
phases that `answers` does not name. Calls of one phase are made in the order of the rows, on one context;
those that are `alone` change what is available, so each of them gets a context of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import ANY

from abi.proxy_wasm.types import BufferType, Errno, MapType, Status, StreamType
from abi.proxy_wasm.versions import WASI_MODULES, AbiVersion
from abi.proxy_wasm.wire import encode_integer, encode_map
from tests.abi.phases import (
    CALL_HEADERS,
    CLUSTER,
    EVERY_VERSION,
    HIGRESS,
    HTTP,
    HTTP_STEPS,
    PHASES,
    REDIS_QUERY,
    SINCE_0_2_0,
    TCP,
    V010,
    V021,
)
from tests.abi.rig import BYTES, INPUT, LONG, OUTPUT, WORD, Rig

OK, MISSING, BAD = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT
REST = 0xFFFFFFFF


@dataclass(frozen=True)
class Row:
    """One call. `case` says what it is about where the function alone does not."""

    function: str
    case: str
    arguments: tuple[Any, ...]
    elsewhere: Any
    answers: Mapping[str, Any] = field(default_factory=dict)
    versions: tuple[AbiVersion, ...] = EVERY_VERSION
    alone: bool = False
    module: str = "env"

    def expected(self, phase: str) -> Any:
        """The answer in a phase."""
        return self.answers.get(phase, self.elsewhere)


STREAMS = tuple(phase.name for phase in (*HTTP, *TCP))
RESPONSE_BEGUN = tuple(name for name, _, _ in HTTP_STEPS[5:])


def _in(phases: tuple[str, ...], answer: Any) -> dict[str, Any]:
    return dict.fromkeys(phases, answer)


def _always(function: str, arguments: tuple[Any, ...], answer: Any, case: str = "", **more: Any) -> Row:
    return Row(function, case, arguments, answer, **more)


# --- logging, clocks, contexts ----------------------------------------------------------------------------

FAILED_CALL = (OK, 14, b"gone")
"""What `proxy_get_status` says of the gRPC stream that is closed in its phase; it is kept afterwards."""


CONFIGURED = ("plugin created", "configure")
"""Where the plugin's configuration can be read; in between, as the VM starts, it cannot."""


def _contexts() -> Iterator[Row]:
    yield _always("proxy_log", (2, b"line"), OK)
    yield _always("proxy_log", (6, b"line"), BAD, "unknown level")
    yield _always("proxy_get_log_level", (WORD,), (OK, 0), versions=(V021, HIGRESS))
    yield _always("proxy_get_current_time_nanoseconds", (LONG,), (OK, ANY))
    yield _always("proxy_set_tick_period_milliseconds", (0,), OK)
    yield _always("proxy_set_effective_context", (0,), OK, "0, the callback's own")
    yield _always("proxy_set_effective_context", (0x7FFF_FFFF,), BAD, "unknown")
    yield Row("proxy_set_effective_context", "a plugin's", (1,), OK, alone=True)
    yield Row("proxy_done", "", (), MISSING)
    yield Row("proxy_get_status", "", (WORD, BYTES), (OK, 0, b""), {"gRPC close": FAILED_CALL})
    yield Row(
        "proxy_get_configuration",
        "",
        (BYTES,),
        (OK, b"vm config"),
        dict.fromkeys(CONFIGURED, (OK, b"plugin config")),
        versions=(V010,),
    )


# --- properties -------------------------------------------------------------------------------------------


def _property(path: str, elsewhere: Any, answers: Mapping[str, Any] | None = None) -> Row:
    name = path.replace("/", "\0").encode()
    return Row("proxy_get_property", f"`{path.replace('/', '.')}`", (name, BYTES), elsewhere, answers or {})


UNKNOWN_PROPERTY, OPAQUE = (MISSING, None), (Status.SERIALIZATION_FAILURE, None)
REQUEST_READABLE = ("request headers", "log")
HTTP_PHASES = tuple(phase.name for phase in HTTP)
EMPTY_MAP = encode_map([])


def _properties() -> Iterator[Row]:
    none = UNKNOWN_PROPERTY
    yield _property("plugin_name", (OK, b"plugin"))
    yield _property("xds/node/id", (OK, b"node-1"))
    yield _property("request/headers/x", none, _in(REQUEST_READABLE, (OK, b"v")))
    yield _property(
        "request/headers",
        none,
        {**_in(STREAMS, (OK, EMPTY_MAP)), **_in(REQUEST_READABLE, (OK, encode_map([(b"x", b"v")])))},
    )
    yield _property("request/protocol", none, _in(STREAMS, (OK, b"HTTP/1.1")))
    yield _property("response/code", none, _in(RESPONSE_BEGUN, (OK, encode_integer(200))))
    yield _property(
        "response/headers/x",
        none,
        {**_in(("response headers", "log"), (OK, b"v"))},
    )
    yield _property("response/trailers/x", none, _in(("response trailers", "log"), (OK, b"v")))
    yield _property("connection/id", none, _in(STREAMS, (OK, encode_integer(7))))
    yield _property("source/address", none, _in(STREAMS, (OK, b"10.0.0.1:5")))
    yield _property("request", none, _in(STREAMS, OPAQUE))
    yield _property("nonsense", none)
    yield Row("proxy_get_property", "the empty path", (b"", BYTES), OPAQUE)
    yield Row("proxy_set_property", "", (b"k", b"own"), MISSING, _in(STREAMS, OK))
    yield _property("k", none, _in(STREAMS, (OK, b"own")))


# --- buffers ----------------------------------------------------------------------------------------------

BODIES = {
    BufferType.HTTP_REQUEST_BODY: ("request body", "request body's end"),
    BufferType.HTTP_RESPONSE_BODY: ("response body", "response body's end"),
    BufferType.DOWNSTREAM_DATA: ("downstream data",),
    BufferType.UPSTREAM_DATA: ("upstream data",),
}
"""Buffers that can be changed in these phases, and are empty in all others."""

READ_ONLY_BUFFERS = {
    BufferType.HTTP_CALL_RESPONSE_BODY: (("HTTP call response",), b"answer"),
    BufferType.GRPC_CALL_MESSAGE: (("gRPC message",), b"message"),
    BufferType.PLUGIN_CONFIGURATION: (CONFIGURED, b"plugin config"),
    BufferType.FOREIGN_FUNCTION_ARGUMENTS: (("foreign function",), b"args"),
}
MISSING_ELSEWHERE = (BufferType.HTTP_CALL_RESPONSE_BODY, BufferType.PLUGIN_CONFIGURATION)
REDIS_REPLY = 9


def _buffers() -> Iterator[Row]:
    get, status, put = "proxy_get_buffer_bytes", "proxy_get_buffer_status", "proxy_set_buffer_bytes"

    def rows(
        number: int, case: str, content: Mapping[str, bytes], writable: bool, **more: Any
    ) -> Iterator[Row]:
        absent = number in MISSING_ELSEWHERE
        some = {phase: (OK, data) for phase, data in content.items()}
        sizes = {phase: (OK, len(data), 0) for phase, data in content.items()}
        nothing, no_size, refused = (
            ((MISSING, None), (MISSING, None, None), MISSING) if absent else ((OK, b""), (OK, 0, 0), BAD)
        )
        yield Row(get, case, (number, 0, REST, BYTES), nothing, some, **more)
        yield Row(status, case, (number, WORD, WORD), no_size, sizes, **more)
        written = _in(tuple(content), OK if writable else BAD)
        yield Row(put, case, (number, 0, 0, b"x"), refused, written, **more)

    names = {kind: kind.name for kind in BufferType}
    for kind, phases in BODIES.items():
        yield from rows(kind, names[kind], dict.fromkeys(phases, b"body"), writable=True)
    for kind, (phases, data) in READ_ONLY_BUFFERS.items():
        yield from rows(kind, names[kind], dict.fromkeys(phases, data), writable=False)
    everywhere = dict.fromkeys((phase.name for phase in PHASES), b"vm config")
    yield from rows(BufferType.VM_CONFIGURATION, "VM_CONFIGURATION", everywhere, writable=False)
    yield from rows(
        REDIS_REPLY, "9, Redis reply", {"Redis reply": b"+PONG\r\n"}, writable=False, versions=(HIGRESS,)
    )
    unknown = tuple(version for version in EVERY_VERSION if version is not HIGRESS)
    yield Row(get, "unknown", (9, 0, REST, BYTES), (BAD, None), versions=unknown)
    yield Row(status, "unknown", (9, WORD, WORD), (BAD, None, None), versions=unknown)
    yield Row(put, "unknown", (9, 0, 0, b"x"), BAD, versions=unknown)


# --- header maps ------------------------------------------------------------------------------------------

WRITABLE_MAPS = {
    MapType.HTTP_REQUEST_HEADERS: ("request headers",),
    MapType.HTTP_REQUEST_TRAILERS: ("request trailers",),
    MapType.HTTP_RESPONSE_HEADERS: ("response headers",),
    MapType.HTTP_RESPONSE_TRAILERS: ("response trailers",),
}
CREATABLE_MAPS = {
    MapType.HTTP_REQUEST_TRAILERS: "request body's end",
    MapType.HTTP_RESPONSE_TRAILERS: "response body's end",
}
READ_ONLY_MAPS = {
    MapType.GRPC_CALL_INITIAL_METADATA: "gRPC initial metadata",
    MapType.GRPC_CALL_TRAILING_METADATA: "gRPC trailing metadata",
    MapType.HTTP_CALL_RESPONSE_HEADERS: "HTTP call response",
    MapType.HTTP_CALL_RESPONSE_TRAILERS: "HTTP call response",
}
LOGGED_MAPS = (
    MapType.HTTP_REQUEST_HEADERS,
    MapType.HTTP_RESPONSE_HEADERS,
    MapType.HTTP_RESPONSE_TRAILERS,
)


def _maps() -> Iterator[Row]:
    one = encode_map([(b"x", b"v")])
    for kind in MapType:
        case = kind.name
        written = list(WRITABLE_MAPS.get(kind, ()))
        read = [*written, *(["log"] if kind in LOGGED_MAPS else [])]
        if kind in READ_ONLY_MAPS:
            read.append(READ_ONLY_MAPS[kind])
        made = [CREATABLE_MAPS[kind]] if kind in CREATABLE_MAPS else []
        can_read, can_write = tuple(read), tuple(written)
        makes = tuple((*written, *made))
        for versions, missing in (((V010,), (OK, b"")), (SINCE_0_2_0, (MISSING, None))):
            in_log = {} if kind in LOGGED_MAPS else {"log": missing}
            yield Row(
                "proxy_get_header_map_value",
                case,
                (kind, b"x", BYTES),
                (BAD, None),
                {**in_log, **_in(can_read, (OK, b"v"))},
                versions,
            )
            yield Row(
                "proxy_get_header_map_value",
                f"{case}, a missing name",
                (kind, b"nope", BYTES),
                (BAD, None),
                {"log": missing, **_in(can_read, missing)},
                versions,
            )
        yield Row("proxy_get_header_map_pairs", case, (kind, BYTES), (OK, b""), _in(can_read, (OK, one)))
        size = {**_in(can_write, (OK, 2)), **_in(tuple(made), (OK, 0))}
        yield Row("proxy_get_header_map_size", case, (kind, WORD), (BAD, None), size)
        for name, arguments in (
            ("proxy_remove_header_map_value", (b"new",)),
            ("proxy_add_header_map_value", (b"new", b"1")),
            ("proxy_replace_header_map_value", (b"new", b"1")),
            ("proxy_set_header_map_pairs", (one,)),
        ):
            yield Row(name, case, (kind, *arguments), BAD, _in(makes, OK))
    unknown: tuple[tuple[str, tuple[Any, ...], Any], ...] = (
        ("proxy_get_header_map_value", (b"x", BYTES), (BAD, None)),
        ("proxy_get_header_map_pairs", (BYTES,), (BAD, None)),
        ("proxy_get_header_map_size", (WORD,), (BAD, None)),
        ("proxy_add_header_map_value", (b"x", b"1"), BAD),
        ("proxy_replace_header_map_value", (b"x", b"1"), BAD),
        ("proxy_remove_header_map_value", (b"x",), BAD),
        ("proxy_set_header_map_pairs", (one,), BAD),
    )
    for name, rest, answer in unknown:
        yield Row(name, "unknown", (8, *rest), answer)


# --- streams ----------------------------------------------------------------------------------------------

NO_GRPC = 0xFFFFFFFF


def _streams() -> Iterator[Row]:
    too_early = _in(tuple(name for name in HTTP_PHASES if name not in RESPONSE_BEGUN), BAD)
    for kind in StreamType:
        answer = Status.UNIMPLEMENTED if kind is StreamType.UPSTREAM else OK
        early = too_early if kind is StreamType.HTTP_RESPONSE else {}
        yield Row("proxy_continue_stream", kind.name, (kind,), answer, early, SINCE_0_2_0, alone=True)
        yield Row("proxy_close_stream", kind.name, (kind,), OK, versions=SINCE_0_2_0, alone=True)
    yield Row("proxy_continue_stream", "unknown", (4,), BAD, versions=SINCE_0_2_0)
    yield Row("proxy_close_stream", "unknown", (4,), BAD, versions=SINCE_0_2_0)
    yield Row("proxy_continue_request", "", (), OK, versions=(V010,), alone=True)
    yield Row("proxy_continue_response", "", (), OK, too_early, (V010,), alone=True)
    yield Row("proxy_clear_route_cache", "", (), OK, versions=(V010,))
    arguments = (403, b"why", b"body", b"", NO_GRPC)
    yield Row("proxy_send_local_response", "", arguments, OK, alone=True)


# --- call-outs, what VMs share ----------------------------------------------------------------------------


def _newest(kind: int) -> Callable[[Rig], int]:
    """The id of the newest gRPC call (1) or stream (2)."""
    return lambda rig: max(token for token in rig.vm.calls._calls if token & 3 == kind)


def _calls() -> Iterator[Row]:
    svc = CLUSTER.encode()
    yield _always("proxy_http_call", (svc, CALL_HEADERS, b"", b"", 1000, WORD), (OK, ANY))
    yield _always(
        "proxy_http_call", (b"nope", CALL_HEADERS, b"", b"", 1000, WORD), (BAD, 0), "unknown cluster"
    )
    yield _always("proxy_grpc_call", (svc, b"s", b"m", b"", b"message", 1000, WORD), (OK, ANY))
    yield _always("proxy_grpc_stream", (svc, b"s", b"m", b"", WORD), (OK, ANY))
    for name, rest in (
        ("proxy_grpc_send", (b"message", 0)),
        ("proxy_grpc_close", ()),
        ("proxy_grpc_cancel", ()),
    ):
        yield _always(name, (_newest(2), *rest), OK, "a stream")
        yield _always(name, (0x3FFF_FFFE, *rest), MISSING, "unknown")
        yield _always(name, (4, *rest), BAD, "not gRPC")
    yield _always("proxy_set_shared_data", (b"key", b"value", 0), OK)
    yield _always("proxy_set_shared_data", (b"key", b"value", 0x7FFF_FFFF), Status.CAS_MISMATCH, "old number")
    yield _always("proxy_get_shared_data", (b"key", BYTES, WORD), (OK, b"value", ANY))
    yield _always("proxy_get_shared_data", (b"nope", BYTES, WORD), (MISSING, None, None), "unknown key")
    yield _always("proxy_register_shared_queue", (b"queue", WORD), (OK, 1))
    yield _always("proxy_resolve_shared_queue", (b"", b"queue", WORD), (OK, 1))
    yield _always("proxy_resolve_shared_queue", (b"", b"nope", WORD), (MISSING, None), "unknown name")
    yield _always("proxy_enqueue_shared_queue", (1, b"item"), OK)
    yield _always("proxy_enqueue_shared_queue", (9, b"item"), MISSING, "unknown token")
    yield _always("proxy_dequeue_shared_queue", (1, BYTES), (OK, b"item"))
    yield _always("proxy_dequeue_shared_queue", (1, BYTES), (Status.EMPTY, None), "empty queue")
    yield _always("proxy_dequeue_shared_queue", (9, BYTES), (MISSING, None), "unknown token")
    yield _always("proxy_define_metric", (1, b"gauge", WORD), (OK, ANY))
    yield _always("proxy_define_metric", (3, b"gauge", WORD), (BAD, None), "unknown type")
    yield _always("proxy_increment_metric", (5, 1), OK)
    yield _always("proxy_increment_metric", (4000, 1), MISSING, "unknown id")
    yield _always("proxy_record_metric", (5, 1), OK)
    yield _always("proxy_record_metric", (4000, 1), MISSING, "unknown id")
    yield _always("proxy_get_metric", (5, LONG), (OK, 1))
    yield _always("proxy_get_metric", (4000, LONG), (MISSING, None), "unknown id")
    yield _always("proxy_call_foreign_function", (b"clear_route_cache", b"", BYTES), (OK, b""))
    yield _always("proxy_call_foreign_function", (b"nope", b"", BYTES), (MISSING, None), "unknown name")
    yield _always("emscripten_notify_memory_growth", (0,), None)
    yield _always("pthread_equal", (7, 7), 1)


# --- other hosts' -----------------------------------------------------------------------------------------


def _higress() -> Iterator[Row]:
    svc, own = CLUSTER.encode(), (HIGRESS,)
    yield _always("proxy_redis_init", (svc, b"user", b"password", 1000), OK, versions=own)
    yield _always("proxy_redis_call", (svc, REDIS_QUERY, WORD), (OK, ANY), versions=own)
    yield _always("proxy_inject_encoded_data_to_filter_chain", (b"x", 0), OK, versions=own)
    hosts = _in(STREAMS, (OK, ANY))
    yield Row("proxy_get_upstream_hosts", "", (BYTES,), (MISSING, None), hosts, own)
    yield _always("proxy_set_upstream_override_host", (b"10.0.0.1:5",), OK, versions=own)


# --- WASI -------------------------------------------------------------------------------------------------

WASI: dict[str, tuple[tuple[Any, ...], Any]] = {
    "fd_write": ((1, INPUT, 0, WORD), (0, 0)),
    "fd_pwrite": ((1, INPUT, 0, 0, WORD), (0, 0)),
    "fd_read": ((0, 0, 0, 0), Errno.NOSYS),
    "fd_pread": ((0, 0, 0, 0, 0), Errno.NOSYS),
    "fd_seek": ((1, 0, 0, WORD), (0, None)),
    "fd_tell": ((1, LONG), (0, 0)),
    "fd_close": ((1,), 0),
    "fd_fdstat_get": ((1, OUTPUT), 0),
    "fd_fdstat_set_flags": ((1, 0), Errno.NOSYS),
    "fd_fdstat_set_rights": ((1, 0, 0), 0),
    "fd_advise": ((1, 0, 0, 0), 0),
    "fd_allocate": ((1, 0, 0), 0),
    "fd_datasync": ((1,), 0),
    "fd_sync": ((1,), 0),
    "fd_filestat_get": ((1, OUTPUT), Errno.BADF),
    "fd_filestat_set_size": ((1, 0), 0),
    "fd_filestat_set_times": ((1, 0, 0, 0), 0),
    "fd_readdir": ((3, INPUT, 64, 0, WORD), (Errno.NOTDIR, 0)),
    "fd_renumber": ((1, 2), Errno.NOTSUP),
    "fd_prestat_get": ((3, OUTPUT), Errno.BADF),
    "fd_prestat_dir_name": ((3, OUTPUT, 8), Errno.NOSYS),
    "path_open": ((3, 0, 0, 0, 0, 0, 0, 0, OUTPUT), Errno.NOENT),
    "path_filestat_get": ((3, 0, 0, 0, OUTPUT), Errno.NOTSUP),
    "path_filestat_set_times": ((3, 0, 0, 0, 0, 0, 0), Errno.NOTSUP),
    "path_create_directory": ((3, 0, 0), Errno.NOTSUP),
    "path_link": ((3, 0, 0, 0, 3, 0, 0), Errno.NOTSUP),
    "path_readlink": ((3, 0, 0, 0, 0, OUTPUT), Errno.NOTSUP),
    "path_remove_directory": ((3, 0, 0), Errno.NOTSUP),
    "path_rename": ((3, 0, 0, 3, 0, 0), Errno.NOTSUP),
    "path_symlink": ((0, 0, 3, 0, 0), Errno.NOTSUP),
    "path_unlink_file": ((3, 0, 0), Errno.NOTSUP),
    "args_sizes_get": ((WORD, WORD), (0, 0, 0)),
    "args_get": ((OUTPUT, OUTPUT), 0),
    "environ_sizes_get": ((WORD, WORD), (0, 1, 4)),
    "environ_get": ((OUTPUT, OUTPUT + 64), 0),
    "clock_time_get": ((0, 0, LONG), (0, ANY)),
    "clock_res_get": ((0, LONG), (0, 1)),
    "random_get": ((OUTPUT, 8), 0),
    "sched_yield": ((), 0),
    "poll_oneoff": ((INPUT, OUTPUT, 0, WORD), (0, 0)),
    "proc_exit": ((0,), None),
    "sock_accept": ((3, 0, OUTPUT), Errno.NOTSUP),
    "sock_recv": ((3, 0, 0, 0, OUTPUT, OUTPUT), Errno.NOTSUP),
    "sock_send": ((3, 0, 0, 0, OUTPUT), Errno.NOTSUP),
    "sock_shutdown": ((3, 0), Errno.NOTSUP),
}
"""A call of each and its answer, the same at all times. Paths, sockets and files do not exist here."""


def _wasi() -> Iterator[Row]:
    for module in WASI_MODULES:
        for name, (arguments, answer) in WASI.items():
            yield Row(name, "", arguments, answer, module=module)


ROWS: tuple[Row, ...] = (
    *_contexts(),
    *_properties(),
    *_buffers(),
    *_maps(),
    *_streams(),
    *_calls(),
    *_higress(),
    *_wasi(),
)
