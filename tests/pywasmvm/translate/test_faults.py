"""What goes wrong in translated code is told as the interpreter tells it; in the host it stays what it is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pywasmvm import Instance, Linker, Module, Store, StoreLimits, Trap, i32
from pywasmvm.translate.build import source_of
from pywasmvm.translate.options import Options

FAULTS = {
    "load": "(drop (i32.add (i32.load (i32.const 4)) (i32.load offset=65533 (local.get 0))))",
    "store": "(i64.store offset=65530 (local.get 0) (i64.const 1))",
    "byte": "(i32.store8 offset=65536 (local.get 0) (i32.const 1))",
    "huge address": "(drop (i32.load8_u offset=4294967295 (i32.const -1)))",
    "vector": "(drop (v128.load offset=65521 (local.get 0)))",
    "lane": "(v128.store8_lane offset=65536 0 (local.get 0) (v128.const i64x2 0 0))",
    "fill": "(memory.fill (i32.const 65000) (i32.const 1) (i32.const 1000))",
    "division": "(drop (i32.add (i32.const 7) (i32.div_u (i32.const 1) (local.get 0))))",
    "signed division": "(drop (i64.div_s (i64.const 1) (i64.extend_i32_u (local.get 0))))",
    "remainder": "(drop (i64.rem_u (i64.const 1) (i64.extend_i32_u (local.get 0))))",
    "overflow": "(drop (i32.div_s (i32.const 0x80000000) (i32.sub (local.get 0) (i32.const 1))))",
    "conversion": "(drop (i32.trunc_f64_s (f64.div (f64.const 0) (f64.const 0))))",
    "too large": "(drop (i32.trunc_f32_u (f32.const 1e20)))",
    "unreachable": "unreachable",
    "no element": "(call_indirect (type $v) (i32.const 9))",
    "null element": "(call_indirect (type $v) (i32.const 1))",
    "wrong type": "(call_indirect (type $w) (i32.const 0)) drop",
    "table": "(drop (table.get (i32.const 99)))",
    "table.set": "(table.set (i32.const 99) (ref.null func))",
    "null call": "(call_ref $v (ref.null $v))",
    "null struct": "(drop (struct.get $s 0 (ref.null $s)))",
    "null array": "(drop (array.len (ref.null array)))",
    "array": "(drop (array.get $a (array.new_default $a (i32.const 3)) (i32.const 3)))",
    "cast": "(drop (ref.cast (ref $s) (array.new_default $a (i32.const 0))))",
    "non-null": "(drop (ref.as_non_null (ref.null $s)))",
    "trap below": "(drop (i32.div_u (i32.load (i32.const 70000)) (i32.div_u (i32.const 1) (local.get 0))))",
    "order": "(i32.store (i32.load (i32.const 70000)) (i32.div_u (i32.const 1) (local.get 0)))",
}

TEXT = """(module (memory 1) (table 3 10 funcref) (elem (i32.const 0) $ok)
  (type $v (func)) (type $w (func (result i32))) (type $s (struct (field i32))) (type $a (array i32))
  (func $ok)
  (func $bad (param i32) %s)
  (func $middle (param i32) (call $bad (local.get 0)))
  (func (export "f") (param i32) (local $i i32)
    (loop $l (call $ok)
      (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3))))
    (call $middle (local.get 0))))"""


@pytest.mark.parametrize("name", FAULTS)
def test_same_kind_message_and_frames(name: str) -> None:
    module = Module(TEXT % FAULTS[name], name="faulty")
    seen: list[Any] = []
    for engine in ("interp", "translate", "translate-flat"):
        with pytest.raises(Trap) as caught:
            Instance(module, store=Store(engine=engine)).exports["f"](0)
        seen.append((caught.value.kind, caught.value.message, caught.value.frames))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("error", [IndexError, OverflowError, ZeroDivisionError, AttributeError, ValueError])
@pytest.mark.parametrize("engine", ["interp", "translate", "auto"])
def test_an_error_of_the_host_stays_one(error: type[Exception], engine: str) -> None:
    linker = Linker()

    @linker.func("env")
    def host(n: i32) -> i32:
        raise error("mine")

    module = Module("""(module (import "env" "host" (func $h (param i32) (result i32)))
      (func (export "f") (param i32) (result i32) (i32.add (i32.const 1) (call $h (local.get 0)))))""")
    with pytest.raises(error, match="mine") as caught:
        linker.instantiate(module, Store(engine=engine)).exports["f"](1)
    assert not isinstance(caught.value, Trap)
    assert "f[1]" in "".join(caught.value.__notes__)


def test_a_trap_through_the_host_tells_every_frame_once() -> None:
    linker = Linker()
    made: list[Instance] = []

    @linker.func("env")
    def again(n: i32) -> i32:
        return int(made[0].exports["f"](n - 1))

    module = Module("""(module (import "env" "again" (func $h (param i32) (result i32))) (memory 1)
      (func (export "f") (param i32) (result i32)
        (if (result i32) (local.get 0) (then (call $h (local.get 0)))
          (else (i32.load (i32.const 65536))))))""")
    frames = []
    for engine in ("interp", "translate", "auto"):
        made[:] = [linker.instantiate(module, Store(engine=engine))]
        with pytest.raises(Trap) as caught:
            made[0].exports["f"](3)
        frames.append([frame.instruction for frame in caught.value.frames])
    assert frames == [["i32.load", "call", "call", "call"]] * 3


def test_the_instance_goes_on_after_a_trap() -> None:
    run = Instance(Module(TEXT % FAULTS["load"]), store=Store(StoreLimits(call_depth=50), engine="translate"))
    for _ in range(100):
        with pytest.raises(Trap):
            run.exports["f"](0)


#: All that generated code may say besides names of ours.
PYTHON = {
    "def", "make", "return", "while", "if", "elif", "else", "break", "continue", "nonlocal", "or", "and",
    "not", "is", "None", "pass", "stop", "store", "halt", "code", "deftype", "element", "w", "len",
}  # fmt: skip


def test_generated_code_reaches_nothing_of_python() -> None:
    """Only names of ours stand in the source, and the globals of the code have no builtins."""
    module = Module(TEXT % " ".join(FAULTS[name] for name in ("load", "store", "division", "no element")))
    run = Instance(module, store=Store(engine="translate"))
    with pytest.raises(Trap):
        run.exports["f"](0)
    for index in range(4):
        text = source_of(module, index, Options(poll=True)) or ""
        words = set(re.findall(r"[A-Za-z_]\w*", text))
        ours = re.compile(r"[a-zA-Z]\d+[a-zA-Z]?|[A-Z]|load_\w+|store_\w+|[if]\d+_\w+")
        assert {word for word in words if not ours.fullmatch(word)} <= PYTHON
    code = run.exports["f"].code
    assert code.__globals__["__builtins__"] == {}
