"""`Dispatcher`: brings what guest code asked for to the exchange it concerns, after the guest has returned.

Guest code that runs for one exchange (or for none: a tick) may act on another one. Its host functions only
queue (`abi.proxy_wasm.deferred`); here the queue is emptied into the streams' own ones, in order. A stream
that is not being fed is woken (`HttpStream`), so guest code never runs inside guest code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from abi.proxy_wasm.contexts import HttpContext
from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.vm import Vm

if TYPE_CHECKING:
    from pywasmproxy.sansio.wasm import WasmFilter


class Dispatcher:
    """One per worker, shared by all chains whose plugins may share VMs."""

    def __init__(self) -> None:
        self._filters: dict[HttpContext, WasmFilter] = {}
        self._died_at: WeakKeyDictionary[Vm, int] = WeakKeyDictionary()

    def add(self, context: HttpContext, filter: WasmFilter) -> None:
        """A context of an exchange began to live."""
        self._filters[context] = filter

    def remove(self, context: HttpContext) -> None:
        """A context has ended."""
        self._filters.pop(context, None)

    def in_flight(self, vm: Vm) -> int:
        """How many exchanges have a living context in a VM."""
        return sum(1 for context in self._filters if context.vm is vm)

    def tick(self, plugin: Plugin) -> None:
        """Run a plugin's timer callback."""
        if plugin.failed:
            self.died(plugin.vm)
            return
        try:
            plugin.tick()
        except PluginFailure:
            self.died(plugin.vm)
        else:
            self.drain(plugin.vm)

    def drain(self, vm: Vm) -> None:
        """Hand out what the guest asked for. For whoever just entered it."""
        while vm.deferred:
            effect = vm.deferred.popleft()
            filter = self._filters.get(effect.context)
            if filter is not None:
                filter.absorb(effect)
        if vm.failure is not None:
            self.died(vm)

    def died(self, vm: Vm) -> None:
        """A VM is dead: what its last callback asked for is void, and nobody must wait for it any more."""
        if vm in self._died_at:
            return
        self._died_at[vm] = vm.host.monotonic_ns()
        vm.deferred.clear()
        for context, filter in list(self._filters.items()):
            if context.vm is vm:
                filter.vm_died()

    def dead_for(self, vm: Vm) -> int:
        """Nanoseconds since a VM was found dead; 0 when that is now."""
        self.died(vm)
        return vm.host.monotonic_ns() - self._died_at[vm]
