"""Fused operations: which neighbours become one, and that nothing else is different for it.

Each function runs three times, fused, unfused and one instruction at a time, and results, traps with their
backtraces, memory, globals and fuel have to be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pywasmvm import Instance, Module, Store, StoreLimits, Trap
from pywasmvm.interp import blocks, prepare
from pywasmvm.interp.blocks import PUSH, TO_BOTH, TO_LOCAL, Block, Operation
from pywasmvm.interp.fuse import FRESH, JOINED, fuse
from pywasmvm.interp.machine import Machine
from pywasmvm.numerics.integers import i32_add, i32_eqz
from pywasmvm.runtime.func import WasmFunc
from tests.support.wat import wat

pytestmark = pytest.mark.interp_only

FUEL = 100_000


@contextmanager
def fused_after(runs: int) -> Iterator[None]:
    """Blocks that are made in here are fused in that run of theirs; never for zero."""
    kept, prepare.FRESH = prepare.FRESH, runs or 1 << 60
    try:
        yield
    finally:
        prepare.FRESH = kept


def observed(text: str, args: tuple[int, ...], single: bool = False) -> list[Any]:
    """What one can see of a call of `f`: results or trap, the place of the trap, memory, globals, fuel."""
    store = Store(StoreLimits(fuel=FUEL), engine="interp")
    instance = Instance(Module(wat(text)), store=store)
    func = instance.exports.f
    assert isinstance(func, WasmFunc)
    machine = Machine(store, single=single)
    machine.enter(func, args)
    seen: list[Any] = []
    try:
        if single:
            while machine.step():
                pass
        else:
            machine.run()
        seen.append(machine.results)
        seen.append(store.fuel_left)
    except Trap as trap:
        seen.append((trap.kind, [(frame.index, frame.offset, frame.instruction) for frame in trap.frames]))
    seen.append(bytes(instance.exports.memory.data))
    seen.append(instance.exports["global"].value)
    return seen


def same_everywhere(text: str, args: tuple[int, ...]) -> None:
    """Fusing cannot be seen."""
    with fused_after(0):
        found = observed(text, args)
    for runs in (1, 2):
        with fused_after(runs):
            assert observed(text, args) == found
    assert observed(text, args, single=True) == found


def module(body: str) -> str:
    """A module with a function `f` of two parameters and two locals, `$i` i32 and `$j` i64."""
    return f"""(module (memory (export "memory") 1 1) (global (export "global") (mut i32) (i32.const 3))
      (data (i32.const 0) "\\01\\02\\03\\04\\ff\\ff\\ff\\ff")
      (func $callee (param i32 i32) (result i32) local.get 0 local.get 1 i32.sub)
      (func (export "f") (param $a i32) (param $b i32) (result i32) (local $i i32) (local $j i64) {body}))"""


def kinds(body: str) -> list[list[int]]:
    """The kinds of the operations of `f`, block after block; a fused one shows what it does."""
    todo: list[Block | None] = [prepare.prepare(Module(wat(module(body))), 1).entry]
    found, seen = [], set()
    while todo:
        block = todo.pop(0)
        if block is None or id(block) in seen:
            continue
        seen.add(id(block))
        if block.source is not None:
            block.source(block)
        found.append([argument[0] if kind is None else kind for kind, argument, _ in fuse(block.ops)])
        todo.append(block.next)
    return found


# -- the table ---------------------------------------------------------------------------------------------

#: Code, and the kinds it becomes.
SHAPES = [
    ("local.get $a i32.const 1 i32.add", [blocks.LC_ADD]),
    ("local.get $a i32.const 1 i32.sub", [blocks.LC_ADD]),
    ("local.get $a i32.const 0 i32.sub", [blocks.LC_ADD]),
    ("local.get $a i32.const 3 i32.shl", [blocks.LC_BINARY]),
    ("local.get $a local.get $b i32.add", [blocks.LL_BINARY]),
    ("local.get $a i32.eqz", [blocks.L_UNARY]),
    ("local.get $a i32.load offset=4", [blocks.L_LOAD]),
    ("i32.const 1 local.get $a i32.sub", [blocks.CONST, blocks.LOCAL_BINARY]),
    ("global.get 0 i32.const 2 i32.mul", [blocks.GLOBAL_GET, blocks.CONST_BINARY]),
    ("i32.const 5 i32.const 2 i32.mul", [blocks.CONST, blocks.CONST_BINARY]),
    ("local.get $a i32.const 1 i32.add local.set $a local.get $a", [blocks.LC_ADD, blocks.LOCAL_GET]),
    ("local.get $a i32.const 1 i32.add local.tee $b", [blocks.LC_ADD]),
    ("local.get $a i32.load local.tee $i", [blocks.L_LOAD]),
    ("global.get 0 i32.load local.tee $i", [blocks.GLOBAL_GET, blocks.S_LOAD]),
    ("global.get 0 i32.clz local.tee $i", [blocks.GLOBAL_GET, blocks.S_UNARY]),
    ("global.get 0 i32.const 3 i32.shl local.tee $i", [blocks.GLOBAL_GET, blocks.SC_BINARY]),
    ("global.get 0 local.get $b i32.xor local.tee $i", [blocks.GLOBAL_GET, blocks.SL_BINARY]),
    (
        "global.get 0 global.get 0 i32.xor local.tee $i",
        [blocks.GLOBAL_GET, blocks.GLOBAL_GET, blocks.SS_BINARY],
    ),
    (
        "local.get $a local.get $b i32.store local.get $a",
        [blocks.LOCAL_GET, blocks.LOCAL_STORE, blocks.LOCAL_GET],
    ),
    ("local.get $a local.get $b call $callee", [blocks.LOCAL_GET_TWO, blocks.CALL]),
    ("local.get $a nop local.get $b drop", [blocks.LOCAL_GET_TWO, blocks.DROP]),
    # A value that went to the stack and a local cannot be taken by a second local: there is one place.
    ("local.get $a i32.eqz local.tee $b local.tee $i", [blocks.L_UNARY, blocks.LOCAL_TEE]),
]


@pytest.mark.parametrize(("body", "expected"), SHAPES, ids=[body for body, _ in SHAPES])
def test_neighbours_become_one(body: str, expected: list[int]) -> None:
    [first, *_] = kinds(body)
    assert [kind for kind in first if kind != blocks.RETURN] == expected
    for args in ((0, 0), (4, 9), (0xFFFF_FFFF, 2), (65_533, 1)):
        same_everywhere(module(body), args)


@pytest.mark.parametrize("compare", [
    "local.get $a i32.const 5 i32.lt_u",
    "local.get $a i32.eqz",
    "local.get $a",
    "local.get $a local.get $b i32.eq",
    "global.get 0 i32.load8_u",
    "local.get $a i32.const 5 i32.sub local.tee $i",
])  # fmt: skip
@pytest.mark.parametrize("body", [
    "block {} br_if 0 i32.const 7 return end local.get $i",
    "{} if (result i32) i32.const 1 else local.get $i end",
    "block (result i32) i32.const 4 {} br_if 0 drop i32.const 8 end",
    "i32.const 9 {} br_if 0 drop local.get $i",
])  # fmt: skip
def test_branches_take_what_was_compared(body: str, compare: str) -> None:
    for args in ((0, 0), (5, 5), (7, 1)):
        same_everywhere(module(body.format(compare)), args)


def test_a_loop_counts_in_two_operations() -> None:
    body = """loop local.get $i local.get $a i32.add local.set $i
                   local.get $b i32.const 1 i32.sub local.tee $b br_if 0 end local.get $i"""
    assert [blocks.LL_BINARY, blocks.LC_ADD] in kinds(body)
    same_everywhere(module(body), (3, 10))


def test_a_value_on_the_stack_survives_a_branch() -> None:
    body = "block (result i32) local.get $a i32.const 1 i32.add br 0 end"
    assert kinds(body)[0] == [blocks.LC_ADD, blocks.BRANCH]
    same_everywhere(module(body), (3, 10))


TRAPS = [
    ("local.get $a i32.const 0 i32.div_u local.set $b", "i32.div_u"),
    ("local.get $a local.get $b i32.rem_s local.tee $i br_if 0", "i32.rem_s"),
    ("local.get $a i32.load local.set $i", "i32.load"),
    ("local.get $a i32.load offset=4294967295 local.tee $i drop", "i32.load"),
    ("i32.const 0 i32.const 1 i32.sub i32.load16_u br_if 0", "i32.load16_u"),
    ("local.get $a local.get $b i32.store", "i32.store"),
    ("local.get $a local.get $b i32.store8", "i32.store8"),
    ("f32.const nan i32.trunc_f32_s local.set $i", "i32.trunc_f32_s"),
    ("i32.const 1 global.set 0 local.get $a local.get $b call $trap local.set $i", "i32.div_u"),
]


@pytest.mark.parametrize(("body", "culprit"), TRAPS, ids=[body for body, _ in TRAPS])
def test_a_trap_is_that_of_its_instruction(body: str, culprit: str) -> None:
    text = module(f"i32.const 0 {body}").replace(
        "(func (export",
        "(func $trap (param i32 i32) (result i32) local.get 0 local.get 1 i32.div_u) (func (export",
    )
    found = observed(text, (0xFFFF_FFFF, 0))
    assert found[0][1][0][2] == culprit
    same_everywhere(text, (0xFFFF_FFFF, 0))


def test_every_row_of_the_table_is_used() -> None:
    """No row that code cannot reach: each makes something of the two operations it names."""
    pair = {blocks.BINARY: i32_add, blocks.UNARY: i32_eqz, blocks.CONST: 1, blocks.LOCAL_GET: 0}
    two = (lambda view, address: (0,), 0)
    for (before, kind), join in JOINED.items():
        argument = (blocks.LC_BINARY, i32_add, 0, 1, TO_LOCAL if kind == blocks.BRANCH else PUSH, 0)
        first: Operation = (before, argument if before is None else pair.get(before, two), 4)
        joined = join(first, (kind, pair.get(kind, two), 5))
        assert joined is not None
        assert joined[2] == (4 if before not in (blocks.CONST, blocks.LOCAL_GET) else 5)


def test_a_second_place_for_a_value_is_refused() -> None:
    both: Operation = (None, (blocks.LC_BINARY, i32_add, 0, 1, TO_BOTH, 3), 2)
    following: Operation = (blocks.LOCAL_SET, 4, 3)
    assert fuse([both, following]) == (both, following)


def test_a_block_is_fused_when_it_has_run_a_few_times() -> None:
    made = Module(wat(module("local.get $a i32.const 1 i32.add")))
    instance = Instance(made, store=Store(engine="interp"))
    lengths = []
    for _ in range(FRESH + 1):
        assert instance.exports.f(1, 2) == 2
        lengths.append(len(instance.exports.f.prepared.entry.ops))
    assert lengths == [4] * (FRESH - 1) + [2, 2]
    assert instance.exports.f.prepared.entry.fresh == 0


def test_single_steps_are_never_fused() -> None:
    entry: Block | None = prepare.prepare(Module(wat(module("local.get $a i32.eqz"))), 1, single=True).entry
    while entry is not None:
        assert entry.fresh == 0
        assert len(entry.ops) == 1
        entry = entry.next


def test_what_never_runs_is_not_lowered() -> None:
    made = Module(wat(module("(if (result i32) (local.get $a) (then i32.const 1) (else i32.const 2))")))
    instance = Instance(made, store=Store(engine="interp"))
    assert instance.exports.f(1, 0) == 1
    entry = instance.exports.f.prepared.entry
    other = entry.ops[-1][1]
    assert entry.source is None
    assert entry.next.source is None
    assert (other.source is None, len(other.ops), other.cost) == (False, 0, 0)
    assert instance.exports.f(0, 0) == 2
    assert (other.source is None, len(other.ops), other.cost) == (True, 1, 1)


# -- random straight-line code -----------------------------------------------------------------------------

_BINARY = [
    "add",
    "sub",
    "mul",
    "div_s",
    "div_u",
    "rem_u",
    "and",
    "or",
    "xor",
    "shl",
    "shr_s",
    "rotl",
    "eq",
    "lt_s",
    "ge_u",
]
_UNARY = ["clz", "ctz", "popcnt", "eqz", "extend8_s"]
_LOAD = ["load", "load8_s", "load8_u", "load16_u"]
_STORE = ["store", "store8", "store16"]
_LOCAL = st.sampled_from(["$a", "$b", "$i"])
_NUMBER = st.sampled_from([0, 1, 2, 4, 31, 65_532, 65_535, 65_536, -1, -(2**31), 2**31 - 1])

#: Text of an instruction, operands it takes, results it leaves.
_INSTRUCTION = st.one_of(
    st.tuples(_LOCAL.map("local.get {}".format), st.just(0), st.just(1)),
    st.tuples(_NUMBER.map("i32.const {}".format), st.just(0), st.just(1)),
    st.tuples(st.sampled_from(_BINARY).map("i32.{}".format), st.just(2), st.just(1)),
    st.tuples(st.sampled_from(_UNARY).map("i32.{}".format), st.just(1), st.just(1)),
    st.tuples(_LOCAL.map("local.set {}".format), st.just(1), st.just(0)),
    st.tuples(_LOCAL.map("local.tee {}".format), st.just(1), st.just(1)),
    st.tuples(st.sampled_from(_LOAD).map("i32.{}".format), st.just(1), st.just(1)),
    st.tuples(st.sampled_from(_STORE).map("i32.{}".format), st.just(2), st.just(0)),
    st.sampled_from(
        [
            ("nop", 0, 0),
            ("drop", 1, 0),
            ("select", 3, 1),
            ("global.get 0", 0, 1),
            ("global.set 0", 1, 0),
            ("call $callee", 2, 1),
            ("if nop end", 1, 0),
            ("if local.get $b local.set $a end", 1, 0),
            ("block local.get $i br_if 0 i32.const 1 local.set $i end", 0, 0),
        ]
    ),
)


@given(st.lists(_INSTRUCTION, min_size=1, max_size=40), st.integers(0, 2**32 - 1), st.integers(0, 70_000))
@example([("local.get $a", 0, 1), ("local.get $b", 0, 1), ("i32.div_u", 2, 1), ("local.set $i", 1, 0)], 1, 0)
@settings(max_examples=60, deadline=None)
def test_random_code_does_the_same(instructions: list[tuple[str, int, int]], first: int, second: int) -> None:
    height, body = 0, []
    for text, taken, left in instructions:
        while height < taken:  # operands that are missing come from locals
            body.append("local.get $b" if height else "local.get $a")
            height += 1
        body.append(text)
        height += left - taken
    body.append("local.get $i")
    body += ["i32.xor"] * height
    same_everywhere(module(" ".join(body)), (first, second))
