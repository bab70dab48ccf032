"""`Vm`: one guest instance - linked, initialised, entered for callbacks, and dead after its first trap.

Source: proxy-wasm specification 0.2.1, "Module lifecycle"; Envoy 1.40 for the order of the entry points, for
what is restricted when, and for what a trap means. Several plugins may live in one VM (`registry.py`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from abi.guest import GuestMemory
from abi.proxy_wasm import failures
from abi.proxy_wasm.callouts import Calls
from abi.proxy_wasm.contexts import Context
from abi.proxy_wasm.deferred import Deferred
from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.host import Host, MemoryHost
from abi.proxy_wasm.linking import Bindings, export_errors, import_errors, version_of
from abi.proxy_wasm.services import MetricIds, Services
from abi.proxy_wasm.snapshots import Snapshots, key_of
from abi.proxy_wasm.started import Started
from abi.proxy_wasm.types import LogLevel
from abi.proxy_wasm.usage import Usage
from abi.proxy_wasm.versions import callbacks, further_buffers
from pywasmvm import (
    Func,
    InvalidError,
    MalformedError,
    Memory,
    Module,
    Snapshot,
    SnapshotError,
    Store,
    StoreLimits,
    Trap,
)
from pywasmvm.runtime.snapshot import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from abi.proxy_wasm.foreign import ForeignFunction
    from abi.proxy_wasm.plugin import Plugin

RawFunc = Callable[..., Any]

ALLOCATORS = ("malloc", "proxy_on_memory_allocate")
"""Names of the guest's allocator; the first one exported serves, in Envoy's order."""

EAGER_BYTES = 1 << 20
"""Modules up to this size are validated as a whole before they start; larger ones (Go's have megabytes of
runtime that never runs) function by function before each one's first run."""


class Vm:
    """A running guest.

    `limits` hold for every call into it; `start_limits` (by default the same) until the first plugin is
    configured, because large modules need much longer to initialise than to handle a request. Fuel counts per
    call, too. `foreign_functions` are the embedder's own (`foreign.py`). `capabilities` names what the guest
    may call and be called with; None is no restriction. `services` holds what VMs share (data, queues,
    metrics); without it the VM has its own. With a `snapshot` the VM begins as the one it was taken of was
    after its initialisation, which does not run again; `snapshots` brings such snapshots, and takes those
    that are missing. `start_key` names the plugin that will be the first: if its start has been kept, too,
    the VM begins after it, and `started` is what is left to be done.

    `failure` is None while the VM lives and the exception that ended it afterwards. `deferred` holds what
    the guest asked for, for whoever entered it. `usage` is what its callbacks cost; another VM's may take its
    place.

    Raises `PluginStartError` when the module is not one this host can run, `SnapshotError` when it is not the
    one of `snapshot`, or the environment or the capabilities are not.
    """

    def __init__(
        self,
        module: Module | bytes,
        *,
        vm_id: str = "",
        configuration: bytes = b"",
        environment: Mapping[str, str] | None = None,
        host: Host | None = None,
        limits: StoreLimits | None = None,
        start_limits: StoreLimits | None = None,
        capabilities: frozenset[str] | None = None,
        services: Services | None = None,
        snapshot: Snapshot | None = None,
        snapshots: Snapshots | None = None,
        start_key: bytes | None = None,
        foreign_functions: Mapping[str, ForeignFunction] | None = None,
    ) -> None:
        self.foreign_functions: Mapping[str, ForeignFunction] = foreign_functions or {}
        self.vm_id, self.configuration = vm_id, configuration
        self.environment: dict[str, str] = dict(environment or {})
        self.host: Host = host if host is not None else MemoryHost()
        self.capabilities = capabilities or None
        self.services = services if services is not None else Services()
        self.metric_ids = MetricIds()
        self.trace: Callable[[str], None] | None = None
        if self.host.log_level is LogLevel.TRACE:
            self.trace = getattr(self.host, "trace", None)

        self.failure: PluginFailure | None = None
        self.usage = Usage()
        self._start_lines: list[str] | None = []  # the host's lines since a start began; None outside of one
        self.deferred: deque[Deferred] = deque()
        self.calls = Calls()
        self.contexts: dict[int, Context] = {}
        self.plugins: list[Plugin] = []
        self._last_id = 0
        self._after_callback: list[Callable[[], None]] = []

        self.own_context = Context(self, 0, None, "")
        self.current: Context = self.own_context  # whose callback runs
        self.active: Context = self.own_context  # what host functions act on
        self._depth = 0

        self.limits = limits if limits is not None else StoreLimits()
        self.start_limits = start_limits if start_limits is not None else self.limits
        self.store = Store(limits=self.start_limits)
        self.guest = GuestMemory()
        self.module = self._decoded(module)
        #: The start of the first plugin, brought back by a snapshot.
        self.started: Started | None = None
        self._watched: Started | None = None
        self._load(snapshot, snapshots, start_key)

    # --- start ----------------------------------------------------------------------------------------------

    def _decoded(self, module: Module | bytes) -> Module:
        if not isinstance(module, bytes):
            return module
        if not module:  # Envoy says nothing more about an empty file than that the plugin failed to load
            raise PluginStartError(failures.LOAD_FAILED, [])
        try:
            return Module(module, validate="eager" if len(module) <= EAGER_BYTES else "lazy")
        except (MalformedError, InvalidError) as error:
            raise self.refused(failures.LOAD_FAILED, failures.vm_failed(failures.CORRUPTED)) from error

    def _load(self, snapshot: Snapshot | None, snapshots: Snapshots | None, start_key: bytes | None) -> None:
        version = version_of(self.module)
        if version is None:
            raise self.refused(failures.LOAD_FAILED, failures.vm_failed(failures.MISSING_MARKER))
        self.version, self.further_buffers = version, further_buffers(version)
        errors = list(import_errors(self.module, version)) or list(export_errors(self.module, version))
        names = callbacks(version)
        allocator = next((name for name in ALLOCATORS if name in self.module.exports), None)
        if not errors and allocator is None:
            errors = [failures.vm_failed(failures.MISSING_MALLOC)]
        if errors or allocator is None:
            raise self.refused(failures.INITIALIZE_FAILED, *errors)

        self._bindings = Bindings(self, self.module)
        restored = self._restored(snapshot, snapshots, start_key)
        if not restored:
            try:
                self.instance = self._bindings.linker.instantiate(self.module, self.store)
            except Exception as error:
                self.fail("start", error)
                raise self.refused(failures.INITIALIZE_FAILED) from error
        self.guest.memory = self._memory_of(self.instance.exports)
        self.guest.allocate = self._allocate
        self._allocator_name = allocator
        self._functions: dict[str, RawFunc] = {
            name: export.raw
            for name, row in names.items()
            if isinstance(export := self.instance.exports.get(name), Func)
            and (self.capabilities is None or not row.capability or name in self.capabilities)
        }
        self._allocator = self._functions[allocator]
        if not restored:
            self._bindings.enter_initialize()
            self._initialize()
        self._bindings.leave_initialize()
        if snapshots is not None and not restored:
            snapshots.keep(self)

    def _restored(
        self, snapshot: Snapshot | None, snapshots: Snapshots | None, start_key: bytes | None
    ) -> bool:
        """Whether the instance could be had from a snapshot: the one that was given, or one that is there."""
        if snapshot is not None:
            if snapshot.key != self.snapshot_key:
                raise SnapshotError("it was taken with another environment, or with other capabilities")
            self.instance = self._bindings.linker.instantiate(self.module, self.store, snapshot=snapshot)
            return True
        if snapshots is None:
            return False
        for key in (start_key, self.snapshot_key):
            found = None if key is None else snapshots.find(digest(self.module), key)
            if found is None:
                continue
            try:
                started = Started.from_bytes(found.extra) if key == start_key else None
                self.instance = self._bindings.linker.instantiate(self.module, self.store, snapshot=found)
            except SnapshotError as error:
                snapshots.misfit(found, error)
                # In the old one, what was made half-way may still count as used.
                self.store = Store(limits=self.start_limits)
                continue
            self.started = started
            return True
        return False

    @property
    def snapshot_key(self) -> bytes:
        """What a snapshot of this VM depends on besides the module: see `snapshots.key_of`."""
        return key_of(self.environment, self.capabilities)

    def snapshot(self) -> Snapshot:
        """The VM as its initialisation left it, to start others from.

        Its log lines are not part of it; what it was told of time and randomness is. Raises `SnapshotError`
        once there has been a context: the host knows things about the guest then that a snapshot does not
        have. Before that the ABI lets guests log, and ask questions, but change nothing outside.
        """
        self._check_own()
        if self._last_id:
            raise SnapshotError("a context has been made in the VM: snapshots are taken before")
        return Snapshot.take(self.instance, key=self.snapshot_key)

    def snapshot_started(self, key: bytes, started: Started) -> Snapshot:
        """The VM as the start of its first plugin left it, to start others from. Raises `SnapshotError` where
        that left more behind than the guest's memory and what can be repeated.
        """
        self._check_own()
        if started.calls:
            raise SnapshotError(f"the guest has called {', '.join(started.calls)}")
        if self._last_id != 1 or list(self.contexts) != [1]:
            raise SnapshotError("other contexts have been made in the VM")
        return Snapshot.take(self.instance, key=key, extra=started.to_bytes())

    def _check_own(self) -> None:
        """Raise `SnapshotError` if the host knows things about the guest that are not in the guest."""
        if self.failure is not None:
            raise SnapshotError(f"the VM is dead: {self.failure}")
        if self.deferred or self._after_callback:
            raise SnapshotError("the guest has asked the host for something that waits to be done")
        if len(self.metric_ids):
            raise SnapshotError("the guest has defined metrics")

    @contextmanager
    def watched_start(self) -> Iterator[Started]:
        """Record what a start leaves with the host (`started.py`)."""
        self._watched = watched = Started()
        self._bindings.watch(lambda name: watched.calls.setdefault(name, None))
        begin = time.process_time()
        try:
            yield watched
        finally:
            watched.seconds = time.process_time() - begin
            self._bindings.stop_watching()
            self._watched = None

    def _initialize(self) -> None:
        """The first entry points: reactors have `_initialize` (and perhaps `main`), commands `_start`."""
        sequence: list[tuple[str, tuple[int, ...]]] = []
        if "_initialize" in self._functions:
            sequence.append(("_initialize", ()))
            if "main" in self._functions:
                sequence.append(("main", (0, 0)))
            elif "__main_void" in self._functions:
                sequence.append(("__main_void", ()))
        elif "_start" in self._functions:
            sequence.append(("_start", ()))
        for name, arguments in sequence:
            try:
                self.call(self.own_context, name, *arguments)
            except PluginFailure as error:
                raise self.refused(failures.INITIALIZE_FAILED) from error

    @staticmethod
    def _memory_of(exports: Mapping[str, Any]) -> Memory | None:
        """The export called `memory`, else the first memory under another name."""
        named = exports.get("memory")
        if isinstance(named, Memory):
            return named
        return next((export for export in exports.values() if isinstance(export, Memory)), None)

    def adopt_memory(self, caller: Any) -> None:
        """The instance is still being made and calls already: take the memory it exports."""
        self.guest.memory = self._memory_of(caller.exports)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While a plugin starts, the limits for starting hold and the host's lines are kept for its error."""
        self.store.limits = self.start_limits
        if self._start_lines is None:
            self._start_lines = []
        try:
            yield
        finally:
            self._start_lines = None
            self.store.limits = self.limits

    # --- identity of contexts -------------------------------------------------------------------------------

    def new_context_id(self) -> int:
        """The next id: root contexts and streams draw from one sequence, from 1."""
        self._last_id = self._last_id % 0xFFFF_FFFF + 1
        while self._last_id in self.contexts:  # after 2^32 contexts, a long-lived one may still hold its id
            self._last_id = self._last_id % 0xFFFF_FFFF + 1
        return self._last_id

    # --- entering the guest ---------------------------------------------------------------------------------

    @property
    def entered(self) -> bool:
        """Whether guest code is running."""
        return self._depth > 0

    def has(self, name: str) -> bool:
        """Whether the guest has a callback (and may be called with it)."""
        return name in self._functions

    def call(self, context: Context, name: str, *arguments: int, default: int = 0) -> int:
        """Run a callback for a context; its result, or `default` when it has none or does not exist.

        Raises `PluginFailure` when the guest fails; the VM is dead then. It does not ask whether the VM is
        alive: at start-up Envoy goes on after a failure. Everybody else uses `run`.
        """
        function = self._functions.get(name)
        if function is None:
            return default
        outer = self.current, self.active
        self.current = self.active = context
        if self.trace is not None:
            self.trace(f"[host->vm] {name}({', '.join(map(str, arguments))})")
        fuel = self.store.limits.fuel
        if fuel is not None and self._depth == 0:
            self._refuel(fuel)
        self._depth += 1
        begin = perf_counter_ns()
        try:
            result = function(*arguments)
        except Exception as error:
            raise self.fail(name, error) from error
        finally:
            use = self.usage.callbacks.get(name) or self.usage.callback(name)
            use.calls += 1
            use.nanoseconds += perf_counter_ns() - begin
            if fuel is not None and self._depth == 1:
                use.instructions += fuel - (self.store.fuel_left or 0)
            self._depth -= 1
            self.current, self.active = outer
        if self.trace is not None:
            self.trace(f"[host<-vm] {name} return: {'void' if result is None else result}")
        while self._after_callback and self._depth == 0:
            self._after_callback.pop(0)()
        return default if result is None else int(result)

    def run(self, context: Context, name: str, *arguments: int, default: int = 0) -> int:
        """`call` for a started plugin: the VM must be alive before, and still be alive afterwards.

        A callback that returned may have killed the VM all the same, through the guest's allocator.
        """
        self.check_alive()
        result = self.call(context, name, *arguments, default=default)
        self.check_alive()
        return result

    def after_callback(self, action: Callable[[], None]) -> None:
        """Do something as soon as the running callback has returned."""
        self._after_callback.append(action)

    def _refuel(self, fuel: int) -> None:
        """Fuel is a pool of the store; make it the budget of one call."""
        missing = fuel - (self.store.fuel_left or 0)
        if missing:
            self.store.refuel(missing)

    def _allocate(self, size: int) -> int:
        """A block from the guest's allocator; 0 when it fails. A trap in it kills the VM, but the callback
        that caused the allocation goes on, as in Envoy."""
        outer = self.current, self.active
        self.current = self.active = self.own_context
        restricted = self._bindings.enter_allocator()
        self._depth += 1
        try:
            return int(self._allocator(size))
        except Exception as error:
            self.fail(self._allocator_name, error)
            return 0
        finally:
            self._depth -= 1
            self._bindings.leave_allocator(restricted)
            self.current, self.active = outer

    # --- failing --------------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Raise `PluginFailure` when an earlier callback killed the VM."""
        if self.failure is not None:
            raise PluginFailure(
                f"the VM is dead: {self.failure}", self.failure.function, self.failure.trap
            ) from self.failure

    def fail(self, function: str, error: Exception) -> PluginFailure:
        """A guest function failed: report it, remember the first such failure, give what to raise."""
        line = failures.function_failed(function, error)
        from pywasmvm.debug.lines import lines_of  # only now: most guests never fail

        trace = failures.backtrace(error, lines_of(self.module).place)
        self.host_error(line, trace)
        self.usage.failure(function, line + trace, error)
        failure = PluginFailure(line, function, error if isinstance(error, Trap) else None)
        failure.__cause__ = error
        if self.failure is None:
            self.failure = failure
        return failure

    def refused(self, reason: str, *lines: str) -> PluginStartError:
        """Report why the guest cannot start; what to raise, with all lines since the start began."""
        for line in lines:
            self.host_error(line)
        self.host_error(failures.vm_failed(reason))
        return PluginStartError(reason, list(self._start_lines or ()))

    # --- log lines ------------------------------------------------------------------------------------------

    def log(self, level: LogLevel, message: bytes) -> None:
        """A guest's line, under the acting context's prefix. Bytes that are no UTF-8 show as `\\xNN`."""
        if level >= self.host.log_level:
            if self._watched is not None:
                self._watched.log(level, message)
            self.host.log(level, self.active.log_prefix, message.decode("utf-8", "backslashreplace"))

    def say(self, context: Context, lines: Iterable[tuple[LogLevel, bytes]]) -> None:
        """Lines that a guest has logged for a context, once more."""
        outer, self.active = self.active, context
        for level, message in lines:
            self.log(level, message)
        self.active = outer

    def host_error(self, line: str, more: str = "") -> None:
        """A line of the host about this guest; `more` is further text that is not part of the first line."""
        if self._start_lines is not None:
            self._start_lines.append(line)
        self.host.error(line + more)
