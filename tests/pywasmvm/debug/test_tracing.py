"""Traces: one record for each instruction, with what it changed; and the command that prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmvm import Trap
from pywasmvm.cli.main import main
from pywasmvm.debug import trace
from tests.support.instances import instance

TEXT = """(module (memory 1) (data (i32.const 100) "abcdefghijkl")
  (func $add (param $a i32) (param $b i32) (result i32) (i32.add (local.get $a) (local.get $b)))
  (func (export "f") (param $x i32) (result i32) (local $y i32)
    (local.set $y (call $add (local.get $x) (i32.const 5)))
    (i32.store16 (i32.const 16) (local.get $y))
    (memory.copy (i32.const 200) (i32.const 100) (i32.const 12))
    (memory.grow (i32.const 2)) (drop)
    (local.get $y))
  (func (export "negative") (local $n i32) (local.set $n (i32.const -3)))
  (func (export "trap") (i32.store (i32.const 65536) (i32.const 1))))"""


def test_what_each_instruction_did() -> None:
    steps = list(trace(instance(TEXT), "f", 300))
    by_name = {step.before.instruction: step for step in steps}
    assert [step.before.instruction for step in steps][:4] == [
        "local.get $x", "i32.const 5", "call $add", "local.get $a",
    ]  # fmt: skip
    assert by_name["local.set $y"].locals == {"y": 305}
    store = by_name["i32.store16"]
    assert [(c.address, c.before, c.after) for c in store.memory] == [(16, b"\0\0", b"\x31\x01")]
    assert str(store).endswith("0x10: 00 00 -> 31 01")
    copy = by_name["memory.copy"]
    assert [(c.address, c.after) for c in copy.memory] == [(200, b"abcdefghijkl")]
    assert "0xc8: 12 bytes" in str(copy)
    assert by_name["memory.grow"].pages == ((0, 3),)
    assert "memory 0: 3 pages" in str(by_name["memory.grow"])
    assert steps[-1].stack == (305,)
    inner = by_name["i32.add"]
    assert (inner.before.depth, inner.before.stack, inner.stack) == (1, (300, 5), (305,))
    assert str(inner).startswith(f"{inner.before.offset:06x}    i32.add")


def test_locals_are_shown_with_their_sign_even_by_the_last_instruction() -> None:
    changed = [step.locals for step in trace(instance(TEXT), "negative") if step.locals]
    assert changed == [{"n": -3}]


def test_only_bytes_that_differ_are_changes() -> None:
    text = (
        '(module (memory 1) (func (export "f") (i64.store (i32.const 0) (i64.const 0x00ff_0000_00ee_0001))))'
    )
    (change, other, last) = list(trace(instance(text), "f"))[2].memory
    assert [(c.address, c.after) for c in (change, other, last)] == [(0, b"\1"), (2, b"\xee"), (6, b"\xff")]


def test_a_trap_ends_the_trace() -> None:
    steps = trace(instance(TEXT), "trap")
    assert [next(steps).before.instruction for _ in range(2)] == ["i32.const 65536", "i32.const 1"]
    with pytest.raises(Trap):
        next(steps)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "t.wat"
    file.write_text(TEXT)
    return str(file)


def test_the_command(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", path, "f", "0x10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "local.get $x" in lines[0]
    assert "[16]" in lines[0]
    assert any("y = 21" in line for line in lines)
    assert main(["trace", path, "f", "1", "--only", "add"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["trace", path, "f", "1", "--limit", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "... stopped after 2 lines (--limit)"


def test_the_command_refuses_what_it_cannot_trace(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", path, "g"]) == 2
    assert "exports no function 'g'" in capsys.readouterr().err
    assert main(["trace", path, "f"]) == 2
    assert "takes (i32 -> i32)" in capsys.readouterr().err
    assert main(["trace", path, "trap"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert captured.err.startswith("out of bounds memory access")
