"""Configuration: Envoy-shaped YAML in, typed and immutable values out.

`load` and `load_file` (config/envoy.py) read a bootstrap; `model` holds what they return, `limits` our own
limits. Names are resolved on first use: importing this package imports neither YAML nor the loader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pywasmproxy.config.envoy import load, load_file
    from pywasmproxy.config.errors import ConfigError
    from pywasmproxy.config.limits import Limits
    from pywasmproxy.config.model import Bootstrap

__all__ = ["Bootstrap", "ConfigError", "Limits", "load", "load_file"]

_HOME = {
    "Bootstrap": "model",
    "ConfigError": "errors",
    "Limits": "limits",
    "load": "envoy",
    "load_file": "envoy",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
