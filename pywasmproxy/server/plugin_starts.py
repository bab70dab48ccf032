"""`PluginStarts`: a plugin from its configuration - which VM it gets, in which code, within which limits.

VMs are shared as Envoy shares them (`abi.proxy_wasm.registry`); code is decoded once for all VMs that run it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator
from pathlib import Path

from abi.proxy_wasm.failures import LOAD_FAILED, PluginStartError, load_failed_lines, vm_failed
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.registry import VmRegistry
from abi.proxy_wasm.types import LogLevel
from pywasmproxy.config.limits import Limits
from pywasmproxy.config.model import WasmCode, WasmPlugin
from pywasmproxy.server.log import Logger, WasmHost
from pywasmproxy.server.remote_code import CodeStore
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


class PluginStarts:
    """Starts plugins whose code is in a store."""

    def __init__(self, codes: CodeStore, logger: Logger) -> None:
        self.modules: dict[str, Module] = {}
        """Code that has been decoded, by its SHA-256."""
        self._codes, self._logger = codes, logger

    def inherit(self, other: PluginStarts) -> None:
        """Begin with what another one has decoded."""
        self.modules |= other.modules

    def keep_only(self, digests: Container[str]) -> None:
        """Forget all other code."""
        self.modules = {digest: module for digest, module in self.modules.items() if digest in digests}

    def begin(self, config: WasmPlugin, registry: VmRegistry, limits: Limits, host: WasmHost) -> Plugin:
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

    def _refuse_runtime(self, config: WasmPlugin) -> None:
        lines: list[str] = []

        def say(level: LogLevel, text: str) -> None:
            self._logger.log(level, text)
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
        found = self.modules.get(code.sha256)
        if found is None:
            data = self._codes.get(code) or b""
            try:
                found = Module(data, validate="lazy" if len(data) > LAZY_SIZE else "eager")
            except (MalformedError, InvalidError):
                return data
            self.modules[code.sha256] = found
            if code.filename is not None:
                attach(found, Path(code.filename + ".map").read_bytes)
        return found


@contextlib.contextmanager
def refusal(config: WasmPlugin) -> Iterator[None]:
    """A refused plugin as the refusal of the configuration that wants it."""
    try:
        yield
    except PluginStartError as error:
        raise StartError(f"Unable to create Wasm plugin {config.name}") from error
