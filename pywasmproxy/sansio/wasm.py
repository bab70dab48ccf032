"""Guests as filters: a plugin's context in the chain, and what happens when its VM is dead.

Source: Envoy 1.40 as measured (`golden/failure.json`). FAIL_CLOSED: 503 for the failing exchange and all
later ones. FAIL_OPEN: 503 for the failing one, later ones skip the filter. The deprecated `fail_open: true`:
the failing one goes on, too. FAIL_RELOAD: closed, but a new VM is tried after a back-off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from abi.proxy_wasm.contexts import HttpContext, StreamContext
from abi.proxy_wasm.deferred import (
    ClearRouteCache,
    CloseStream,
    ContinueStream,
    Deferred,
    LocalResponse,
    StreamEffect,
)
from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, StreamType
from pywasmproxy.config.model import FailurePolicy
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.sansio.filter import FilterCallbacks, HttpFilter
from pywasmproxy.sansio.local_reply import WASM_FAILED, LocalReply, unblanked
from pywasmproxy.sansio.native import NativeFilter
from pywasmproxy.stats.counts import PluginCounts


class Guest(ABC):
    """A stream's context in the hands of a chain: entered, its effects handed out, and its death noticed."""

    __slots__ = ("_context", "_dead", "_dispatcher", "_known")

    _context: StreamContext

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._dead = False
        self._known = False  # to the dispatcher

    def _run(self, callback: Callable[[], Action]) -> Action:
        """Enter the guest, then hand out what it asked for."""
        if self._dead:
            return Action.CONTINUE
        if not self._known:
            self._known = True
            self._dispatcher.add(self._context, self)
        try:
            action = callback()
        except PluginFailure:
            self._dispatcher.died(self._context.vm)
            return self._fail()
        self._dispatcher.drain(self._context.vm)
        return action

    @abstractmethod
    def _fail(self) -> Action:
        """The guest is dead: apply the policy to this stream; how its callback ends."""

    @abstractmethod
    def absorb(self, effect: Deferred) -> None:
        """Pass on what a guest asked for this stream."""

    @abstractmethod
    def vm_died(self) -> None:
        """The guest died in other hands."""


class WasmFilter(Guest):
    """One exchange as one plugin sees it."""

    __slots__ = ("_callbacks", "_fail_open", "_saw_request")

    _context: HttpContext

    def __init__(
        self,
        plugin: Plugin,
        dispatcher: Dispatcher,
        callbacks: FilterCallbacks,
        info: StreamInfo,
        *,
        fail_open: bool = False,
    ) -> None:
        super().__init__(dispatcher)
        self._context = plugin.http_stream(info)
        self._callbacks, self._fail_open = callbacks, fail_open
        self._saw_request = False  # a guest that did not see the request does not see the response, either

    # --- callbacks ----------------------------------------------------------------------------------------

    def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action:
        self._saw_request = True
        return self._run(lambda: self._context.on_request_headers(headers, end_of_stream))

    def on_request_body(self, body: bytearray, end_of_stream: bool) -> Action:
        return self._run(lambda: self._context.on_request_body(body, end_of_stream))

    def on_request_trailers(self, trailers: HeaderMap) -> Action:
        return self._run(lambda: self._context.on_request_trailers(trailers))

    def on_response_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action:
        if not self._saw_request:
            return Action.CONTINUE
        return self._run(lambda: self._context.on_response_headers(headers, end_of_stream))

    def on_response_body(self, body: bytearray, end_of_stream: bool) -> Action:
        if not self._saw_request:
            return Action.CONTINUE
        return self._run(lambda: self._context.on_response_body(body, end_of_stream))

    def on_response_trailers(self, trailers: HeaderMap) -> Action:
        if not self._saw_request:
            return Action.CONTINUE
        return self._run(lambda: self._context.on_response_trailers(trailers))

    def on_log(self) -> None:
        self._run(self._context.on_log)

    def on_done(self) -> None:
        self._run(self._context.on_done)

    def on_delete(self) -> None:
        self._run(self._context.on_delete)
        self._dispatcher.remove(self._context)

    def request_phase_over(self) -> None:
        self._context.request_phase_over()

    def response_phase_over(self) -> None:
        self._context.response_phase_over()

    # --- what the dispatcher brings -----------------------------------------------------------------------

    def absorb(self, effect: Deferred) -> None:
        """Pass on what a guest asked for this exchange."""
        callbacks = self._callbacks
        match effect:
            case ContinueStream():
                callbacks.continue_stream(effect.stream_type)
            case CloseStream():
                callbacks.close()
            case ClearRouteCache():
                callbacks.clear_route_cache()
            case StreamEffect():
                self._dispatcher.act(callbacks, effect)
            case LocalResponse():
                callbacks.reply(
                    LocalReply(
                        effect.status,
                        effect.body,
                        details=unblanked(effect.details.decode("utf-8", "backslashreplace")),
                        headers=effect.headers,
                        grpc_status=effect.grpc_status,
                    )
                )

    def vm_died(self) -> None:
        """The guest died in other hands. What waits for it here would wait forever."""
        if not self._dead and self._callbacks.waiting:
            self._fail()

    def _fail(self) -> Action:
        """The guest is dead: apply the policy to this exchange; how its callback ends."""
        self._dead = True
        if self._fail_open:
            self._callbacks.continue_stream(StreamType.HTTP_REQUEST)
            self._callbacks.continue_stream(StreamType.HTTP_RESPONSE)
            return Action.CONTINUE
        self._callbacks.reply(WASM_FAILED)
        return Action.STOP_ITERATION


class FailedFilter(NativeFilter):
    """Stands in for a guest that is dead already when the exchange begins: no guest code, only its answer."""

    def on_request_headers(self, headers: HeaderMap, end_of_stream: bool) -> Action:
        self.callbacks.reply(WASM_FAILED)
        return Action.STOP_ITERATION


class GuestFactory:
    """What the makers of a plugin's filters have in common: which plugin serves, and when it is made anew.

    `plugin` is the plugin, or gives the one for new exchanges each time it is called, so that a VM can be
    replaced while exchanges in flight finish on the old one; None is one that never came to life. `restart`
    (for FAIL_RELOAD) makes a new plugin that `plugin` gives from then on, or raises PluginStartError; it is
    tried `reload_after` seconds after the VM's death, and again after each failure.
    """

    def __init__(
        self,
        plugin: Plugin | Callable[[], Plugin] | None,
        dispatcher: Dispatcher,
        *,
        policy: FailurePolicy = FailurePolicy.FAIL_CLOSED,
        fail_open: bool = False,
        restart: Callable[[], object] | None = None,
        reload_after: float = 1.0,
        counts: PluginCounts | None = None,
    ) -> None:
        self._plugin: Callable[[], Plugin | None] = plugin if callable(plugin) else lambda: plugin
        self._dispatcher = dispatcher
        self._policy, self._fail_open = policy, fail_open
        self._restart = restart if policy is FailurePolicy.FAIL_RELOAD else None
        self._back_off = round(reload_after * 1e9)
        self._wait = self._back_off
        self._counts = counts if counts is not None else PluginCounts()

    def _current(self) -> Plugin | None:
        """The plugin for a new stream; None when there is none that lives (yet)."""
        plugin = self._plugin()
        return self._reload(plugin) if plugin is not None and plugin.failed else plugin

    @property
    def _left_out(self) -> bool:
        """Whether a failed plugin is left out of new streams."""
        return self._fail_open or self._policy is FailurePolicy.FAIL_OPEN

    def _reload(self, dead: Plugin) -> Plugin | None:
        """A new plugin in place of a dead one, if it is time and it starts."""
        if self._restart is None:
            return None
        if self._dispatcher.dead_for(dead.vm) < self._wait:
            self._counts.vm_reload_backoff += 1
            return None
        self._counts.vm_reload += 1
        try:
            self._restart()
        except PluginStartError:
            self._counts.vm_reload_failure += 1
            self._wait = self._dispatcher.dead_for(dead.vm) + self._back_off
            return None
        self._counts.vm_reload_success += 1
        self._wait = self._back_off
        made = self._plugin()
        return None if made is None or made.failed else made


class WasmFilterFactory(GuestFactory):
    """Makes a plugin's filters, one per exchange: a member of `FilterChain.factories`."""

    def __call__(self, callbacks: FilterCallbacks, info: StreamInfo) -> HttpFilter | None:
        plugin = self._current()
        if plugin is not None:
            return WasmFilter(plugin, self._dispatcher, callbacks, info, fail_open=self._fail_open)
        return None if self._left_out else FailedFilter(callbacks, info)
