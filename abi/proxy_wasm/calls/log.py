"""Logging and clocks: `proxy_log`, `proxy_get_log_level`, `proxy_get_current_time_nanoseconds`.

Source: proxy-wasm specification 0.2.1, "Logging" and "Clocks"; 0.2.1 brought `proxy_get_log_level`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import U32, Bytes, OutU32, OutU64, proxy_call
from abi.proxy_wasm.types import LogLevel, Status

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm

LEVELS = tuple(LogLevel)


@proxy_call
def proxy_log(vm: Vm, level: U32, message: Bytes) -> Status:
    """Write one line (it may hold newlines, NULs, or nothing) under the acting context's prefix."""
    if level > LogLevel.CRITICAL:
        return Status.BAD_ARGUMENT
    vm.log(LEVELS[level], message)
    return Status.OK


@proxy_call
def proxy_get_log_level(vm: Vm) -> Status | OutU32:
    """The least severe level that is written."""
    return vm.host.log_level.value


@proxy_call
def proxy_get_current_time_nanoseconds(vm: Vm) -> Status | OutU64:
    """The wall clock, in nanoseconds since 1970."""
    return vm.host.wall_clock_ns()
