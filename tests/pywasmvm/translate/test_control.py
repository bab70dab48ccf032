"""Control flow of every shape and depth, on both back ends, against the interpreter."""

from __future__ import annotations

import random

import pytest

from pywasmvm import Instance, Module, Store, StoreLimits, Trap
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options

BACK_ENDS = ("translate", "translate-flat")


def random_code(source: random.Random, depth: int, loops: list[bool], size: int) -> list[str]:
    """Statements that note which way they went in local 1; local 2 is how many steps are left."""
    lines = []
    for _ in range(source.randrange(1, size)):
        choice = source.random()
        if depth < 6 and choice < 0.25:
            lines += ["block", *random_code(source, depth + 1, [*loops, False], size), "end"]
        elif depth < 6 and choice < 0.4:
            lines += ["loop", *random_code(source, depth + 1, [*loops, True], size), "end"]
        elif depth < 6 and choice < 0.55:
            lines += [
                "local.get 0 i32.const 3 i32.and",
                "if",
                *random_code(source, depth + 1, [*loops, False], size),
            ]
            if source.random() < 0.5:
                lines += ["else", *random_code(source, depth + 1, [*loops, False], size)]
            lines += ["end"]
        elif loops and choice < 0.75:
            target = source.randrange(len(loops))
            lines.append(
                "local.get 2 i32.const 1 i32.sub local.tee 2 i32.const 0 i32.lt_s if local.get 1 return end"
            )
            test = f"local.get 0 i32.const {source.randrange(1, 8)} i32.and i32.const {source.randrange(4)}"
            lines.append(f"{test} i32.eq br_if {target}")
        elif loops and choice < 0.82:
            targets = " ".join(str(source.randrange(len(loops))) for _ in range(source.randrange(1, 7)))
            lines.append(
                "local.get 2 i32.const 1 i32.sub local.tee 2 i32.const 0 i32.lt_s if local.get 1 return end"
            )
            lines += ["local.get 0 i32.const 7 i32.and", f"br_table {targets}"]
            return lines
        else:
            lines.append(
                f"local.get 1 i32.const 31 i32.mul i32.const {source.randrange(100)} i32.add local.set 1"
            )
            lines.append("local.get 0 i32.const 1103515245 i32.mul i32.const 7 i32.rotl local.set 0")
    return lines


@pytest.mark.parametrize("seed", range(80))
def test_random_nests(seed: int) -> None:
    source = random.Random(seed)
    body = "\n".join(random_code(source, 0, [], 5))
    text = f"""(module (func (export "f") (param i32) (result i32) (local i32 i32)
      i32.const 200 local.set 2 {body} local.get 1))"""
    module = Module(text)
    outcomes = []
    for engine in ("interp", *BACK_ENDS):
        store = Store(StoreLimits(fuel=1_000_000), engine=engine)
        run = Instance(module, store=store).exports["f"]
        outcomes.append(([run.raw(n) for n in range(0, 50, 7)], store.fuel_left))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def ladder(cases: int) -> str:
    """What Go makes of a function that can be resumed: a table at its entry, and jumps among cases."""
    blocks = "block " * cases
    table = " ".join(map(str, range(cases)))
    code = []
    for case in range(cases):
        to = (case * 7 + 3) % cases
        code.append(f"""end
          local.get 1 i32.const {case + 1} i32.add i32.const 13 i32.mul local.set 1
          local.get 2 i32.const 1 i32.sub local.tee 2 i32.eqz if local.get 1 return end
          local.get 1 i32.const 4 i32.and if i32.const {to} local.set 0 br {cases - case} end""")
    return f"""(module (func (export "f") (param i32) (result i32) (local i32 i32)
      i32.const 300 local.set 2
      loop {blocks} local.get 0 br_table {table} {" ".join(code)} i32.const 0
      local.set 0 br 0 end local.get 1))"""


@pytest.mark.parametrize("cases", [3, 4, 9, 40, 300])
def test_ladders(cases: int) -> None:
    module = Module(ladder(cases))
    runs = [Instance(module, store=Store(engine=e)).exports["f"] for e in ("interp", *BACK_ENDS)]
    for start in (0, 1, 2, cases - 1, cases, 2**32 - 1):
        results = {run.raw(start) for run in runs}
        assert len(results) == 1


def test_the_structured_form_of_a_ladder_is_not_deep() -> None:
    text = source_of(Module(ladder(300)), 0, Options()) or ""
    assert "pc" not in text  # the dispatcher was not needed
    assert max(len(line) - len(line.lstrip()) for line in text.split("\n")) < 40


@pytest.mark.parametrize("depth", [10, 30, 200])
def test_loops_deeper_than_python_allows(depth: int) -> None:
    inner = "local.get 1 i32.const 1 i32.add local.set 1"
    for level in range(depth):
        inner = f"""loop {inner} local.get 0 i32.const {1 << level % 20} i32.and
          if local.get 0 i32.const {1 << level % 20} i32.xor local.set 0 br 1 end end"""
    module = Module(f'(module (func (export "f") (param i32) (result i32) (local i32) {inner} local.get 1))')
    results = {
        Instance(module, store=Store(engine=e)).exports["f"].raw(0xFFFFF) for e in ("interp", *BACK_ENDS)
    }
    assert len(results) == 1


@pytest.mark.parametrize("engine", BACK_ENDS)
def test_operands_that_a_jump_drops_still_trap(engine: str) -> None:
    text = '(module (memory 1) (func (export "f") (block (i32.load (i32.const 70000)) br 0)))'
    with pytest.raises(Trap, match="out of bounds memory access"):
        Instance(Module(text), store=Store(engine=engine)).exports["f"]()
