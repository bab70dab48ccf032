"""`Proxy`: a configuration brought to life - log, clusters, plugins, listeners - and taken down again.

Use `run()` for a process of its own, or `async with proxy.running() as server:` inside a program or a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import Any, TypeVar

from abi.proxy_wasm.foreign import ForeignFunction
from abi.proxy_wasm.services import Services
from abi.proxy_wasm.store import Store, StoreError
from pywasmproxy import stores
from pywasmproxy.config import ConfigError, load, load_file
from pywasmproxy.config.model import Address, Bootstrap, WasmCode
from pywasmproxy.config.model import Listener as ListenerConfig
from pywasmproxy.sansio.format import Need
from pywasmproxy.server.access_log import AccessLogs
from pywasmproxy.server.admin import AdminServer, is_loopback
from pywasmproxy.server.admin_dump import now
from pywasmproxy.server.admin_pages import AdminPages
from pywasmproxy.server.cluster import Cluster
from pywasmproxy.server.codec import HeadParser, head_parser
from pywasmproxy.server.filters import Filters
from pywasmproxy.server.generation import plugins_of
from pywasmproxy.server.identity import origin
from pywasmproxy.server.listener import Listener
from pywasmproxy.server.log import Log
from pywasmproxy.server.machine import resident_memory
from pywasmproxy.server.measures import Measures
from pywasmproxy.server.observed import Places
from pywasmproxy.server.peers import Peers
from pywasmproxy.server.plugin_starts import StartError
from pywasmproxy.server.port import Port, Serving
from pywasmproxy.server.reload import Change
from pywasmproxy.server.reloader import Reloader, Source
from pywasmproxy.server.seat import Seat
from pywasmproxy.server.tcp import TcpListener

__all__ = ["ConfigError", "Proxy", "Server", "StartError"]

DRAIN_TIME = 3.0
"""Seconds that requests in flight get to finish after SIGTERM."""

_T = TypeVar("_T")

FETCH_AGAIN = 10.0
"""Seconds between attempts to fetch code that could not be fetched when the proxy started."""


class Server:
    """A running proxy."""

    def __init__(
        self,
        bootstrap: Bootstrap,
        log: Log,
        parser: HeadParser,
        foreign_functions: Mapping[str, ForeignFunction] | None = None,
        store: Store | None = None,
        seat: Seat | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self.seat = seat
        """This process's place among several workers; None if it is the only one."""
        self.services = Services(store, note=log["wasm"].warning)
        """What plugins share, also with those of other processes if the store is theirs, too."""
        self.log = log
        self.parser = parser
        self.clusters: dict[str, Cluster] = {
            config.name: Cluster(config, parser, log["upstream"]) for config in bootstrap.clusters
        }
        self.filters = Filters(bootstrap, log, self.clusters, foreign_functions, self.services)
        self.measures = Measures(self)
        self.access_logs = AccessLogs(log["main"])
        self.admin: AdminServer | None = None
        self.peers: Peers | None = None
        """The other workers, where there are several and an admin server."""
        self.started_at = self.loaded_at = now()
        self._failing = False
        self.leave = asyncio.Event()
        """Set when the process shall end."""
        self._phase = "INITIALIZING"
        self.generation = 0
        """Counts the configurations that were loaded after the first one."""
        self.listeners: list[Port[Any]] = []
        self.dropped: set[Port[Any]] = set()
        """Listeners that are no longer wanted and have not ended."""
        self.drain_time = DRAIN_TIME
        self.reloader: Reloader | None = None
        """What loads the configuration anew; None where there is nothing to read it from."""
        self._changing = asyncio.Lock()
        self._later: set[asyncio.Task[None]] = set()

    @property
    def addresses(self) -> dict[str, Address]:
        """Where the listeners are, by name; with the ports the system chose for port 0."""
        return {one.config.name: one.address for one in self.listeners if one.address is not None}

    @property
    def url(self) -> str:
        """The first listener's address as `http://host:port`."""
        return f"http://{next(iter(self.addresses.values()))}"

    @property
    def streams(self) -> int:
        """Exchanges, and TCP connections, that are not over."""
        return sum(len(listener.streams) for listener in (*self.listeners, *self.dropped))

    @property
    def connections(self) -> int:
        """Open connections of clients."""
        return sum(len(listener.connections) for listener in (*self.listeners, *self.dropped))

    async def start(self) -> None:
        """Bind every port, start every plugin, resolve every name, then accept. OSError, StartError."""
        try:
            await self._start_peers()
            await self._start_admin()
            for config in self.bootstrap.listeners:
                self.listeners.append(await self.bound(config))
            await self._start_plugins()
            for listener in self.listeners:
                listener.serve(self.serving(listener.config))
            self.filters.watch_ticks()
            self.filters.call_outs.open()
            for listener in self.listeners:
                await listener.accept()
                if self.seat is None:
                    said_where(self.log, listener.config, listener.address)
            if self.services.store.shared:
                self.later(self.filters.poll())
            self._phase = "LIVE"
        except BaseException:
            await self.stop(0)
            raise

    @property
    def state(self) -> str:
        """Envoy's word for how the server is: LIVE, DRAINING, PRE_INITIALIZING, INITIALIZING."""
        return "DRAINING" if self.failing else self._phase

    async def _start_peers(self) -> None:
        """Be there for the other workers, if there are any, for the admin server's sake."""
        seat = self.seat
        if seat is None or self.bootstrap.admin is None or not hasattr(asyncio, "start_unix_server"):
            return
        peers = Peers(self, seat.folder, seat.index, len(seat.balance))
        try:
            await peers.start()
            if seat.replaces:
                await peers.join()
        except OSError as error:
            self.log["admin"].warning(f"statistics are those of single workers: {error}")
            return
        self.peers = peers

    async def _start_admin(self) -> None:
        """Serve the admin's address, if there is one; of several workers, the first one does. StartError."""
        config = self.bootstrap.admin
        if config is None or (self.seat is not None and self.seat.index):
            return
        pages = AdminPages(self, self.peers)
        admin = AdminServer(config.address, pages.answer, self.parser, self.log["admin"])
        try:
            await admin.start()
        except OSError as error:
            raise StartError(
                f"admin: cannot listen on {config.address}: "
                f"{os.strerror(error.errno) if error.errno else error}"
            ) from None
        self.admin = admin
        self.log["main"].info(f"admin address: {admin.address}")
        if not is_loopback(config.address.host):
            self.log["admin"].warning("the admin server can be reached from other machines")

    def drain(self, port: Port[Any], *, graceful: bool) -> None:
        """Let a listener end: at once for new connections, or (`graceful`) after the drain time, in which
        clients are told that their connections end."""

        async def drain() -> None:
            if graceful:
                port.draining = True
                await asyncio.sleep(self.drain_time)
            port.abandon()
            await port.drain(self.drain_time)

        self.later(drain())

    async def _start_plugins(self) -> None:
        for cluster in self.clusters.values():
            await cluster.start()
        codes = [plugin.code for plugin in plugins_of(self.bootstrap)]
        if not await self.filters.codes.fetch(codes):
            self.later(self._fetch_the_rest(codes))
        self.filters.start()

    async def _fetch_the_rest(self, codes: list[WasmCode]) -> None:
        """Ask on and on for code that did not come, and start its plugins when it has."""
        generation = self.generation
        while self.generation == generation:
            await asyncio.sleep(FETCH_AGAIN)
            if await self.filters.codes.fetch(codes):
                with contextlib.suppress(StartError):  # it has been logged
                    await self.reload(self.bootstrap)
                return

    async def rehearse(self) -> None:
        """Try out what `start` would start; no port is taken, and guests are not heard. What was found out
        is for others to `inherit`. StartError.
        """
        try:
            for cluster in self.clusters.values():
                await cluster.start()
            await self.filters.codes.fetch(plugin.code for plugin in plugins_of(self.bootstrap))
            self.filters.rehearse(self.bootstrap)
        finally:
            await self.stop(0)

    async def check(self) -> None:
        """Start every plugin and end it again; no port is taken. StartError."""
        try:
            await self._start_plugins()
            if self._later:
                raise StartError("the code of a plugin could not be fetched")
        finally:
            await self.stop(0)

    @property
    def failing(self) -> bool:
        """Whether health checks are told that this proxy is not to be used (`/healthcheck/fail`)."""
        return self._failing

    @failing.setter
    def failing(self, failing: bool) -> None:
        self._failing = failing
        for port in self.listeners:
            port.fail_checks(failing)

    async def bound(self, config: ListenerConfig, taken_over: Port[Any] | None = None) -> Port[Any]:
        """A listener that has its port, perhaps one that another has, and accepts nothing yet. StartError."""
        listener = self._listener(config)
        listener.fail_checks(self.failing)
        try:
            await listener.bind(taken_over, self.seat)
        except OSError as error:
            raise StartError(
                f"listener {config.name}: cannot listen on {config.address}: "
                f"{os.strerror(error.errno) if error.errno else error}"
            ) from None
        return listener

    def _listener(self, config: ListenerConfig) -> Port[Any]:
        serving, guest_ran = self.serving(config), self.filters.guest_ran
        if config.tcp is not None:
            return TcpListener(serving, self.log["filter"], guest_ran)
        return Listener(serving, self.parser, self.log, guest_ran)

    def serving(self, config: ListenerConfig) -> Serving[Any]:
        """What a listener does with what begins now."""
        filters = self.filters
        by_chain: tuple[Serving[Any], ...] = ()
        if len(config.filter_chains) > 1:
            by_chain = tuple(
                self.serving(replace(config, filter_chains=(one,))) for one in config.filter_chains
            )
        chain: Any = filters.chain(config) if config.tcp is None else filters.tcp_chain(config, config.tcp)
        # A copy: what has begun keeps its clusters.
        clusters = dict(self.clusters)
        return Serving(
            config,
            clusters,
            chain,
            self.bootstrap.node.as_dict(),
            self.generation,
            by_chain,
            **self._accounts(config),
        )

    def _accounts(self, config: ListenerConfig) -> dict[str, Any]:
        """Where a listener's exchanges are counted and written down."""
        written = config.tcp.access_logs if config.tcp is not None else config.http.access_logs
        loggers = self.access_logs.loggers(written, origin())
        needs = reduce(or_, (logger.needs for logger in loggers), Need.NOTHING)
        if needs:
            for cluster in self.clusters.values():
                cluster.observe(needs)
        found: dict[str, Any] = {"access_logs": loggers, "needs": needs}
        if Need.HOSTS in needs:
            found["places"] = Places(config)
        if config.tcp is None:
            found["counts"] = self.measures.http(config.http.stat_prefix)
        return found

    async def reload(self, bootstrap: Bootstrap) -> None:
        """Go over to another configuration without losing a request.

        StartError: it is refused as a whole, and the running one stays.
        """
        if bootstrap.admin != self.bootstrap.admin:
            self.log["admin"].warning("the admin server stays where it is until the process starts anew")
        async with self._changing:
            await Change(self, bootstrap).make()
            self.loaded_at = now()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside everything else; `stop` ends it."""
        task = asyncio.get_running_loop().create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def stop(self, drain_time: float | None = None) -> None:
        """Finish what runs, for `drain_time` seconds at most; then close everything."""
        drain_time = self.drain_time if drain_time is None else drain_time
        self._phase = "DRAINING"
        ports = [*self.listeners, *self.dropped]
        await asyncio.gather(*(listener.drain(drain_time) for listener in ports))
        for task in list(self._later):
            task.cancel()
        if self._later:
            await asyncio.wait(self._later)
        self.filters.call_outs.close()
        for cluster in self.clusters.values():
            await cluster.close()
        self.filters.close()
        await self.access_logs.close()
        if self.admin is not None:
            await self.admin.close()
        if self.peers is not None:
            self.peers.close()
        self.services.close()

    def status(self) -> str:
        """One line about memory, connections and streams."""
        clusters = self.clusters.values()
        upstream = sum(len(part.connections) + part.tcp_connections for one in clusters for part in one.parts)
        vms = self.filters.vms
        return (
            f"status: rss={resident_memory()} guest_memory={self.filters.guest_memory} vms={len(vms)} "
            f"connections={self.connections} streams={self.streams} upstream_connections={upstream}"
        )


class Proxy:
    """What to run: a configuration and how to run it.

    `codec` is `h11`, `httptools` or None for the faster one that is installed; `loop` is `asyncio`, `uvloop`
    or `auto` (only `run` uses it). `source` reads the configuration again when it is to be loaded anew; with
    `watch` that is as soon as one of its files has changed. `store` keeps what plugins share, in the place of
    the one that the configuration names. `drain_time`: seconds that requests in flight get to finish at the
    end. `foreign_functions` are functions of yours that plugins may call by name
    (`abi.proxy_wasm.foreign`); packages can bring theirs under an entry point.
    """

    def __init__(
        self,
        bootstrap: Bootstrap,
        *,
        log: Log | None = None,
        codec: str | None = None,
        loop: str = "auto",
        source: Source | None = None,
        watch: bool = False,
        store: Store | None = None,
        foreign_functions: Mapping[str, ForeignFunction] | None = None,
        drain_time: float = DRAIN_TIME,
    ) -> None:
        self.store = store
        self.drain_time = drain_time
        self.foreign_functions = foreign_functions
        self.source, self.watch = source, watch
        self.bootstrap = bootstrap
        self.log = log if log is not None else Log()
        self.parser = head_parser(codec)
        self._loop = loop

    @classmethod
    def from_bootstrap(cls, bootstrap: Bootstrap, **options: Any) -> Proxy:
        """From a loaded configuration."""
        return cls(bootstrap, **options)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> Proxy:
        """From an Envoy configuration file. ConfigError."""
        return cls(load_file(path), **{"source": functools.partial(load_file, path)} | options)

    @classmethod
    def from_text(cls, text: str, **options: Any) -> Proxy:
        """From the text of an Envoy configuration. ConfigError."""
        return cls(load(text), **options)

    def opened_store(self) -> Store:
        """The store, after a look whether it can be used. StartError."""
        name = self.bootstrap.store or stores.MEMORY
        store = self.store
        try:
            if store is None:
                store = stores.open_store(name)
            store.check()
        except (ValueError, ImportError, StoreError) as error:
            raise StartError(f"store {name if store is None else store.name}: {error}") from error
        return store

    def server(self, store: Store | None = None, seat: Seat | None = None) -> Server:
        """One that has not been started."""
        server = Server(self.bootstrap, self.log, self.parser, self.foreign_functions, store, seat)
        server.drain_time = self.drain_time
        return server

    @contextlib.asynccontextmanager
    async def running(self, server: Server | None = None) -> AsyncIterator[Server]:
        """A started server (the one given, or its own); stopped when the block ends. OSError, StartError."""
        if server is None:
            self.warn()
            server = self.server(self.opened_store())
        await server.start()
        if self.source is not None:
            server.reloader = Reloader(server, self.source)
            if self.watch:
                server.later(server.reloader.watch())
        try:
            yield server
        finally:
            await server.stop()

    def warn(self) -> None:
        """Log what the configuration has that is ignored."""
        for warning in self.bootstrap.warnings:
            self.log["config"].warning(str(warning))

    def check(self) -> None:
        """Start every plugin and end it again. StartError.

        Code that has to be fetched needs an event loop: then RuntimeError where one is running already.
        """
        self.warn()

        async def check() -> None:
            await self.server().check()

        if any(plugin.code.remote is not None for plugin in plugins_of(self.bootstrap)):
            self.run_in_loop(check)
            return
        filters = self.server().filters
        try:
            filters.start()
        finally:
            filters.close()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. OSError, StartError, ImportError (uvloop is not installed)."""
        self.run_in_loop(self.serve)

    def run_in_loop(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do something in an event loop of its own."""
        with asyncio.Runner(loop_factory=self._loop_factory()) as runner:
            return runner.run(work())

    def _loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        if self._loop == "asyncio":
            return None
        try:
            import uvloop
        except ImportError:
            if self._loop == "uvloop":
                raise
            return None
        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory

    async def serve(self, server: Server | None = None) -> None:
        """Serve until told to stop; a worker also until its parent has gone."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        main = self.log["main"]
        seat = None if server is None else server.seat

        def asked_to_stop(name: str) -> None:
            main.warning(f"caught {name}")
            if stop.is_set() and seat is None:  # the second time: at once
                raise KeyboardInterrupt
            stop.set()

        # Workers are told by their parent, and often by the system, too; it is the parent that ends patience.
        for name in ("SIGTERM", "SIGINT") if seat is None else ("SIGTERM",):
            _on_signal(loop, name, functools.partial(asked_to_stop, name))
        if seat is not None:
            alive = seat.alive

            def alone() -> None:
                loop.remove_reader(alive)
                asked_to_stop("the end of its parent")

            loop.add_reader(alive, alone)
        async with self.running(server) as server:
            if server.reloader is not None:
                _on_signal(loop, "SIGHUP", functools.partial(server.reloader.soon, "SIGHUP"))
            _on_signal(loop, "SIGUSR1", lambda: main.info(_collected(server)))
            gc.collect()  # what starting has left: in the middle of the first request it would take as long
            main.info(f"starting main dispatch loop (HTTP/1.1 by {self.parser.name})")
            if seat is not None:
                seat.serving()
            server.leave = stop
            await stop.wait()
        main.info("exiting")


def said_where(log: Log, config: ListenerConfig, address: Address | None) -> None:
    """Log where a listener is."""
    log["main"].info(f"listener {config.name}: listening on {address}")


def _collected(server: Server) -> str:
    """The server's status after a garbage collection."""
    gc.collect()
    return server.status()


def _on_signal(loop: asyncio.AbstractEventLoop, name: str, action: Callable[[], None]) -> None:
    """Handle a signal where the platform has it."""
    number = getattr(signal, name, None)
    if number is None:
        return
    try:
        loop.add_signal_handler(number, action)
    except (NotImplementedError, RuntimeError):  # Windows, or a loop outside of the main thread
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(action))
