"""The Python of a function, shown with offsets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmvm import Module
from pywasmvm.cli.main import main
from pywasmvm.debug import disassemble

TEXT = """(module (func $double (export "double") (param i32) (result i32) (local $x i32)
  (local.set $x (i32.mul (local.get 0) (i32.const 2)))
  (if (i32.gt_u (local.get $x) (i32.const 10)) (then (local.set $x (i32.const 10))))
  (local.get $x)))"""


def test_offsets_stand_beside_the_statements_they_became() -> None:
    module = Module(Module(TEXT).to_bytes())
    text = disassemble(module.functions["double"], translated=True)
    assert text.startswith("function 0 ")
    assert "def F(l0):" in text
    code = module.body(0)[0]
    place = next(offset for op, offset in zip(code.ops, code.offsets, strict=True) if op.name == "local.set")
    (line,) = [line for line in text.split("\n") if "l1=" in line and "l0" in line]
    assert line.startswith(f"  {place:06x}  ")


def test_a_whole_module_and_imported_functions() -> None:
    text = '(module (import "m" "f" (func)) (func $a) (func $b (result i32) i32.const 7))'
    listing = disassemble(Module(text), translated=True)
    assert listing.count("function ") == 3
    assert "return 7" in listing


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.wat"
    file.write_text(TEXT)
    assert main(["inspect", "--python", str(file)]) == 0
    assert "def F(l0):" in capsys.readouterr().out
