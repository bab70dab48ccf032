"""The seam between the store and what runs functions.

An engine takes functions of valid modules and calls them. Engines register themselves by name when their
package is imported, so the store never imports one; `engine_named` imports the package on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pywasmvm.runtime.func import WasmFunc


class Engine(Protocol):
    """Runs functions. Values cross this seam in canonical form (docs/adr/0003-value-representation.md)."""

    name: str

    def call(self, func: WasmFunc, args: Sequence[Any]) -> list[Any]:
        """Call a guest function; its results in order. Raises Trap, or what a host function raised."""
        ...


_ENGINES: dict[str, Engine] = {}

#: Where engines live; `auto` is the best one there is.
_PACKAGES = {"interp": "pywasmvm.interp", "auto": "pywasmvm.interp"}


def register(engine: Engine, *names: str) -> None:
    """Make an engine known under these names."""
    for name in names:
        _ENGINES[name] = engine


def engine_named(name: str) -> Engine:
    """The engine with this name. Raises ValueError."""
    found = _ENGINES.get(name)
    if found is None:
        if name not in _PACKAGES:
            raise ValueError(f"unknown engine {name!r}; there are: {', '.join(sorted(_PACKAGES))}")
        importlib.import_module(_PACKAGES[name])
        found = _ENGINES[name]
    return found
