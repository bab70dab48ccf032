"""What guests may call: the application binary interfaces that this project offers to WebAssembly modules.

Layer 2 of 3: imports `pywasmvm`, knows nothing of the proxy. `abi.proxy_wasm` is the ABI of proxy filters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abi.proxy_wasm import Action, HeaderMap, Plugin, PluginFailure, PluginStartError, Vm

__all__ = ["Action", "HeaderMap", "Plugin", "PluginFailure", "PluginStartError", "Vm"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from abi import proxy_wasm

    return getattr(proxy_wasm, name)


def __dir__() -> list[str]:
    return sorted(__all__)
