"""Contexts and their ends: effective context, `proxy_done`, the status of the last call, tick period.

Source: proxy-wasm specification 0.2.1, "Context lifecycle", "Timers" and "Common HTTP and gRPC
operations"; what Envoy does with id 0 and with an early `proxy_done` is as measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import U32, OutBytes, OutU32, proxy_call
from abi.proxy_wasm.types import Status

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm


@proxy_call
def proxy_set_effective_context(vm: Vm, context_id: U32) -> Status:
    """Let host functions act on another context until the callback returns; 0 ends that again."""
    if context_id == 0:
        vm.active = vm.current
        return Status.OK
    context = vm.contexts.get(context_id)
    if context is None:
        return Status.BAD_ARGUMENT
    vm.active = context
    return Status.OK


@proxy_call
def proxy_done(vm: Vm) -> Status:
    """The plugin, whose `proxy_on_done` answered "wait", may be deleted now."""
    plugin = vm.active.plugin
    if plugin is None or vm.active is not plugin.root or not plugin.awaiting_done:
        return Status.NOT_FOUND
    plugin.finish_after_callback()
    return Status.OK


@proxy_call
def proxy_get_status(vm: Vm) -> Status | tuple[OutU32, OutBytes]:
    """Code and message of the last failed HTTP call or closed gRPC stream; 0 and "" before any."""
    plugin = vm.active.plugin
    return (0, b"") if plugin is None else plugin.call_status


@proxy_call
def proxy_set_tick_period_milliseconds(vm: Vm, period: U32) -> Status:
    """Ask for `proxy_on_tick` on the plugin's root context every so many ms; 0 stops it."""
    plugin = vm.active.plugin
    if plugin is not None:
        plugin.tick_period_ms = period
    return Status.OK


@proxy_call
def emscripten_notify_memory_growth(vm: Vm, memory_index: U32) -> None:
    """Emscripten tells that memory grew. Nothing to do: no view of memory is kept between calls."""


@proxy_call
def pthread_equal(vm: Vm, left: U32, right: U32) -> int:
    """Whether two thread handles are the same (1) or not (0); the result is not a status."""
    return int(left == right)
