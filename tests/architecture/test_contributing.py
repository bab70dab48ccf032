"""The worked example of CONTRIBUTING, executed: two small additions make an instruction known everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: What is done with the new instruction, in a process of its own with the changed copy of the package.
PROGRAM = r"""
import pywasmvm
from pywasmvm import InvalidError, Linker, Module
from pywasmvm.binary.decode import decode
from pywasmvm.binary.encode import encode
from pywasmvm.comparison import same
from pywasmvm.debug import disassemble
from pywasmvm.text.parser import parse_module
from pywasmvm.text.printer import print_module

print(pywasmvm.__file__)
text = '''(module (func (export "f") (param i32 i32) (result i32)
  (i32.avg_u (local.get 0) (local.get 1))))'''
parsed = parse_module(text)
binary = encode(parsed)
print("encoded", b"\xfc\x90\x01" in binary)
print("decoded", same(parsed, decode(binary)))
printed = print_module(decode(binary))
print("printed", "i32.avg_u" in printed, same(parsed, parse_module(printed)))
module = Module(binary)
print("listed", "i32.avg_u" in disassemble(module))
average = Linker().instantiate(module).exports["f"]
print("run", average(1, 2), average(-1, -1), average(0x7FFFFFFF, -1))
try:
    Module("(module (func (drop (i32.avg_u (i64.const 1) (i32.const 1)))))")
except InvalidError as error:
    print("typed", error.instruction)
"""

EXPECTED = """\
encoded True
decoded None
printed True None
listed True
run 2 -1 -1073741825
typed i32.avg_u
"""


def steps() -> dict[str, str]:
    """The files that the recipe names, with the lines that go into each."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = page.partition("## Add a numeric instruction\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\d\. (.*?)\n\n((?:       [^\n]*\n|\n)+)", recipe, re.MULTILINE | re.DOTALL)
    return {
        re.findall(r"\((pywasmvm/\S+\.py)\)", prose)[0]: textwrap.dedent(code).strip() + "\n"
        for prose, code in found
    }


def test_a_numeric_instruction_takes_a_row_and_a_function(tmp_path: Path) -> None:
    changes = steps()
    assert list(changes) == ["pywasmvm/isa/numeric.py", "pywasmvm/numerics/integers.py"]
    shutil.copytree(ROOT / "pywasmvm", tmp_path / "pywasmvm", ignore=shutil.ignore_patterns("__pycache__"))
    row, function = changes.values()
    rows, functions = (tmp_path / path for path in changes)
    table = rows.read_text(encoding="utf-8")
    start = "ROWS: list[Opcode] = [\n"
    assert table.count(start) == 1
    rows.write_text(table.replace(start, start + textwrap.indent(row, "    ")), encoding="utf-8")
    functions.write_text(functions.read_text(encoding="utf-8") + "\n\n" + function, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout == f"{tmp_path / 'pywasmvm' / '__init__.py'}\n{EXPECTED}"
