"""Instruction sequences: folded and plain forms of the same code, blocks and their labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.comparison import same
from pywasmvm.errors import MalformedError
from pywasmvm.syntax import Catch, Code
from pywasmvm.text.parser import parse_module
from tests.support.wat import assembled


def body(text: str) -> Code:
    """The code of a function with this text, in a module with a few things to name."""
    bodies = parse_module(f"(tag $e) (memory $m 1) (func $f) (func {text})").bodies
    assert bodies is not None
    return bodies[1]


def words(text: str) -> str:
    """The instructions by name, without the last end."""
    return " ".join(op.name for op in body(text).ops[:-1])


# Folded code as a tree: an instruction, its immediate, and its operands; or a block around a sequence.
_LEAVES = st.sampled_from(["i32.const 1", "nop", "local.get 0", "call $f", "br 0", "i32.load offset=4"])
_TREES = st.recursive(
    _LEAVES.map(lambda leaf: (f"({leaf})", leaf)),
    lambda inner: st.one_of(
        st.tuples(_LEAVES, st.lists(inner, max_size=3)).map(
            lambda pair: (
                f"({pair[0]} {' '.join(folded for folded, _ in pair[1])})",
                " ".join([*(plain for _, plain in pair[1]), pair[0]]),
            )
        ),
        st.tuples(
            st.sampled_from(["block", "loop $l", "try_table (result i32)"]), st.lists(inner, max_size=3)
        ).map(
            lambda pair: (
                f"({pair[0]} {' '.join(folded for folded, _ in pair[1])})",
                f"{pair[0]} {' '.join(plain for _, plain in pair[1])} end",
            )
        ),
        st.tuples(st.lists(inner, max_size=2), st.lists(inner, max_size=2), st.none() | st.lists(inner)).map(
            lambda three: (
                f"(if {' '.join(f for f, _ in three[0])} (then {' '.join(f for f, _ in three[1])})"
                + ("" if three[2] is None else f" (else {' '.join(f for f, _ in three[2])})")
                + ")",
                f"{' '.join(p for _, p in three[0])} if {' '.join(p for _, p in three[1])}"
                + ("" if three[2] is None else f" else {' '.join(p for _, p in three[2])}")
                + " end",
            )
        ),
    ),
    max_leaves=20,
)


@given(st.lists(_TREES, max_size=4), st.data())
def test_folded_code_is_the_plain_code_in_another_order(
    trees: list[tuple[str, str]], data: st.DataObject
) -> None:
    module = "(tag $e) (memory 1) (func $f) (func {})"
    plain = parse_module(module.format(" ".join(plain for _, plain in trees)))
    folded = parse_module(module.format(" ".join(folded for folded, _ in trees)))
    mixed = parse_module(module.format(" ".join(tree[data.draw(st.integers(0, 1))] for tree in trees)))
    assert same(plain, folded) is None
    assert same(plain, mixed) is None


def test_offsets_follow_the_order_of_the_code_and_not_of_the_text() -> None:
    text = "(i32.add (i32.const 1) (i32.const 2)) drop"
    found = body(text)
    assert [op.name for op in found.ops] == ["i32.const", "i32.const", "i32.add", "drop", "end"]
    first = found.offsets[2]
    assert [offset - first for offset in found.offsets] == [9, 23, 0, 37, 41]


@pytest.mark.parametrize(
    "text",
    [
        "(block) (nop",
        "block",
        "end",
        "else",
        "block else end",
        "if else else end",
        "loop end end",
        "(block end)",
        "(block else)",
        "(if)",
        "(if (then) (then))",
        "(if (then) (else) (else))",
        "(if (else))",
        "(if (then) (nop))",
        "(if (then) nop)",
        "(then)",
        "(else)",
        "(end)",
        "(nop) 1",
        "nop $x",
        '"nop"',
        "()",
        "(1)",
        "(local i32) nop (local i32)",
        "nop (param i32)",
        "(local $x i32 i32)",
        "(local)(local $y)",
        "(local i8)",
        "(block $a $b)",
        "(block $a (param $x i32))",
        "(call_indirect (param $x i32))",
        "try_table (catch $e) end",
        "try_table (catch_all $e 0) end",
        "try_table (catch_all 0) (result i32) end",
        "(try_table (nop) (catch_all 0))",
        "(catch_all 0)",
        "try_table catch_all 0 end",
    ],
)
def test_what_is_no_code(text: str) -> None:
    with pytest.raises(MalformedError):
        body(text)
    with pytest.raises(ValueError):  # noqa: PT011
        assembled(f"(module (tag $e) (memory $m 1) (func $f) (func {text}))")


@pytest.mark.parametrize(
    "text",
    ["(i32.add i32.const 1 i32.const 2)", "(if nop (then))", "(nop nop)", "(block (nop) end)", "block (end)"],
)
def test_plain_and_folded_code_are_kept_apart(text: str) -> None:
    """Where the grammar does; some parsers do not."""
    with pytest.raises(MalformedError, match=r"^unexpected token"):
        body(text)


# -- labels ------------------------------------------------------------------------------------------


def branches(text: str) -> list[object]:
    code = body(text)
    return [value for op, value in zip(code.ops, code.immediates, strict=True) if op.name.startswith("br")]


def test_labels_count_from_inside() -> None:
    assert branches("block $a loop $b br $a br $b br 2 end br $a end") == [1, 0, 2, 0]
    assert branches("(block $a (loop $b (br $a) (br $b)) (br_table $a 1 $a))") == [1, 0, (0, 1, 0)]


def test_the_innermost_of_equal_labels_is_meant() -> None:
    assert branches("block $a block $a br $a end br $a block $b br $a end end") == [0, 0, 1]


def test_operands_of_a_folded_if_are_outside_of_it() -> None:
    assert branches("block $l (if $l (br $l (i32.const 1)) (then (br $l)) (else (br $l))) end") == [0, 0, 0]
    assert words("(if (i32.const 1) (then))") == "i32.const if end"


def test_clauses_of_a_try_table_are_outside_of_it() -> None:
    code = body("block $a block $b try_table $b (catch $e $b) (catch_all_ref $a) br $b end end end")
    clauses = (Catch("catch", 0, 0), Catch("catch_all_ref", None, 1))
    assert code.immediates[2] == (None, clauses)
    assert code.immediates[3] == 0


@pytest.mark.parametrize(
    "text", ["block $a end $a", "loop $a end", "i32.const 1 if $a else $a end $a", "block end"]
)
def test_labels_may_be_said_again(text: str) -> None:
    body(text)


@pytest.mark.parametrize(
    "text",
    [
        "block end $a",
        "block $a end $b",
        "if $a else $b end",
        "if else $a end",
        "block $a block $b end $a end",
    ],
)
def test_they_must_be_the_same(text: str) -> None:
    with pytest.raises(MalformedError, match=r"^mismatching label"):
        body(text)


# -- locals ------------------------------------------------------------------------------------------


def test_locals_are_runs() -> None:
    code = body("(local i32 i32) (local $x i32) (local) (local i64 f32) (local f32)")
    assert [(count, type_.name) for count, type_ in code.locals] == [(3, "i32"), (1, "i64"), (2, "f32")]


def test_deep_nesting_costs_no_stack() -> None:
    deep = 20_000
    assert len(body("(block " * deep + ")" * deep)) == 2 * deep + 1
    assert len(body("(drop " * deep + ")" * deep)) == deep + 1
    assert len(body("(if (nop) (then " * deep + "))" * deep)) == 3 * deep + 1
    with pytest.raises(MalformedError, match=r"^unexpected token"):
        body("(block " * deep)


@pytest.mark.parametrize(
    "word", ["get_local", "i32.wrap/i64", "current_memory", "i32.const0", "i32.add.", "BLOCK"]
)
def test_unknown_operators(word: str) -> None:
    with pytest.raises(MalformedError, match=r"^unknown operator") as caught:
        body(word)
    assert word in caught.value.message
