"""A WebAssembly virtual machine in pure Python and numpy.

These are the public names; each is loaded on first use, so that `import pywasmvm` alone costs next to
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pywasmvm._version import __version__

if TYPE_CHECKING:
    from pywasmvm.binary.decode import decode
    from pywasmvm.errors import (
        Exhaustion,
        Frame,
        InvalidError,
        LinkError,
        MalformedError,
        SnapshotError,
        Trap,
        TrapKind,
        WasmError,
        WasmException,
    )
    from pywasmvm.module import Module, validate
    from pywasmvm.runtime.func import Caller, Func, HostFunc
    from pywasmvm.runtime.global_ import Global
    from pywasmvm.runtime.instance import Instance
    from pywasmvm.runtime.limits import StoreLimits
    from pywasmvm.runtime.linker import Linker, export, host_module
    from pywasmvm.runtime.memory import Memory
    from pywasmvm.runtime.snapshot import Snapshot
    from pywasmvm.runtime.store import Store
    from pywasmvm.runtime.table import Table
    from pywasmvm.types import (
        FuncType,
        GlobalType,
        Limits,
        MemoryType,
        TableType,
        ValType,
        f32,
        f64,
        i32,
        i64,
        u32,
        u64,
    )

_HOMES: dict[str, str] = {
    **dict.fromkeys(("decode",), "binary.decode"),
    **dict.fromkeys(
        (
            "Exhaustion",
            "Frame",
            "InvalidError",
            "LinkError",
            "MalformedError",
            "SnapshotError",
            "Trap",
            "TrapKind",
            "WasmError",
            "WasmException",
        ),
        "errors",
    ),
    **dict.fromkeys(("Module", "validate"), "module"),
    **dict.fromkeys(("Caller", "Func", "HostFunc"), "runtime.func"),
    "Global": "runtime.global_",
    "Instance": "runtime.instance",
    "StoreLimits": "runtime.limits",
    **dict.fromkeys(("Linker", "export", "host_module"), "runtime.linker"),
    "Memory": "runtime.memory",
    "Snapshot": "runtime.snapshot",
    "Store": "runtime.store",
    "Table": "runtime.table",
    **dict.fromkeys(
        (
            "FuncType",
            "GlobalType",
            "Limits",
            "MemoryType",
            "TableType",
            "ValType",
            "f32",
            "f64",
            "i32",
            "i64",
            "u32",
            "u64",
        ),
        "types",
    ),
}

__all__ = [
    "Caller",
    "Exhaustion",
    "Frame",
    "Func",
    "FuncType",
    "Global",
    "GlobalType",
    "HostFunc",
    "Instance",
    "InvalidError",
    "Limits",
    "LinkError",
    "Linker",
    "MalformedError",
    "Memory",
    "MemoryType",
    "Module",
    "Snapshot",
    "SnapshotError",
    "Store",
    "StoreLimits",
    "Table",
    "TableType",
    "Trap",
    "TrapKind",
    "ValType",
    "WasmError",
    "WasmException",
    "__version__",
    "decode",
    "export",
    "f32",
    "f64",
    "host_module",
    "i32",
    "i64",
    "u32",
    "u64",
    "validate",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
