"""Control flow of every shape: blocks, loops, branches over several levels, tables, multiple values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm import TrapKind
from tests.support import binary as b
from tests.support.instances import call, evaluate, instance, trap


def test_factorial_by_loop_and_by_recursion() -> None:
    exports = instance("""(module
      (func (export "loop") (param $n i64) (result i64) (local $r i64)
        (local.set $r (i64.const 1))
        (block $done
          (loop $again
            (br_if $done (i64.eqz (local.get $n)))
            (local.set $r (i64.mul (local.get $r) (local.get $n)))
            (local.set $n (i64.sub (local.get $n) (i64.const 1)))
            (br $again)))
        (local.get $r))
      (func $rec (export "rec") (param i64) (result i64)
        (if (result i64) (i64.eqz (local.get 0))
          (then (i64.const 1))
          (else (i64.mul (local.get 0) (call $rec (i64.sub (local.get 0) (i64.const 1))))))))""").exports
    assert exports.loop(20) == exports.rec(20) == 2432902008176640000
    assert exports.loop(0) == exports.rec(0) == 1


def test_blocks_give_their_results() -> None:
    assert evaluate("(result i32)", "block (result i32) i32.const 7 end") == 7
    assert evaluate("(result i32 i64)", "block (result i32 i64) i32.const 7 i64.const -8 end") == (7, -8)
    assert evaluate("(result i32)", "i32.const 5 block (param i32) (result i32) i32.const 1 i32.add end") == 6
    assert evaluate("(result i32)", "i32.const 5 loop (param i32) (result i32) i32.const 1 i32.add end") == 6
    assert evaluate("", "block end loop end block nop end") is None


def test_branches_leave_what_they_carry_and_drop_the_rest() -> None:
    assert (
        evaluate(
            "(result i32)",
            "i32.const 1 block (result i32) i64.const 9 f32.const 8 i32.const 7 br 0 end i32.add",
        )
        == 8
    )
    assert evaluate(
        "(result i32 i32)", "block (result i32 i32) f64.const 0 i32.const 1 i32.const 2 br 0 end"
    ) == (1, 2)
    assert (
        evaluate("(result i32)", "block (result i32) block f32.const 1 i32.const 3 br 1 end unreachable end")
        == 3
    )
    assert evaluate("(result i32)", "f32.const 1 f32.const 2 i32.const 3 return") == 3
    assert evaluate("(result i32)", "block f64.const 1 i32.const 3 br 1 end unreachable") == 3


@pytest.mark.parametrize(("condition", "expected"), [(0, 12), (1, 7), (-1, 7)])
def test_conditional_branches_keep_their_operands(condition: int, expected: int) -> None:
    body = "block (result i32) f32.const 0 i32.const 7 local.get 0 br_if 0 i32.const 5 i32.add return end"
    assert evaluate("(param i32) (result i32)", body, condition) == expected


@pytest.mark.parametrize(("condition", "expected"), [(0, 20), (1, 10), (2**31, 10)])
def test_if(condition: int, expected: int) -> None:
    body = "local.get 0 if (result i32) i32.const 10 else i32.const 20 end"
    assert evaluate("(param i32) (result i32)", body, condition) == expected
    without = "i32.const 20 local.set 1 local.get 0 if i32.const 10 local.set 1 end local.get 1"
    assert evaluate("(param i32) (result i32) (local i32)", without, condition) == expected
    passing = "i32.const 20 local.get 0 if (param i32) (result i32) i32.const 10 i32.sub end"
    assert evaluate("(param i32) (result i32)", passing, condition) == expected
    leaving = "i32.const 20 local.get 0 if (param i32) (result i32) drop i32.const 10 br 0 else br 0 end"
    assert evaluate("(param i32) (result i32)", leaving, condition) == expected


def test_an_if_may_be_left_from_inside_and_carries_on() -> None:
    body = """
      local.get 0 if
        local.get 0 i32.const 5 i32.gt_s if br 1 end
        i32.const 1 local.set 1
      else
        i32.const 2 local.set 1
      end
      local.get 1"""
    results = [evaluate("(param i32) (result i32) (local i32)", body, n) for n in (0, 1, 9)]
    assert results == [2, 1, 0]


def test_a_loop_with_parameters() -> None:
    # Sum and counter travel on the stack.
    body = """
      i32.const 0 local.get 0
      loop (param i32 i32) (result i32)
        local.set 1 local.get 1 i32.add
        local.get 1 i32.const 1 i32.sub local.tee 1 local.get 1
        br_if 0 drop
      end"""
    assert evaluate("(param i32) (result i32) (local i32)", body, 10) == 55


def test_a_branch_to_a_loop_drops_operands_above_its_parameters() -> None:
    body = """
      i32.const 100
      loop (result i32)
        i64.const 1 f32.const 2 i32.const 7
        local.get 0 i32.const 1 i32.sub local.tee 0
        br_if 0
        local.set 0 drop drop local.get 0
      end
      i32.add"""
    assert evaluate("(param i32) (result i32)", body, 1000) == 107


def test_continuing_an_outer_loop() -> None:
    body = """
      loop $outer
        local.get 0 i32.const 3 i32.lt_u if
          local.get 0 i32.const 1 i32.add local.set 0
          i32.const 0 local.set 1
          loop $inner
            local.get 1 i32.const 2 i32.gt_u br_if $outer
            local.get 1 i32.const 1 i32.add local.set 1
            local.get 2 i32.const 1 i32.add local.set 2
            br $inner
          end
        end
      end
      local.get 2"""
    assert evaluate("(result i32) (local i32 i32 i32)", body) == 9


@pytest.mark.parametrize(("selector", "expected"), [(0, 10), (1, 20), (2, 30), (3, 40), (99, 40), (-1, 40)])
def test_a_table_of_branches(selector: int, expected: int) -> None:
    body = """
      block $d block $c block $b block $a
        local.get 0 br_table $a $b $c $d
      end i32.const 10 return
      end i32.const 20 return
      end i32.const 30 return
      end i32.const 40"""
    assert evaluate("(param i32) (result i32)", body, selector) == expected


@pytest.mark.parametrize(("selector", "expected"), [(0, 1005), (1, 105), (2, 5), (7, 5)])
def test_a_table_of_branches_carries_operands(selector: int, expected: int) -> None:
    body = """
      block (result i32)
        block (result i32)
          block (result i32)
            f64.const 0 i32.const 5 local.get 0 br_table 0 1 2
          end
          i32.const 900 i32.add
        end
        i32.const 100 i32.add
      end"""
    assert evaluate("(param i32) (result i32)", body, selector) == expected


def test_a_table_of_branches_back_to_a_loop() -> None:
    body = """
      loop
        local.get 1 i32.const 1 i32.add local.set 1
        block
          local.get 1 local.get 0 i32.ge_u br_table 1 0
        end
      end
      local.get 1"""
    assert evaluate("(param i32) (result i32) (local i32)", body, 6) == 6


@pytest.mark.parametrize("depth", [1, 2, 50, 5_000])
def test_branches_out_of_deep_nesting(depth: int) -> None:
    code = b"\x02\x40" * depth + b"\x0c" + b.u32(depth - 1) + b"\x0b" * depth + b"\x41\x2a"
    assert instance(b.function(code, b"", b.I32)).exports["f"]() == 42


def test_a_giant_table_of_branches() -> None:
    size = 100_000
    code = b"\x02\x40\x02\x40\x20\0\x0e" + b.u32(size) + b"\0\1" * (size // 2) + b"\1\x0b\x41\1\x0f\x0b\x41\2"
    run = instance(b.function(code, b.I32, b.I32)).exports["f"]
    assert [run(0), run(1), run(size - 2), run(size - 1), run(size), run(-1)] == [1, 2, 1, 2, 2, 2]


def test_unreachable_traps_and_unreachable_code_does_not() -> None:
    run = instance("""(module
      (func (export "f") (param i32) (result i32)
        local.get 0 if unreachable end
        block br 0 unreachable i32.add drop block loop end end end
        i32.const 1 return
        unreachable
        loop br 0 end
        if (result i32) i32.const 1 else i32.const 2 end))""").exports["f"]
    assert run(0) == 1
    assert trap(lambda: run(1)) is TrapKind.UNREACHABLE


def test_a_loop_whose_end_is_never_reached() -> None:
    assert evaluate("(result i32)", "loop (result i32) i32.const 3 return end") == 3
    assert evaluate("(result i32)", "block (result i32) loop (result i32) i32.const 3 br 1 end end") == 3
    assert evaluate("(result i32)", "loop (result i32) loop (result i32) i32.const 4 return end end") == 4


def test_blocks_after_unreachable_code() -> None:
    body = "block (result i32) i32.const 1 br 0 block i32.const 2 drop end loop end end i32.const 1 i32.add"
    assert evaluate("(result i32)", body) == 2


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_a_random_switch_agrees_with_python(table: list[int], selector: int) -> None:
    labels = " ".join(map(str, table))
    code = b"\x02\x40" * 4 + b"\x20\0\x0e" + b.u32(len(table) - 1) + bytes(table)
    code += b"".join(b"\x0b\x41" + bytes([10 + k]) + b"\x0f" for k in range(4)) + b"\x00"
    expected = 10 + table[min(selector, len(table) - 1)]
    assert instance(b.function(code, b.I32, b.I32)).exports["f"](selector) == expected, labels


def test_select() -> None:
    types = "(param i32) (result i64)"
    for text in ("select", "select (result i64)"):
        body = f"i64.const 1 i64.const 2 local.get 0 {text}"
        assert [evaluate(types, body, c) for c in (0, 1, -5)] == [2, 1, 1]


def test_locals_start_at_zero_and_tee_keeps() -> None:
    types = "(result i32 i64 f32 f64 i32 i32) (local i32 i64 f32 f64 funcref externref)"
    body = "local.get 0 local.get 1 local.get 2 local.get 3 local.get 4 ref.is_null local.get 5 ref.is_null"
    assert evaluate(types, body) == (0, 0, 0.0, 0.0, 1, 1)
    assert evaluate("(param i32) (result i32)", "i32.const 3 local.tee 0 local.get 0 i32.add", 9) == 6


def test_every_call_gets_fresh_locals() -> None:
    text = """(module (func (export "f") (result i32) (local i32)
      local.get 0 i32.const 1 i32.add local.tee 0))"""
    run = instance(text).exports["f"]
    assert [run(), run(), run()] == [1, 1, 1]


def test_fibonacci() -> None:
    assert call("""(module (func $f (export "f") (param i32) (result i32)
      local.get 0 i32.const 2 i32.lt_u if (result i32) local.get 0 else
        local.get 0 i32.const 1 i32.sub call $f
        local.get 0 i32.const 2 i32.sub call $f i32.add end))""", 12) == 144  # fmt: skip
