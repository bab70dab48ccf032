"""`Workers`: processes that serve one configuration on the same ports, and the one that looks after them.

The parent binds the ports, tries the plugins out (which leaves snapshots, decoded modules and translated
code) and forks; it serves nothing itself and runs no thread and no event loop, so it can fork again at any
time. A worker that dies is replaced, at once the first few times and then after longer and longer pauses.
Connections that nobody has accepted wait in the sockets, which belong to all.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from abi.proxy_wasm.store import Store
from pywasmproxy.config import ConfigError
from pywasmproxy.config.model import SNAPSHOTS_IN_MEMORY, Bootstrap
from pywasmproxy.server.accept import Balance
from pywasmproxy.server.accepted import Accepted, last
from pywasmproxy.server.log import Logger
from pywasmproxy.server.plugin_starts import StartError
from pywasmproxy.server.proxy import Proxy, Server, said_where
from pywasmproxy.server.reloader import states
from pywasmproxy.server.seat import PortKey, Seat, port_key
from pywasmvm.cache import entry

LONG_LIFE = 60.0
"""Seconds after which a worker's end says nothing about those before it."""

AT_ONCE = 5
"""So many workers in a row that had no long life are replaced at once."""

PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the next one is; each pause is twice the one before."""

PATIENCE = 10.0
"""Seconds after the drain time in which workers must end: one writes the cache. Then they are killed."""

_REFUSALS = ConfigError, StartError, OSError
"""What speaks against a configuration, and not against this program."""

PASSED_ON = ("SIGHUP", "SIGUSR1")
"""Signals that are for the workers."""


def possible() -> bool:
    """Whether this system can fork."""
    return hasattr(os, "fork") and sys.platform not in ("emscripten", "wasi", "ios", "android")


@dataclass(slots=True)
class _Worker:
    """A running worker. `ready` is where it says that it serves; -1 when that is closed."""

    pid: int
    ready: int
    since: float
    serves: bool = False


@dataclass(slots=True)
class _Place:
    """One of the places. `due` is when its next worker is forked, `short_lives` how many had no long one."""

    worker: _Worker | None = None
    due: float | None = 0.0
    short_lives: int = 0


class Workers:
    """`count` processes that serve what `proxy` describes."""

    def __init__(self, proxy: Proxy, count: int) -> None:
        self.proxy, self.count = proxy, count
        self.log = proxy.log["main"]
        self._balance = Balance(count)
        self._places = [_Place() for _ in range(count)]
        self._sockets: dict[PortKey, list[socket.socket]] = {}
        self._tried: Server
        self._folder = ""
        self._files = states(proxy.bootstrap.files)
        self._alive = (-1, -1)
        self._wake = (-1, -1)
        self._caught: list[int] = []
        self._stopping: float | None = None  # since when
        self._served = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit status. OSError, StartError, ImportError."""
        proxy = self.proxy
        proxy.warn()
        if not proxy.bootstrap.snapshots:
            proxy.bootstrap = _with_snapshots(proxy.bootstrap)
        with contextlib.ExitStack() as stack:
            # Only we may look into it: sockets of the workers, and a store of their own if none was named.
            self._folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pywasmvm-"))
            store = self._store()
            store.close()  # each worker opens it for itself
            proxy.store = store
            proxy.run_in_loop(self._bind)
            stack.callback(self._close_ports)
            self._tried = proxy.server()
            proxy.run_in_loop(self._tried.rehearse)
            gc.collect()
            gc.freeze()  # so that collections in workers do not touch, and so copy, what they have in common
            stack.callback(gc.unfreeze)
            stack.enter_context(self._pipes())
            stack.enter_context(self._signals())
            return self._supervise()

    def _store(self) -> Store:
        """The store that was named, or one of this host that lives as long as we do."""
        proxy = self.proxy
        if proxy.store is None and not proxy.bootstrap.store:
            from pywasmproxy.stores.sqlite import SqliteStore

            proxy.store = SqliteStore(os.path.join(self._folder, "shared"), lasting=False)
        store = proxy.opened_store()
        if not store.shared:
            self.log.warning(f"store {store.name}: each of {self.count} workers has its own shared data")
        return store

    async def _bind(self) -> None:
        """Take all ports. StartError."""
        server = self.proxy.server()
        for config in self.proxy.bootstrap.listeners:
            port = await server.bound(config)
            said_where(self.proxy.log, config, port.address)
            self._sockets[port_key(config)] = port.detach()

    def _close_ports(self) -> None:
        for one in (one for sockets in self._sockets.values() for one in sockets):
            one.close()
        self._sockets.clear()

    # --- signals --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _pipes(self) -> Iterator[None]:
        self._alive, self._wake = os.pipe(), os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        try:
            yield
        finally:
            for end in (*self._alive, *self._wake):
                os.close(end)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals wake the loop, and are remembered."""
        numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGINT", "SIGCHLD", *PASSED_ON)]
        before: dict[int, Any] = {}
        former = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in numbers:
            if number is not None:
                before[number] = signal.signal(number, lambda caught, frame: self._caught.append(caught))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(former)

    def _handle(self, number: int) -> None:
        name = signal.Signals(number).name
        if name in ("SIGTERM", "SIGINT"):
            self.log.warning(f"caught {name}")
            self._stop(again=self._stopping is not None)
        elif name in PASSED_ON:
            if name == "SIGUSR1":
                pids = ", ".join(str(place.worker.pid) for place in self._places if place.worker)
                self.log.info(f"workers: {pids or 'none'}")
            self._tell(number)

    def _stop(self, *, again: bool = False) -> None:
        """Workers drain, and nobody takes what comes now; the second time they end at once."""
        if self._stopping is None:
            self._stopping = time.monotonic()
        self._close_ports()
        for place in self._places:
            place.due = None
        self._tell(signal.SIGKILL if again else signal.SIGTERM)

    def _tell(self, number: int) -> None:
        for place in self._places:
            if place.worker is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(place.worker.pid, number)

    # --- the life of workers --------------------------------------------------------------------------------

    def _supervise(self) -> int:
        """Look after the workers until the last one has ended."""
        status = 0
        while True:
            while self._caught:
                self._handle(self._caught.pop(0))
            for place in self._places:
                status = self._reap(place) or status
            now = time.monotonic()
            for index, place in enumerate(self._places):
                if place.due is not None and place.due <= now and not self._begin(index, place):
                    status = 1
            if not any(place.worker or place.due is not None for place in self._places):
                self.log.info("exiting")
                return status
            if self._stopping is not None and now - self._stopping > PATIENCE + self.proxy.drain_time:
                self.log.warning("workers that did not end are killed")
                self._tell(signal.SIGKILL)
            self._sleep(now)

    def _sleep(self, now: float) -> None:
        """Until a signal comes, a worker is ready, one is due, or patience ends."""
        times = [place.due for place in self._places if place.due is not None]
        if self._stopping is not None:
            times.append(max(self._stopping + PATIENCE + self.proxy.drain_time, now + 1))
        workers = [place.worker for place in self._places if place.worker is not None]
        starting = {worker.ready: worker for worker in workers if worker.ready >= 0}
        timeout = max(0.0, min(times) - now) if times else None
        readable, _, _ = select.select([self._wake[0], *starting], [], [], timeout)
        for end in readable:
            if end == self._wake[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(end, 4096)
            else:
                if os.read(end, 1) == b"R":
                    self._is_ready(starting[end])
                os.close(end)
                starting[end].ready = -1

    def _is_ready(self, worker: _Worker) -> None:
        worker.serves = True
        self.log.debug(f"worker {worker.pid} serves after {time.monotonic() - worker.since:.3f} s")
        if not self._served and all(place.worker and place.worker.serves for place in self._places):
            self._served = True
            self.log.info(f"all {self.count} workers serve")

    def _begin(self, index: int, place: _Place) -> bool:
        """Fork a worker. False if that is not possible and there never was one."""
        place.due = None
        try:
            self._fork(index, place)
        except OSError as error:
            self.log.error(f"cannot fork a worker: {error.strerror}")
            if not self._served:
                self._stop()
                return False
            place.due = time.monotonic() + PAUSE
        return True

    def _reap(self, place: _Place) -> int:
        """See whether a worker has ended, and what follows; the exit status if all must end."""
        worker = place.worker
        if worker is None:
            return 0
        pid, state = os.waitpid(worker.pid, os.WNOHANG)
        if pid == 0:
            return 0
        place.worker = None
        self._balance.leave(self._places.index(place))
        if worker.ready >= 0:
            os.close(worker.ready)
        code = os.waitstatus_to_exitcode(state)
        if self._stopping is not None:
            return 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        self.log.error(f"worker {pid} ended {how}")
        if not self._served and not worker.serves and code > 0:
            self._stop()  # what did not start now will not start later
            return 1
        now = time.monotonic()
        place.short_lives = 0 if now - worker.since >= LONG_LIFE else place.short_lives + 1
        pause = 0.0
        if place.short_lives > AT_ONCE:
            pause = min(PAUSE * 2 ** (place.short_lives - AT_ONCE - 1), LONGEST_PAUSE)
            self.log.error(f"{place.short_lives} workers in a row had a short life: the next in {pause:g} s")
        place.due = now + pause
        return 0

    def _fork(self, index: int, place: _Place) -> None:
        ready, says = os.pipe()
        _flush()
        # A signal between the fork and the child's own handlers would be handled as the parent does.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                # Threads there are: the one that watches guests, which knows of forks, and numpy's, as well.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(ready)
            os.close(says)
            raise
        if pid == 0:
            status = 1
            try:
                os.close(ready)
                status = self._be_worker(index, says, blocked)
            except BaseException:  # whatever it is, the parent's work must not go on here
                traceback.print_exc()
            finally:
                _flush()
                os._exit(status)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(says)
        place.worker = _Worker(pid, ready, time.monotonic())
        self.log.info(f"worker {index}: process {pid}")

    # --- in a worker ----------------------------------------------------------------------------------------

    def _be_worker(self, index: int, says: int, blocked: set[Any]) -> int:
        """What the child does; its exit status."""
        signal.set_wakeup_fd(-1)
        for name in ("SIGTERM", "SIGCHLD"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        for name in ("SIGINT", *PASSED_ON):  # a terminal sends SIGINT to all, and the parent SIGTERM then
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        for end in (self._alive[1], *self._wake):
            os.close(end)
        for place in self._places:
            if place.worker is not None and place.worker.ready >= 0:
                os.close(place.worker.ready)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._balance.index = index
        self._balance.sit()
        replaces = self._served
        if index == 0:
            entry.inherit()  # one is enough to write what was found out
        seat = Seat(index, self._balance, self._folder, self._alive[0], says, self._sockets, replaces)
        try:
            self._serve(seat, anew=replaces)
        except (ConfigError, StartError, OSError) as error:
            self.log.error(str(error))  # in one piece: others write there, too
            return 1
        except KeyboardInterrupt:
            return 1
        if index == 0:
            entry.end()
        if select.select([self._alive[0]], [], [], 0)[0]:  # the parent has gone, and cannot do that any more
            shutil.rmtree(self._folder, ignore_errors=True)
        return 0

    def _serve(self, seat: Seat, *, anew: bool) -> None:
        """Serve. One that replaces another begins with the configuration as it is by now; if that is refused,
        with the last one that workers took over, and so with what the others serve.
        """
        if anew and self.proxy.source is not None:
            began = Accepted(self.proxy.bootstrap, self._files)
            good = self._last() or began
            if states(good.files) != good.files:
                try:
                    return self._serve_like(self._try_out(self.proxy.source()), seat)
                except _REFUSALS as error:
                    if seat.serves:  # then it is not the configuration
                        raise
                    self._config_log.error(f"the configuration has changed and is refused: {error}")
            if good is not began:
                try:
                    return self._serve_like(self._try_out(good.bootstrap), seat)
                except _REFUSALS as error:
                    if seat.serves:
                        raise
                    self._config_log.error(f"what the other workers serve is refused: {error}")
            self.proxy.bootstrap = began.bootstrap
        return self._serve_like(self._tried, seat)

    @property
    def _config_log(self) -> Logger:
        return self.proxy.log["config"]

    def _last(self) -> Accepted | None:
        """What workers took over last."""
        try:
            return last(self._folder)
        except OSError as error:
            self._config_log.error(f"what the other workers serve cannot be read: {error}")
            return None

    def _try_out(self, bootstrap: Bootstrap) -> Server:
        """A server of that configuration after a rehearsal. ConfigError, StartError, OSError."""
        proxy = self.proxy
        proxy.bootstrap = _with_snapshots(bootstrap)
        tried = proxy.server()
        tried.filters.inherit(self._tried.filters)
        proxy.run_in_loop(tried.rehearse)
        return tried

    def _serve_like(self, tried: Server, seat: Seat) -> None:
        """Serve what was tried out."""
        proxy = self.proxy

        async def serve() -> None:
            server = proxy.server(proxy.store, seat)
            server.filters.inherit(tried.filters)
            await proxy.serve(server)
            # Told once more while the loop is closed, we would end in the middle of it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

        proxy.run_in_loop(serve)


def _with_snapshots(bootstrap: Bootstrap) -> Bootstrap:
    """Workers start from snapshots unless the configuration says otherwise."""
    import dataclasses

    return dataclasses.replace(bootstrap, snapshots=bootstrap.snapshots or SNAPSHOTS_IN_MEMORY)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
