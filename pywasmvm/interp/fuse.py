"""Fusing: neighbouring operations of a block become one, because finding out what to do costs the machine
more than doing it.

Most code computes something of locals, constants and the stack and puts it somewhere. So a fused operation
says what is computed, where its operands come from and where its value goes: `local.get 0`, `i32.const 1`,
`i32.add`, `local.set 0` is one. `JOINED` is the table: what an operation becomes together with the one
before it. What came of it is looked up again, so each row joins two, and rows together join up to five.

Which pairs are there was counted, not guessed: over the kernels of `benchmarks/`, the start of the
AssemblyScript filter and that of a Go filter these halve the operations that are executed.

Fusing costs as much as half a dozen runs gain, and much code runs once or never. So a block is
fused when it has run a few times (`Block.fresh` counts them).

A group has one member that can trap, and the group has its index; what comes before only reads, and what
comes after does not happen when it traps. Fuel belongs to blocks and does not change. Single steps are not
fused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from pywasmvm.interp.blocks import (
    BINARY,
    BRANCH,
    BRANCH_IF,
    BRANCH_UNLESS,
    CONST,
    CONST_BINARY,
    L_LOAD,
    L_UNARY,
    LC_ADD,
    LC_BINARY,
    LL_BINARY,
    LOAD_DIRECT,
    LOCAL_BINARY,
    LOCAL_GET,
    LOCAL_GET_TWO,
    LOCAL_SET,
    LOCAL_STORE,
    LOCAL_TEE,
    PUSH,
    S_LOAD,
    S_UNARY,
    SC_BINARY,
    SL_BINARY,
    SS_BINARY,
    STORE,
    TO_BOTH,
    TO_BRANCH_IF,
    TO_BRANCH_UNLESS,
    TO_LOCAL,
    TO_LOCAL_BRANCH,
    TO_LOCAL_BRANCH_IF,
    UNARY,
    Block,
    Operation,
)
from pywasmvm.numerics import function

#: Makes one operation of two; None when they do not fit after all.
Join = Callable[[Operation, Operation], Operation | None]


#: Runs of a block before it is fused.
FRESH = 8


def run_again(block: Block) -> None:
    """A block that is not fused yet is about to run."""
    if block.source is not None:
        block.source(block)
    block.fresh -= 1
    if block.fresh <= 0:  # below zero when another thread was here, too
        block.fresh = 0
        block.ops = fuse(block.ops)


def fuse(ops: Sequence[Operation]) -> tuple[Operation, ...]:
    """The operations of a block, fused."""
    made: list[Operation] = []
    pair = False
    before: int | None = -1
    for op in ops:
        kind = op[0]
        joins = _BY_KIND.get(kind)
        while joins is not None and before in joins:
            joined = joins[before](made[-1], op)
            if joined is None:
                break
            op = joined
            kind = op[0]
            made.pop()
            before = made[-1][0] if made else -1
            joins = _BY_KIND.get(kind)
        pair = pair or before == LOCAL_GET == kind
        made.append(op)
        before = kind
    return tuple(_pairs(made) if pair else made)


def _pairs(ops: list[Operation]) -> list[Operation]:
    """With what is left of neighbouring `local.get`: only now it is known that nothing takes the second."""
    made: list[Operation] = []
    for op in ops:
        if op[0] == LOCAL_GET and made and made[-1][0] == LOCAL_GET:
            made[-1] = (LOCAL_GET_TWO, (made[-1][1], op[1]), op[2])
        else:
            made.append(op)
    return made


# -- where operands come from: `before` is a `local.get` or a constant ---------------------------------------


def _right(kind: int) -> Join:
    """It is the right operand, the left one stays on the stack."""
    return lambda before, op: (kind, (op[1], before[1]), op[2])


def _left(before: Operation, op: Operation) -> Operation:
    """It is the left operand; the right one is a local, too."""
    return (None, (LL_BINARY, op[1][0], before[1], op[1][1], PUSH, None), op[2])


def _added(before: Operation, op: Operation) -> Operation:
    """It is the left operand of something with a constant: a sum is the commonest of all."""
    compute, right = op[1]
    if compute in _SUMS:
        sign, mask = _SUMS[compute]
        return (None, (LC_ADD, mask, before[1], sign * right & mask, PUSH, None), op[2])
    return (None, (LC_BINARY, compute, before[1], right, PUSH, None), op[2])


def _only(before: Operation, op: Operation) -> Operation:
    """It is the operand of a unary operation."""
    return (None, (L_UNARY, op[1], before[1], None, PUSH, None), op[2])


def _address(before: Operation, op: Operation) -> Operation:
    """It is the address of a load."""
    unpack, offset = op[1]
    return (None, (L_LOAD, unpack, before[1], offset, PUSH, None), op[2])


def _stored(before: Operation, op: Operation) -> Operation:
    """It is the value of a store."""
    pack, offset = op[1]
    return (LOCAL_STORE, (pack, offset, before[1]), op[2])


# -- where the value goes: `before` computes it --------------------------------------------------------------


def _from_stack(kind: int, goal: int) -> Join:
    """The value of an operation that would have left it on the stack in place of its operands."""

    def join(before: Operation, op: Operation) -> Operation:
        argument = before[1]
        compute, second = argument if type(argument) is tuple else (argument, None)
        return (None, (kind, _for(goal, compute), None, second, goal, op[1]), before[2])

    return join


def _going(goal: int) -> Join:
    """The value of an operation that is fused already."""

    def join(before: Operation, op: Operation) -> Operation | None:
        kind, compute, first, second, current, place = before[1]
        if current == PUSH and goal != TO_LOCAL_BRANCH:
            return (None, (kind, _for(goal, compute), first, second, goal, op[1]), before[2])
        further = _FURTHER.get((current, goal))
        if further is None:
            return None
        return (None, (kind, compute, first, second, further, (place, op[1])), before[2])

    return join


def _for(goal: int, compute: Any) -> Any:
    """What computes a value: one that is only tested need not be a number, and Python compares faster."""
    return _TESTS.get(compute, compute) if goal in (TO_BRANCH_IF, TO_BRANCH_UNLESS) else compute


_TESTS: dict[Any, Callable[..., Any]] = {}
for _bits in ("i32", "i64"):
    for _name, _test in (
        *(("eqz", operator.not_), ("eq", operator.eq), ("ne", operator.ne), ("lt_u", operator.lt)),
        *(("gt_u", operator.gt), ("le_u", operator.le), ("ge_u", operator.ge)),
    ):
        _TESTS[function(f"{_bits}.{_name}")] = _test

#: Functions that add a constant or take it away: its sign, and the mask of the sum.
_SUMS = {
    function(f"i{bits}.{name}"): (sign, (1 << bits) - 1)
    for bits in (32, 64)
    for name, sign in (("add", 1), ("sub", -1))
}

#: A branch after the value went to a local.
_FURTHER = {
    (TO_BOTH, TO_BRANCH_IF): TO_LOCAL_BRANCH_IF,
    (TO_LOCAL, TO_LOCAL_BRANCH): TO_LOCAL_BRANCH,
}

#: What takes a value, and how a fused operation says so.
_GOALS = {
    LOCAL_SET: TO_LOCAL,
    LOCAL_TEE: TO_BOTH,
    BRANCH_UNLESS: TO_BRANCH_UNLESS,
    BRANCH_IF: TO_BRANCH_IF,
}

#: What leaves its value in place of its operands, and its kind when the value goes elsewhere.
_IN_PLACE = {
    BINARY: SS_BINARY,
    CONST_BINARY: SC_BINARY,
    LOCAL_BINARY: SL_BINARY,
    UNARY: S_UNARY,
    LOAD_DIRECT: S_LOAD,
}

#: What two neighbours become, by their kinds.
JOINED: dict[tuple[int | None, int], Join] = {
    (CONST, BINARY): _right(CONST_BINARY),
    (LOCAL_GET, BINARY): _right(LOCAL_BINARY),
    (LOCAL_GET, CONST_BINARY): _added,
    (LOCAL_GET, LOCAL_BINARY): _left,
    (LOCAL_GET, UNARY): _only,
    (LOCAL_GET, LOAD_DIRECT): _address,
    (LOCAL_GET, STORE): _stored,
    **{
        (kind, taker): _from_stack(fused, goal)
        for kind, fused in _IN_PLACE.items()
        for taker, goal in _GOALS.items()
    },
    **{(None, taker): _going(goal) for taker, goal in _GOALS.items()},
    (None, BRANCH): _going(TO_LOCAL_BRANCH),
}

#: The same by the second kind, then the first: most kinds join with nothing before them.
_BY_KIND: dict[int | None, dict[int | None, Join]] = {}
for (_first, _second), _join in JOINED.items():
    _BY_KIND.setdefault(_second, {})[_first] = _join
