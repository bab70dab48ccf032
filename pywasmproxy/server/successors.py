"""`Successors`: VMs that have had their time get a fresh one beside them, and end when nobody uses them.

A guest that leaks is replaced before it meets its cap, at the cost of nothing but its state; what is in
flight finishes where it began. Plugins that a new configuration does not want go the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.vm import Vm
from pywasmproxy.config.limits import Limits
from pywasmproxy.config.model import WasmPlugin
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.server.log import Logger
from pywasmproxy.server.slot import PluginSlot

PAGE = 65536

RETIREMENT = 60.0
"""Seconds that a replaced plugin may go on waiting for answers to its calls, or for its own `proxy_done`."""


def memory_size(vm: Vm) -> int:
    """Bytes of a VM's linear memory."""
    memory = vm.guest.memory
    return memory.nbytes if memory is not None else 0


class Life:
    """What is kept about a VM to know when it has had its time."""

    __slots__ = ("limit", "runtime", "streams")

    def __init__(self, limit: int | None, runtime: str) -> None:
        self.runtime = runtime
        self.limit = limit  # bytes of linear memory that bring a successor; None: never
        self.streams = 0


class Successors:
    """The lives of one proxy's VMs; `ran` is called when it is time to look again."""

    def __init__(self, dispatcher: Dispatcher, logger: Logger, ran: Callable[[], None]) -> None:
        self.lives: WeakKeyDictionary[Vm, Life] = WeakKeyDictionary()
        self.retired: dict[Plugin, float | None] = {}
        """Replaced, and not over: since when only its own calls (or its `proxy_done`) are waited for."""
        self._dispatcher, self._logger, self._ran = dispatcher, logger, ran

    def begin(self, vm: Vm, runtime: str, limits: Limits) -> None:
        """A VM begins its life."""
        self.lives[vm] = Life(_burst(vm, limits), runtime)

    def is_due(self, vm: Vm, limits: Limits) -> bool:
        """Whether a VM has had its time."""
        life = self.lives.get(vm)
        if life is None or vm.failure is not None:
            return False  # what happens after a failure is the failure policy's business
        if life.limit is not None and memory_size(vm) > life.limit:
            return True
        most = limits.recycle_streams
        return most is not None and life.streams >= most

    def replace(self, old: Vm, slots: Iterable[PluginSlot], make: Callable[[WasmPlugin], Plugin]) -> None:
        """Start a fresh VM for new exchanges; those in flight finish on the old one."""
        life, size = self.lives[old], memory_size(old) // 1024
        self._logger.info(
            f"VM {old.vm_id!r}: {size} KiB after {life.streams} streams, a fresh one takes over"
        )
        for slot in slots:
            if slot.plugin.vm is not old:
                continue
            try:
                successor = make(slot.config)
            except PluginStartError as error:
                # Better the old one until its cap than none at all; a dead one follows the failure policy.
                self._logger.error(f"plugin {slot.config.name}: no successor: {error}")
                life.limit, life.streams = None, 0
                continue
            self.retire(slot.plugin)
            slot.plugin = successor

    def retire(self, plugin: Plugin) -> None:
        """No new exchange uses a plugin: it ends with the last one that does."""
        self.retired[plugin] = None

    def look(self) -> None:
        """End those that nobody uses any more."""
        for plugin in list(self.retired):
            if not self._dispatcher.in_flight(plugin.vm):
                self._look_at(plugin)

    def _look_at(self, plugin: Plugin) -> None:
        """End a replaced plugin that serves no exchange any more, when its calls have been answered and it
        has nothing to finish; not later than `RETIREMENT` in any case."""
        now = asyncio.get_running_loop().time()
        since = self.retired[plugin]
        overdue = since is not None and now - since >= RETIREMENT
        waits = not plugin.failed and (plugin.awaiting_done or plugin.vm.calls.expected(plugin))
        if overdue or not waits:
            self.end(plugin)
            waits = plugin.awaiting_done and not plugin.failed
        if waits and not overdue:
            if since is None:
                self.retired[plugin] = now
                asyncio.get_running_loop().call_later(RETIREMENT + 0.1, self._ran)
            return
        del self.retired[plugin]
        plugin.give_up_calls()
        self._dispatcher.drain(plugin.vm)

    def end(self, plugin: Plugin) -> None:
        """End a plugin now; what its guest does then is carried out."""
        try:
            plugin.close()
        except PluginFailure as error:
            self._logger.debug(f"plugin {plugin.name}: failed at its end: {error}")
        self._dispatcher.drain(plugin.vm)


def _burst(vm: Vm, limits: Limits) -> int | None:
    """Bytes of linear memory at which a VM gets a successor; None: no such limit.

    A guest that starts near its cap gets half of what is left, so that its successor is not due at once.
    """
    if limits.memory_pages is None or limits.recycle_memory_share is None:
        return None
    cap, now = limits.memory_pages * PAGE, memory_size(vm)
    return max(round(cap * limits.recycle_memory_share), (cap + now) // 2)
