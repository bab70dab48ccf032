"""The machine one step at a time: every state can be printed, and stepping means the same as running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pywasmvm import Func, Instance, Module, Store, StoreLimits, Trap
from pywasmvm.interp.machine import Interpreter, Machine
from pywasmvm.interp.prepare import has_rule, prepare
from pywasmvm.isa import ROWS
from pywasmvm.isa.opcode import Opcode
from tests.support.instances import instance
from tests.support.smith import smith
from tests.support.wat import wat

FACTORIAL = """(module $math (func $fac (export "fac") (param $n i32) (result i32)
  local.get $n i32.eqz
  if (result i32)
    i32.const 1
  else
    local.get $n
    local.get $n i32.const 1 i32.sub call $fac
    i32.mul
  end))"""


def stepping(func: Func, *args: Any) -> Machine:
    machine = Machine(func.store, single=True)  # type: ignore[attr-defined]
    machine.enter(func, args)  # type: ignore[arg-type]
    return machine


def test_each_step_is_one_instruction() -> None:
    machine = stepping(instance(FACTORIAL).exports.fac, 0)
    seen = []
    while machine.frames:
        frame = machine.frames[-1]
        code = frame.prepared.code
        seen.append((code.ops[frame.index].name, list(frame.stack)))
        machine.step()
    assert seen == [
        ("local.get", []),
        ("i32.eqz", [0]),
        ("if", [1]),
        ("i32.const", []),
        ("else", [1]),
        ("end", [1]),
    ]
    assert machine.results == [1]
    assert not machine.step()


def test_frames_stack_up_in_recursion() -> None:
    machine = stepping(instance(FACTORIAL).exports.fac, 3)
    deepest = 0
    steps = 0
    while machine.step():
        deepest = max(deepest, len(machine.frames))
        steps += 1
        if len(machine.frames) == 4:
            assert [frame.locals for frame in machine.frames] == [[3], [2], [1], [0]]
    assert deepest == 4
    assert machine.results == [6]
    assert steps > 30


def test_a_state_can_be_printed_at_any_time() -> None:
    machine = stepping(instance(FACTORIAL).exports.fac, 1)
    states = [str(machine)]
    while machine.step():
        states.append(str(machine))
    states.append(str(machine))
    assert states[0].startswith(
        "fac: at local.get (instruction 0)\n  locals [1]\n  stack  []\n  labels function"
    )
    assert any("labels function > if +0x" in state for state in states)
    assert any(state.count("fac: at") == 2 for state in states)
    assert states[-1] == "finished: [1]"


def test_a_trap_ends_it() -> None:
    machine = stepping(instance('(module (func (export "f") nop unreachable))').exports.f)
    assert machine.step()
    with pytest.raises(Trap) as caught:
        machine.step()
    assert caught.value.frames[0].instruction == "unreachable"
    assert not machine.frames


class Stepping(Interpreter):
    """An engine that only ever steps."""

    def call(self, func: Any, args: Sequence[Any]) -> list[Any]:
        store = func.store
        store.enter()
        try:
            machine = Machine(store, single=True)
            machine.enter(func, args)
            while machine.step():
                pass
            return machine.results
        finally:
            store.leave()


def outcome(instance_: Instance, name: str) -> list[Any]:
    func = instance_.exports[name]
    ones: dict[str, Any] = {"i32": 1, "i64": 1, "f32": 1.5, "f64": 1.5}
    args = [ones.get(type_.name) for type_ in func.type.params]
    try:
        result = func(*args)
    except Trap as trap:
        return [trap.kind, [(frame.index, frame.instruction) for frame in trap.frames]]
    return [repr(result)]


@pytest.mark.parametrize("seed", range(0, 25))
def test_stepping_and_running_agree_in_results_traps_and_fuel(seed: int) -> None:
    module = Module(smith(seed))
    stores = [Store(limits=StoreLimits(fuel=1_000_000, call_depth=200)) for _ in range(2)]
    stores[1].engine = Stepping()
    try:
        run, step = (Instance(module, store=store) for store in stores)
    except Trap:
        return
    for name, extern in run.exports.items():
        if isinstance(extern, Func):
            found = outcome(run, name), outcome(step, name)
            assert found[0] == found[1]
            if len(found[0]) == 1:
                assert stores[0].fuel_left == stores[1].fuel_left
            else:
                stores[0].limits = stores[1].limits = StoreLimits(fuel=1_000_000, call_depth=200)


@pytest.mark.parametrize("text", [
    "loop i32.const 0 br_if 0 end",
    "block i32.const 1 i32.const 0 br_table 0 0 0 end",
    "i32.const 1 if i32.const 0 if nop end else nop end",
    "block (result i32) i64.const 5 i32.const 1 br 0 end drop",
    "i32.const 0 if end",
])  # fmt: skip
def test_every_shape_of_control_can_be_stepped(text: str) -> None:
    if "br_table" in text:
        text = text.replace("i32.const 1 i32.const 0", "i32.const 0")
    machine = stepping(instance(f'(module (func (export "f") {text}))').exports.f)
    while machine.step():
        str(machine)
    assert machine.results == []


def test_blocks_are_shared_by_all_instances_of_a_module() -> None:
    module = Module(wat(FACTORIAL))
    first, second = Instance(module), Instance(module)
    first.exports.fac(1)
    second.exports.fac(1)
    assert first.exports.fac.prepared is second.exports.fac.prepared


def test_the_offset_of_an_instruction() -> None:
    module = Module(wat(FACTORIAL))
    prepared = prepare(module, 0)
    assert module.syntax.source[prepared.offset(1)] == 0x45
    assert prepared.labels(0) == ["function"]


def test_the_interpreter_has_a_rule_for_every_row() -> None:
    assert [row.name for row in ROWS if not has_rule(row)] == []
    assert not has_rule(Opcode("new", 0xFF, None, (), None, "mvp"))
