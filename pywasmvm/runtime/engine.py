"""The seam between the store and what runs functions.

An engine takes functions of valid modules and calls them. Engines register themselves by name when their
package is imported, so the store never imports one; `engine_named` imports the package on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pywasmvm.runtime.func import WasmFunc
    from pywasmvm.runtime.store import Store


class Engine(Protocol):
    """Runs functions. Values cross this seam in canonical form (docs/adr/0003-value-representation.md)."""

    name: str

    def prepare(self, func: WasmFunc) -> Callable[..., Any]:
        """What runs a function from now on, inside of an entered store: canonical values in; None, one
        value or a tuple out. Asked at the function's first call. Raises InvalidError for a lazily validated
        body.
        """
        ...

    def stopped(self, error: BaseException, store: Store) -> BaseException:
        """What the caller of a guest gets to see for an exception that came out of it: a Trap for a fault of
        the guest, with frames; anything else as it is.
        """
        ...

    def interrupt(self, store: Store) -> None:
        """The running call is out of time: loops that do not look at the stop flag have to be told. In the
        watchdog's thread, at every tick until the call has ended.
        """
        ...

    def resume(self, store: Store) -> None:
        """The store knows: nobody has to be told any more."""
        ...


_ENGINES: dict[str, Engine] = {}

#: Where engines live; `auto` is the best one there is.
_PACKAGES = {
    "interp": "pywasmvm.interp",
    "translate": "pywasmvm.translate",
    "translate-flat": "pywasmvm.translate",
    "auto": "pywasmvm.translate",
}


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
