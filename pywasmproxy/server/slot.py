"""`PluginSlot`: a configured plugin and what currently runs it."""

from __future__ import annotations

from abi.proxy_wasm.plugin import Plugin
from pywasmproxy.config.model import WasmPlugin


class PluginSlot:
    """One configured plugin. `plugin` serves new exchanges; set as soon as it has been started."""

    def __init__(self, config: WasmPlugin) -> None:
        self.config = config
        self.plugin: Plugin
