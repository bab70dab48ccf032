"""A configuration replaced by another one while the proxy runs: prepared beside it, then swapped at once.

What may fail or take long comes first - names are looked up, ports taken, plugins tried out - and touches
nothing that runs; if it fails, the new configuration is refused as a whole. The swap itself cannot fail and
lets nothing in between. What is under way finishes with the plugins, routes and clusters it began with.

Plugins are tried out in a thread, in VMs of their own with nothing shared, so that requests are served
meanwhile (Envoy, too, starts a plugin once for nothing). It also leaves their code translated, or a snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pywasmproxy.config.model import Bootstrap
from pywasmproxy.config.model import Listener as ListenerConfig
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.generation import Generation, plugins_of
from pywasmproxy.server.plugin_starts import StartError
from pywasmproxy.server.port import Port
from pywasmproxy.server.remote_code import CodeStore

if TYPE_CHECKING:
    from pywasmproxy.server.proxy import Server

LOOK_AGAIN = 0.1
"""Seconds between looks at whether anything still uses a cluster that was replaced."""

T = TypeVar("T")


class Change:
    """From the running configuration to another one."""

    def __init__(self, server: Server, bootstrap: Bootstrap) -> None:
        self.server, self.bootstrap = server, bootstrap
        self.clusters = {
            config.name: Cluster(config, server.parser, server.log["upstream"])
            for config in bootstrap.clusters
            if (old := server.clusters.get(config.name)) is None or old.config != config
        }
        for name, cluster in self.clusters.items():
            if (old := server.clusters.get(name)) is not None:
                cluster.counts = old.counts  # they go on, as in Envoy
        #: For every listener that is wanted, the port that will serve it.
        self.ports: list[tuple[ListenerConfig, Port[Any]]] = []
        self.fresh: list[Port[Any]] = []

    async def make(self) -> None:
        """Prepare and swap. StartError: refused, and nothing has changed."""
        server = self.server
        before = dict(server.clusters)
        try:
            await asyncio.gather(*(cluster.start() for cluster in self.clusters.values()))
            await self._take_ports()
            await self._fetch()
            snapshots = await in_thread(lambda: server.filters.rehearse(self.bootstrap))
            server.clusters |= self.clusters  # plugins may call them while they start
            generation = server.filters.prepare(self.bootstrap, snapshots)
        except BaseException:
            server.clusters.clear()
            server.clusters |= before
            for port in self.fresh:
                port.release()
            await asyncio.gather(*(cluster.close() for cluster in self.clusters.values()))
            raise
        self._swap(generation, before)
        for port in self.fresh:
            await port.accept()

    async def _fetch(self) -> None:
        """Get code from elsewhere, through the clusters there will be."""
        server = self.server
        codes = [plugin.code for plugin in plugins_of(self.bootstrap)]
        store = CodeStore(server.clusters | self.clusters, server.log["wasm"], server.filters.codes)
        if not await store.fetch(codes):
            raise StartError("the code of a plugin could not be fetched")
        server.filters.codes.take(store)

    async def _take_ports(self) -> None:
        """Find or bind the port of each listener."""
        server, left = self.server, list(self.server.listeners)
        for config in self.bootstrap.listeners:
            port = next((port for port in left if port.suits(config)), None)
            if port is not None:
                left.remove(port)
            if port is None or port.config.kind != config.kind:
                port = await server.bound(config, taken_over=port)
                self.fresh.append(port)
            self.ports.append((config, port))

    def _swap(self, generation: Generation, before: dict[str, Cluster]) -> None:
        server = self.server
        server.generation += 1
        server.bootstrap = self.bootstrap
        for name in before.keys() - {config.name for config in self.bootstrap.clusters}:
            del server.clusters[name]
        server.filters.adopt(generation)
        for config, port in self.ports:
            port.serve(server.serving(config))
        wanted = [port for _, port in self.ports]
        dropped = [port for port in server.listeners if port not in wanted]
        server.listeners = wanted
        server.filters.guest_ran()
        for port in dropped:
            server.dropped.add(port)
            server.later(self._drain(port))
        replaced = [cluster for name, cluster in before.items() if server.clusters.get(name) is not cluster]
        if replaced:
            server.later(self._close(replaced, server.generation))

    async def _drain(self, port: Port[Any]) -> None:
        """Let a listener end that is no longer wanted."""
        port.abandon()
        await port.drain(self.server.drain_time)
        self.server.dropped.discard(port)

    async def _close(self, clusters: list[Cluster], generation: int) -> None:
        """Close clusters when nothing that began before this generation is left."""
        server = self.server
        while any(
            stream.serving.generation < generation
            for port in (*server.listeners, *server.dropped)
            for stream in port.streams
        ):
            await asyncio.sleep(LOOK_AGAIN)
        await asyncio.gather(*(cluster.close() for cluster in clusters))


async def in_thread(work: Callable[[], T]) -> T:
    """Do it in a thread, or here where threads cannot be started."""
    try:
        return await asyncio.to_thread(work)
    except RuntimeError as error:
        if "thread" not in str(error):
            raise
        return work()
