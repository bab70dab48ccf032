"""The ABI as data: every host function and every callback, with its signature and the versions that have it.

Source: proxy-wasm specification 0.1.0, 0.2.0, 0.2.1; what Envoy 1.40 registers for which marker. Linking
(`linking.py`), `pywasmvm inspect` and the tests read these tables. Further versions, rows and buffers come
from extensions (`extensions.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Flag
from typing import ClassVar

from abi.hostcall import HostCall
from abi.proxy_wasm.calls import (
    buffers,
    foreign,
    grpc,
    http_call,
    http_fields,
    lifecycle,
    log,
    metrics,
    properties,
    shared_data,
    shared_queue,
    streams,
    wasi,
)
from abi.proxy_wasm.extensions import extensions, extensions_in_use


@dataclass(frozen=True, slots=True)
class AbiVersion:
    """A version of the ABI. `value` is the name in its marker export; it has all that its `base` has, too."""

    value: str
    base: AbiVersion | None = None
    headers_stop_alone: bool = False
    """Whether a headers callback's 1 holds the headers only, as with `allow_on_headers_stop_iteration`."""

    V0_1_0: ClassVar[AbiVersion]
    V0_2_0: ClassVar[AbiVersion]
    V0_2_1: ClassVar[AbiVersion]

    def within(self, versions: frozenset[AbiVersion]) -> bool:
        """Whether what these versions have is this version's, too."""
        return self in versions or (self.base is not None and self.base.within(versions))

    @property
    def marker(self) -> str:
        """The exported function that tells a module's version. It is never called."""
        return MARKER + self.value

    @property
    def headers_tell_end_of_stream(self) -> bool:
        """Whether the headers callbacks have a third parameter."""
        return not self.within(FIRST)

    @property
    def missing_header_is_empty(self) -> bool:
        """Whether reading a missing header gives the empty value instead of NOT_FOUND."""
        return self.within(FIRST)

    def __str__(self) -> str:
        return self.value.replace("_", ".")


AbiVersion.V0_1_0, AbiVersion.V0_2_0, AbiVersion.V0_2_1 = map(AbiVersion, ("0_1_0", "0_2_0", "0_2_1"))

VERSIONS = (AbiVersion.V0_1_0, AbiVersion.V0_2_0, AbiVersion.V0_2_1)
"""The versions of the specification, the oldest first."""

MARKER = "proxy_abi_version_"
MARKERS = {version.marker: version for version in VERSIONS}

ALL = frozenset(VERSIONS)
FIRST = frozenset((AbiVersion.V0_1_0,))
SINCE_0_2_0 = ALL - FIRST
SINCE_0_2_1 = SINCE_0_2_0 - {AbiVersion.V0_2_0}


class Phase(Flag):
    """A time when only some host functions may be called (specification: "restricted" calls; Envoy: same)."""

    START_SECTION = 1  # the module's start function, before there is an instance
    INITIALIZE = 2  # _initialize, main, _start
    ALLOCATOR = 4  # malloc, proxy_on_memory_allocate

    NONE = 0
    EVERY = START_SECTION | INITIALIZE | ALLOCATOR


@dataclass(frozen=True, slots=True)
class HostFunction:
    """One row: an import that guests may have.

    `call` is what answers it; `allowed` are the restricted phases in which it may be called. `resultless`
    rows may also be imported with no result (0.1.0's text has none where Envoy has one).
    """

    module: str
    name: str
    signature: str
    versions: frozenset[AbiVersion]
    call: HostCall
    allowed: Phase = Phase.NONE
    resultless: bool = False


def _env(
    call: HostCall,
    signature: str,
    versions: frozenset[AbiVersion] = ALL,
    allowed: Phase = Phase.NONE,
    resultless: bool = False,
) -> HostFunction:
    return HostFunction("env", call.name, signature, versions, call, allowed, resultless)


_ENV = (
    # logging and clocks
    _env(log.proxy_log, "i32 i32 i32 -> i32", allowed=Phase.EVERY),
    _env(log.proxy_get_log_level, "i32 -> i32", SINCE_0_2_1),
    _env(log.proxy_get_current_time_nanoseconds, "i32 -> i32"),
    # contexts
    _env(lifecycle.proxy_set_tick_period_milliseconds, "i32 -> i32"),
    _env(lifecycle.proxy_set_effective_context, "i32 -> i32"),
    _env(lifecycle.proxy_done, " -> i32"),
    _env(lifecycle.proxy_get_status, "i32 i32 i32 -> i32"),
    # configuration and properties
    _env(buffers.proxy_get_configuration, "i32 i32 -> i32", FIRST),
    _env(properties.proxy_get_property, "i32 i32 i32 i32 -> i32"),
    _env(properties.proxy_set_property, "i32 i32 i32 i32 -> i32"),
    # buffers
    _env(buffers.proxy_get_buffer_bytes, "i32 i32 i32 i32 i32 -> i32"),
    _env(buffers.proxy_get_buffer_status, "i32 i32 i32 -> i32"),
    _env(buffers.proxy_set_buffer_bytes, "i32 i32 i32 i32 i32 -> i32"),
    # header maps
    _env(http_fields.proxy_get_header_map_size, "i32 i32 -> i32"),
    _env(http_fields.proxy_get_header_map_pairs, "i32 i32 i32 -> i32"),
    _env(http_fields.proxy_set_header_map_pairs, "i32 i32 i32 -> i32"),
    _env(http_fields.proxy_get_header_map_value, "i32 i32 i32 i32 i32 -> i32"),
    _env(http_fields.proxy_add_header_map_value, "i32 i32 i32 i32 i32 -> i32"),
    _env(http_fields.proxy_replace_header_map_value, "i32 i32 i32 i32 i32 -> i32"),
    _env(http_fields.proxy_remove_header_map_value, "i32 i32 i32 -> i32"),
    # streams
    _env(streams.proxy_continue_stream, "i32 -> i32", SINCE_0_2_0),
    _env(streams.proxy_close_stream, "i32 -> i32", SINCE_0_2_0),
    _env(streams.proxy_continue_request, " -> i32", FIRST, resultless=True),
    _env(streams.proxy_continue_response, " -> i32", FIRST, resultless=True),
    _env(streams.proxy_clear_route_cache, " -> i32", FIRST, resultless=True),
    _env(streams.proxy_send_local_response, "i32 i32 i32 i32 i32 i32 i32 i32 -> i32"),
    # call-outs
    _env(http_call.proxy_http_call, "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 -> i32"),
    _env(grpc.proxy_grpc_call, "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 -> i32"),
    _env(grpc.proxy_grpc_stream, "i32 i32 i32 i32 i32 i32 i32 i32 i32 -> i32"),
    _env(grpc.proxy_grpc_send, "i32 i32 i32 i32 -> i32"),
    _env(grpc.proxy_grpc_cancel, "i32 -> i32"),
    _env(grpc.proxy_grpc_close, "i32 -> i32"),
    # what VMs share
    _env(shared_data.proxy_get_shared_data, "i32 i32 i32 i32 i32 -> i32"),
    _env(shared_data.proxy_set_shared_data, "i32 i32 i32 i32 i32 -> i32"),
    _env(shared_queue.proxy_register_shared_queue, "i32 i32 i32 -> i32"),
    _env(shared_queue.proxy_resolve_shared_queue, "i32 i32 i32 i32 i32 -> i32"),
    _env(shared_queue.proxy_enqueue_shared_queue, "i32 i32 i32 -> i32"),
    _env(shared_queue.proxy_dequeue_shared_queue, "i32 i32 i32 -> i32"),
    _env(metrics.proxy_define_metric, "i32 i32 i32 i32 -> i32"),
    _env(metrics.proxy_increment_metric, "i32 i64 -> i32"),
    _env(metrics.proxy_record_metric, "i32 i64 -> i32"),
    _env(metrics.proxy_get_metric, "i32 i32 -> i32"),
    # functions of the host's own
    _env(foreign.proxy_call_foreign_function, "i32 i32 i32 i32 i32 i32 -> i32"),
    # what compilers' runtimes import
    _env(lifecycle.emscripten_notify_memory_growth, "i32 -> ", allowed=Phase.EVERY),
    _env(lifecycle.pthread_equal, "i32 i32 -> i32", allowed=Phase.EVERY),
)

_WASI_CALLS: tuple[tuple[HostCall, str, Phase], ...] = (
    (wasi.fd_write, "i32 i32 i32 i32 -> i32", Phase.EVERY),
    (wasi.fd_pwrite, "i32 i32 i32 i64 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_read, "i32 i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_pread, "i32 i32 i32 i64 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_seek, "i32 i64 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_tell, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_close, "i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_fdstat_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_fdstat_set_flags, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_fdstat_set_rights, "i32 i64 i64 -> i32", Phase.INITIALIZE),
    (wasi.fd_advise, "i32 i64 i64 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_allocate, "i32 i64 i64 -> i32", Phase.INITIALIZE),
    (wasi.fd_datasync, "i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_sync, "i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_filestat_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_filestat_set_size, "i32 i64 -> i32", Phase.INITIALIZE),
    (wasi.fd_filestat_set_times, "i32 i64 i64 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_readdir, "i32 i32 i32 i64 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_renumber, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_prestat_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.fd_prestat_dir_name, "i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_open, "i32 i32 i32 i32 i32 i64 i64 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_filestat_get, "i32 i32 i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_filestat_set_times, "i32 i32 i32 i32 i64 i64 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_create_directory, "i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_link, "i32 i32 i32 i32 i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_readlink, "i32 i32 i32 i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_remove_directory, "i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_rename, "i32 i32 i32 i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_symlink, "i32 i32 i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.path_unlink_file, "i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.args_sizes_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.args_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.environ_sizes_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.environ_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.clock_time_get, "i32 i64 i32 -> i32", Phase.EVERY),
    (wasi.clock_res_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.random_get, "i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.sched_yield, " -> i32", Phase.INITIALIZE),
    (wasi.poll_oneoff, "i32 i32 i32 i32 -> i32", Phase.EVERY),
    (wasi.proc_exit, "i32 -> ", Phase.INITIALIZE),
    (wasi.sock_accept, "i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.sock_recv, "i32 i32 i32 i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.sock_send, "i32 i32 i32 i32 i32 -> i32", Phase.INITIALIZE),
    (wasi.sock_shutdown, "i32 i32 -> i32", Phase.INITIALIZE),
)

WASI_MODULES = ("wasi_snapshot_preview1", "wasi_unstable")

HOST_FUNCTIONS: tuple[HostFunction, ...] = (
    *_ENV,
    *(
        HostFunction(module, call.name, signature, ALL, call, allowed | Phase.START_SECTION)
        for module in WASI_MODULES
        for call, signature, allowed in _WASI_CALLS
    ),
)
"""Every import a proxy-wasm module may have, but for those that extensions bring. The only such list."""

_INDEX = {(row.module, row.name): row for row in HOST_FUNCTIONS}


def host_function(version: AbiVersion, module: str, name: str) -> HostFunction | None:
    """The row of an import, or None when guests of this version have no such function."""
    row = _INDEX.get((module, name))
    if row is None:
        for extension in extensions():
            for more in extension.functions:
                if (more.module, more.name) == (module, name) and version.within(more.versions):
                    return more
    return row if row is not None and version.within(row.versions) else None


def host_functions(version: AbiVersion) -> Iterator[HostFunction]:
    """All that guests of a version have, those of extensions included."""
    known = extensions_in_use() if version in VERSIONS else extensions()
    further = (row for extension in known for row in extension.functions)
    return (row for row in (*HOST_FUNCTIONS, *further) if version.within(row.versions))


def further_buffers(version: AbiVersion) -> frozenset[int]:
    """Buffer types beyond the specification's."""
    using = [one for one in extensions_in_use() if any(version.within(frozenset((v,))) for v in one.versions)]
    return frozenset(buffer for extension in using for buffer in extension.buffers)


@dataclass(frozen=True, slots=True)
class Callback:
    """One row: an export the host may call.

    `capability` tells whether a capability restriction applies to it (the `proxy_on_*` ones).
    """

    name: str
    signature: str
    versions: frozenset[AbiVersion] = ALL
    capability: bool = True


def _callbacks() -> Iterator[Callback]:
    for name in ("malloc", "proxy_on_memory_allocate"):
        yield Callback(name, "i32 -> i32", capability=False)
    yield Callback("_initialize", " -> ", capability=False)
    yield Callback("_start", " -> ", capability=False)
    yield Callback("main", "i32 i32 -> i32", capability=False)
    yield Callback("__main_void", " -> i32", capability=False)

    yield Callback("proxy_on_context_create", "i32 i32 -> ")
    yield Callback("proxy_on_vm_start", "i32 i32 -> i32")
    yield Callback("proxy_validate_configuration", "i32 i32 -> i32")
    yield Callback("proxy_on_configure", "i32 i32 -> i32")
    yield Callback("proxy_on_tick", "i32 -> ")
    yield Callback("proxy_on_queue_ready", "i32 i32 -> ")
    yield Callback("proxy_on_foreign_function", "i32 i32 i32 -> ", SINCE_0_2_0)
    yield Callback("proxy_on_done", "i32 -> i32")
    yield Callback("proxy_on_log", "i32 -> ")
    yield Callback("proxy_on_delete", "i32 -> ")

    for side in ("request", "response"):
        yield Callback(f"proxy_on_{side}_headers", "i32 i32 -> i32", FIRST)
        yield Callback(f"proxy_on_{side}_headers", "i32 i32 i32 -> i32", SINCE_0_2_0)
        yield Callback(f"proxy_on_{side}_body", "i32 i32 i32 -> i32")
        yield Callback(f"proxy_on_{side}_trailers", "i32 i32 -> i32")
        yield Callback(f"proxy_on_{side}_metadata", "i32 i32 -> i32")

    yield Callback("proxy_on_new_connection", "i32 -> i32")
    for side in ("downstream", "upstream"):
        yield Callback(f"proxy_on_{side}_data", "i32 i32 i32 -> i32")
        yield Callback(f"proxy_on_{side}_connection_close", "i32 i32 -> ")

    yield Callback("proxy_on_http_call_response", "i32 i32 i32 i32 i32 -> ")
    yield Callback("proxy_on_grpc_receive_initial_metadata", "i32 i32 i32 -> ")
    yield Callback("proxy_on_grpc_receive", "i32 i32 i32 -> ")
    yield Callback("proxy_on_grpc_receive_trailing_metadata", "i32 i32 i32 -> ")
    yield Callback("proxy_on_grpc_close", "i32 i32 i32 -> ")


CALLBACKS: tuple[Callback, ...] = tuple(_callbacks())
"""Every export the host looks up. Exports with other names are the module's own business."""


def callbacks(version: AbiVersion) -> dict[str, Callback]:
    """The callbacks of one version, by name; ours take precedence over those of extensions."""
    rows = [row for extension in extensions_in_use() for row in extension.callbacks]
    return {row.name: row for row in (*rows, *CALLBACKS) if version.within(row.versions)}


def detect(exported_functions: Iterable[str]) -> AbiVersion | None:
    """The version of a module: the first marker among its exported functions, in section order."""
    for name in exported_functions:
        version = MARKERS.get(name)
        if version is None and name.startswith(MARKER):
            known = (one for extension in extensions() for one in extension.versions)
            version = next((one for one in known if one.marker == name), None)
        if version is not None:
            return version
    return None
