"""`Dispatcher`: brings what guest code asked for to the exchange it concerns, after the guest has returned.

Guest code that runs for one exchange (or for none: a tick) may act on another one. Its host functions only
queue (`abi.proxy_wasm.deferred`); here the queue is emptied into the streams' own ones, in order. A stream
that is not being fed is woken (`HttpStream`), so guest code never runs inside guest code.

What guests want of the world outside of all exchanges goes to `CallOuts`, and the answers come back through
`enter`, like everything that happens to a plugin and not to an exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from abi.proxy_wasm.contexts import StreamContext
from abi.proxy_wasm.deferred import CallOut, Deferred, StreamEffect
from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.vm import Vm
from pywasmproxy.sansio.filter import FilterCallbacks


class ContextOwner(Protocol):
    """The filter that a guest's context belongs to."""

    def absorb(self, effect: Deferred) -> None:
        """Pass on what a guest asked for this exchange or connection."""

    def vm_died(self) -> None:
        """The guest died in other hands: what waits for it would wait forever."""


class CallOuts(Protocol):
    """Who carries call-outs out. It never enters a guest from within these methods, but later."""

    def perform(self, effect: CallOut) -> None:
        """A plugin begins a call, goes on with it, or gives it up."""

    def vm_died(self, vm: Vm) -> None:
        """All calls of this VM's plugins are void."""


StreamAction = Callable[[FilterCallbacks, Any], object]
"""Carries a further effect on an exchange out: gets the callbacks of the filter, and the effect."""


def _no_action(kind: type[StreamEffect]) -> StreamAction | None:
    return None


class Dispatcher:
    """One per worker, shared by all chains whose plugins may share VMs.

    Without `call_outs` there must be no clusters that guests could call (`Host.has_cluster`). `actions` finds
    what carries out the stream effects of extensions; those it does not find are dropped.
    """

    def __init__(
        self,
        call_outs: CallOuts | None = None,
        actions: Callable[[type[StreamEffect]], StreamAction | None] = _no_action,
    ) -> None:
        self.call_outs = call_outs
        self._actions = actions
        self._filters: dict[StreamContext, ContextOwner] = {}
        self._died_at: WeakKeyDictionary[Vm, int] = WeakKeyDictionary()

    def add(self, context: StreamContext, filter: ContextOwner) -> None:
        """A context of an exchange began to live."""
        self._filters[context] = filter

    def remove(self, context: StreamContext) -> None:
        """A context has ended."""
        self._filters.pop(context, None)

    def act(self, callbacks: FilterCallbacks, effect: StreamEffect) -> None:
        """Carry out something further that a guest wants of its exchange."""
        action = self._actions(type(effect))
        if action is not None:
            action(callbacks, effect)

    def in_flight(self, vm: Vm) -> int:
        """How many exchanges have a living context in a VM."""
        return sum(1 for context in self._filters if context.vm is vm)

    def tick(self, plugin: Plugin) -> None:
        """Run a plugin's timer callback."""
        self.enter(plugin, plugin.tick)

    def enter(self, plugin: Plugin, callback: Callable[[], object]) -> None:
        """Run a callback of a plugin (a tick, an answer to a call), and hand out what it asked for."""
        if plugin.failed:
            self.died(plugin.vm)
            return
        try:
            callback()
        except PluginFailure:
            self.died(plugin.vm)
        else:
            self.drain(plugin.vm)

    def drain(self, vm: Vm) -> None:
        """Hand out what the guest asked for. For whoever just entered it."""
        while vm.deferred:
            effect = vm.deferred.popleft()
            if isinstance(effect, CallOut):
                if self.call_outs is not None:
                    self.call_outs.perform(effect)
                continue
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
        if self.call_outs is not None:
            self.call_outs.vm_died(vm)
        for context, filter in list(self._filters.items()):
            if context.vm is vm:
                filter.vm_died()

    def dead_for(self, vm: Vm) -> int:
        """Nanoseconds since a VM was found dead; 0 when that is now."""
        self.died(vm)
        return vm.host.monotonic_ns() - self._died_at[vm]
