"""Writes docs/reference/instructions.md from the instruction table.

python scripts/instruction_reference.py            write it
python scripts/instruction_reference.py --check    say whether it is current; status 1 if it is not
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pywasmvm import features  # noqa: E402 - found through the line above
from pywasmvm.isa import ROWS, Imm, Opcode  # noqa: E402
from pywasmvm.numerics import function  # noqa: E402
from pywasmvm.valid import code as valid_code  # noqa: E402
from pywasmvm.valid import module as valid_module  # noqa: E402

assert valid_module.RULE_FILES  # importing the family files is what registers their rules

PAGE = ROOT / "docs" / "reference" / "instructions.md"

#: Chapters: the family files of the table, in its order.
FAMILIES = {
    "control": "Control",
    "variable": "Parametric and variable",
    "table": "Table",
    "memory": "Memory",
    "numeric": "Numeric",
    "reference": "Reference",
    "gc": "Aggregates and casts",
    "vector": "Vector",
}

#: What an immediate looks like in the text format, and in the binary format.
IMMEDIATES: dict[Imm, tuple[str, str]] = {
    Imm.BLOCKTYPE: (
        "`(type $t)`, parameters and results, or nothing",
        "0x40, a value type, or a type index (s33)",
    ),
    Imm.LABEL: ("identifier, or number of blocks outwards", "u32"),
    Imm.LABELS: ("labels, the default one last", "vector of u32, and one more"),
    Imm.FUNC: ("function", "u32"),
    Imm.TYPE: ("type; `(type $t)` where a signature may stand too", "u32"),
    Imm.TABLE: ("table, may be left out for the first", "u32"),
    Imm.ELEM: ("element segment", "u32"),
    Imm.MEMORY: ("memory, may be left out for the first", "u32"),
    Imm.DATA: ("data segment", "u32"),
    Imm.LOCAL: ("local, parameters first", "u32"),
    Imm.GLOBAL: ("global", "u32"),
    Imm.MEMARG: (
        "memory, `offset=` and `align=` in bytes, each may be left out",
        "exponent of the alignment (bit 6: a memory index follows), offset (u64)",
    ),
    Imm.I32: ("integer", "s32"),
    Imm.I64: ("integer", "s64"),
    Imm.F32: ("float, `inf`, `nan`, `nan:0x...`", "4 bytes"),
    Imm.F64: ("float, `inf`, `nan`, `nan:0x...`", "8 bytes"),
    Imm.V128: ("shape and its lanes: `i32x4 1 2 3 4`", "16 bytes, lane 0 first"),
    Imm.VALTYPES: ("`(result t)`", "vector of value types"),
    Imm.HEAPTYPE: ("heap type: `func`, `$t`", "heap type (s33)"),
    Imm.REF: ("`(ref ht)`", "heap type (s33)"),
    Imm.REFNULL: ("`(ref null ht)`", "heap type (s33)"),
    Imm.CAST: ("label and two reference types", "flags (nullable: 1 first, 2 second), u32, two heap types"),
    Imm.TAG: ("tag", "u32"),
    Imm.CATCHES: (
        "`(catch $tag $l)`, `(catch_ref $tag $l)`, `(catch_all $l)`, `(catch_all_ref $l)`",
        "vector of: 0 to 3, tag (0 and 1 only), label",
    ),
    Imm.FIELD: ("field of the struct type", "u32"),
    Imm.COUNT: ("number of elements", "u32"),
    Imm.LANE: ("number of the lane", "1 byte"),
    Imm.LANES: ("16 numbers of lanes", "16 bytes"),
}

#: Operands and results of the rows that have a rule instead of a signature, in the words of the page's head.
BY_RULE: dict[str, str] = {
    "unreachable": "t* -> any",
    "nop": "->",
    "block": "t* -> t*",
    "loop": "t* -> t*",
    "if": "t* i32 -> t*",
    "else": "t* -> t*",
    "throw": "t* -> any",
    "throw_ref": "exnref -> any",
    "end": "t* -> t*",
    "br": "t* -> any",
    "br_if": "t* i32 -> t*",
    "br_table": "t* i32 -> any",
    "return": "t* -> any",
    "call": "t* -> t*",
    "call_indirect": "t* addr -> t*",
    "return_call": "t* -> any",
    "return_call_indirect": "t* addr -> any",
    "call_ref": "t* ref? -> t*",
    "return_call_ref": "t* ref? -> any",
    "try_table": "t* -> t*",
    "br_on_null": "t* ref? -> t* ref",
    "br_on_non_null": "t* ref? -> t*",
    "drop": "t ->",
    "select": "t t i32 -> t",
    "local.get": "-> t",
    "local.set": "t ->",
    "local.tee": "t -> t",
    "global.get": "-> t",
    "global.set": "t ->",
    "table.get": "addr -> t",
    "table.set": "addr t ->",
    "table.init": "addr i32 i32 ->",
    "table.copy": "addr addr addr ->",
    "table.grow": "t addr -> addr",
    "table.size": "-> addr",
    "table.fill": "addr t addr ->",
    "memory.copy": "addr addr addr ->",
    "ref.null": "-> ref?",
    "ref.is_null": "ref? -> i32",
    "ref.func": "-> ref",
    "ref.as_non_null": "ref? -> ref",
    "struct.new": "t* -> ref",
    "struct.new_default": "-> ref",
    "struct.get": "ref? -> t",
    "struct.get_s": "ref? -> i32",
    "struct.get_u": "ref? -> i32",
    "struct.set": "ref? t ->",
    "array.new": "t i32 -> ref",
    "array.new_default": "i32 -> ref",
    "array.new_fixed": "t* -> ref",
    "array.new_data": "i32 i32 -> ref",
    "array.new_elem": "i32 i32 -> ref",
    "array.get": "ref? i32 -> t",
    "array.get_s": "ref? i32 -> i32",
    "array.get_u": "ref? i32 -> i32",
    "array.set": "ref? i32 t ->",
    "array.fill": "ref? i32 t i32 ->",
    "array.copy": "ref? i32 ref? i32 i32 ->",
    "array.init_data": "ref? i32 i32 i32 ->",
    "array.init_elem": "ref? i32 i32 i32 ->",
    "ref.test": "ref? -> i32",
    "ref.cast": "ref? -> ref?",
    "br_on_cast": "t* ref? -> t* ref?",
    "br_on_cast_fail": "t* ref? -> t* ref?",
    "any.convert_extern": "externref -> anyref",
    "extern.convert_any": "anyref -> externref",
    "ref.i31": "i32 -> ref",
}

HEAD = """# Instructions

Generated from the instruction table by `scripts/instruction_reference.py`; `make docs` checks that it is
current.

Operands stand as they are pushed, the last one on top. `addr` is the address type of the memory or table that
the instruction names, i32 or i64; `t` is any value type and `t*` any number of them, as the named type, label
or variable says; `ref?` is a reference that may be null. A link leads to the rule that says it exactly. What
never goes on to the next instruction leaves anything: `-> any`.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def typing(row: Opcode) -> str:
    """The signature, or what the typing rule says with a link to it."""
    if row.signature is not None:
        return f"`{row.signature}`"
    path = Path(inspect.getsourcefile(valid_code._RULES[row]) or "").resolve().relative_to(ROOT)
    return f"[`{BY_RULE[row.name]}`](../../{path.as_posix()})"


def meaning(row: Opcode) -> str:
    """The first sentence about its function in `numerics`, if it has one that says more than its name."""
    try:
        text = function(row.name).__doc__ or ""
    except LookupError:
        return ""
    return text.strip().split("\n")[0]


def entry(row: Opcode, meanings: bool) -> str:
    cells = [
        f"`{row.name}`",
        f"`{row.encoding.hex(' ')}`",
        ", ".join(kind.value for kind in row.immediates),
        typing(row),
        row.feature,
        *([meaning(row)] if meanings else []),
    ]
    return f"| {' | '.join(map(cell, cells))} |"


def family(name: str, title: str) -> Iterator[str]:
    module = sys.modules[f"pywasmvm.isa.{name}"]
    rows: list[Opcode] = module.ROWS
    described = sum(bool(meaning(row)) for row in rows)
    heads = ["Instruction", "Bytes", "Immediates", "Operands -> results", "Feature"]
    if 2 * described > len(rows):
        heads.append("Meaning")
    yield f"## {title}"
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for row in rows:
        yield entry(row, len(heads) == 6)
    yield ""


def page() -> str:
    """The whole page."""
    lines = [HEAD, f"{len(ROWS)} rows. Chapters: ", ""]
    links = [f"[{title}](#{title.lower().replace(' ', '-')})" for title in FAMILIES.values()]
    lines[1] += ", ".join([*links, "[Immediates](#immediates), [Features](#features)."])
    for name, title in FAMILIES.items():
        lines += family(name, title)
    lines += ["## Immediates", "", "| Kind | In text | In the binary |", "| --- | --- | --- |"]
    for kind in Imm:
        text, binary = IMMEDIATES[kind]
        lines.append(f"| {kind.value} | {cell(text)} | {cell(binary)} |")
    lines += ["", "## Features", "", "| Name | What it is | Rows |", "| --- | --- | --- |"]
    for name, description in features.DESCRIPTIONS.items():
        count = sum(row.feature == name for row in ROWS)
        lines.append(f"| {name} | {cell(description)} | {count or ''} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    listed = [row for name in FAMILIES for row in sys.modules[f"pywasmvm.isa.{name}"].ROWS]
    if listed != list(ROWS):
        print("the chapters do not hold every row of the table once, in its order: see FAMILIES")
        return 1
    ruled = {row.name for row in ROWS if row.signature is None}
    if ruled != set(BY_RULE):
        print("rows with a rule and BY_RULE do not agree about", *sorted(ruled ^ set(BY_RULE)))
        return 1
    text = page()
    where = PAGE.relative_to(ROOT)
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
            print(f"{where} is not current: run `python scripts/instruction_reference.py`")
            return 1
        return 0
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    print(f"{where}: {len(ROWS)} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
