"""What a new configuration changes about the plugins: which go on as they are, which are started beside them.

A VM is replaced as a whole: plugins that share one talk to each other inside of it, so when one of them has
changed, all of them move to a fresh VM together. Envoy starts a changed plugin inside of the VM that runs; a
bad configuration would then take down what it was to replace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from abi.proxy_wasm.registry import VmRegistry
from abi.proxy_wasm.snapshots import Snapshots
from pywasmproxy.config.model import Bootstrap, WasmPlugin
from pywasmproxy.server.slot import PluginSlot
from pywasmvm import Snapshot


@dataclass(slots=True)
class Generation:
    """The plugins of one configuration, all of them started, and the registry that gives them out."""

    bootstrap: Bootstrap
    slots: list[PluginSlot]
    registry: VmRegistry
    fresh: list[PluginSlot]
    """Those among the slots that were started for it."""


class HandedOver(Snapshots):
    """Snapshots of VMs that are thrown away, each for one successor: no two VMs share their randomness."""

    def find(self, module: bytes, key: bytes) -> Snapshot | None:
        return self._kept.pop((module, key), None)


def plugins_of(bootstrap: Bootstrap) -> list[WasmPlugin]:
    """Every plugin of a configuration, once, in its order."""
    found: list[WasmPlugin] = []
    for service in bootstrap.services:
        if service not in found:
            found.append(service)
    for listener in bootstrap.listeners:
        for chain in listener.filter_chains:
            found += [plugin for plugin in chain.plugins if plugin not in found]
    return found


def unchanged(running: Sequence[PluginSlot], wanted: Iterable[WasmPlugin]) -> list[PluginSlot]:
    """The slots that go on: their VM lives, and is wanted with just the plugins that it has."""
    before, after = _by_vm(slot.config for slot in running), _by_vm(wanted)
    kept = {key for key, plugins in before.items() if after.get(key) == plugins}
    kept -= {_vm_key(slot.config) for slot in running if slot.plugin.failed or slot.plugin.closed}
    return [slot for slot in running if _vm_key(slot.config) in kept]


_VmKey = tuple[str, bytes, str]


def _vm_key(plugin: WasmPlugin) -> _VmKey:
    return plugin.vm_id, plugin.vm_configuration, plugin.code.sha256


def _by_vm(plugins: Iterable[WasmPlugin]) -> dict[_VmKey, list[WasmPlugin]]:
    found: dict[_VmKey, list[WasmPlugin]] = {}
    for plugin in plugins:
        found.setdefault(_vm_key(plugin), []).append(plugin)
    return found
