"""Rows of the vector instructions: signatures, immediates and accesses against a list made independently."""

from __future__ import annotations

import pytest

from pywasmvm import features
from pywasmvm.isa import ROWS, Imm, op
from tests.support.vectors import INSTRUCTIONS, LANE_LOADS, LANE_STORES, LANES, LOADS

ROWS_HERE = [row for row in ROWS if row.prefix == 0xFD]


def test_the_instructions_are_all_there_and_no_others() -> None:
    expected = {*INSTRUCTIONS, *LOADS, *LANE_LOADS, *LANE_STORES, "v128.store", "v128.const"}
    assert {row.name for row in ROWS_HERE} == expected
    assert len(ROWS_HERE) == len(expected) == 236 + 20


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_signatures_and_immediates(name: str) -> None:
    operands, result = INSTRUCTIONS[name]
    row = op(name)
    assert str(row.signature) == f"{' '.join(operands)} -> {result}"
    expected = (Imm.LANES,) if name == "i8x16.shuffle" else (Imm.LANE,) if name in LANES else ()
    assert row.immediates == expected
    assert row.plain == (not expected)
    assert row.feature == (features.RELAXED_SIMD if "relaxed" in name else features.SIMD)


@pytest.mark.parametrize(("name", "count"), [*LANES.items(), ("i8x16.shuffle", 32)])
def test_how_many_lanes_an_immediate_can_name(name: str, count: int) -> None:
    assert op(name).lanes == count


@pytest.mark.parametrize(("name", "size"), [*LOADS.items(), ("v128.store", 16)])
def test_accesses_of_vectors(name: str, size: int) -> None:
    row = op(name)
    assert row.access is not None
    assert (row.access.size, 2**row.access.natural_alignment) == (size, size)
    assert row.immediates == (Imm.MEMARG,)
    assert str(row.signature) == ("addr -> v128" if "load" in name else "addr v128 ->")


@pytest.mark.parametrize(("name", "size"), [*LANE_LOADS.items(), *LANE_STORES.items()])
def test_accesses_of_lanes(name: str, size: int) -> None:
    row = op(name)
    assert row.access is not None
    assert (row.access.size, 2**row.access.natural_alignment) == (size, size)
    assert row.lanes == 16 // size
    assert row.immediates == (Imm.MEMARG, Imm.LANE)
    assert str(row.signature) == ("addr v128 -> v128" if "load" in name else "addr v128 ->")


def test_the_constant() -> None:
    row = op("v128.const")
    assert (str(row.signature), row.immediates) == ("-> v128", (Imm.V128,))
