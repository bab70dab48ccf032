"""The ABI tables: complete, consistent with the implementations, per version."""

from __future__ import annotations

import pytest

from abi.proxy_wasm import versions
from abi.proxy_wasm.versions import (
    HOST_FUNCTIONS,
    VERSIONS,
    WASI_MODULES,
    AbiVersion,
    Phase,
    callbacks,
    detect,
    host_function,
)

V010, V020, V021 = VERSIONS


def normal(signature: str) -> str:
    parameters, _, results = signature.partition("->")
    return f"{' '.join(parameters.split())}->{' '.join(results.split())}"


@pytest.mark.parametrize("row", HOST_FUNCTIONS, ids=lambda r: f"{r.module}.{r.name}")
def test_the_tables_signature_is_the_implementations(row: versions.HostFunction) -> None:
    assert row.call.name == row.name
    assert normal(row.call.signature) == normal(row.signature)


def test_no_name_stands_twice() -> None:
    names = [(row.module, row.name) for row in HOST_FUNCTIONS]
    assert len(names) == len(set(names))


ONLY_0_1_0 = {
    "proxy_get_configuration",
    "proxy_continue_request",
    "proxy_continue_response",
    "proxy_clear_route_cache",
}
SINCE_0_2_0 = {"proxy_continue_stream", "proxy_close_stream"}


def names_of(version: AbiVersion) -> set[str]:
    return {row.name for row in HOST_FUNCTIONS if row.module == "env" and version in row.versions}


def test_what_the_versions_differ_in() -> None:
    assert names_of(V010) - names_of(V020) == ONLY_0_1_0
    assert names_of(V020) - names_of(V010) == SINCE_0_2_0
    assert names_of(V021) ^ names_of(V020) == {"proxy_get_log_level"}


def test_lookup_follows_the_version() -> None:
    assert host_function(V010, "env", "proxy_continue_stream") is None
    assert host_function(V020, "env", "proxy_continue_stream") is not None
    assert host_function(V020, "env", "fd_write") is None
    for module in WASI_MODULES:
        assert host_function(V010, module, "fd_write") is not None
    assert host_function(V021, "wasi", "fd_write") is None


def test_callbacks_follow_the_version() -> None:
    assert callbacks(V010)["proxy_on_request_headers"].signature == "i32 i32 -> i32"
    assert callbacks(V020)["proxy_on_request_headers"].signature == "i32 i32 i32 -> i32"
    assert "proxy_on_foreign_function" not in callbacks(V010)
    assert "proxy_on_redis_call_response" not in callbacks(V021)
    assert len([row for row in versions.CALLBACKS if row.name == "proxy_on_response_headers"]) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_detection(version: AbiVersion) -> None:
    assert detect(["memory", version.marker, "malloc"]) is version


def test_the_first_marker_decides() -> None:
    assert detect([V021.marker, V010.marker]) is V021
    assert detect([V010.marker, V021.marker]) is V010
    assert detect(["proxy_abi_version_0_3_0", "x"]) is None


def test_texts() -> None:
    assert [str(version) for version in VERSIONS] == ["0.1.0", "0.2.0", "0.2.1"]


def test_what_the_allocator_may_call() -> None:
    allowed = {row.name for row in HOST_FUNCTIONS if Phase.ALLOCATOR in row.allowed}
    runtime = {"emscripten_notify_memory_growth", "pthread_equal"}
    assert allowed - runtime == {"proxy_log", "fd_write", "clock_time_get", "poll_oneoff"}


def test_all_of_wasi_may_be_called_while_initialising() -> None:
    assert all(Phase.INITIALIZE in row.allowed for row in HOST_FUNCTIONS if row.module in WASI_MODULES)
    others = {row.name for row in HOST_FUNCTIONS if row.module == "env" and Phase.INITIALIZE in row.allowed}
    assert others == {"proxy_log", "emscripten_notify_memory_growth", "pthread_equal"}
