"""The name section: read in part where it is damaged, and what is written reads back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.binary.custom import Names, encode_names, names
from pywasmvm.binary.decode import decode
from pywasmvm.syntax import ModuleSyntax
from tests.support import binary as b
from tests.support.wat import assembled, wat

EVERYTHING = """(module $app
  (type $pair (struct (field $left i32) (field i64) (field $right f32)))
  (func $first (param $x i32) (local $y i32) (block $out (loop $again)))
  (func) (func $third)
  (table $t 1 funcref) (memory $m 1) (global $g i32 (i32.const 0)) (elem $e func) (data $d "") (tag $oops))"""


def named(content: bytes) -> ModuleSyntax:
    return decode(b.module(b.custom("name", content)))


def test_the_name_section() -> None:
    data = wat("(module $app (func $first (param $x i32) (local $y i32)) (func) (func $third))")
    found = names(decode(data))
    assert found.module == "app"
    assert found.functions == {0: "first", 2: "third"}
    assert found.locals[0] == {0: "x", 1: "y"}


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        b"\0\x7fabc",
        b"\1\4\1\0\5abc",
        b"\1\x03\1\0\x80",
        b"\x01\x05\xff\xff\xff\xff\x0f",
        b"\x07\x02ab",
        b"\2\2\1\0",
    ],
)
def test_a_faulty_name_section_is_never_an_error(content: bytes) -> None:
    found = names(named(content))
    assert found.module is None


def test_names_before_the_fault_are_used() -> None:
    found = names(named(b"\0\4\3app" + b"\1\x20\x01\x00\x02ok"))
    assert found.module == "app"


@pytest.mark.parametrize("assemble", [wat, assembled], ids=["own", "wasm-tools"])
def test_all_index_spaces_have_names(assemble: Callable[[str], bytes]) -> None:
    found = names(decode(assemble(EVERYTHING)))
    assert found == Names(
        "app",
        functions={0: "first", 2: "third"},
        locals={0: {0: "x", 1: "y"}},
        labels={0: {0: "out", 1: "again"}},
        types={0: "pair"},
        tables={0: "t"},
        memories={0: "m"},
        globals={0: "g"},
        elems={0: "e"},
        data={0: "d"},
        fields={0: {0: "left", 2: "right"}},
        tags={0: "oops"},
    )


_text = st.text(st.characters(codec="utf-8"), max_size=5)
_map = st.dictionaries(st.integers(0, 2**32 - 1), _text, max_size=3)
_owned = st.dictionaries(
    st.integers(0, 300), st.dictionaries(st.integers(0, 300), _text, min_size=1, max_size=3)
)


@given(
    st.builds(
        Names,
        st.none() | _text,
        **{
            f.name: _owned if f.name in ("locals", "labels", "fields") else _map
            for f in fields(Names)
            if f.name != "module"
        },
    )
)
def test_what_is_written_reads_back(written: Names) -> None:
    assert names(named(encode_names(written))) == written


def test_no_names_take_no_bytes() -> None:
    assert encode_names(Names()) == b""
