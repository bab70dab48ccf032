"""Stepping: the machine stops after every instruction, shows its state, and ends where running ends."""

from __future__ import annotations

import pytest

from pywasmvm import Instance, Module, Store, Trap, TrapKind
from pywasmvm.interp.machine import Machine
from pywasmvm.runtime.func import WasmFunc
from tests.support.wat import wat

PROGRAM = """(module
  (import "env" "twice" (func $twice (param i32) (result i32)))
  (global $seen (mut i32) (i32.const 0))
  (table funcref (elem $double))
  (func $double (param i32) (result i32) (i32.add (local.get 0) (local.get 0)))
  (func $loop (export "loop") (param $n i32) (result i32) (local $sum i32)
    (block $out
      (loop $again
        (br_if $out (i32.eqz (local.get $n)))
        (local.set $sum (i32.add (local.get $sum) (local.get $n)))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $again)))
    (global.set $seen (local.get $sum))
    (global.get $seen))
  (func (export "unwind") (param i32) (result i32)
    (block $b (result i32)
      i32.const 7
      i32.const 8
      i32.const 9
      local.get 0
      br_if $b
      drop
      drop))
  (func (export "choose") (param i32) (result i32)
    (block $a (block $b (block $c (br_table $a $b $c (local.get 0))) (return (i32.const 30)))
      (return (i32.const 20)))
    nop
    (i32.const 10))
  (func (export "calls") (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (call $twice (call $double (local.get 0))))
      (else (call_indirect (param i32) (result i32) (i32.const 21) (i32.const 0)))))
  (func (export "trap") (param i32) (result i32)
    (i32.div_u (i32.const 1) (local.get 0))))
"""


@pytest.fixture
def instance() -> Instance:
    return Instance(Module(wat(PROGRAM), name="steps"), {"env": {"twice": lambda x: 2 * x}})


def machine_at(instance: Instance, name: str, *args: int) -> Machine:
    func = instance.exports[name]
    assert isinstance(func, WasmFunc)
    machine = Machine(instance.store, single=True)
    machine.enter(func, args)
    return machine


def step_to_the_end(machine: Machine) -> int:
    steps = 1
    while machine.step():
        steps += 1
        assert steps < 10_000
    return steps


@pytest.mark.parametrize(
    ("name", "argument"),
    [("loop", 0), ("loop", 5), ("unwind", 0), ("unwind", 1), ("calls", 0), ("calls", 3)]
    + [("choose", n) for n in range(5)],
)
def test_stepping_ends_where_running_ends(instance: Instance, name: str, argument: int) -> None:
    machine = machine_at(instance, name, argument)
    step_to_the_end(machine)
    assert machine.results == [instance.exports[name](argument)]
    assert str(machine) == f"finished: {machine.results}"


def test_every_instruction_is_one_step(instance: Instance) -> None:
    """local.get, local.get, i32.add, end."""
    func = instance.funcs[1]
    assert isinstance(func, WasmFunc)
    machine = Machine(instance.store, single=True)
    machine.enter(func, (4,))
    seen = []
    more = True
    while more:
        frame = machine.frames[-1]
        seen.append((frame.prepared.code.ops[frame.index].name, list(frame.stack)))
        more = machine.step()
    assert seen == [("local.get", []), ("local.get", [4]), ("i32.add", [4, 4]), ("end", [8])]
    assert machine.results == [8]


def test_the_state_shows_frames_locals_stack_and_labels(instance: Instance) -> None:
    machine = machine_at(instance, "loop", 2)
    while machine.frames[-1].prepared.code.ops[machine.frames[-1].index].name != "i32.eqz":
        machine.step()
    frame = machine.frames[-1]
    assert frame.locals == [2, 0]
    assert frame.stack == [2]
    assert [label.split()[0] for label in frame.labels] == ["function", "block", "loop"]
    shown = str(machine)
    assert "loop: at i32.eqz" in shown
    assert "locals [2, 0]" in shown
    assert "stack  [2]" in shown


def test_a_call_pushes_a_frame(instance: Instance) -> None:
    machine = machine_at(instance, "calls", 3)
    depths = []
    more = True
    while more:
        depths.append(len(machine.frames))
        more = machine.step()
    assert max(depths) == 2
    assert machine.results == [12]


def test_a_trap_in_a_step_has_its_frames(instance: Instance) -> None:
    machine = machine_at(instance, "trap", 0)
    with pytest.raises(Trap) as caught:
        step_to_the_end(machine)
    assert caught.value.kind is TrapKind.INTEGER_DIVIDE_BY_ZERO
    assert caught.value.frames[0].instruction == "i32.div_u"
    assert not machine.frames
    assert instance.exports.trap(1) == 1


def test_stepping_and_running_use_the_same_fuel(instance: Instance) -> None:
    from pywasmvm import StoreLimits

    module = instance.module
    used = []
    for single in (False, True):
        store = Store(StoreLimits(fuel=10_000))
        fresh = Instance(module, {"env": {"twice": lambda x: 2 * x}}, store=store)
        func = fresh.exports.loop
        machine = Machine(store, single=single)
        machine.enter(func, (5,))
        if single:
            step_to_the_end(machine)
        else:
            machine.run()
        used.append(10_000 - (store.fuel_left or 0))
    assert used[0] == used[1] > 0
