"""Validated code to the basic blocks of `blocks.py`, which is what the machine runs.

Structure is static in Wasm: labels, their targets and the stack heights at each instruction are all known
here, so `block`, `loop` and `end` vanish, and a branch that must drop operands on its way gets a little block
of its own that does it.

Prepared twice on demand: with blocks as long as possible for running, and with one instruction per block for
stepping. The machine executes both with the same code.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pywasmvm.interp import exception, gc, memory, reference, table
from pywasmvm.interp.blocks import (
    BINARY,
    BRANCH,
    BRANCH_CAST,
    BRANCH_CAST_FAIL,
    BRANCH_IF,
    BRANCH_NON_NULL,
    BRANCH_NULL,
    BRANCH_TABLE,
    BRANCH_UNLESS,
    CALL,
    CALL_INDIRECT,
    CALL_REF,
    CONST,
    DROP,
    EXECUTE,
    GLOBAL_GET,
    GLOBAL_SET,
    LOAD,
    LOAD_DIRECT,
    LOCAL_GET,
    LOCAL_SET,
    LOCAL_TEE,
    NOTHING,
    PLAIN,
    RETURN,
    RETURN_CALL,
    RETURN_CALL_INDIRECT,
    RETURN_CALL_REF,
    SELECT,
    STORE,
    UNARY,
    UNWIND,
    Block,
    Operation,
    Prepared,
)
from pywasmvm.interp.fuse import FRESH
from pywasmvm.isa import ROWS, Imm, Opcode
from pywasmvm.module import Module
from pywasmvm.numerics import function
from pywasmvm.runtime.access import load_function, store_function, unpacker
from pywasmvm.runtime.limits import FREE
from pywasmvm.runtime.values import default
from pywasmvm.syntax import Catch, Code, MemArg
from pywasmvm.types import FuncType, RefType
from pywasmvm.valid.context import Context

#: Instructions whose whole execution is one function `(frame, immediate)`. Those whose work has a size return
#: it: fuel beyond the one unit of each instruction (a unit per byte, page or element, as in wasmtime).
EXECUTED: dict[str, Callable[[Any, Any], int | None]] = {
    **gc.EXECUTED,
    **memory.EXECUTED,
    **reference.EXECUTED,
    **table.EXECUTED,
}


@dataclass(slots=True)
class Label:
    """An open block of the source: where a branch to it goes and what it carries."""

    kind: str
    target: Block
    arity: int
    height: int
    alternative: Block | None = None  # of an `if`: where its `else` begins, or its end
    live: bool = True
    handler: exception.Handler | None = None  # of a `try_table`


def prepare(module: Module, index: int, *, single: bool = False) -> Prepared:
    """Validate and lower a defined function (index with imports counted).

    Raises MalformedError or InvalidError for a body that was not looked at before (lazy validation).
    """
    code, facts = module.body(index)
    type_ = module.context.functions[index].func
    zeros: list[Any] = []
    for count, local_type in code.locals:
        zeros += [default(local_type)] * count
    lowering = _Lowering(code, facts.heights, len(type_.results), module.context, single)
    slots = len(type_.params) + len(zeros) + max(facts.heights)
    return Prepared(code, lowering.run(), zeros, len(type_.results), slots, lowering.handlers, lowering.loops)


class _Lowering:
    """One walk over the code of a function."""

    def __init__(self, code: Code, heights: array[int], results: int, context: Context, single: bool) -> None:
        self.code, self.heights, self.context, self.single = code, heights, context, single
        self.handlers: list[exception.Handler] = []
        self.loops: list[tuple[Block, int]] = []
        entry = Block()
        self.entry = entry
        self.source = self.fill
        #: The block being filled; None while the code is unreachable.
        self.block: Block | None = entry
        #: The jump that ends it; in single steps also what stands for instructions without effect.
        self.ops: list[Operation] = []
        self.labels = [Label("function", Block(), results, 0)]
        self.index = 0

    def run(self) -> Block:
        """Find the blocks; what is in them is lowered when they first run, because much code never does."""
        ops, immediates = self.code.ops, self.code.immediates
        structures = map(_STRUCTURES.get, ops)
        if self.single:
            for index, structure in enumerate(structures):
                self.index, block = index, self.block
                if structure is not None:
                    structure(self, immediates[index])
                if block is not None and self.block is block:
                    self.begin(Block())
            return self.entry
        for index, structure in [(i, s) for i, s in enumerate(structures) if s is not None]:
            self.index = index
            structure(self, immediates[index])
        return self.entry

    def fill(self, block: Block) -> None:
        """Lower the instructions of a block. Two threads may do it at once: both do the same."""
        ops: Sequence[Opcode] = self.code.ops
        immediates: Sequence[Any] = self.code.immediates
        made: list[Operation] = []
        cost = 1 if block is self.entry else 0  # a call costs a unit besides its instructions
        for index in range(block.start, block.end):
            opcode, immediate = ops[index], immediates[index]
            lowered = _LOWERED.get(opcode)
            if lowered is None:
                if opcode.name not in FREE:
                    cost += 1
                if opcode not in _STRUCTURES:
                    made.append(_special(opcode, immediate, index, self.context))
                continue
            kind, argument, access, fuel = lowered
            cost += fuel
            if argument is None:
                made.append((kind, immediate, index))
            elif not access:
                made.append((kind, argument, index))
            elif immediate.memory == 0:
                made.append((kind, (argument, immediate.offset), index))
            else:
                made.append(_special(opcode, immediate, index, self.context))
        block.cost = cost
        block.ops = (*made, *block.jump)
        block.source = None

    # -- blocks ----------------------------------------------------------------------------------------

    def finish(self, next_: Block | None) -> None:
        """Close the block being filled."""
        block = self.block
        if block is not None:
            block.jump, block.next, block.end = tuple(self.ops), next_, self.index + 1
            if self.single:
                self.fill(block)
            else:
                block.source, block.fresh = self.source, FRESH
            self.ops = []
            self.block = None

    def begin(self, block: Block) -> None:
        """Start filling a block; the one before, if code runs into it, continues there."""
        self.finish(block)
        block.start = self.index + 1
        self.block = block

    def emit(self, kind: int, argument: Any = None) -> None:
        self.ops.append((kind, argument, self.index))

    def jump_end(self, kind: int, argument: Any = None) -> None:
        """An operation after which nothing in this block runs."""
        self.emit(kind, argument)
        self.finish(None)

    def target(self, depth: int, popped: int) -> Block:
        """Where a branch goes; through a detour when operands below the carried ones must be dropped.

        `popped` is how many operands the branching instruction itself takes first.
        """
        label = self.labels[-1 - depth]
        height = self.heights[self.index] - popped
        if label.kind == "function":
            return self.returning()
        if height == label.height + label.arity:
            return label.target
        detour = Block(self.index)
        detour.detour = True
        detour.ops = ((UNWIND, (label.height, label.arity), self.index),)
        detour.next = label.target
        return detour

    def returning(self) -> Block:
        """Where a branch out of the function goes."""
        final = Block(self.index)
        final.ops = ((RETURN, self.labels[0].arity, self.index),)
        final.detour = True
        return final

    # -- structure -------------------------------------------------------------------------------------

    def open(self, kind: str, type_: FuncType, taken: int) -> Label:
        live = self.block is not None
        params, results = len(type_.params), len(type_.results)
        height = self.heights[self.index] - taken - params if live else 0
        label = Label(kind, Block(), params if kind == "loop" else results, height, live=live)
        self.labels.append(label)
        return label

    def block_(self, immediate: object) -> None:
        self.open("block", self.context.block_type(immediate), 0)
        self.marker()

    def try_table(self, immediate: tuple[object, tuple[Catch, ...]]) -> None:
        block, catches = immediate
        if self.block is not None:
            clauses = [self.clause(catch) for catch in catches]
            handler = exception.Handler(self.index, len(self.code), clauses)
            self.handlers.append(handler)
        label = self.open("try_table", self.context.block_type(block), 0)
        if label.live:
            label.handler = handler
            self.marker()

    def clause(self, catch: Catch) -> exception.Clause:
        """A catch clause; its label counts from outside of the block that is about to be opened."""
        label = self.labels[-1 - catch.label]
        target = self.returning() if label.kind == "function" else label.target
        return exception.Clause(catch.tag, catch.kind.endswith("_ref"), target, label.height)

    def loop(self, immediate: object) -> None:
        label = self.open("loop", self.context.block_type(immediate), 0)
        if label.live:
            self.marker()
            self.begin(label.target)
            if self.heights[self.index] == 0:
                self.loops.append((label.target, self.index))

    def if_(self, immediate: object) -> None:
        label = self.open("if", self.context.block_type(immediate), 1)
        if label.live:
            label.alternative = Block()
            self.emit(BRANCH_UNLESS, label.alternative)
            self.begin(Block())

    def else_(self, immediate: None) -> None:
        label = self.labels[-1]
        if label.live and label.alternative is not None:
            self.marker()
            self.finish(label.target)
            self.begin(label.alternative)
            label.alternative = None

    def end(self, immediate: None) -> None:
        label = self.labels.pop()
        if label.handler is not None:
            label.handler.end = self.index
        if not self.labels:
            if self.block is not None:
                self.jump_end(RETURN, label.arity)
            return
        if not label.live:
            return
        self.marker()
        # Branches to a loop go to its start; what follows its end is simply what follows.
        after = Block() if label.kind == "loop" else label.target
        if label.kind == "loop" and self.block is None:
            return
        self.begin(after)
        if label.alternative is not None:  # an if without else
            label.alternative.start = after.start
            label.alternative.next = after
            label.alternative.detour = True

    def marker(self) -> None:
        """In single steps also instructions without effect are seen."""
        if self.single and self.block is not None:
            self.emit(NOTHING)

    # -- branches --------------------------------------------------------------------------------------

    def nop(self, immediate: None) -> None:
        self.marker()

    def unreachable(self, immediate: None) -> None:
        if self.block is not None:
            self.jump_end(EXECUTE, (reference.unreachable, None))

    def br(self, depth: int) -> None:
        if self.block is not None:
            self.jump_end(BRANCH, self.target(depth, 0))

    def br_if(self, depth: int) -> None:
        if self.block is not None:
            self.emit(BRANCH_IF, self.target(depth, 1))
            self.begin(Block())

    def br_table(self, depths: tuple[int, ...]) -> None:
        if self.block is not None:
            made: dict[int, Block] = {}
            for depth in depths:
                if depth not in made:
                    made[depth] = self.target(depth, 1)
            self.jump_end(BRANCH_TABLE, (tuple([made[d] for d in depths[:-1]]), made[depths[-1]]))

    def return_(self, immediate: None) -> None:
        if self.block is not None:
            self.jump_end(RETURN, self.labels[0].arity)

    def call(self, index: int) -> None:
        if self.block is not None:
            self.emit(CALL, index)
            self.begin(Block())

    def call_indirect(self, immediate: tuple[int, int]) -> None:
        if self.block is not None:
            type_index, table_index = immediate
            self.emit(CALL_INDIRECT, (self.context.types[type_index], table_index))
            self.begin(Block())

    def call_ref(self, index: int) -> None:
        if self.block is not None:
            self.emit(CALL_REF)
            self.begin(Block())

    def return_call(self, index: int) -> None:
        if self.block is not None:
            self.jump_end(RETURN_CALL, index)

    def return_call_indirect(self, immediate: tuple[int, int]) -> None:
        if self.block is not None:
            type_index, table_index = immediate
            self.jump_end(RETURN_CALL_INDIRECT, (self.context.types[type_index], table_index))

    def return_call_ref(self, index: int) -> None:
        if self.block is not None:
            self.jump_end(RETURN_CALL_REF)

    def throw(self, index: int) -> None:
        if self.block is not None:
            self.jump_end(EXECUTE, (exception.throw, index))

    def throw_ref(self, immediate: None) -> None:
        if self.block is not None:
            self.jump_end(EXECUTE, (exception.throw_ref, None))

    def br_on_null(self, depth: int) -> None:
        if self.block is not None:
            self.emit(BRANCH_NULL, self.target(depth, 1))
            self.begin(Block())

    def br_on_non_null(self, depth: int) -> None:
        if self.block is not None:
            self.emit(BRANCH_NON_NULL, self.target(depth, 0))
            self.begin(Block())

    def br_on_cast(self, immediate: tuple[int, RefType, RefType]) -> None:
        self.cast_branch(BRANCH_CAST, immediate)

    def br_on_cast_fail(self, immediate: tuple[int, RefType, RefType]) -> None:
        self.cast_branch(BRANCH_CAST_FAIL, immediate)

    def cast_branch(self, kind: int, immediate: tuple[int, RefType, RefType]) -> None:
        if self.block is not None:
            depth, _, wanted = immediate
            self.emit(kind, (self.target(depth, 0), self.context.close_ref(wanted)))
            self.begin(Block())


_STRUCTURE: dict[str, Callable[[_Lowering, Any], None]] = {
    "unreachable": _Lowering.unreachable,
    "block": _Lowering.block_,
    "loop": _Lowering.loop,
    "if": _Lowering.if_,
    "else": _Lowering.else_,
    "end": _Lowering.end,
    "br": _Lowering.br,
    "br_if": _Lowering.br_if,
    "br_table": _Lowering.br_table,
    "return": _Lowering.return_,
    "call": _Lowering.call,
    "call_indirect": _Lowering.call_indirect,
    "call_ref": _Lowering.call_ref,
    "return_call": _Lowering.return_call,
    "return_call_indirect": _Lowering.return_call_indirect,
    "return_call_ref": _Lowering.return_call_ref,
    "throw": _Lowering.throw,
    "throw_ref": _Lowering.throw_ref,
    "try_table": _Lowering.try_table,
    "br_on_null": _Lowering.br_on_null,
    "br_on_non_null": _Lowering.br_on_non_null,
    "br_on_cast": _Lowering.br_on_cast,
    "br_on_cast_fail": _Lowering.br_on_cast_fail,
    "nop": _Lowering.nop,
}

_BY_IMMEDIATE = {
    "local.get": LOCAL_GET,
    "local.set": LOCAL_SET,
    "local.tee": LOCAL_TEE,
    "global.get": GLOBAL_GET,
    "global.set": GLOBAL_SET,
    "drop": DROP,
    "select": SELECT,
}


def _special(opcode: Opcode, immediate: Any, index: int, context: Context) -> Operation:
    """Operations whose argument is made from the immediate."""
    access = opcode.access
    if access is not None and isinstance(immediate, MemArg):
        # Of another memory than the first.
        kind = memory.store_to if ".store" in opcode.name else memory.load_from
        return (EXECUTE, (kind(access), immediate), index)
    if access is not None:
        return (EXECUTE, (memory.lane_access(opcode), immediate), index)
    if opcode.immediates in ((Imm.REF,), (Imm.REFNULL,)):
        immediate = context.close_ref(immediate)
    if opcode.name in EXECUTED:
        return (EXECUTE, (EXECUTED[opcode.name], immediate), index)
    if opcode.signature is not None and opcode.immediates in ((Imm.LANE,), (Imm.LANES,)):
        return _with_lane(opcode, immediate, index)
    raise LookupError(f"the interpreter has no rule for {opcode.name}")


def _with_lane(opcode: Opcode, immediate: Any, index: int) -> Operation:
    """A vector instruction that names lanes: its function takes them after the operands."""
    compute = function(opcode.name)
    if len(opcode.signature.params) == 1:  # type: ignore[union-attr]  # the caller saw the signature
        return (UNARY, lambda vector: compute(vector, immediate), index)
    return (BINARY, lambda left, right: compute(left, right, immediate), index)


#: Of canonical integers Python's own operators give what is wanted, and faster than a function of ours.
_BITWISE = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}

#: What a row becomes wherever it stands: kind, argument, whether it accesses memory, fuel. Without an
#: argument that is the immediate; an access has the offset besides.
Lowered = tuple[int, Any, bool, int]


def _lowered(opcode: Opcode) -> Lowered | None:
    """None for rows that need a closer look each time."""
    fuel = 0 if opcode.name in FREE else 1
    kind = _BY_IMMEDIATE.get(opcode.name)
    if kind is not None:
        return (kind, None, False, fuel)
    if opcode.name.endswith(".const"):
        return (CONST, None, False, fuel)
    access = opcode.access
    if access is not None and opcode.immediates == (Imm.MEMARG,):
        if ".store" in opcode.name:
            return (STORE, store_function(access), True, fuel)
        unpack = unpacker(access)
        if unpack is not None:
            return (LOAD_DIRECT, unpack, True, fuel)
        return (LOAD, load_function(access), True, fuel)
    if opcode.plain and opcode.signature is not None and opcode.name not in EXECUTED:
        compute = _BITWISE.get(opcode.name[4:]) or function(opcode.name)
        count = len(opcode.signature.params)
        if len(opcode.signature.results) == 1 and count in (1, 2):
            return (UNARY if count == 1 else BINARY, compute, False, fuel)
        return (PLAIN, (compute, count, len(opcode.signature.results)), False, fuel)
    return None


def _all_lowered() -> dict[Opcode, Lowered]:
    return {opcode: made for opcode in ROWS if (made := _lowered(opcode)) is not None}


def has_rule(opcode: Opcode) -> bool:
    """Whether the interpreter can run a row; the completeness test asks."""
    return (
        opcode in _LOWERED
        or opcode.name in _STRUCTURE
        or opcode.name in EXECUTED
        or opcode.access is not None
        or opcode.immediates in ((Imm.LANE,), (Imm.LANES,))
    )


_LOWERED = _all_lowered()

#: What opens, closes or ends a block, by opcode.
_STRUCTURES = {opcode: _STRUCTURE[opcode.name] for opcode in ROWS if opcode.name in _STRUCTURE}
