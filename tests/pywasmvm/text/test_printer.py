"""Printed text gives the module back, whatever is in it, and other people's parser reads it too."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pywasmvm import features
from pywasmvm.binary import custom
from pywasmvm.binary.decode import decode
from pywasmvm.binary.encode import encode
from pywasmvm.comparison import same
from pywasmvm.isa import ROWS, Opcode, op
from pywasmvm.numerics.bits import F32NaN, f32_from_bits, f32_to_bits, f64_from_bits, f64_to_bits
from pywasmvm.syntax import Code, ModuleSyntax
from pywasmvm.text.annotations import BRANCH_HINT
from pywasmvm.text.instructions import float_text
from pywasmvm.text.literals import float32, float64
from pywasmvm.text.parser import parse_module
from pywasmvm.text.printer import MAX_LOCALS, print_module
from pywasmvm.types import I32, FuncType, SubType
from tests.support.syntax import immediates, modules
from tests.support.wat import assembled

THOROUGH = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@THOROUGH
@given(modules())
def test_random_modules_come_back(module: ModuleSyntax) -> None:
    text = print_module(module)
    back = parse_module(text)
    assert same(module, back) is None
    assert print_module(back) == text


@THOROUGH
@given(modules())
def test_random_modules_come_back_from_their_binary(module: ModuleSyntax) -> None:
    """The binary may announce its data segments; that aside, text and binary say the same."""
    module.data_count = len(module.data)
    binary = decode(encode(module))
    assert same(module, binary) is None
    assert same(binary, parse_module(print_module(binary))) is None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.encoding.hex()}")
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_instruction_comes_back(row: Opcode, data: st.DataObject) -> None:
    if row.name in ("else", "end"):
        return  # part of blocks
    values = [data.draw(immediates(row)), None]
    ops = [row, op("end")]
    if row.name in ("block", "loop", "if", "try_table"):
        values, ops = [*values, None], [*ops, op("end")]
    module = function(Code((), ops, values, array("Q", [0] * len(ops))))
    assert same(module, parse_module(print_module(module))) is None


def function(code: Code) -> ModuleSyntax:
    """A module of one function without parameters and results."""
    return ModuleSyntax(
        b"", features.DEFAULT, [SubType(FuncType())], [1], functions=[0], bodies=[code], text=b""
    )


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_floats_keep_their_bits(narrow: int, wide: int) -> None:
    assert f32_to_bits(float32(float_text(f32_from_bits(narrow), 32))) == narrow
    assert f64_to_bits(float64(float_text(f64_from_bits(wide), 64))) == wide


def test_floats_are_short() -> None:
    assert float_text(float32("0.1"), 32) == "0.1"
    assert float_text(F32NaN(0xFFA00000), 32) == "-nan:0x200000"
    assert float_text(-0.0, 32) == "-0"
    assert float_text(-0.0, 64) == "-0.0"


#: A module with everything in it that has a canonical form worth looking at.
EVERYTHING = """\
(module $m
  (type $f (;0;) (func (param i32) (result i32)))
  (rec
    (type $s (;1;) (sub (struct (field $x (mut i8)) (field (ref null $s)))))
    (type (;2;) (sub final $s (struct (field (mut i8)) (field (ref null $s)) (field $y v128))))
  )
  (type (;3;) (func))
  (import "env" "mem" (memory $mem (;0;) i64 1 2))
  (import "env" "\\00f\\22" (func $imported (;0;) (type $f) (param $p i32) (result i32)))
  (func $main (;1;) (type $f) (param $a i32) (result i32)
    (local $b i64)
    (local i64)
    block $out (result i32)
      local.get $a
      loop $"two words" (type $f)
        br_if $out
        (@metadata.code.branch_hint "\\01")
        br_if $"two words"
        block $out
          br 2
          br $out
        end
        i32.const -1
      end
      (@metadata.code.branch_hint "\\00")
      if (result i32)
        i64.const -9223372036854775808
        i32.load8_u offset=4
      else
        f32.const nan:0x200000
        unreachable
      end
    end
    call $imported
    return_call_indirect $t (type $f)
  )
  (func (@name "twice") (;2;) (type 3)
    (local (@name "v") i32)
    (local (@name "v") i32)
  )
  (func (@name "twice") (;3;) (type 3)
  )
  (table (;0;) 1 funcref (ref.func $main))
  (table $t (;1;) i64 1 10 (ref null $f))
  (memory (;1;) 1)
  (tag $e (;0;) (type 3))
  (global $g (;0;) (mut i32) (i32.const 7))
  (global (;1;) i32 global.get $g i32.const 1 i32.add)
  (export "main" (func $main))
  (export "tag" (tag $e))
  (start 3)
  (elem $el (;0;) (i32.const 0) func $main $imported)
  (elem (;1;) declare funcref (ref.func $main) (item i32.const 1 drop ref.null func))
  (elem (;2;) (table $t) (i64.const 0) (ref null $f) (ref.null $f))
  (data $d (;0;) (memory 1) (i32.const 16) "a\\22\\00\\ff")
  (data (;1;) "")
  (@custom "c" (before first) "x")
  (@custom "c" (after func) "\\00")
  (@custom "c" "y")
)
"""


def test_canonical_text() -> None:
    """Text in the canonical form is printed as it was."""
    assert print_module(parse_module(EVERYTHING)) == EVERYTHING


def test_other_tools_read_what_is_printed() -> None:
    """Everything but the branch hints, which our encoder and theirs both make of the text."""
    ours, theirs = parse_module(EVERYTHING), decode(assembled(EVERYTHING))
    assert same(ours, theirs) is None
    (hints,) = (section for section in ours.customs if section.name == BRANCH_HINT)
    assert ours.source[hints.start : hints.end] in theirs.source


def test_unique_names_are_identifiers_and_others_annotations() -> None:
    names = custom.Names(functions={0: "same", 1: "same", 2: "own"}, locals={2: {0: ""}})
    module = parse_module("(func) (func) (func (param i32)) (func call 0 call 1 call 2)")
    module.source = custom.encode_names(names)
    module.customs = parse_module('(@custom "name")').customs[:]
    section = module.customs[0]
    module.customs = [type(section)("name", 0, len(module.source))]
    text = print_module(module)
    assert '(func (@name "same") (;0;)' in text
    assert "(func $own (;2;)" in text
    assert '(param (@name "") i32)' in text
    assert "call 0\n    call 1\n    call $own" in text
    assert same(module, parse_module(text)) is None


def test_a_name_section_that_says_more_is_kept() -> None:
    """It names functions that are not there, or has parts that nobody knows."""
    for extra in (custom.encode_names(custom.Names(functions={7: "x"})), b"\x63\x01\x00"):
        source = b"\0asm\1\0\0\0" + bytes([0, 5 + len(extra)]) + b"\x04name" + extra
        module = decode(source)
        text = print_module(module)
        assert '(@custom "name"' in text
        assert same(module, parse_module(text)) is None


def test_hints_that_make_no_sense_stay_a_custom_section() -> None:
    """No function 9, and no branch at byte 0."""
    for contents in (rb"\01\09\01\02\01\00", rb"\01\00\01\00\01\00", rb"\ff", rb"\01\00\01\02\01\07"):
        text = f'(module (func (br_if 0 (i32.const 0))) (@custom "{BRANCH_HINT}" "{contents.decode()}"))'
        module = parse_module(text)
        printed = print_module(module)
        assert f'(@custom "{BRANCH_HINT}"' in printed
        assert same(module, parse_module(printed)) is None


def test_hints_move_with_their_instruction() -> None:
    """A binary may pad its numbers; text has no padding, and the hint still names the branch."""
    plain = encode(parse_module(f'(func (local i32) i32.const 1 (@{BRANCH_HINT} "\\01") br_if 0)'))
    at = plain.index(b"\x41\x01\x0d")
    # One byte more for the constant: in the code section's size, the body's size, and the hint's offset.
    padded = bytearray(plain[: at + 1] + b"\x81\x00" + plain[at + 2 :])
    body = plain.index(b"\x01\x01\x7f\x41")
    padded[body - 1] += 1
    padded[body - 3] += 1
    hint = plain.index(BRANCH_HINT.encode()) + len(BRANCH_HINT)
    padded[hint + 3] += 1
    module = decode(bytes(padded))
    assert encode(parse_module(print_module(module))) == plain


def test_deep_nesting_does_not_grow_to_blanks() -> None:
    deep = 5000
    text = print_module(parse_module("(func " + "block " * deep + "end " * deep + ")"))
    assert len(text) < 200 * deep
    assert same(parse_module(text), parse_module("(func " + "(block " * deep + ")" * deep + ")")) is None


def test_locals_that_no_text_can_hold() -> None:
    code = Code(((MAX_LOCALS + 1, I32),), [op("end")], [None], array("Q", [0]))
    with pytest.raises(ValueError, match="function 0 has 1000001 locals"):
        print_module(function(code))
