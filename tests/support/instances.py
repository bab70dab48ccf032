"""Modules in text form brought to life in one line, and the kind of trap a call ends with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pywasmvm import Instance, Module, Store, StoreLimits, Trap, TrapKind
from tests.support.wat import wat


def instance(
    text: str | bytes,
    imports: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    store: Store | None = None,
    **limits: Any,
) -> Instance:
    """Instantiate; keyword arguments become limits of a new store."""
    module = Module(wat(text) if isinstance(text, str) else text)
    if limits:
        store = Store(limits=StoreLimits(**limits))
    return Instance(module, imports, store=store)


def call(text: str, *args: Any) -> Any:
    """The result of the export `f` of a module made for the occasion."""
    return instance(text).exports["f"](*args)


def evaluate(types: str, body: str, *args: Any, fields: str = "") -> Any:
    """The result of a function with this signature and body."""
    return call(f'(module {fields} (func (export "f") {types} {body}))', *args)


def trap(action: Callable[[], Any]) -> TrapKind:
    """The kind of trap that `action` ends with; fails when it does not trap."""
    try:
        result = action()
    except Trap as error:
        return error.kind
    raise AssertionError(f"no trap, but {result!r}")
