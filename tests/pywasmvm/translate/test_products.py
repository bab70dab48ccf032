"""Products of products: masks may wait, the value may not change."""

from __future__ import annotations

import pytest

from pywasmvm import Instance, Module, Store
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options

STEP = "(i32.xor (i32.mul {} (i32.const {})) (i32.shr_u (local.get 0) (i32.const 3)))"


def chain(factors: tuple[int, ...]) -> str:
    text = "(local.get 0)"
    for factor in factors:
        text = STEP.format(text, factor)
    return text


FACTORS = [
    (16_777_619,) * 4,
    (2**30 - 1,) * 5,
    (-5, 7, -(2**29), 3),
    (2**31 - 1, 2**30 - 1, -1, 2**30),
    (0, 5, 1, 16_777_619),
]


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("use", ["", "i32.eqz", "(i32.const 9) (i32.div_u)", "(i32.const -3) (i32.lt_s)"])
def test_products_of_products(factors: tuple[int, ...], use: str) -> None:
    module = Module(f'(module (func (export "f") (param i32) (result i32) {chain(factors)} {use}))')
    fs = [Instance(module, store=Store(engine=e)).exports["f"] for e in ("interp", "translate")]
    for x in (0, 1, 2, 6_002, 2**30 - 1, 2**31 - 1, 2**31, 3_000_000_000, 2**32 - 1):
        expected, found = (f(x) for f in fs)
        assert found == expected


def test_not_every_product_has_a_mask() -> None:
    module = Module(f"(module (func (param i32) (result i32) {chain((16_777_619,) * 4)}))")
    text = source_of(module, 0, Options()) or ""
    assert text.count("16777619") == 4
    assert text.count("4294967295") == 2
