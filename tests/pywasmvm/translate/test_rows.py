"""Stores one after the other through one address: aligned or not, and where the memory ends between them."""

from __future__ import annotations

import pytest

from pywasmvm import Instance, Module, Store, Trap, TrapKind
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options

FIELDS = Module("""(module (memory (export "memory") 1)
  (func (export "f") (param $p i32) (param $x i32) (param $y i64)
    (i32.store (local.get $p) (local.get $x))
    (i32.store offset=4 (local.get $p) (i32.load offset=60 (local.get $p)))
    (i32.store offset=12 (local.get $p) (i32.add (local.get $x) (i32.const 1)))
    (i64.store offset=16 (local.get $p) (local.get $y))
    (i64.store offset=24 (local.get $p) (i64.const 7))
    (i32.store16 offset=32 (local.get $p) (local.get $x))
    (i32.store16 offset=34 (local.get $p) (local.get $x))
    (f64.store offset=40 (local.get $p) (f64.const 1.5))
    (f64.store offset=48 (local.get $p) (f64.const -2))
    (local.set $p (i32.load offset=56 (local.get $p)))
    (i32.store offset=8 (local.get $p) (local.get $x))
    (i32.store (local.get $p) (local.get $p))
    (i32.store offset=3 (local.get $p) (i32.const -1))))""")


def outcome(engine: str, address: int) -> tuple[tuple[TrapKind, int] | None, bytes]:
    instance = Instance(FIELDS, store=Store(engine=engine))
    memory = instance.exports["memory"]
    memory.write(0, bytes(range(1, 251)) * 262)
    memory.write(address + 56 if address + 60 <= 65536 else 0, (address ^ 2048).to_bytes(4, "little"))
    try:
        instance.exports["f"](address, 0xDEAD_BEEF, 0x0123_4567_89AB_CDEF)
    except Trap as trap:
        return (trap.kind, len(trap.frames)), memory.read(0, 65536)
    return None, memory.read(0, 65536)


@pytest.mark.parametrize("address", [0, 8, 1001, 1002, 4099, *range(65536 - 68, 65537), 2**32 - 4, 2**32 - 1])
def test_rows_of_stores(address: int) -> None:
    """What was stored before a trap stays, and what comes after it is not stored."""
    expected = outcome("interp", address)
    assert outcome("translate", address) == expected
    assert outcome("translate-flat", address) == expected


def test_they_are_rows() -> None:
    text = source_of(FIELDS, 0, Options()) or ""
    for mask in (1, 3, 7):
        assert f"if l0&{mask}:\n" in text
    assert "store_u32(m0,l0+3" in text  # not a multiple: it stands alone
    assert "\n   q=" not in (source_of(FIELDS, 0, Options(quick=True)) or "")
