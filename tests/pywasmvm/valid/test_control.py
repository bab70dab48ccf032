"""Typing of blocks, branches, calls, select, locals and globals: accepted and refused forms."""

from __future__ import annotations

import pytest

from pywasmvm.features import DEFAULT
from pywasmvm.matching import matches_all
from pywasmvm.syntax import ModuleSyntax
from pywasmvm.types import FUNCREF, I32, HeapType, ref
from pywasmvm.valid.code import CodeValidator
from pywasmvm.valid.context import Context
from pywasmvm.valid.control import _end
from tests.support import binary as b
from tests.support.validation import accepted, accepted_body, refusal, refused_body


class TestBlocks:
    @pytest.mark.parametrize("kind", ["block", "loop"])
    def test_results(self, kind: str) -> None:
        accepted_body(f"{kind} (result i32) i32.const 0 end", "(result i32)")
        accepted_body(f"{kind} (result i32 f64) i32.const 0 f64.const 0 end", "(result i32 f64)")
        refused_body("type mismatch", f"{kind} (result i32) end", "(result i32)")
        refused_body("type mismatch", f"{kind} (result i32) i64.const 0 end", "(result i32)")
        refused_body("type mismatch: values remaining", f"{kind} i32.const 0 end drop")
        refused_body("type mismatch", f"{kind} (result i32 f64) f64.const 0 i32.const 0 end drop drop")

    @pytest.mark.parametrize("kind", ["block", "loop"])
    def test_parameters(self, kind: str) -> None:
        accepted_body(f"i32.const 1 {kind} (param i32) drop end")
        accepted_body(f"i32.const 1 f32.const 2 {kind} (param i32 f32) (result f32) f32.neg br 1 end drop")
        refused_body("type mismatch", f"{kind} (param i32) drop end")
        refused_body("type mismatch", f"i64.const 1 {kind} (param i32) drop end")
        refused_body("type mismatch", f"i32.const 1 i32.const 2 {kind} (param i32) drop drop end")

    def test_if(self) -> None:
        accepted_body("i32.const 1 if nop end")
        accepted_body("i32.const 1 if (result i64) i64.const 1 else i64.const 2 end drop")
        accepted_body("i64.const 5 i32.const 1 if (param i64) (result i64) end drop")
        accepted_body("i64.const 5 i32.const 1 if (param i64) drop else drop end")
        refused_body("type mismatch", "if nop end")
        refused_body("type mismatch", "i64.const 1 if nop end")
        refused_body("type mismatch", "i32.const 1 if (result i64) i64.const 1 end drop")
        refused_body("type mismatch", "i32.const 1 if (result i64) i64.const 1 else end drop")
        refused_body("type mismatch", "i32.const 1 if (result i64) else i64.const 1 end drop")
        refused_body("type mismatch", "i32.const 1 if (result i64) i64.const 1 else i32.const 1 end drop")
        refused_body(
            "type mismatch", "i64.const 5 i32.const 1 if (param i64) (result i32) drop i32.const 1 end drop"
        )
        refused_body(
            "type mismatch",
            "i64.const 5 i32.const 1 if (param i64) (result i64 i64) i64.const 1 end drop drop",
        )
        refused_body("type mismatch", "i64.const 5 i32.const 1 if (param i64) drop else end")

    def test_the_else_branch_starts_reachable_again(self) -> None:
        refused_body("type mismatch", "i32.const 1 if (result i32) unreachable else end drop")
        accepted_body("i32.const 1 if (result i32) unreachable else i32.const 0 end drop")

    def test_the_results_of_a_block_are_on_the_stack(self) -> None:
        refused_body("type mismatch: values remaining", "block (result i32) i32.const 0 end")
        accepted_body("block (result i32) i32.const 0 end drop")

    def test_a_block_type_must_exist(self) -> None:
        error = refusal(b.function(b"\x02\x07\x0b"))
        assert error.message == "unknown type 7"


class TestBranches:
    @pytest.mark.parametrize(
        "branch", ["br 2", "i32.const 0 br_if 2", "i32.const 0 br_table 0 2", "i32.const 0 br_table 2 0"]
    )
    def test_labels_must_exist(self, branch: str) -> None:
        refused_body("unknown label 2", f"block {branch} end")
        accepted_body(f"block block {branch} end end")

    def test_a_forward_branch_carries_results(self) -> None:
        accepted_body("block (result i32) i32.const 1 br 0 end drop")
        refused_body("type mismatch", "block (result i32) br 0 end drop")
        refused_body("type mismatch", "block (result i32) f32.const 1 br 0 end drop")
        refused_body("type mismatch", "block (result i32) f32.const 1 i32.const 1 br_if 0 end drop")
        refused_body("type mismatch", "br 0", "(result i32)")
        accepted_body("i32.const 1 br 0", "(result i32)")

    def test_a_branch_to_a_loop_carries_its_parameters(self) -> None:
        accepted_body("loop (result i32) br 0 end drop")
        accepted_body("i32.const 1 loop (param i32) (result f32) br 0 end drop")
        refused_body(
            "type mismatch", "i32.const 1 loop (param i32) (result f32) drop f32.const 1 br 0 end drop"
        )

    def test_a_conditional_branch_leaves_its_operands(self) -> None:
        accepted_body("block (result i32) i32.const 1 i32.const 0 br_if 0 i32.const 1 i32.add end drop")
        refused_body("type mismatch", "block (result i32) i32.const 1 i32.const 0 br_if 0 drop end drop")
        refused_body("type mismatch", "i64.const 0 br_if 0")
        refused_body("type mismatch", "br_if 0")

    def test_a_conditional_branch_types_what_comes_from_nowhere(self) -> None:
        refused_body(
            "type mismatch", "block (result i32) unreachable br_if 0 f32.neg drop i32.const 0 end drop"
        )

    def test_a_table_of_branches_agrees_in_arity_and_types(self) -> None:
        good = "block (result i32) block (result i32) i32.const 1 i32.const 0 br_table 0 1 0 end end drop"
        accepted_body(good)
        refused_body("type mismatch", good.replace("block (result i32) block", "block (result f32) block"))
        refused_body(
            "type mismatch", "block block (result i32) i32.const 1 i32.const 0 br_table 0 1 end drop end"
        )
        refused_body(
            "type mismatch", "block block (result i32) i32.const 1 i32.const 0 br_table 1 0 end drop end"
        )
        refused_body("type mismatch", "i64.const 0 br_table 0")
        refused_body("type mismatch", "br_table 0")
        refused_body("type mismatch", "block (result i32) i32.const 0 br_table 0 end drop")

    def test_an_unreachable_table_of_branches_may_mix_types_of_nothing(self) -> None:
        text = (
            "block (result f64) block (result f32) unreachable {} br_table 0 1 end drop f64.const 0 end drop"
        )
        accepted_body(text.format("i32.const 1"))
        refused_body("type mismatch", text.format("f32.const 1 i32.const 1"))

    def test_a_table_of_branches_with_several_operands(self) -> None:
        text = "block (result i32 f32) block (result i32 f32) {} i32.const 0 br_table 0 1 end end drop drop"
        accepted_body(text.format("i32.const 1 f32.const 2"))
        refused_body("type mismatch", text.format("f32.const 2 i32.const 1"))
        refused_body("type mismatch", text.format("i32.const 1 i32.const 1 f32.const 2 drop"))

    def test_code_after_a_table_of_branches_is_unreachable(self) -> None:
        accepted_body("block i32.const 0 br_table 0 i32.add drop end")

    def test_return(self) -> None:
        accepted_body("block i32.const 1 return end i32.const 2", "(result i32)")
        accepted_body("f32.const 0 i32.const 1 return", "(result i32)")
        refused_body("type mismatch", "return", "(result i32)")
        refused_body("type mismatch", "block i64.const 1 return end i32.const 2", "(result i32)")


class TestCalls:
    FIELDS = "(type $f (func (param i32 f64) (result i64 f32))) (table $t 1 funcref) (table $x 1 externref)"

    def test_a_call_takes_parameters_and_gives_results(self) -> None:
        target = "(func (param i32 f64) (result i64 f32) unreachable)"
        accepted(f"(module (func i32.const 0 f64.const 0 call 1 f32.neg drop i64.eqz drop) {target})")
        for operands in ("", "f64.const 0", "f64.const 0 i32.const 0", "i32.const 0 f32.const 0"):
            assert refusal(f"(module (func {operands} call 1 drop drop) {target})").message.startswith(
                "type mismatch"
            )
        assert refusal(f"(module (func i32.const 0 f64.const 0 call 1 drop) {target})").function == 0
        assert refusal(f"(module (func call 2) {target})").message == "unknown function 2"

    def test_an_indirect_call_takes_the_index_last(self) -> None:
        good = "i32.const 0 f64.const 0 i32.const 0 call_indirect (type $f) f32.neg drop i64.eqz drop"
        accepted_body(good, fields=self.FIELDS)
        accepted_body(good.replace("call_indirect", "call_indirect $t"), fields=self.FIELDS)
        refused_body("type mismatch", good.replace("call_indirect", "call_indirect $x"), fields=self.FIELDS)
        refused_body("unknown table 2", good.replace("call_indirect", "call_indirect 2"), fields=self.FIELDS)
        refused_body("unknown type 9", good.replace("$f", "9"), fields=self.FIELDS)
        refused_body(
            "type mismatch", "i32.const 0 f64.const 0 call_indirect (type $f) drop drop", fields=self.FIELDS
        )
        refused_body(
            "type mismatch",
            "i32.const 0 f64.const 0 i64.const 0 call_indirect (type $f) drop drop",
            fields=self.FIELDS,
        )
        refused_body("unknown table 0", good, fields="(type $f (func (param i32 f64) (result i64 f32)))")


class TestSelect:
    @pytest.mark.parametrize("type_", ["i32", "i64", "f32", "f64"])
    def test_of_numbers(self, type_: str) -> None:
        two = f"{type_}.const 0 {type_}.const 1"
        accepted_body(f"{two} i32.const 1 select", f"(result {type_})")
        accepted_body(f"{two} i32.const 1 select (result {type_})", f"(result {type_})")
        other = "f32" if type_ != "f32" else "f64"
        for mixed in (f"{type_}.const 0 {other}.const 1", f"{other}.const 0 {type_}.const 1"):
            refused_body("type mismatch", f"{mixed} i32.const 1 select", f"(result {type_})")
            refused_body("type mismatch", f"{mixed} i32.const 1 select (result {type_})", f"(result {type_})")
        refused_body("type mismatch", f"{two} i64.const 1 select", f"(result {type_})")
        refused_body("type mismatch", f"{type_}.const 0 i32.const 1 select", f"(result {type_})")
        refused_body("type mismatch", f"{two} i32.const 1 select", f"(result {other})")

    @pytest.mark.parametrize("heap", ["func", "extern"])
    def test_of_references_needs_the_type(self, heap: str) -> None:
        two = f"ref.null {heap} ref.null {heap} i32.const 1"
        accepted_body(f"{two} select (result {heap}ref) drop")
        refused_body("type mismatch", f"{two} select drop")
        refused_body("type mismatch", f"i32.const 0 ref.null {heap} i32.const 1 select drop")
        refused_body("type mismatch", f"unreachable ref.null {heap} i32.const 1 select drop")
        refused_body("type mismatch", f"{two} select (result i32) drop")

    def test_of_operands_from_nowhere(self) -> None:
        accepted_body("unreachable select drop")
        accepted_body("unreachable i64.const 1 i32.const 0 select i64.eqz drop")
        accepted_body("unreachable select i64.eqz drop")
        refused_body("type mismatch", "unreachable i64.const 1 i32.const 0 select i32.eqz drop")
        refused_body("type mismatch", "unreachable f32.const 1 i64.const 1 i32.const 0 select drop")

    @pytest.mark.parametrize("types", [b"\0", b"\2\x7f\x7f"])
    def test_has_exactly_one_type(self, types: bytes) -> None:
        error = refusal(b.function(b"\x41\0\x41\0\x41\0\x1c" + types + b"\x1a"))
        assert error.message.startswith("invalid result arity")


class TestVariables:
    def test_locals(self) -> None:
        for text in ("local.get 2 drop", "i32.const 0 local.set 2", "i32.const 0 local.tee 2 drop"):
            refused_body("unknown local 2", text, "(param i32) (local f64)")
        accepted_body(
            "local.get 1 f64.neg local.set 1 f64.const 1 local.tee 1 f64.neg drop", "(param i32) (local f64)"
        )
        refused_body("type mismatch", "local.get 0 local.set 1", "(param i32) (local f64)")
        refused_body("type mismatch", "local.get 0 local.tee 1 drop", "(param i32) (local f64)")
        refused_body("type mismatch", "f64.const 0 local.tee 1 i32.eqz drop", "(param i32) (local f64)")
        refused_body("type mismatch", "local.set 0", "(param i32)")
        refused_body("type mismatch", "local.tee 0 drop", "(param i32)")

    def test_locals_are_shared_by_blocks(self) -> None:
        accepted_body("block loop local.get 0 drop end end", "(local i32)")

    def test_globals(self) -> None:
        fields = "(global f32 (f32.const 0)) (global (mut i64) (i64.const 0))"
        accepted_body("global.get 0 f32.neg drop global.get 1 global.set 1", fields=fields)
        refused_body("unknown global 2", "global.get 2 drop", fields=fields)
        refused_body("unknown global 2", "i32.const 0 global.set 2", fields=fields)
        refused_body("immutable global", "f32.const 0 global.set 0", fields=fields)
        refused_body("type mismatch", "f32.const 0 global.set 1", fields=fields)
        refused_body("type mismatch", "global.get 1 f32.neg drop", fields=fields)

    def test_imported_globals_come_first(self) -> None:
        fields = '(import "m" "g" (global (mut f64))) (global i32 (i32.const 0))'
        accepted_body("f64.const 0 global.set 0 global.get 1 i32.eqz drop", fields=fields)

    def test_drop(self) -> None:
        accepted_body("i32.const 0 drop f32.const 0 drop ref.null func drop")
        refused_body("type mismatch", "drop")


def test_an_if_without_else_passes_subtypes_on() -> None:
    exact = ref(False, HeapType.FUNC)
    assert matches_all([I32, exact], [I32, FUNCREF])
    assert not matches_all([I32, FUNCREF], [I32, exact])
    assert not matches_all([I32], [I32, I32])
    assert not matches_all([I32, I32], [I32])
    checker = CodeValidator(Context(ModuleSyntax(b"", DEFAULT)), (), ())
    checker.enter("function", (), ())
    checker.enter("if", [exact], [FUNCREF])
    _end(checker, None)
    assert checker.stack == [FUNCREF]


def test_nop_and_unreachable() -> None:
    accepted_body("nop")
    accepted_body("unreachable", "(result i32)")
    refused_body("type mismatch", "nop", "(result i32)")


def test_deep_nesting_is_typed_without_recursion() -> None:
    depth = 100_000
    accepted(b.function(b"\x02\x40" * depth + b"\x0c" + b.u32(depth - 1) + b"\x0b" * depth))
    assert refusal(
        b.function(b"\x02\x40" * depth + b"\x0c" + b.u32(depth + 1) + b"\x0b" * depth)
    ).message == (f"unknown label {depth + 1}")


def test_a_giant_table_of_branches() -> None:
    labels = b.u32(300_000) + b"\0" * 300_001
    accepted(b.function(b"\x41\0\x0e" + labels))
    assert refusal(b.function(b"\x41\0\x0e" + labels[:-1] + b"\x05")).message == "unknown label 5"
