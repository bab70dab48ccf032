"""Random modules run by us and by a native engine: same results, traps, memory, globals and table sizes.

Each exported function is called in order on the same instance, so a difference in state shows up in what
follows, too.
"""

from __future__ import annotations

import hashlib
import random
import struct
from typing import Any

import pytest

from pywasmvm import Func, Global, Instance, Memory, Module, Store, StoreLimits, Table, Trap, TrapKind
from tests.support.smith import smith

wasmtime = pytest.importorskip("wasmtime")
pytestmark = pytest.mark.wasmtime

FUEL = 10_000_000

TRAPS = {
    "STACK_OVERFLOW": TrapKind.CALL_STACK_EXHAUSTED,
    "MEMORY_OUT_OF_BOUNDS": TrapKind.OUT_OF_BOUNDS_MEMORY_ACCESS,
    "TABLE_OUT_OF_BOUNDS": TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS,
    "INDIRECT_CALL_TO_NULL": TrapKind.UNINITIALIZED_ELEMENT,
    "BAD_SIGNATURE": TrapKind.INDIRECT_CALL_TYPE_MISMATCH,
    "INTEGER_OVERFLOW": TrapKind.INTEGER_OVERFLOW,
    "INTEGER_DIVISION_BY_ZERO": TrapKind.INTEGER_DIVIDE_BY_ZERO,
    "BAD_CONVERSION_TO_INTEGER": TrapKind.INVALID_CONVERSION,
    "UNREACHABLE": TrapKind.UNREACHABLE,
    "OUT_OF_FUEL": TrapKind.OUT_OF_FUEL,
}


def comparable(value: Any) -> Any:
    """Floats by bits (one NaN like another), references by being null or not."""
    if isinstance(value, wasmtime.Val):
        value = value.value
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("<d", value)
    if isinstance(value, int):
        return value
    if isinstance(value, tuple | list):
        return [comparable(item) for item in value]
    return "null" if value is None else "reference"


def ours(action: Any) -> tuple[str, Any]:
    try:
        return "result", comparable(action())
    except Trap as trap:
        # The other engine has one code for an index outside a table, called through or not.
        outside = trap.kind is TrapKind.UNDEFINED_ELEMENT
        return "trap", TrapKind.OUT_OF_BOUNDS_TABLE_ACCESS if outside else trap.kind


def theirs(action: Any) -> tuple[str, Any]:
    try:
        return "result", comparable(action())
    except wasmtime.Trap as trap:
        return "trap", TRAPS[trap.trap_code.name]


def argument(type_: str, source: random.Random) -> Any:
    if type_ in ("i32", "i64"):
        bits = int(type_[1:])
        return source.choice(
            [0, 1, -1, 7, 65535, -(2 ** (bits - 1)), source.getrandbits(bits) - 2 ** (bits - 1)]
        )
    if type_ in ("f32", "f64"):
        value = source.choice([0.0, -0.0, 1.5, -2.25, float("inf"), 1e30, source.uniform(-1e6, 1e6)])
        return struct.unpack("<f", struct.pack("<f", value))[0] if type_ == "f32" else value
    return None


class Pair:
    """The same module in both engines."""

    def __init__(self, data: bytes) -> None:
        config = wasmtime.Config()
        config.consume_fuel = True
        self.store = wasmtime.Store(wasmtime.Engine(config))
        self.store.set_fuel(FUEL)
        module = wasmtime.Module(self.store.engine, data)
        self.module = Module(data)
        self.own_store = Store(limits=StoreLimits(fuel=FUEL))
        self.mine: Instance | None = None
        self.other: Any = None

        def make_mine() -> None:
            self.mine = Instance(self.module, store=self.own_store)

        def make_other() -> None:
            self.other = wasmtime.Instance(self.store, module, [])

        self.started = ours(make_mine), theirs(make_other)

    def call(self, name: str, args: list[Any]) -> tuple[tuple[str, Any], tuple[str, Any]]:
        if self.mine is None:
            raise ValueError("not instantiated")
        function = self.mine.exports[name]
        native = self.other.exports(self.store)[name]
        return ours(lambda: function(*args)), theirs(lambda: native(self.store, *args))

    def fuel_used(self) -> tuple[int, int]:
        return FUEL - (self.own_store.fuel_left or 0), FUEL - self.store.get_fuel()

    def states(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.mine is None:
            raise ValueError("not instantiated")
        exports = self.other.exports(self.store)
        mine: dict[str, Any] = {}
        other: dict[str, Any] = {}
        for name, extern in self.mine.exports.items():
            native = exports[name]
            if isinstance(extern, Memory):
                mine[name] = hashlib.sha256(extern.data.data).hexdigest()
                other[name] = hashlib.sha256(bytes(native.get_buffer_ptr(self.store))).hexdigest()
            elif isinstance(extern, Global):
                mine[name], other[name] = comparable(extern.value), comparable(native.value(self.store))
            elif isinstance(extern, Table):
                mine[name], other[name] = len(extern), native.size(self.store)
        return mine, other


@pytest.mark.parametrize("seed", range(100))
def test_same_behaviour(seed: int) -> None:
    pair = Pair(smith(seed))
    mine, other = pair.started
    assert mine == other
    if mine[0] == "trap":
        return
    assert pair.states()[0] == pair.states()[1]
    source = random.Random(seed)
    for name, extern in pair.mine.exports.items() if pair.mine else ():
        if not isinstance(extern, Func):
            continue
        args = [argument(type_.name, source) for type_ in extern.type.params]
        before = pair.fuel_used()
        mine, other = pair.call(name, args)
        if TrapKind.CALL_STACK_EXHAUSTED in (mine[1], other[1]):
            return  # how deep is deep differs, and so does what was done on the way
        assert mine == other, (name, args)
        if mine[0] == "result":
            used = [after - start for after, start in zip(pair.fuel_used(), before, strict=True)]
            assert used[0] == used[1], name
        states = pair.states()
        assert states[0] == states[1], name
