"""`CallOuts`: what guests have under way in the world outside, each kind carried out by its own starter.

The server's side of the core's protocol (`pywasmproxy.sansio.dispatcher.CallOuts`). A new kind of call-out is
a subclass of `abi.proxy_wasm.deferred.CallOut` and a starter for it; packages bring theirs through the entry
point group `pywasmproxy.call_outs`, each entry a mapping of effect types to starters.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from abi.proxy_wasm.deferred import CallOut, CancelCall
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.vm import Vm
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.log import Logger

ENTRY_POINTS = "pywasmproxy.call_outs"

MAX_COLLECTED = 1 << 28
"""Bytes of answers that all calls together may have collected while these are not complete."""


class Running(Protocol):
    """A call under way."""

    def perform(self, effect: CallOut) -> None:
        """The guest goes on with the call."""

    def cancel(self) -> None:
        """The call is given up; `CallOuts.answer` must not be used any more."""


class Resource(Protocol):
    """What calls have in common."""

    def close(self) -> None: ...


R = TypeVar("R", bound=Resource)

Starter = Callable[[Any, "CallOuts"], Running]
"""Begins a call from its first effect. It never answers at once, but from the event loop later."""


class CallOuts:
    """The calls of all plugins of one proxy.

    `enter` runs a callback of a plugin's root context and looks after what follows from it. Before `open` -
    clusters have no hosts yet - calls wait; after `close` there are none.
    """

    def __init__(
        self,
        clusters: Mapping[str, Cluster],
        enter: Callable[[Plugin, Callable[[], object]], None],
        logger: Logger,
    ) -> None:
        from pywasmproxy.server import grpc, http_call  # they need this file

        self.clusters = clusters
        self.logger = logger
        self.collected = 0
        self._enter = enter
        self._starters: dict[type[CallOut], Starter] = {**http_call.STARTERS, **grpc.STARTERS}
        self._extended = False
        self._kept: dict[type[Resource], Resource] = {}
        self._running: dict[tuple[Vm, int], Running] = {}
        self._waiting: list[CallOut] | None = []

    def __len__(self) -> int:
        return len(self._running)

    def open(self) -> None:
        """Begin, with the calls that plugins made while they were started."""
        waiting, self._waiting = self._waiting or [], None
        for effect in waiting:
            self.perform(effect)

    def close(self) -> None:
        """Give all calls up. What is asked for afterwards is not begun."""
        self._waiting = []
        running, self._running = self._running, {}
        for call in running.values():
            call.cancel()
        for resource in self._kept.values():
            resource.close()
        self._kept.clear()

    # --- the core's side ------------------------------------------------------------------------------------

    def perform(self, effect: CallOut) -> None:
        """A plugin begins a call, goes on with it, or gives it up."""
        if self._waiting is not None:
            self._waiting.append(effect)
            return
        key = effect.plugin.vm, effect.token
        running = self._running.get(key)
        if isinstance(effect, CancelCall):
            if self._running.pop(key, None) is not None and running is not None:
                running.cancel()
        elif running is not None:
            running.perform(effect)
        elif (start := self._starter(type(effect))) is not None:
            self._running[key] = start(effect, self)

    def vm_died(self, vm: Vm) -> None:
        """All calls of a VM are void."""
        if self._waiting is not None:
            self._waiting = [effect for effect in self._waiting if effect.plugin.vm is not vm]
        for key in [key for key in self._running if key[0] is vm]:
            self._running.pop(key).cancel()

    def _starter(self, kind: type[CallOut]) -> Starter | None:
        found = self._starters.get(kind)
        if found is None and not self._extended:
            import importlib.metadata

            self._extended = True
            for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
                self._starters |= entry.load()
            found = self._starters.get(kind)
        return found

    # --- the starters' side ---------------------------------------------------------------------------------

    def keep(self, kind: type[R], make: Callable[[], R]) -> R:
        """Something that calls of a kind have in common, such as connections; closed with everything else."""
        found = self._kept.get(kind)
        if not isinstance(found, kind):
            found = self._kept[kind] = make()
        return found

    def answer(self, effect: CallOut, callback: Callable[[], object], *, ends: bool = True) -> None:
        """Bring something of a call to its plugin: `callback` enters it. `ends`: it was the last thing."""
        key = effect.plugin.vm, effect.token
        if key not in self._running:
            return
        if ends:
            del self._running[key]
        try:
            self._enter(effect.plugin, callback)
        except Exception:
            # A fault of ours: it must cost neither the connection it came from nor the loop.
            name, error = effect.plugin.name, traceback.format_exc().rstrip()
            self.logger.error(f"plugin {name}: answer to call {effect.token} failed: {error}")
