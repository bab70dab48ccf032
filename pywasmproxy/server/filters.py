"""`Filters`: the Wasm plugins of one proxy, from one configuration to the next, and the chains they stand in.

What a failed VM means for an exchange is the chain's business (failure policy). How plugins are started is in
`plugin_starts.py`, how their VMs are replaced and end in `successors.py`, timers are in `ticks.py`.
"""

from __future__ import annotations

import asyncio
import functools
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeVar

from abi.proxy_wasm.deferred import StreamEffect
from abi.proxy_wasm.failures import load_failed_lines
from abi.proxy_wasm.foreign import ForeignFunction
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.registry import VmRegistry
from abi.proxy_wasm.services import POLL, Services
from abi.proxy_wasm.snapshots import Snapshots
from abi.proxy_wasm.usage import Usage
from abi.proxy_wasm.vm import Vm
from pywasmproxy.config.limits import Limits
from pywasmproxy.config.model import (
    SNAPSHOTS_IN_MEMORY,
    SNAPSHOTS_OFF,
    Bootstrap,
    TcpProxy,
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
from pywasmproxy.server.plugin_starts import DEFAULT_RUNTIME, PluginStarts, StartError, refusal
from pywasmproxy.server.remote_code import CodeStore
from pywasmproxy.server.slot import PluginSlot
from pywasmproxy.server.successors import Successors, memory_size
from pywasmproxy.server.ticks import Ticks
from pywasmproxy.stats.counts import PluginCounts

_Factory = TypeVar("_Factory", bound=GuestFactory)

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
        self.codes = CodeStore(clusters or {}, self.logger)
        self.starts = PluginStarts(self.codes, self.logger)
        self.call_outs = CallOuts(clusters or {}, self._answered, self.logger)
        self.dispatcher = Dispatcher(self.call_outs, _further_actions)
        self.successors = Successors(self.dispatcher, self.logger, self.guest_ran)
        self.ticks = Ticks(self.dispatcher, self.logger, self.guest_ran)
        self.created: dict[str, int] = {}
        """How many VMs there have been, by runtime."""
        self.plugin_counts: dict[str, PluginCounts] = {}
        """Fresh VMs after failures, by the plugin's name."""
        self._usages: dict[tuple[str, str], Usage] = {}  # by vm_id and code

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
        self.starts.inherit(other.starts)
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
                with refusal(config):
                    self.starts.begin(config, registry, bootstrap.limits, host)
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
                    with refusal(config):
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
            self.successors.end(slot.plugin)

    def adopt(self, generation: Generation) -> None:
        """Use a configuration for what begins from now on; exchanges in flight finish where they are."""
        for slot in self.slots:
            if slot not in generation.slots:
                self.successors.retire(slot.plugin)
        self.bootstrap, self.slots = generation.bootstrap, generation.slots
        self.registry = generation.registry
        self.host.node = self.bootstrap.node.as_dict()
        self.codes.keep_only(plugin.code for plugin in plugins_of(self.bootstrap))
        self.starts.keep_only({slot.config.code.sha256 for slot in self.slots})

    def close(self) -> None:
        """End every plugin, and the timers."""
        self.ticks.close()
        self.call_outs.close()
        for plugin in [*self.successors.retired, *self.registry.plugins]:
            self.successors.end(plugin)
        self.successors.retired.clear()

    def _make(self, config: WasmPlugin, registry: VmRegistry, limits: Limits) -> Plugin:
        """The same for a plugin that is to be used."""
        plugin = self.starts.begin(config, registry, limits, self.host)
        if plugin.vm not in self.successors.lives:
            self._made_vm(plugin.vm, config)
        self.dispatcher.drain(plugin.vm)  # guests may have begun calls while they were started
        return plugin

    def _made_vm(self, vm: Vm, config: WasmPlugin) -> None:
        """A VM begins its life; what it costs is added to what those before it did."""
        runtime = config.runtime or DEFAULT_RUNTIME
        self.successors.begin(vm, runtime, self.limits)
        self.created[runtime] = self.created.get(runtime, 0) + 1
        usage = self._usages.setdefault((vm.vm_id, config.code.sha256), vm.usage)
        if usage is not vm.usage:
            usage.take(vm.usage)
            vm.usage = usage

    def runtime_of(self, vm: Vm) -> str:
        """The name of the runtime that a VM was asked for."""
        life = self.successors.lives.get(vm)
        return DEFAULT_RUNTIME if life is None else life.runtime

    # --- what runs ------------------------------------------------------------------------------------------

    @property
    def vms(self) -> list[Vm]:
        """Every VM, the replaced ones with exchanges in flight included."""
        return list(dict.fromkeys([*self.registry.vms, *(plugin.vm for plugin in self.successors.retired)]))

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
            life = self.successors.lives.get(plugin.vm)
            if life is not None:
                life.streams += 1
            return plugin

        def restart() -> None:
            if slot in self.slots:  # else the configuration has been replaced
                slot.plugin = self._make_again(config)

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
        successors = self.successors
        if not self.slots and not successors.retired:
            return
        self._deliver()
        for slot in self.slots:
            vm = slot.plugin.vm
            if successors.is_due(vm, self.limits):
                self.registry.forget(vm)
                successors.replace(vm, self.slots, self._make_again)
        if successors.retired:
            successors.look()
        self.watch_ticks()

    def watch_ticks(self) -> None:
        """Let timers be as the guests want them now. Needs a running event loop."""
        self.ticks.watch([*(slot.plugin for slot in self.slots), *self.successors.retired])

    def _make_again(self, config: WasmPlugin) -> Plugin:
        return self._make(config, self.registry, self.limits)

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
