"""Wasm plugins of one proxy: started from the configuration, shared, ticked, and replaced before they burst.

VMs are shared as Envoy shares them (`abi.proxy_wasm.registry`). What a failed VM means for an exchange is the
chain's business (failure policy); here VMs are made, timers run, and leaking guests get a successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

from abi.proxy_wasm.deferred import StreamEffect
from abi.proxy_wasm.failures import LOAD_FAILED, PluginFailure, PluginStartError, load_failed_lines, vm_failed
from abi.proxy_wasm.foreign import ForeignFunction
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.registry import VmRegistry
from abi.proxy_wasm.services import POLL, Services
from abi.proxy_wasm.snapshots import Snapshots
from abi.proxy_wasm.types import LogLevel
from abi.proxy_wasm.usage import Usage
from abi.proxy_wasm.vm import Vm
from pywasmproxy.config.limits import Limits
from pywasmproxy.config.model import (
    SNAPSHOTS_IN_MEMORY,
    SNAPSHOTS_OFF,
    Bootstrap,
    TcpProxy,
    WasmCode,
    WasmPlugin,
)
from pywasmproxy.config.model import Listener as ListenerConfig
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.dispatcher import Dispatcher, StreamAction
from pywasmproxy.sansio.stream import HttpStream
from pywasmproxy.sansio.tcp import TcpChain
from pywasmproxy.sansio.tcp_filter import WasmTcpFilterFactory
from pywasmproxy.sansio.wasm import GuestFactory, WasmFilterFactory
from pywasmproxy.server.callouts import CallOuts
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.exchange import StreamFactory
from pywasmproxy.server.generation import Generation, HandedOver, plugins_of, unchanged
from pywasmproxy.server.identity import itself, origin
from pywasmproxy.server.log import Log, WasmHost
from pywasmproxy.server.remote_code import CodeStore
from pywasmproxy.server.slot import PluginSlot
from pywasmproxy.stats.counts import PluginCounts
from pywasmvm import InvalidError, MalformedError, Module, StoreLimits
from pywasmvm.debug.lines import attach

RUNTIMES = frozenset(("", "envoy.wasm.runtime.v8", "envoy.wasm.runtime.wamr", "envoy.wasm.runtime.wasmtime"))
"""Names of Envoy's runtimes that run arbitrary modules; all of them mean our own VM here."""

DEFAULT_RUNTIME = "envoy.wasm.runtime.v8"
"""The one that is meant when none is named; statistics call it so."""

NULL_RUNTIME = "envoy.wasm.runtime.null"
"""Envoy's plugins compiled into the proxy; there are none here."""

LAZY_SIZE = 1 << 20
"""Bytes of code above which functions are validated before their first run instead of all at the start."""

PAGE = 65536

_Factory = TypeVar("_Factory", bound=GuestFactory)

RETIREMENT = 60.0
"""Seconds that a replaced plugin may go on waiting for answers to its calls, or for its own `proxy_done`."""


class StartError(Exception):
    """The proxy cannot start; the message is the last line of the process."""


def store_limits(limits: Limits, seconds: float | None) -> StoreLimits:
    """The table of limits as the VM wants them, for calls that may take `seconds`."""
    return StoreLimits(
        memory_pages=limits.memory_pages,
        table_elements=limits.table_elements,
        call_depth=limits.call_depth,
        fuel=limits.callback_fuel,
        seconds=seconds,
    )


STREAM_EFFECTS = "pywasmproxy.stream_effects"
"""Entry points of packages that carry out further effects on exchanges: mappings of effects to actions."""


def _further_actions(kind: type[StreamEffect]) -> StreamAction | None:
    return _installed_actions().get(kind)


@cache
def _installed_actions() -> Mapping[type[StreamEffect], StreamAction]:
    import importlib.metadata  # only for guests of extensions

    found: dict[type[StreamEffect], StreamAction] = {}
    for entry in importlib.metadata.entry_points(group=STREAM_EFFECTS):
        found |= entry.load()
    return found


class _Life:
    """What is kept about a VM to know when it has had its time."""

    __slots__ = ("limit", "runtime", "streams")

    def __init__(self, limit: int | None, runtime: str) -> None:
        self.runtime = runtime
        self.limit = limit  # bytes of linear memory that bring a successor; None: never
        self.streams = 0


class _Timer:
    """A plugin's timer as it is running."""

    __slots__ = ("handle", "period_ms")

    def __init__(self, handle: asyncio.TimerHandle, period_ms: int) -> None:
        self.handle, self.period_ms = handle, period_ms


class Filters:
    """All plugins of one proxy."""

    def __init__(
        self,
        bootstrap: Bootstrap,
        log: Log,
        clusters: Mapping[str, Cluster] | None = None,
        foreign_functions: Mapping[str, ForeignFunction] | None = None,
        services: Services | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self.logger = log["wasm"]
        known = clusters if clusters is not None else {one.name: None for one in bootstrap.clusters}

        def hosts(name: str) -> list[str]:
            found = known.get(name)
            return [] if found is None else [str(host) for host in found.hosts.hosts]

        self.host = WasmHost(self.logger, bootstrap.node.as_dict(), known, hosts)
        self.registry = VmRegistry(services, self._snapshots(bootstrap.snapshots), foreign_functions)
        self.slots: list[PluginSlot] = []
        self._modules: dict[str, Module] = {}
        self.codes = CodeStore(clusters or {}, self.logger)
        self.call_outs = CallOuts(clusters or {}, self._answered, self.logger)
        self.dispatcher = Dispatcher(self.call_outs, _further_actions)
        self._lives: WeakKeyDictionary[Vm, _Life] = WeakKeyDictionary()
        self._timers: dict[Plugin, _Timer] = {}
        self.created: dict[str, int] = {}
        """How many VMs there have been, by runtime."""
        self.plugin_counts: dict[str, PluginCounts] = {}
        """Fresh VMs after failures, by the plugin's name."""
        self._usages: dict[tuple[str, str], Usage] = {}  # by vm_id and code
        # Replaced, and not over: since when nothing but its own calls (or its `proxy_done`) is waited for.
        self._retired: dict[Plugin, float | None] = {}

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self.bootstrap.limits

    def _snapshots(self, where: str) -> Snapshots | None:
        if where in ("", SNAPSHOTS_OFF):
            return None
        return Snapshots(None if where == SNAPSHOTS_IN_MEMORY else where, note=self.logger.info)

    # --- start and end --------------------------------------------------------------------------------------

    def inherit(self, other: Filters) -> None:
        """Begin with what another one found out: decoded modules, fetched code, snapshots."""
        self.registry.snapshots = other.registry.snapshots
        self._modules |= other._modules
        self.codes.take(other.codes)

    def start(self) -> None:
        """Start every plugin, in the order of the configuration. StartError: one of them was refused."""
        self.adopt(self.prepare(self.bootstrap))

    def _kept(self, bootstrap: Bootstrap) -> list[PluginSlot]:
        """Those of the running plugins that go on under another configuration."""
        same = bootstrap.limits == self.limits and bootstrap.node == self.bootstrap.node
        return unchanged(self.slots, plugins_of(bootstrap)) if same else []

    def rehearse(self, bootstrap: Bootstrap) -> Snapshots:
        """Start what `prepare` will start, in VMs that share nothing with those that run and are thrown away.
        In any thread; StartError. The result makes `prepare` quick.
        """
        kept = [slot.config for slot in self._kept(bootstrap)]
        snapshots = self.registry.snapshots or HandedOver()
        registry = VmRegistry(snapshots=snapshots, foreign_functions=self.registry.foreign_functions)
        host = self.host.silent()
        for config in plugins_of(bootstrap):
            if config not in kept and self.codes.get(config.code) is not None:
                with _refusal(config):
                    self._begin(config, registry, bootstrap.limits, host)
        return snapshots

    def prepare(self, bootstrap: Bootstrap, snapshots: Snapshots | None = None) -> Generation:
        """Start what a configuration wants and what does not run yet, beside what runs. Nothing is changed.

        StartError: a plugin was refused; what was started before it has been ended again.
        """
        kept = self._kept(bootstrap)
        registry = self.registry.successor(slot.plugin.vm for slot in kept)
        registry.snapshots = snapshots or self.registry.snapshots
        generation = Generation(bootstrap, [], registry, [])
        for config in plugins_of(bootstrap):
            slot = next((slot for slot in kept if slot.config == config), None)
            if slot is None and self.codes.get(config.code) is None:
                for line in load_failed_lines(config.name, config.fail_open):
                    self.logger.critical(line)
                continue
            if slot is None:
                slot = PluginSlot(config)
                try:
                    with _refusal(config):
                        slot.plugin = self._make(config, registry, bootstrap.limits)
                except StartError:
                    self.abandon(generation)
                    raise
                generation.fresh.append(slot)
            generation.slots.append(slot)
        registry.snapshots = self.registry.snapshots
        return generation

    def abandon(self, generation: Generation) -> None:
        """End what was started for a configuration that is not used after all."""
        for slot in generation.fresh:
            self._end(slot.plugin)

    def adopt(self, generation: Generation) -> None:
        """Use a configuration for what begins from now on; exchanges in flight finish where they are."""
        for slot in self.slots:
            if slot not in generation.slots:
                self._retired[slot.plugin] = None
        self.bootstrap, self.slots = generation.bootstrap, generation.slots
        self.registry = generation.registry
        self.host.node = self.bootstrap.node.as_dict()
        used = {slot.config.code.sha256 for slot in self.slots}
        self.codes.keep_only(plugin.code for plugin in plugins_of(self.bootstrap))
        self._modules = {digest: module for digest, module in self._modules.items() if digest in used}

    def close(self) -> None:
        """End every plugin, and the timers."""
        for timer in self._timers.values():
            timer.handle.cancel()
        self._timers.clear()
        self.call_outs.close()
        for plugin in [*self._retired, *self.registry.plugins]:
            self._end(plugin)
        self._retired.clear()

    def _end(self, plugin: Plugin) -> None:
        try:
            plugin.close()
        except PluginFailure as error:
            self.logger.debug(f"plugin {plugin.name}: failed at its end: {error}")
        self.dispatcher.drain(plugin.vm)

    def _begin(self, config: WasmPlugin, registry: VmRegistry, limits: Limits, host: WasmHost) -> Plugin:
        """The plugin of a configuration from a registry, started if need be. PluginStartError."""
        if config.runtime not in RUNTIMES:
            self._refuse_runtime(config)
        return registry.plugin(
            self._module(config.code),
            name=config.name,
            root_id=config.root_id,
            config=config.configuration,
            vm_id=config.vm_id,
            vm_config=config.vm_configuration,
            environment=config.environment_variables,
            host=host,
            limits=store_limits(limits, limits.callback_time),
            start_limits=store_limits(limits, limits.start_time),
            allow_on_headers_stop_iteration=config.allow_on_headers_stop_iteration,
            capabilities=config.allowed_capabilities,
            fail_open=config.fail_open,
        )

    def _make(self, config: WasmPlugin, registry: VmRegistry, limits: Limits) -> Plugin:
        """The same for a plugin that is to be used."""
        plugin = self._begin(config, registry, limits, self.host)
        if plugin.vm not in self._lives:
            self._made_vm(plugin.vm, config)
        self.dispatcher.drain(plugin.vm)  # guests may have begun calls while they were started
        return plugin

    def _made_vm(self, vm: Vm, config: WasmPlugin) -> None:
        """A VM begins its life; what it costs is added to what those before it did."""
        runtime = config.runtime or DEFAULT_RUNTIME
        self._lives[vm] = _Life(self._burst(vm), runtime)
        self.created[runtime] = self.created.get(runtime, 0) + 1
        usage = self._usages.setdefault((vm.vm_id, config.code.sha256), vm.usage)
        if usage is not vm.usage:
            usage.take(vm.usage)
            vm.usage = usage

    def runtime_of(self, vm: Vm) -> str:
        """The name of the runtime that a VM was asked for."""
        life = self._lives.get(vm)
        return DEFAULT_RUNTIME if life is None else life.runtime

    def _refuse_runtime(self, config: WasmPlugin) -> None:
        lines: list[str] = []

        def say(level: LogLevel, text: str) -> None:
            self.logger.log(level, text)
            lines.append(text)

        if config.runtime == NULL_RUNTIME:
            say(LogLevel.ERROR, vm_failed("Failed to load NullVM plugin"))
        else:
            say(
                LogLevel.WARN,
                f"Failed to create Wasm VM using {config.runtime} runtime. "
                "Envoy was compiled without support for it",
            )
        say(LogLevel.ERROR, vm_failed(LOAD_FAILED))
        for line in load_failed_lines(config.name, config.fail_open):
            say(LogLevel.CRITICAL, line)
        raise PluginStartError(LOAD_FAILED, lines)

    def _module(self, code: WasmCode) -> Module | bytes:
        """The code decoded, once for all VMs that run it; as it is when it is no module (the VM says why)."""
        found = self._modules.get(code.sha256)
        if found is None:
            data = self.codes.get(code) or b""
            try:
                found = Module(data, validate="lazy" if len(data) > LAZY_SIZE else "eager")
            except (MalformedError, InvalidError):
                return data
            self._modules[code.sha256] = found
            if code.filename is not None:
                attach(found, Path(code.filename + ".map").read_bytes)
        return found

    # --- what runs ------------------------------------------------------------------------------------------

    @property
    def vms(self) -> list[Vm]:
        """Every VM, the replaced ones with exchanges in flight included."""
        return list(dict.fromkeys([*self.registry.vms, *(plugin.vm for plugin in self._retired)]))

    @property
    def guest_memory(self) -> int:
        """Bytes of linear memory of all VMs."""
        return sum(memory_size(vm) for vm in self.vms)

    def tcp_chain(self, listener: ListenerConfig, proxy: TcpProxy) -> TcpChain:
        """What opens the core's side of a TCP listener's connections."""
        return TcpChain(
            self._factories(listener, WasmTcpFilterFactory),
            proxy,
            buffer_limit=listener.buffer_limit,
            surroundings=self.host,
            known=frozenset(one.name for one in self.bootstrap.clusters),
        )

    def chain(self, listener: ListenerConfig) -> StreamFactory:
        """What opens the core's side of a listener's exchanges."""
        factories = self._factories(listener, WasmFilterFactory)
        chain = FilterChain(
            factories,
            http=listener.http,
            buffer_limit=listener.buffer_limit,
            surroundings=self.host,
            origin=origin(),
            own=itself(self.bootstrap.node),
            has_cluster=self.host.has_cluster,
        )

        return functools.partial(HttpStream, chain)

    def _slot(self, config: WasmPlugin) -> PluginSlot | None:
        return next((slot for slot in self.slots if slot.config == config), None)

    def _factories(self, listener: ListenerConfig, kind: type[_Factory]) -> list[_Factory]:
        """The makers of the filters of the chain that a listener uses."""
        return [self._factory(plugin, kind) for plugin in listener.filter_chains[0].plugins]

    def _factory(self, config: WasmPlugin, kind: type[_Factory]) -> _Factory:
        slot = self._slot(config)
        if slot is None:  # its code could not be fetched
            return kind(None, self.dispatcher, policy=config.failure_policy, fail_open=config.fail_open)

        def plugin_for_exchange() -> Plugin:
            plugin = slot.plugin
            life = self._lives.get(plugin.vm)
            if life is not None:
                life.streams += 1
            return plugin

        def restart() -> None:
            if slot in self.slots:  # else the configuration has been replaced
                slot.plugin = self._make(config, self.registry, self.limits)

        return kind(
            plugin_for_exchange,
            self.dispatcher,
            policy=config.failure_policy,
            fail_open=config.fail_open,
            restart=restart,
            reload_after=config.reload_base_interval,
            counts=self.plugin_counts.setdefault(config.name, PluginCounts()),
        )

    def guest_ran(self) -> None:
        """Guest code may have run: look after timers, memory, and VMs that are no longer used.

        Called from the event loop, never while guest code runs.
        """
        if not self.slots and not self._retired:
            return
        self._deliver()
        for slot in self.slots:
            vm = slot.plugin.vm
            life = self._lives.get(vm)
            if life is not None and self._is_due(vm, life):
                self._replace(vm, life)
        for plugin in list(self._retired):
            if not self.dispatcher.in_flight(plugin.vm):
                self._retire(plugin)
        self.watch_ticks()

    def _answered(self, plugin: Plugin, callback: Callable[[], object]) -> None:
        """Something came for a plugin from outside."""
        self.dispatcher.enter(plugin, callback)
        self.guest_ran()

    async def poll(self) -> None:
        """Look after what other processes put into the store, as long as this one runs."""
        services = self.registry.services
        while True:
            await asyncio.sleep(POLL)
            try:
                services.poll()
                if services.queues.pending:
                    self.guest_ran()
            except Exception:  # a fault of ours: it must not be the last look
                self.logger.error(f"looking after queues failed: {traceback.format_exc().rstrip()}")

    def _deliver(self) -> None:
        """Tell listeners of what was put into their queues."""
        queues = self.registry.services.queues
        if not queues.pending:
            return
        for plugin in queues.deliver():
            self.dispatcher.drain(plugin.vm)
        if queues.pending:
            # Put in by the listeners themselves: after others had their turn.
            asyncio.get_running_loop().call_soon(self.guest_ran)

    # --- successors -----------------------------------------------------------------------------------------

    def _burst(self, vm: Vm) -> int | None:
        """Bytes of linear memory at which a VM gets a successor; None: no such limit.

        A guest that starts near its cap gets half of what is left, so that its successor is not due at once.
        """
        limits = self.limits
        if limits.memory_pages is None or limits.recycle_memory_share is None:
            return None
        cap, now = limits.memory_pages * PAGE, memory_size(vm)
        return max(round(cap * limits.recycle_memory_share), (cap + now) // 2)

    def _is_due(self, vm: Vm, life: _Life) -> bool:
        if vm.failure is not None:
            return False  # what happens then is the failure policy's business
        if life.limit is not None and memory_size(vm) > life.limit:
            return True
        most = self.limits.recycle_streams
        return most is not None and life.streams >= most

    def _replace(self, old: Vm, life: _Life) -> None:
        """Start a fresh VM for new exchanges; those in flight finish on the old one."""
        size = memory_size(old) // 1024
        self.logger.info(f"VM {old.vm_id!r}: {size} KiB after {life.streams} streams, a fresh one takes over")
        self.registry.forget(old)
        for slot in self.slots:
            if slot.plugin.vm is not old:
                continue
            try:
                successor = self._make(slot.config, self.registry, self.limits)
            except PluginStartError as error:
                # Better the old one until its cap than none at all; a dead one follows the failure policy.
                self.logger.error(f"plugin {slot.config.name}: no successor: {error}")
                life.limit, life.streams = None, 0
                continue
            self._retired[slot.plugin] = None
            slot.plugin = successor

    def _retire(self, plugin: Plugin) -> None:
        """End a replaced plugin that serves no exchange any more, when its calls have been answered and it
        has nothing to finish; not later than `RETIREMENT` in any case."""
        now = asyncio.get_running_loop().time()
        since = self._retired[plugin]
        overdue = since is not None and now - since >= RETIREMENT
        waits = not plugin.failed and (plugin.awaiting_done or plugin.vm.calls.expected(plugin))
        if overdue or not waits:
            self._end(plugin)
            waits = plugin.awaiting_done and not plugin.failed
        if waits and not overdue:
            if since is None:
                self._retired[plugin] = now
                asyncio.get_running_loop().call_later(RETIREMENT + 0.1, self.guest_ran)
            return
        del self._retired[plugin]
        plugin.give_up_calls()
        self.dispatcher.drain(plugin.vm)

    # --- ticks ----------------------------------------------------------------------------------------------

    def watch_ticks(self) -> None:
        """Set, change and stop timers as the guests want them now. Needs a running event loop."""
        plugins = [*(slot.plugin for slot in self.slots), *self._retired]
        for plugin in plugins:
            timer = self._timers.get(plugin)
            wanted = 0 if plugin.failed else plugin.tick_period_ms
            if wanted != (timer.period_ms if timer is not None else 0):
                self._set_timer(plugin, wanted)
        if len(self._timers) > len(plugins):
            for plugin in set(self._timers) - set(plugins):
                self._set_timer(plugin, 0)

    def _set_timer(self, plugin: Plugin, period_ms: int) -> None:
        timer = self._timers.pop(plugin, None)
        if timer is not None:
            timer.handle.cancel()
        if period_ms:
            loop = asyncio.get_running_loop()
            self._timers[plugin] = _Timer(
                loop.call_later(period_ms / 1000, self._tick, plugin, period_ms), period_ms
            )

    def _tick(self, plugin: Plugin, period_ms: int) -> None:
        self._set_timer(plugin, period_ms)
        try:
            self.dispatcher.tick(plugin)
        except Exception:
            # A fault of ours: it must not end the timer's plugin, let alone the loop.
            self.logger.error(f"plugin {plugin.name}: tick failed: {traceback.format_exc().rstrip()}")
        self.guest_ran()


def memory_size(vm: Vm) -> int:
    """Bytes of a VM's linear memory."""
    memory = vm.guest.memory
    return memory.nbytes if memory is not None else 0


@contextlib.contextmanager
def _refusal(config: WasmPlugin) -> Iterator[None]:
    """A refused plugin as the refusal of the configuration that wants it."""
    try:
        yield
    except PluginStartError as error:
        raise StartError(f"Unable to create Wasm plugin {config.name}") from error
