"""Buffers and the configuration in them: `proxy_get_buffer_bytes` and its companions.

Source: proxy-wasm specification 0.2.1, "Buffers"; which buffer exists when, and which ranges can be set, is
as measured on Envoy 1.40 (a superset of what the 2021 generation allowed, a subset of the specification).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import U32, Bytes, OutBuffer, OutBytes, OutU32, proxy_call
from abi.proxy_wasm.types import BufferType, Status

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm

LAST = BufferType.FOREIGN_FUNCTION_ARGUMENTS

MAX_BODY = 1 << 26
"""Most bytes a guest can make a body grow to (64 MiB). The proxy's own limits are far below; this one keeps a
guest that appends in a loop from taking the host's memory before its time is over."""


def _unknown(vm: Vm, buffer_type: int) -> bool:
    """Whether a type beyond the specification's is not an extension's, nor one that an answer brings."""
    plugin = vm.active.plugin
    brought = plugin.answer.buffers if plugin is not None and plugin.answer is not None else ()
    return buffer_type not in brought and buffer_type not in vm.further_buffers


@proxy_call
def proxy_get_buffer_bytes(vm: Vm, buffer_type: U32, start: U32, max_size: U32) -> Status | OutBuffer:
    """Part of a buffer, clipped to its end; a start beyond the end gives nothing, not an error."""
    if buffer_type > LAST and _unknown(vm, buffer_type):
        return Status.BAD_ARGUMENT
    data = vm.active.buffer(buffer_type)
    if data is None:
        return Status.NOT_FOUND
    return bytes(memoryview(data)[start : start + max_size])


@proxy_call
def proxy_get_buffer_status(vm: Vm, buffer_type: U32) -> Status | tuple[OutU32, OutU32]:
    """Size of a buffer in bytes, and flags (always 0)."""
    if buffer_type > LAST and _unknown(vm, buffer_type):
        return Status.BAD_ARGUMENT
    data = vm.active.buffer(buffer_type)
    if data is None:
        return Status.NOT_FOUND
    return len(data), 0


@proxy_call
def proxy_set_buffer_bytes(vm: Vm, buffer_type: U32, start: U32, size: U32, data: Bytes) -> Status:
    """Change a body in place: replace its first `size` bytes (0 prepends), or append at or after its end."""
    if buffer_type > LAST:
        return Status.BAD_ARGUMENT
    body = vm.active.buffer(buffer_type)
    if body is None:
        return Status.NOT_FOUND
    if not isinstance(body, bytearray):
        return Status.BAD_ARGUMENT
    if len(body) + len(data) > MAX_BODY:
        return Status.INTERNAL_FAILURE
    if start == 0:
        body[:size] = data
    elif start >= len(body):
        body += data
    else:
        return Status.BAD_ARGUMENT
    return Status.OK


@proxy_call
def proxy_get_configuration(vm: Vm) -> Status | OutBytes:
    """0.1.0: the plugin's configuration as it is created and configured, the VM's everywhere else."""
    own = vm.active.buffer(BufferType.PLUGIN_CONFIGURATION)
    return vm.configuration if own is None else bytes(own)
