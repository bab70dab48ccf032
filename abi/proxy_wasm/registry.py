"""`VmRegistry`: which plugins share a VM, and which share even their root context.

Source: Envoy 1.40 (measured): a VM is identified by vm_id, VM configuration and code; a root context by
root_id, plugin configuration, name and flags within its VM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from abi.proxy_wasm.host import Host
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.services import Services
from abi.proxy_wasm.snapshots import Snapshots
from abi.proxy_wasm.vm import Vm

if TYPE_CHECKING:
    from abi.proxy_wasm.foreign import ForeignFunction
    from pywasmvm import Module, StoreLimits

VmKey = tuple[str, bytes, object]
PluginKey = tuple[VmKey, str, bytes, str, bool]


class VmRegistry:
    """The living VMs of one worker. `plugin(...)` gives an existing plugin or starts what is missing.

    All of them share `services` and `foreign_functions`, and start from `snapshots` where they are given.
    Call `services.queues.deliver()` after guest code ran, outside of it.

    A dead VM is forgotten at the next request for it, so that asking again starts a fresh one.
    """

    def __init__(
        self,
        services: Services | None = None,
        snapshots: Snapshots | None = None,
        foreign_functions: Mapping[str, ForeignFunction] | None = None,
    ) -> None:
        self.snapshots = snapshots
        self.foreign_functions = foreign_functions
        self.services = services if services is not None else Services()
        self._vms: dict[VmKey, Vm] = {}
        self._plugins: dict[PluginKey, Plugin] = {}

    def plugin(
        self,
        code: Module | bytes,
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
        fail_open: bool = False,
    ) -> Plugin:
        """The plugin with this identity. Arguments as for `Plugin`; raises `PluginStartError` like it."""
        vm_key: VmKey = (vm_id, vm_config, code_key(code))
        key: PluginKey = (vm_key, root_id, config, name, allow_on_headers_stop_iteration)
        vm = self._vms.get(vm_key)
        if vm is not None and vm.failure is not None:
            self.forget(vm)
            vm = None
        found = self._plugins.get(key)
        if found is not None and not found.closed:
            return found
        if vm is None:
            plugin = Plugin(
                code,
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
                services=self.services,
                snapshots=self.snapshots,
                foreign_functions=self.foreign_functions,
                fail_open=fail_open,
            )
            self._vms[vm_key] = plugin.vm
        else:
            plugin = Plugin(
                vm,
                name=name,
                root_id=root_id,
                config=config,
                allow_on_headers_stop_iteration=allow_on_headers_stop_iteration,
                fail_open=fail_open,
            )
        self._plugins[key] = plugin
        return plugin

    def successor(self, vms: Iterable[Vm]) -> VmRegistry:
        """Another registry, of what these VMs run, with the same services: what is started from it does not
        share anything with the other VMs of this one."""
        kept = set(vms)
        made = VmRegistry(self.services, self.snapshots, self.foreign_functions)
        made._vms = {key: vm for key, vm in self._vms.items() if vm in kept}
        made._plugins = {key: plugin for key, plugin in self._plugins.items() if plugin.vm in kept}
        return made

    def forget(self, vm: Vm) -> None:
        """Give out this VM and its plugins no more (it died, or is to be replaced); it goes on for its
        streams in flight."""
        self._vms = {key: value for key, value in self._vms.items() if value is not vm}
        self._plugins = {key: value for key, value in self._plugins.items() if value.vm is not vm}

    @property
    def vms(self) -> list[Vm]:
        return list(self._vms.values())

    @property
    def plugins(self) -> list[Plugin]:
        return list(self._plugins.values())

    def close(self) -> bool:
        """End all plugins (`Plugin.close`); whether all of them are over."""
        return all([plugin.close() for plugin in self._plugins.values()])


def code_key(code: Module | bytes) -> object:
    """What identifies code: the digest of its bytes, or the decoded module itself."""
    return hashlib.sha256(code).digest() if isinstance(code, bytes) else code
