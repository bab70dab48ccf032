"""`Linker`: names for what guests may import, and the decorators that make host functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pywasmvm.errors import LinkError
from pywasmvm.module import ImportType, Module
from pywasmvm.runtime import instantiate
from pywasmvm.runtime.func import HostFunc, from_python, unknown_import
from pywasmvm.runtime.instance import Extern, Instance
from pywasmvm.runtime.store import Store
from pywasmvm.types import FuncType

if TYPE_CHECKING:
    from pywasmvm.runtime.snapshot import Snapshot

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


class Linker:
    """A set of definitions that instances are linked against.

    `unknown_imports` says what happens to a function nobody defined: `"error"` (a LinkError) or `"trap"` (it
    links, and traps when called). A name can be defined again only with `allow_shadowing`.
    """

    def __init__(
        self, *, unknown_imports: Literal["error", "trap"] = "error", allow_shadowing: bool = False
    ) -> None:
        self.unknown_imports = unknown_imports
        self.allow_shadowing = allow_shadowing
        self._entries: dict[tuple[str, str], Extern] = {}

    def define(self, module: str, name: str, extern: Extern | Callable[..., Any]) -> None:
        """Define a name as any extern, or as an annotated Python function. LinkError if taken."""
        if (module, name) in self._entries and not self.allow_shadowing:
            raise LinkError("import defined twice", module, name)
        if not isinstance(extern, Extern):
            extern = from_python(extern, name=f"{module}.{name}")
        self._entries[module, name] = extern

    def func(self, module: str, *, name: str | None = None) -> Callable[[F], F]:
        """Decorator: define an annotated Python function, by its own name unless `name` is given."""

        def register(function: F) -> F:
            self.define(module, name or function.__name__, function)
            return function

        return register

    def define_func(
        self,
        module: str,
        name: str,
        type_: FuncType,
        callable: Callable[..., Any],
        *,
        caller: bool = False,
    ) -> HostFunc:
        """Define a function on canonical values (unsigned integers), without conversions."""
        made = HostFunc(type_, callable, name=f"{module}.{name}", caller=caller)
        self.define(module, name, made)
        return made

    def host_module(self, holder: object) -> None:
        """Define every `@export`ed method of an object whose class is a `@host_module`."""
        module: str | None = getattr(holder, "__wasm_module__", None)
        if module is None:
            raise TypeError(f"{type(holder).__name__} is not decorated with @host_module")
        for attribute in dir(type(holder)):
            name = getattr(getattr(type(holder), attribute), "__wasm_export__", None)
            if name is not None:
                self.define(module, name, from_python(getattr(holder, attribute), name=f"{module}.{name}"))

    def instance(self, name: str, instance: Instance) -> None:
        """Define every export of an instance under a module name."""
        for export, extern in instance.exports.items():
            self.define(name, export, extern)

    def module(self, name: str, module: Module, *, store: Store | None = None) -> Instance:
        """Instantiate a module against what is defined so far, and define its exports under a name."""
        made = self.instantiate(module, store=store)
        self.instance(name, made)
        return made

    def get(self, module: str, name: str) -> Extern | None:
        """What a name is defined as."""
        return self._entries.get((module, name))

    def instantiate(
        self,
        module: Module,
        store: Store | None = None,
        *,
        start: bool = True,
        snapshot: Snapshot | None = None,
    ) -> Instance:
        """Make an instance, or one that begins as a snapshot says. Raises LinkError, Trap, MemoryError,
        SnapshotError.
        """

        def lookup(wanted: ImportType) -> Extern | None:
            found = self._entries.get((wanted.module, wanted.name))
            if found is None and self.unknown_imports == "trap" and wanted.kind == "func" and wanted.deftype:
                return unknown_import(wanted.module, wanted.name, wanted.deftype)
            return found

        externs = instantiate.resolve(module, lookup)
        return Instance.from_externs(module, externs, store=store, start=start, snapshot=snapshot)


def host_module(name: str) -> Callable[[C], C]:
    """Class decorator: its `@export`ed methods are host functions of this module name."""

    def register(cls: C) -> C:
        cls.__wasm_module__ = name  # type: ignore[attr-defined]
        return cls

    return register


def export(function: F) -> F:
    """Method decorator: define this method under its own name."""
    function.__wasm_export__ = function.__name__  # type: ignore[attr-defined]
    return function
