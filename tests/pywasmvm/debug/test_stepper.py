"""The stepper: every instruction once, states as they are, calls, breakpoints, ends."""

from __future__ import annotations

import pytest

from pywasmvm import Instance, Module, Trap, WasmException
from pywasmvm.debug import Stepper

TEXT = """(module
  (import "env" "note" (func $note (param i32)))
  (memory 1)
  (func $square (param $n i32) (result i32) (i32.mul (local.get $n) (local.get $n)))
  (func $sum (export "sum") (param $x i32) (result i32) (local $total i32)
    (loop $again
      (local.set $total (i32.add (local.get $total) (call $square (local.get $x))))
      (br_if $again (local.tee $x (i32.sub (local.get $x) (i32.const 1)))))
    (call $note (local.get $total))
    (local.get $total))
  (func (export "tail") (param i32) (result i32) (return_call $square (local.get 0)))
  (tag $t) (func $throw (throw $t))
  (func (export "caught") (result i32)
    (block $h (try_table (catch_all $h) (call $throw))) (i32.const 9))
  (func (export "uncaught") (call $throw))
  (func (export "trap") (result i32) (i32.load (i32.const -1))))"""


@pytest.fixture
def noted() -> list[int]:
    return []


@pytest.fixture
def made(noted: list[int]) -> Instance:
    return Instance(Module(TEXT), {"env": {"note": noted.append}})


def test_the_first_steps(made: Instance) -> None:
    stepper = Stepper(made, "sum", 3)
    assert stepper.instruction == "loop $again"
    assert stepper.locals == {"x": 3, "total": 0}
    assert stepper.step()
    assert stepper.instruction == "local.get $total"
    stepper.step()
    stepper.step()
    assert stepper.stack == (0, 3)
    assert stepper.instruction == "call $square"
    stepper.step()
    assert [frame.function for frame in stepper.frames] == ["square", "sum"]
    assert stepper.locals == {"n": 3}
    assert stepper.frames[1].instruction == "call $square"
    assert "square +" in str(stepper)
    assert not stepper.finished
    assert stepper.results == ()


@pytest.mark.parametrize(
    ("name", "args", "result"), [("sum", (3,), 14), ("tail", (7,), 49), ("caught", (), 9)]
)
def test_it_ends_where_a_call_ends(
    made: Instance, noted: list[int], name: str, args: tuple[int, ...], result: int
) -> None:
    stepper = Stepper(made, name, *args)
    states = list(stepper)
    assert stepper.finished
    assert stepper.results == (result,) == (made.exports[name](*args),)
    assert states[-1].instruction == "end"
    assert str(stepper) == f"finished: ({result},)"
    if name == "sum":
        assert noted == [14, 14]
    with pytest.raises(RuntimeError, match="the call is over"):
        stepper.state  # noqa: B018


def test_every_state_is_where_it_says(made: Instance) -> None:
    text = TEXT.encode()
    for state in Stepper(made, "sum", 2):
        word = state.instruction.partition(" ")[0]
        assert word == "end" or text[state.offset :].startswith(word.encode())


def test_over_and_out(made: Instance) -> None:
    stepper = Stepper(made, "sum", 2)
    while stepper.instruction != "call $square":
        stepper.step()
    stepper.next()
    assert stepper.stack == (0, 4)
    while stepper.instruction != "call $square":
        stepper.step()
    stepper.step()
    stepper.step()
    stepper.out()
    assert (stepper.instruction, stepper.stack) == ("i32.add", (4, 1))
    assert not stepper.out()
    assert stepper.results == (5,)


def test_breakpoints(made: Instance) -> None:
    stepper = Stepper(made, "sum", 2)
    stepper.break_at("square")
    assert stepper.run()
    assert stepper.locals == {"n": 2}
    assert stepper.run()
    assert stepper.locals == {"n": 1}
    assert not stepper.run()
    end = TEXT.encode().index(b"i32.mul")
    stepper = Stepper(made, "sum", 1)
    stepper.break_at("square", end)
    stepper.run()
    assert stepper.instruction == "i32.mul"
    with pytest.raises(ValueError, match="no instruction at offset 0x1"):
        stepper.break_at("square", 1)
    with pytest.raises(KeyError):
        stepper.break_at("nothing")


def test_breakpoints_stop_next_and_out_too(made: Instance) -> None:
    stepper = Stepper(made, "sum", 2)
    stepper.break_at("square")
    while stepper.instruction != "call $square":
        stepper.step()
    stepper.next()
    assert stepper.state.function == "square"
    stepper.out()
    stepper.out()
    assert stepper.state.function == "square"


def test_traps_and_exceptions_come_out_of_the_step_that_meets_them(made: Instance) -> None:
    stepper = Stepper(made, "trap")
    stepper.step()
    with pytest.raises(Trap, match="out of bounds memory access"):
        stepper.step()
    assert stepper.finished
    stepper = Stepper(made, "uncaught")
    stepper.step()
    with pytest.raises(WasmException):
        stepper.step()


def test_arguments_are_checked(made: Instance) -> None:
    with pytest.raises(TypeError, match="takes 1 arguments"):
        Stepper(made, "sum")
    with pytest.raises(TypeError, match="is no function of a guest"):
        Stepper(made, made.funcs[0])  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        Stepper(made, "nothing")


def test_a_binary_without_names_is_stepped_by_number() -> None:
    module = Module(
        Module('(module (func (export "f") (param i32) (local f64) (drop (local.get 0))))').to_bytes()
    )
    stepper = Stepper(Instance(module), "f", -1)
    assert stepper.locals == {"0": -1, "1": 0.0}
    assert stepper.instruction == "local.get 0"
