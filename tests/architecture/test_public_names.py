"""The public names of each package are exactly these; a change here is a change of the interface."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PYWASMVM = [
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


def test_pywasmvm_exports_what_it_lists() -> None:
    import pywasmvm

    assert sorted(pywasmvm.__all__) == sorted(PYWASMVM)
    assert sorted(pywasmvm._HOMES) == sorted(set(PYWASMVM) - {"__version__"})


@pytest.mark.parametrize("package", ["pywasmvm", "abi", "abi.proxy_wasm", "pywasmproxy"])
def test_every_listed_name_can_be_had(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError):
        _ = module.no_such_name


@pytest.mark.parametrize("package", ["pywasmvm", "abi", "abi.proxy_wasm", "pywasmproxy"])
def test_importing_a_package_is_cheap(package: str) -> None:
    """No numpy, YAML, asyncio or threads until something is used."""
    check = (
        f"import sys, {package}; print([m for m in ('numpy', 'yaml', 'asyncio', 'h11', 'ctypes', 'threading',"
        " 'subprocess', 'importlib.metadata') if m in sys.modules])"
    )
    bare = "import sys; print([m for m in ('threading', 'importlib.metadata') if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    normal = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True)
    assert seen.stdout == normal.stdout  # some environments load a few of them at start


def test_every_command_imports_cheaply() -> None:
    from pywasmvm.cli.main import commands

    modules = sorted(commands().values())
    check = (
        f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}];"
        "print([m for m in ('numpy', 'yaml', 'asyncio', 'h11') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
