"""The listing: every instruction once, with its own bytes, at its own place, indented by its blocks."""

from __future__ import annotations

import pytest

from pywasmvm import Module
from pywasmvm.binary.decode import decode
from pywasmvm.debug.disassembly import Disassembler, disassemble
from tests.support import binary as b
from tests.support.wat import wat

TEXT = """(module
  (import "m" "f" (func $imported (param i32)))
  (func $main (export "main") (param $x i32) (result i32) (local i64 i64 f32)
    block $out (result i32)
      local.get $x
      if (result i32)
        i32.const 1
      else
        i32.const -1
        br $out
      end
    end
    v128.const i64x2 1 2
    drop))"""


def test_a_function() -> None:
    function = Module(wat(TEXT)).functions["main"]
    start = wat(TEXT).index(b"\x02\x7f\x20\0")
    encodings = ["02 7f", "20 00", "04 7f", "41 01", "05", "41 7f", "0c 01", "0b", "0b"]
    texts = [
        "block $out (result i32)",
        "  local.get $x",
        "  if (result i32)",
        "    i32.const 1",
        "  else",
        "    i32.const -1",
        "    br $out",
        "  end",
        "end",
    ]
    expected = []
    offset = start
    for encoding, text in zip(encodings, texts, strict=True):
        expected.append(f"  {offset:06x}  {encoding:17}  {text}")
        offset += len(bytes.fromhex(encoding))
    assert disassemble(function).splitlines() == [
        "function 1 $main (type 1) (param $x i32) (result i32), exported as main",
        "  locals: 2 of i64, 1 of f32",
        *expected,
        f"  {offset:06x}  fd 0c 01 00 00 00  v128.const i32x4 0x00000001 0x00000000 0x00000002 0x00000000",
        "          00 00 00 00 02 00",
        "          00 00 00 00 00 00",
        f"  {offset + 18:06x}  1a                 drop",
        f"  {offset + 19:06x}  0b                 end",
    ]


def test_a_module_is_all_its_functions() -> None:
    module = Module(wat(TEXT))
    parts = disassemble(module).split("\n\n")
    assert parts == [disassemble(module.functions[0]), disassemble(module.functions[1])]
    assert parts[0] == "function 0 $imported (type 0) (param i32), imported as m.f"


def test_the_bytes_are_those_of_the_module_also_where_they_are_longer_than_needed() -> None:
    data = b.function(b"\x41\x80\x00\x1a")
    lines = list(Disassembler(decode(data)).lines(0))
    assert [line.encoding for line in lines] == [b"\x41\x80\x00", b"\x1a", b"\x0b"]
    assert [data[line.offset] for line in lines] == [0x41, 0x1A, 0x0B]


def test_a_module_in_text_form_shows_places_in_the_text() -> None:
    module = Module(TEXT)
    from_text = list(Disassembler(module.syntax).lines(1))
    from_binary = list(Disassembler(decode(wat(TEXT))).lines(1))
    for line in from_text[:-1]:  # the last `end` is the parenthesis
        assert TEXT[line.offset :].startswith(line.text.split()[0])
    assert [(n.encoding, n.text) for n in from_text] == [(n.encoding, n.text) for n in from_binary]


def test_deep_nesting_does_not_make_long_lines() -> None:
    module = decode(wat(f"(module (func {'block ' * 3000} {'end ' * 3000}))"))
    rows = list(Disassembler(module).listing(0))
    assert len(rows) == 6002
    assert max(map(len, rows)) < 120
    assert max(line.depth for line in Disassembler(module).lines(0)) == 2999


def test_functions_that_are_not_there() -> None:
    with pytest.raises(IndexError):
        Disassembler(decode(wat(TEXT))).title(2)
