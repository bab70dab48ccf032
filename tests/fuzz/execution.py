"""One module run by us and by wasmtime: same results, traps, globals, table sizes and memory contents."""

from __future__ import annotations

import functools
import hashlib
import random
import struct
from collections.abc import Iterator
from typing import Any

import wasmtime

from pywasmvm import (
    Func,
    Global,
    Instance,
    Memory,
    Module,
    Store,
    StoreLimits,
    Table,
    Trap,
    TrapKind,
    WasmException,
)

#: What the binding of the other engine can pass: a call with anything else in its signature ends the process.
PASSED = {"i32", "i64", "f32", "f64", "funcref", "externref"}

FUEL = 2_000_000


def engine() -> Any:
    """The other engine: all of 3.0, one result where the specification allows several."""
    config = wasmtime.Config()
    for name in ("gc", "function_references", "exceptions", "tail_call", "memory64", "multi_memory"):
        setattr(config, f"wasm_{name}", True)
    for name in ("simd", "relaxed_simd", "relaxed_simd_deterministic"):
        setattr(config, f"wasm_{name}", True)
    config.cranelift_nan_canonicalization = True
    config.consume_fuel = True
    config.memory_reservation = 1 << 24
    return wasmtime.Engine(config)


def comparable(value: Any) -> Any:
    """A value by its bits; a reference by being null or not."""
    if isinstance(value, wasmtime.Val):
        value = value.value
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("<d", value)
    if isinstance(value, int):
        return value
    if isinstance(value, tuple | list):
        return [comparable(item) for item in value]
    return "null" if value is None else "reference"


def argument(type_: str, source: random.Random) -> Any:
    """A value of the type, often one at an edge."""
    if type_ in ("i32", "i64"):
        bits = int(type_[1:])
        return source.choice(
            [0, 1, -1, 7, 65535, -(2 ** (bits - 1)), source.getrandbits(bits) - 2 ** (bits - 1)]
        )
    if type_ in ("f32", "f64"):
        value = source.choice([0.0, -0.0, 1.5, -2.25, float("inf"), 1e30, source.uniform(-1e6, 1e6)])
        return struct.unpack("<f", struct.pack("<f", value))[0] if type_ == "f32" else value
    return None


#: Ways of ending where the state in between is each engine's own affair: how deep is deep, how much is much.
_RESOURCES = {"stack", "fuel", "memory"}


def _ours(action: Any) -> tuple[str, Any]:
    try:
        return "result", comparable(action())
    except Trap as trap:
        if trap.kind is TrapKind.CALL_STACK_EXHAUSTED:
            return "resource", "stack"
        if trap.kind in (TrapKind.OUT_OF_FUEL, TrapKind.DEADLINE_EXCEEDED):
            return "resource", "fuel"
        return ("resource", "memory") if "allocation" in trap.message else ("trap", trap.kind.value)
    except WasmException:
        return "exception", None
    except MemoryError:
        return "resource", "memory"


_NAMES = {
    "MEMORY_OUT_OF_BOUNDS": ("out of bounds memory access",),
    "TABLE_OUT_OF_BOUNDS": ("out of bounds table access", "undefined element"),
    "INDIRECT_CALL_TO_NULL": ("uninitialized element",),
    "BAD_SIGNATURE": ("indirect call type mismatch",),
    "INTEGER_OVERFLOW": ("integer overflow",),
    "INTEGER_DIVISION_BY_ZERO": ("integer divide by zero",),
    "BAD_CONVERSION_TO_INTEGER": ("invalid conversion to integer",),
    "UNREACHABLE": ("unreachable",),
    "NULL_REFERENCE": ("null",),
    "ARRAY_OUT_OF_BOUNDS": (
        "out of bounds array access",
        "out of bounds table access",
        "out of bounds memory access",
    ),
    "CAST_FAILURE": ("cast failure",),
}


def _theirs(action: Any) -> tuple[str, Any]:
    try:
        return "result", comparable(action())
    except wasmtime.Trap as trap:
        if "thrown Wasm exception" in str(trap):
            return "exception", None
        try:
            known = trap.trap_code
        except ValueError:  # this version of the binding has no name for it
            known = None
        code = "" if known is None else known.name
        if code in ("STACK_OVERFLOW", "OUT_OF_FUEL", "ALLOCATION_TOO_LARGE"):
            return "resource", code
        return "trap", (code, trap.message)
    except wasmtime.WasmtimeError as error:
        if "exception" in str(error):
            return "exception", None
        if "memory" in str(error) or "heap" in str(error) or "allocat" in str(error):
            return "resource", "memory"
        raise


def _agree(mine: tuple[str, Any], other: tuple[str, Any]) -> bool:
    if mine[0] == "trap" and other[0] == "trap":
        code, message = other[1]
        wanted = _NAMES.get(code)
        if wanted is None:  # tell by the words
            return any(word in message for word in mine[1].split())
        return str(mine[1]).startswith(wanted)
    return mine == other


def divergences(data: bytes, seed: int, native: Any, engine: str = "interp") -> Iterator[str]:
    """Run every exported function once, in order, in both engines, and name what differs."""
    theirs = wasmtime.Store(native)
    theirs.set_fuel(FUEL)
    compiled = wasmtime.Module(native, data)
    # A limit below the default makes every call be counted: small functions are not put in place of it then.
    depth = 500 if seed % 2 else 10_000
    store = Store(limits=StoreLimits(fuel=FUEL, call_depth=depth), engine=engine)
    made: list[Any] = []
    mine = _ours(lambda: made.append(Instance(Module(data), store=store)))
    other = _theirs(lambda: made.append(wasmtime.Instance(theirs, compiled, [])))
    if "resource" in (mine[0], other[0]):
        return
    if not _agree(mine, other):
        yield f"instantiation: {mine} here, {other} there"
    if mine[0] != "result" or other[0] != "result":
        return
    instance, native_exports = made[0], made[1].exports(theirs)
    yield from _states(instance, native_exports, theirs, "after the start")
    source = random.Random(seed)
    for name, extern in instance.exports.items():
        if not isinstance(extern, Func):
            continue
        types = [*extern.type.params, *extern.type.results]
        if any(type_.name not in PASSED for type_ in types):
            continue
        args = [argument(type_.name, source) for type_ in extern.type.params]
        mine = _ours(functools.partial(extern, *args))
        other = _theirs(functools.partial(native_exports[name], theirs, *args))
        if "resource" in (mine[0], other[0]):
            return
        if not _agree(mine, other):
            yield f"{name}{args}: {mine} here, {other} there"
            return
        yield from _states(instance, native_exports, theirs, f"after {name}{args}")


def _states(instance: Instance, native: Any, store: Any, when: str) -> Iterator[str]:
    for name, extern in instance.exports.items():
        if isinstance(extern, Memory):
            here = hashlib.sha256(extern.data.data).hexdigest()
            there = hashlib.sha256(bytes(native[name].get_buffer_ptr(store))).hexdigest()
        elif isinstance(extern, Global) and extern.type.value.name in PASSED - {"externref"}:
            here, there = comparable(extern.value), comparable(native[name].value(store))
        elif isinstance(extern, Table):
            here, there = str(len(extern)), str(native[name].size(store))
        else:
            continue
        if here != there:
            yield f"{when}: {name} is {here} here, {there} there"
