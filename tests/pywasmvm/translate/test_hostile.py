"""Shapes nobody writes and a hostile module may have: translated in time, never refused by Python."""

from __future__ import annotations

import pytest

from pywasmvm import Instance, Module, Store

N = 1500

STEP = "local.get 1 i32.const 1 i32.add local.set 1 "

SHAPES = {
    "a chain of else": "".join(
        f"local.get 0 i32.const {i} i32.eq if local.get 1 i32.const {i} i32.add local.set 1 else "
        for i in range(N)
    )
    + "nop"
    + " end" * N,
    "nested if": "local.get 0 if " * N + STEP + "end " * N,
    "nested blocks": "block " * N + f"local.get 0 br_if 3 br {N - 1} " + "end " * N,
    "a long ladder": "block " * N
    + f"local.get 0 br_table {' '.join(map(str, range(N)))} "
    + "".join(f"end local.get 1 i32.const {i} i32.xor local.set 1 " for i in range(N)),
    "nested loops": "loop " * N + STEP + "end " * N,
    "loops that all go on": "loop " * N
    + STEP
    + "local.get 1 i32.const 50 i32.lt_u br_if 1 "
    + "local.get 1 i32.const 3 i32.and br_if 0 end " * N,
    "a sum that leans left": "local.get 0 " + "local.get 0 i32.add " * (10 * N) + "local.set 1",
    "a sum that leans right": "local.get 0 " * N + "i32.add " * (N - 1) + "local.set 1",
    "choices of choices": "local.get 0 "
    + "i32.const 7 local.get 0 i32.const 3 i32.lt_s select i32.eqz " * N
    + "local.set 1",
    "conditions of conditions": "local.get 0 " + "i32.const 3 i32.lt_s " * N + "local.set 1",
    "branches to one place": "block " + f"local.get 0 i32.const 9 i32.eq br_if 0 {STEP}" * N + "end",
    "a scattered table": f"block block local.get 0 br_table {'0 1 ' * N}0 end {STEP} end",
    "operands kept over blocks": "local.get 0 " * N + "block end " + "i32.xor " * (N - 1) + "local.set 1",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_engine_gives_the_same(shape: str) -> None:
    text = (
        f'(module (func (export "f") (param i32) (result i32) (local i32 i32) {SHAPES[shape]} local.get 1))'
    )
    module = Module(text)
    for argument in (1, 3, N - 1):
        results = {
            Instance(module, store=Store(engine=engine)).exports["f"].raw(argument)
            for engine in ("interp", "translate", "translate-flat")
        }
        assert len(results) == 1
