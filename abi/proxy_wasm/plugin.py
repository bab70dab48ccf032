"""`Plugin`: a filter as it is configured - a name, a root id, a configuration - running in a VM.

Source: proxy-wasm specification 0.2.1, "Plugin lifecycle": root context, `proxy_on_vm_start`,
`proxy_on_configure`, ticks, and the end with `proxy_on_done`. Order and refusals as in Envoy 1.40.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from abi.proxy_wasm import failures
from abi.proxy_wasm.callouts import GRPC_CALL, SEND_COST, Answer
from abi.proxy_wasm.contexts import HttpContext, RootContext
from abi.proxy_wasm.deferred import GrpcSend
from abi.proxy_wasm.expressions import Expressions
from abi.proxy_wasm.failures import PluginFailure, PluginStartError
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.host import Host, LogPrefix, LogRecord
from abi.proxy_wasm.services import Histogram, Services
from abi.proxy_wasm.snapshots import key_of
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.tcp import TcpContext
from abi.proxy_wasm.types import BufferType, MapType, MetricType, Status
from abi.proxy_wasm.vm import Vm

if TYPE_CHECKING:
    from abi.proxy_wasm.foreign import ForeignFunction
    from abi.proxy_wasm.snapshots import Snapshots
    from abi.proxy_wasm.started import Started
    from pywasmvm import Module, Snapshot, StoreLimits


class Plugin:
    """A started filter.

    Give a module (or its bytes) to get a VM of its own, or a `Vm` to share it; then the arguments about the
    VM must be left out. Limits: see `Vm`. `allow_on_headers_stop_iteration` lets a headers callback's PAUSE
    hold the headers only, as Envoy's option of that name does. `fail_open`, the deprecated boolean, only
    changes the last line of a refused start.

    Raises `PluginStartError` when the module cannot run or the guest refuses, `SnapshotError` for a
    `snapshot` that is not of this module and environment.
    """

    def __init__(
        self,
        module_or_vm: Module | bytes | Vm,
        *,
        name: str = "",
        root_id: str = "",
        config: bytes = b"",
        vm_id: str = "",
        vm_config: bytes = b"",
        environment: Mapping[str, str] | None = None,
        host: Host | None = None,
        limits: StoreLimits | None = None,
        start_limits: StoreLimits | None = None,
        allow_on_headers_stop_iteration: bool = False,
        capabilities: frozenset[str] | None = None,
        services: Services | None = None,
        snapshot: Snapshot | None = None,
        snapshots: Snapshots | None = None,
        fail_open: bool = False,
        foreign_functions: Mapping[str, ForeignFunction] | None = None,
    ) -> None:
        self.name, self.root_id, self.config = name, root_id, config
        self.allow_on_headers_stop_iteration = allow_on_headers_stop_iteration
        self.tick_period_ms = 0
        self.call_status: tuple[int, bytes] = (0, b"")
        self.answer: Answer | None = None  # of the call whose callback runs
        self.expressions = Expressions(self)
        self.awaiting_done = False
        self.closed = False
        level = None if host is None else host.log_level
        start_key = key_of(environment or {}, capabilities, vm_id, vm_config, name, root_id, config, level)
        try:
            if isinstance(module_or_vm, Vm):
                own = (vm_id, vm_config, environment, host, limits, start_limits, capabilities, services)
                if any(own) or snapshot is not None or snapshots is not None or foreign_functions:
                    raise TypeError("a shared Vm was given: its own settings cannot be given again")
                self.vm = module_or_vm
            else:
                self.vm = Vm(
                    module_or_vm,
                    vm_id=vm_id,
                    configuration=vm_config,
                    environment=environment,
                    host=host,
                    limits=limits,
                    start_limits=start_limits,
                    capabilities=capabilities,
                    services=services,
                    snapshot=snapshot,
                    snapshots=snapshots,
                    start_key=None if snapshots is None else start_key,
                    foreign_functions=foreign_functions,
                )
            self.stream_log_prefix = LogPrefix(name, root_id, self.vm.vm_id)
            with self.vm.starting():
                if self.vm.started is not None:
                    self._start_again(self.vm.started)
                elif snapshots is None:
                    self._start()
                else:
                    with self.vm.watched_start() as started:
                        self._start()
                    started.tick_period_ms = self.tick_period_ms
                    snapshots.keep_started(self, start_key, started)
        except PluginStartError as error:
            self._refuse(error, host, module_or_vm, fail_open)
            raise

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        name: str = "",
        root_id: str = "",
        config: bytes = b"",
        vm_id: str = "",
        vm_config: bytes = b"",
        environment: Mapping[str, str] | None = None,
        host: Host | None = None,
        limits: StoreLimits | None = None,
        start_limits: StoreLimits | None = None,
        allow_on_headers_stop_iteration: bool = False,
        capabilities: frozenset[str] | None = None,
        snapshot: Snapshot | None = None,
        foreign_functions: Mapping[str, ForeignFunction] | None = None,
    ) -> Plugin:
        """A plugin from a `.wasm` file. Raises OSError when it cannot be read."""
        return cls(
            Path(path).read_bytes(),
            name=name,
            root_id=root_id,
            config=config,
            vm_id=vm_id,
            vm_config=vm_config,
            environment=environment,
            host=host,
            limits=limits,
            start_limits=start_limits,
            allow_on_headers_stop_iteration=allow_on_headers_stop_iteration,
            capabilities=capabilities,
            snapshot=snapshot,
            foreign_functions=foreign_functions,
        )

    # --- start ----------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """Make the root context."""
        vm = self.vm
        prefix = LogPrefix(self.name, self.root_id, vm.vm_id, named=False)
        self.root = RootContext(vm, vm.new_context_id(), self, prefix)
        vm.contexts[self.root.id] = self.root
        vm.plugins.append(self)

    def _start_again(self, started: Started) -> None:
        """The guest has been through its start; the host has not."""
        self.vm.started = None
        self._enter()
        self.tick_period_ms = started.tick_period_ms
        self.vm.say(self.root, started.lines)

    def _start(self) -> None:
        vm = self.vm
        self._enter()
        try:
            # A trap here does not stop the sequence: Envoy calls the next function all the same. The plugin's
            # configuration can be read in it, and then not before it is configured, as in Envoy.
            self.root.configuration = self.config
            self._succeeds("proxy_on_context_create", 0)
            self.root.configuration = None
            if not self._succeeds("proxy_on_vm_start", len(vm.configuration)):
                raise vm.refused(failures.START_FAILED)
            self.root.configuration = self.config
            if not self._succeeds("proxy_on_configure", len(self.config)):
                raise vm.refused(failures.CONFIGURE_FAILED)
        except PluginStartError:
            self.give_up_calls()
            vm.plugins.remove(self)
            vm.contexts.pop(self.root.id, None)
            raise
        finally:
            self.root.configuration = None

    def _succeeds(self, name: str, argument: int) -> bool:
        """Run a start-up callback; whether it exists not at all, or ran and did not answer 0."""
        try:
            return self.vm.call(self.root, name, self.root.id, argument, default=1) != 0
        except PluginFailure:
            return False

    def _refuse(
        self, error: PluginStartError, host: Host | None, module_or_vm: object, fail_open: bool
    ) -> None:
        """The critical lines at the end of every refused start."""
        for line in failures.load_failed_lines(self.name, fail_open):
            error.host_errors.append(line)
            target = module_or_vm.host if isinstance(module_or_vm, Vm) else host
            if target is not None:
                getattr(target, "critical", target.error)(line)

    # --- use ------------------------------------------------------------------------------------------------

    def http_stream(self, info: StreamInfo | None = None) -> HttpContext:
        """A context for one HTTP exchange. `info` is shared by all filters of the exchange."""
        return HttpContext(self, info)

    def tcp_stream(self, info: StreamInfo | None = None) -> TcpContext:
        """A context for one TCP connection. `info` is shared by all filters of the connection."""
        return TcpContext(self, info)

    @property
    def failed(self) -> bool:
        """Whether the plugin's VM is dead (a trap in it, in any of its plugins)."""
        return self.vm.failure is not None

    @property
    def logs(self) -> list[LogRecord]:
        """The guest's log lines, when the host keeps them (the default one does)."""
        return list(getattr(self.vm.host, "records", ()))

    @property
    def metrics(self) -> dict[str, int | Histogram]:
        """The metrics of the plugin's VM and of all that share its services, by name."""
        return {
            metric.name.decode("utf-8", "backslashreplace"): metric.histogram
            if metric.kind is MetricType.HISTOGRAM
            else metric.value
            for metric in self.vm.services.metrics
        }

    def queue_ready(self, token: int) -> None:
        """Run `proxy_on_queue_ready`; `Services.queues.deliver` calls this."""
        self.vm.run(self.root, "proxy_on_queue_ready", self.root.id, token)

    def on_foreign_function(self, function_id: int, arguments: bytes = b"") -> None:
        """Run `proxy_on_foreign_function` (0.2.0 and later): the embedder calls the guest, with `arguments`
        in buffer 8 until it has returned. What `function_id` means is between the two.

        Nothing happens when the guest has no such callback; inside of guest code it waits until that has
        returned. Raises `PluginFailure` as every callback does.
        """
        vm = self.vm
        vm.check_alive()
        if vm.entered:
            vm.after_callback(lambda: self.on_foreign_function(function_id, arguments))
            return
        self.answer = Answer(buffers={BufferType.FOREIGN_FUNCTION_ARGUMENTS: arguments})
        vm.after_callback(self._answered)
        try:
            vm.run(
                self.root,
                "proxy_on_foreign_function",
                self.root.id,
                function_id & 0xFFFF_FFFF,
                len(arguments),
            )
        finally:
            self.answer = None

    def _answered(self) -> None:
        """What came with a callback cannot be read any more."""
        self.answer = None

    def tick(self) -> None:
        """Run `proxy_on_tick`; `tick_period_ms` says how often the guest wants that (0: not at all)."""
        self.vm.run(self.root, "proxy_on_tick", self.root.id)

    # --- answers to calls -----------------------------------------------------------------------------------

    def http_call_response(
        self, token: int, headers: HeaderMap, body: bytes = b"", trailers: HeaderMap | None = None
    ) -> None:
        """A response to an `HttpCall`: run `proxy_on_http_call_response`.

        Raises `PluginFailure` as every callback does. Tokens of calls that are over mean nothing, and inside
        of guest code the answer waits until that has returned.
        """
        maps: dict[int, HeaderMap] = {MapType.HTTP_CALL_RESPONSE_HEADERS: headers}
        if trailers:
            maps[MapType.HTTP_CALL_RESPONSE_TRAILERS] = trailers
        answer = Answer(maps, {BufferType.HTTP_CALL_RESPONSE_BODY: body})
        lines = 0 if trailers is None else trailers.line_count
        self.deliver(
            token, "proxy_on_http_call_response", answer, headers.line_count, len(body), lines, ends=True
        )

    def http_call_failed(self, token: int) -> None:
        """There will be no response to an `HttpCall`: it broke off, or was more than the host takes.

        The callback gets no headers at all, `proxy_get_status` 11 and "reset". Whatever can be put as a
        response (no connection, timeout) is to be given as one.
        """
        status = (int(Status.BROKEN_CONNECTION), b"reset")
        self.deliver(token, "proxy_on_http_call_response", Answer(), 0, 0, 0, ends=True, status=status)

    def grpc_initial_metadata(self, token: int, metadata: HeaderMap) -> None:
        """The head of what comes back on a stream, `:status` included; empty when there is only an end.

        For these, as for HTTP calls: `PluginFailure` as with every callback; tokens of calls that are over
        mean nothing, and inside of guest code the answer waits until that has returned.
        """
        answer = Answer({MapType.GRPC_CALL_INITIAL_METADATA: metadata})
        self.deliver(token, "proxy_on_grpc_receive_initial_metadata", answer, metadata.line_count, ends=False)

    def grpc_message(self, token: int, message: bytes) -> None:
        """A message. For a call it is the answer, and the end: nothing else is told about a call that
        succeeded."""
        answer = Answer(buffers={BufferType.GRPC_CALL_MESSAGE: message})
        ends = token & 3 == GRPC_CALL
        self.deliver(token, "proxy_on_grpc_receive", answer, len(message), ends=ends)

    def grpc_trailing_metadata(self, token: int, metadata: HeaderMap) -> None:
        """The trailers of a stream."""
        answer = Answer({MapType.GRPC_CALL_TRAILING_METADATA: metadata})
        self.deliver(
            token, "proxy_on_grpc_receive_trailing_metadata", answer, metadata.line_count, ends=False
        )

    def grpc_closed(self, token: int, status: int, message: bytes = b"") -> None:
        """The end of a stream, or of a call that failed. `status` is gRPC's (-1: none that makes sense)."""
        code = status & 0xFFFF_FFFF
        self.deliver(token, "proxy_on_grpc_close", Answer(), code, ends=True, status=(code, message))

    def grpc_sent(self, effect: GrpcSend) -> None:
        """A message was sent: its bytes no longer count as waiting."""
        call = self.vm.calls.find(self, effect.token)
        if call is not None:
            self.vm.calls.release(call, len(effect.message) + SEND_COST)

    def deliver(
        self,
        token: int,
        callback: str,
        answer: Answer,
        *arguments: int,
        ends: bool,
        status: tuple[int, bytes] | None = None,
    ) -> None:
        """Run a callback about a call: `callback(root, token, *arguments)`, with `answer` to be read in it.

        `ends`: the call is over afterwards. `status` is what `proxy_get_status` answers from now on. The way
        in for every kind of call-out, those of extensions included; see `http_call_response`.
        """
        vm = self.vm
        vm.check_alive()
        if vm.entered:
            vm.after_callback(
                lambda: self.deliver(token, callback, answer, *arguments, ends=ends, status=status)
            )
            return
        call = vm.calls.find(self, token)
        if call is None:
            return
        call.ended_there = ends
        if status is not None:
            self.call_status = status

        def over() -> None:
            self.answer = None
            if ends:
                vm.calls.end(token)

        if not vm.has(callback):
            over()
            return
        self.answer = answer
        vm.after_callback(over)  # before anything else happens that the callback leads to
        try:
            vm.run(self.root, callback, self.root.id, token, *arguments)
        finally:
            self.answer = None

    def give_up_calls(self) -> None:
        """End all calls of this plugin; whoever carries them out is told through `Vm.deferred`."""
        for call in self.vm.calls.of(self):
            self.vm.calls.give_up(call, self.vm.deferred)

    # --- end ------------------------------------------------------------------------------------------------

    def close(self) -> bool:
        """Tell the guest that this plugin ends: `proxy_on_done`, then `proxy_on_delete`.

        True when it is over. False when the guest wants to finish something first: `proxy_on_delete` then
        follows its call of `proxy_done`. A dead VM is told nothing.
        """
        if self.closed or self.awaiting_done or self.failed:
            self.closed = self.closed or self.failed
            return self.closed
        if self.vm.call(self.root, "proxy_on_done", self.root.id, default=1) == 0:
            self.awaiting_done = True
            return False
        self._delete()
        return True

    def finish_after_callback(self) -> None:
        """`proxy_done` was called: delete the root context as soon as the running callback returned."""
        self.awaiting_done = False
        self.vm.after_callback(self._delete)

    def _delete(self) -> None:
        self.closed = True
        self.tick_period_ms = 0
        try:
            if self.vm.failure is None:
                self.vm.call(self.root, "proxy_on_delete", self.root.id)
        finally:
            self.give_up_calls()
            self.vm.contexts.pop(self.root.id, None)
            if self in self.vm.plugins:
                self.vm.plugins.remove(self)
