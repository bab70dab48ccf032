"""Shared queues: items passed between VMs, with a callback for whoever registered the queue last.

Source: proxy-wasm specification 0.2.1, "Shared queues".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import U32, Bytes, OutBytes, OutU32, proxy_call
from abi.proxy_wasm.types import Status

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm


@proxy_call
def proxy_register_shared_queue(vm: Vm, name: Bytes) -> Status | OutU32:
    """Make or re-open a queue of this VM's scope; the acting context's plugin is notified from now on."""
    plugin = vm.active.plugin
    if plugin is None:
        return Status.INTERNAL_FAILURE
    return vm.services.queues.register(vm.vm_id, name, plugin)


@proxy_call
def proxy_resolve_shared_queue(vm: Vm, vm_id: Bytes, name: Bytes) -> Status | OutU32:
    """The token of a queue of another scope (an empty vm_id: of the own one)."""
    scope = vm_id.decode("utf-8", "surrogateescape") or vm.vm_id
    return vm.services.queues.resolve(scope, name)


@proxy_call
def proxy_enqueue_shared_queue(vm: Vm, token: U32, data: Bytes) -> Status:
    """Put an item in. Whoever has the token may, from any scope."""
    return vm.services.queues.enqueue(token, data)


@proxy_call
def proxy_dequeue_shared_queue(vm: Vm, token: U32) -> Status | OutBytes:
    """Take the oldest item out; EMPTY when there is none."""
    return vm.services.queues.dequeue(token)
