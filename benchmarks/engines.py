"""One adapter per engine: the same few operations on ours, `pwasm`, `pywasm`, `wasmtime` and `pywasm3`.

Each engine is used as its own documentation says. An adapter adds no Python call of its own around an
exported function or around a host function if the engine can do without one: at these prices one call is a
tenth. Engines are imported when they are asked for, because none but ours need be there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pywasmvm import StoreLimits

#: What a guest may call, by module and name: functions of integers, without annotations.
Imports = Mapping[tuple[str, str], Callable[..., Any]]

Function = Callable[..., Any]

#: When our functions are validated.
Validate = Literal["eager", "lazy"]


class Guest(Protocol):
    """A module that was instantiated."""

    def function(self, name: str) -> Function:
        """An exported function."""

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory, named `memory`."""

    def write(self, address: int, data: bytes) -> None:
        """Write to its memory."""


Load = Callable[[bytes, Imports], Guest]


@dataclass(frozen=True)
class Peer:
    """An engine of others: the name of its package, and the module that shows whether it is there."""

    name: str
    module: str
    load: Load
    #: A hundred times slower than the rest: fewer rounds, smaller sizes.
    slow: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Of its package."""
        return importlib.metadata.version(self.name)


def import_all(package: str, but: frozenset[str] = frozenset()) -> None:
    """Import every module of a package, so that none is imported while the clock runs."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, package + "."):
        parts = set(found.name.split("."))
        if not parts & (but | {"__main__"}):
            importlib.import_module(found.name)


# --- ours ---------------------------------------------------------------------------------------------------


def proxy_limits() -> StoreLimits:
    """What our proxy sets by default for a plugin that starts; one that runs has less time, else the same."""
    from pywasmproxy.config.limits import Limits
    from pywasmvm import StoreLimits

    proxy = Limits()
    return StoreLimits(
        memory_pages=proxy.memory_pages,
        table_elements=proxy.table_elements,
        call_depth=proxy.call_depth,
        fuel=proxy.callback_fuel,
        seconds=proxy.start_time,
    )


class Ours:
    """A guest of ours. With the path of a snapshot it begins where that was taken, if one is there."""

    def __init__(
        self,
        data: bytes,
        imports: Imports,
        engine: str = "auto",
        limits: StoreLimits | None = None,
        validate: Validate = "eager",
        snapshot: Path | None = None,
    ) -> None:
        from pywasmvm import Linker, Module, Snapshot, Store

        module = Module(data, validate=validate)
        linker = Linker(allow_shadowing=True)  # a module may import one function twice
        for entry in module.import_list:
            function = imports[entry.module, entry.name]
            _annotate(function, entry.type)
            linker.func(entry.module, name=entry.name)(function)
        self.store = Store(proxy_limits() if limits is None else limits, engine=engine)
        self.restored = snapshot is not None and snapshot.exists()
        taken = Snapshot.load(snapshot) if self.restored and snapshot is not None else None
        self.instance = linker.instantiate(module, self.store, snapshot=taken)
        self.exports = self.instance.exports
        if "memory" in self.exports:
            memory = self.exports["memory"]
            self.read, self.write = memory.read, memory.write

    def function(self, name: str) -> Function:
        found: Function = self.exports[name]
        return found

    def save(self, path: Path) -> None:
        """Write a snapshot of the instance as it is now."""
        from pywasmvm import Snapshot

        Snapshot.take(self.instance).save(path)


def _annotate(function: Function, type_: Any) -> None:
    """Give a function the annotations of its signature, as a user of `@linker.func` writes them."""
    import inspect

    from pywasmvm import f32, f64, i32, i64

    kinds: dict[str, Any] = {"i32": i32, "i64": i64, "f32": f32, "f64": f64}
    names = inspect.signature(function).parameters
    hints = {name: kinds[str(t)] for name, t in zip(names, type_.params, strict=True)}
    function.__annotations__ = hints | {"return": kinds[str(type_.results[0])] if type_.results else None}


def ours(
    engine: str = "auto",
    limits: StoreLimits | None = None,
    validate: Validate = "eager",
    snapshot: Path | None = None,
) -> Load:
    """Our virtual machine; without `limits` with those of the proxy."""
    return lambda data, imports: Ours(data, imports, engine, limits, validate, snapshot)


# --- others -------------------------------------------------------------------------------------------------


class Pwasm:
    """A guest of `pwasm`."""

    def __init__(self, data: bytes, imports: Imports, mode: str) -> None:
        import pwasm

        nested: dict[str, dict[str, Any]] = {}
        for (module, name), function in imports.items():
            nested.setdefault(module, {})[name] = function
        self.instance = pwasm.instantiate(pwasm.decode_module(data), imports=nested, mode=mode)
        if "memory" in self.instance.exports:
            memory = self.instance.exports.memory
            self.read, self.write = memory.read, memory.write

    def function(self, name: str) -> Function:
        found: Function = self.instance.exports[name]
        return found


def pwasm(mode: str = "auto") -> Load:
    """`pwasm` in one of its modes."""
    return lambda data, imports: Pwasm(data, imports, mode)


class Wasmtime:
    """A guest of `wasmtime`, a native engine, through its Python binding."""

    def __init__(self, data: bytes, imports: Imports) -> None:
        import wasmtime

        engine = wasmtime.Engine()
        self.store = store = wasmtime.Store(engine)
        module = wasmtime.Module(engine, data)
        linker = wasmtime.Linker(engine)
        linker.allow_shadowing = True
        for entry in module.imports:
            assert entry.name is not None
            assert isinstance(entry.type, wasmtime.FuncType)
            linker.define_func(entry.module, entry.name, entry.type, imports[entry.module, entry.name])
        self.exports: Any = linker.instantiate(store, module).exports(store)

    def function(self, name: str) -> Function:
        import functools

        return functools.partial(self.exports[name], self.store)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.exports["memory"].read(self.store, address, address + size))

    def write(self, address: int, data: bytes) -> None:
        self.exports["memory"].write(self.store, data, address)


class Pywasm:
    """A guest of `pywasm`."""

    def __init__(self, data: bytes, imports: Imports) -> None:
        import pywasm

        self.runtime = pywasm.Runtime()
        module = pywasm.ModuleDesc.from_reader(io.BytesIO(data))
        for entry in module.imps:
            function = _as_list(imports[entry.module, entry.name])
            made = self.runtime.allocate_func_host(module.type[entry.desc], function)
            self.runtime.imports.setdefault(entry.module, {})[entry.name] = made
        self.module = self.runtime.instance(module)
        if any(entry.name == "memory" for entry in self.module.exps):
            self.memory = self.runtime.exported_memory(self.module, "memory")

    def function(self, name: str) -> Function:
        def call(*arguments: int) -> Any:
            results = self.runtime.invocate(self.module, name, list(arguments))
            return results[0] if results else None

        return call

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.memory.get(address, size))

    def write(self, address: int, data: bytes) -> None:
        self.memory.data[address : address + len(data)] = data


def _as_list(function: Function) -> Function:
    """A host function as `pywasm` calls them: machine and list in, list out."""

    def call(machine: object, arguments: list[int]) -> list[int]:
        result = function(*arguments)
        return [] if result is None else [result]

    return call


class Wasm3:
    """A guest of `pywasm3`, the binding of a native interpreter."""

    _LETTERS: Mapping[str, str] = {"i32": "i", "i64": "I", "f32": "f", "f64": "F"}

    def __init__(self, data: bytes, imports: Imports) -> None:
        import wasm3

        from pywasmvm import Module

        # It does not tell a module's types, so ours says them; that is no part of any time shown for it.
        types = Module(data, validate="lazy", cache=False).import_list
        environment = wasm3.Environment()
        self.runtime = environment.new_runtime(1 << 20)
        self.module = environment.parse_module(data)
        self.runtime.load(self.module)
        for entry in types:
            letters = "".join(self._LETTERS[str(t)] for t in entry.type.params)  # type: ignore[union-attr] # filters import only functions
            back = "".join(self._LETTERS[str(t)] for t in entry.type.results) or "v"  # type: ignore[union-attr] # likewise
            function = imports[entry.module, entry.name]
            self.module.link_function(entry.module, entry.name, f"{back}({letters})", function)

    def function(self, name: str) -> Function:
        found: Function = self.runtime.find_function(name)
        return found

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.runtime.get_memory(0)[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        self.runtime.get_memory(0)[address : address + len(data)] = data


#: Everybody we compare with, in the order of the tables.
PEERS = (
    Peer("pwasm", "pwasm", pwasm()),
    Peer("pywasm", "pywasm", Pywasm, slow=True),
    Peer("wasmtime", "wasmtime", Wasmtime),
    Peer("pywasm3", "wasm3", Wasm3),
)


def installed() -> list[Peer]:
    """The peers that are there."""
    return [peer for peer in PEERS if peer.installed]
