"""Shared data: values that all VMs with the same vm_id see at once.

Source: proxy-wasm specification 0.2.1, "Shared data".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import U32, Bytes, OutBytes, OutU32, proxy_call
from abi.proxy_wasm.types import Status

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm


@proxy_call
def proxy_get_shared_data(vm: Vm, key: Bytes) -> Status | tuple[OutBytes, OutU32]:
    """A value and its compare-and-swap number."""
    return vm.services.data.get(vm.vm_id, key)


@proxy_call
def proxy_set_shared_data(vm: Vm, key: Bytes, value: Bytes, cas: U32) -> Status:
    """Store a value; with a `cas` other than 0 only if nobody else stored one since it was read."""
    return vm.services.data.set(vm.vm_id, key, value, cas)
