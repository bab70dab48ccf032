"""`Ticks`: the timers of plugins, as the guests want them now. asyncio."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Sequence

from abi.proxy_wasm.plugin import Plugin
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.server.log import Logger


class _Timer:
    """A plugin's timer as it is running."""

    __slots__ = ("handle", "period_ms")

    def __init__(self, handle: asyncio.TimerHandle, period_ms: int) -> None:
        self.handle, self.period_ms = handle, period_ms


class Ticks:
    """Timers of one proxy; `ran` is called after guest code."""

    def __init__(self, dispatcher: Dispatcher, logger: Logger, ran: Callable[[], None]) -> None:
        self.timers: dict[Plugin, _Timer] = {}
        self._dispatcher, self._logger, self._ran = dispatcher, logger, ran

    def close(self) -> None:
        """Stop all of them."""
        for timer in self.timers.values():
            timer.handle.cancel()
        self.timers.clear()

    def watch(self, plugins: Sequence[Plugin]) -> None:
        """Set, change and stop timers as the guests want them now. Needs a running event loop."""
        for plugin in plugins:
            timer = self.timers.get(plugin)
            wanted = 0 if plugin.failed else plugin.tick_period_ms
            if wanted != (timer.period_ms if timer is not None else 0):
                self._set_timer(plugin, wanted)
        if len(self.timers) > len(plugins):
            for plugin in set(self.timers) - set(plugins):
                self._set_timer(plugin, 0)

    def _set_timer(self, plugin: Plugin, period_ms: int) -> None:
        timer = self.timers.pop(plugin, None)
        if timer is not None:
            timer.handle.cancel()
        if period_ms:
            loop = asyncio.get_running_loop()
            self.timers[plugin] = _Timer(
                loop.call_later(period_ms / 1000, self._tick, plugin, period_ms), period_ms
            )

    def _tick(self, plugin: Plugin, period_ms: int) -> None:
        self._set_timer(plugin, period_ms)
        try:
            self._dispatcher.tick(plugin)
        except Exception:
            # A fault of ours: it must not end the timer's plugin, let alone the loop.
            self._logger.error(f"plugin {plugin.name}: tick failed: {traceback.format_exc().rstrip()}")
        self._ran()
