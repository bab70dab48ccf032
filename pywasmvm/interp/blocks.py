"""What the machine runs: kinds of operations, basic blocks of them, and prepared functions.

A block is a straight run of operations; `(kind, argument, index)` says how the machine executes one, with
what, and which instruction of the function it is. Blocks hold their successors directly, so a branch is one
assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pywasmvm.syntax import Code

# How the machine executes an operation. It looks for the group first, then for the kind in it; in both the
# frequent ones come first.
(
    # Values.
    LOCAL_GET,
    CONST_BINARY,
    BINARY,
    CONST,
    LOCAL_GET_TWO,
    UNARY,
    # Where values go to and come from.
    LOCAL_SET,
    STORE,
    LOAD_DIRECT,
    LOCAL_BINARY,
    LOCAL_STORE,
    LOCAL_TEE,
    GLOBAL_GET,
    GLOBAL_SET,
    # Jumps.
    CALL,
    RETURN,
    BRANCH_UNLESS,
    BRANCH,
    BRANCH_TABLE,
    BRANCH_IF,
    # The rest.
    SELECT,
    LOAD,
    DROP,
    EXECUTE,
    CALL_INDIRECT,
    RETURN_CALL_INDIRECT,
    RETURN_CALL,
    PLAIN,
    UNWIND,
    CALL_REF,
    RETURN_CALL_REF,
    BRANCH_NULL,
    BRANCH_NON_NULL,
    BRANCH_CAST,
    BRANCH_CAST_FAIL,
    ENTER,
    NOTHING,
) = range(37)

#: The last kind of each group but the rest.
VALUES, PLACES, JUMPS = UNARY, GLOBAL_SET, BRANCH_IF

# What a fused operation does (`fuse.py`): an instruction with where its operands come from, which is a local
# (L), a constant (C) or the stack (S). `LC_ADD` adds and has a mask where the others have a function.
(
    LC_ADD,
    LC_BINARY,
    L_LOAD,
    LL_BINARY,
    SC_BINARY,
    S_UNARY,
    SS_BINARY,
    L_UNARY,
    SL_BINARY,
    S_LOAD,
) = range(100, 110)

# Where the value of a fused operation goes: the stack, a local, a local and the stack, or into a branch.
PUSH, TO_LOCAL, TO_BOTH, TO_BRANCH_UNLESS, TO_BRANCH_IF, TO_LOCAL_BRANCH, TO_LOCAL_BRANCH_IF = range(7)

#: Kinds that reach linear memory with an address of the guest's: an IndexError there is the guest's trap.
MEMORY_KINDS = frozenset({LOAD_DIRECT, LOAD, STORE, L_LOAD, S_LOAD, LOCAL_STORE})

#: Kind, argument, index of the instruction. The kind is None for a fused one, whose argument is what it does,
#: with which function and two operands, and where the value goes.
Operation = tuple[int | None, Any, int]


class Block:
    """Operations without a jump in between. `cost` is their fuel, `start` the index of the first instruction,
    `end` that behind the last one, `next` the block that follows when no operation jumps; `detour` marks
    blocks that only drop operands; `fresh` counts the runs after which it is fused.

    Of a block that never ran only the `jump` at its end is known, and `source`, which makes the rest.
    """

    __slots__ = ("cost", "detour", "end", "fresh", "jump", "next", "ops", "source", "start")

    def __init__(self, start: int = 0) -> None:
        self.ops: Sequence[Operation] = ()
        self.jump: tuple[Operation, ...] = ()
        self.source: Callable[[Block], None] | None = None
        self.cost = self.end = 0
        self.next: Block | None = None
        self.start = start
        self.detour = False
        self.fresh = 0


@dataclass(slots=True)
class Prepared:
    """A function ready to run. `zeros` are the initial values of its locals beyond the parameters, `slots` is
    how many values a frame may hold at once, locals and operands together; `handlers` are its `try_table`s in
    the order in which they open.
    """

    code: Code
    entry: Block
    zeros: list[Any]
    results: int
    slots: int
    handlers: Sequence[Any] = ()
    #: Heads of loops that another engine may enter, with the index of the `loop`: no operands are on the
    #: stack.
    loops: Sequence[tuple[Block, int]] = ()
    #: Calls until the function is hot, and how often it was found running (docs/adr/0012-translator.md).
    heat: int = 0
    samples: int = 0
    #: The call from the host in which it was called last.
    serial: int = 0

    def offset(self, index: int) -> int:
        """Byte offset of an instruction in its module."""
        return self.code.offsets[index]

    def labels(self, index: int) -> list[str]:
        """The labels open at an instruction, innermost last: a static fact, shown with a state."""
        open_labels = ["function"]
        for opcode, start in zip(self.code.ops[:index], self.code.offsets, strict=False):
            if opcode.name in ("block", "loop", "if", "try_table"):
                open_labels.append(f"{opcode.name} +{start:#x}")
            elif opcode.name == "end" and open_labels:
                open_labels.pop()
        return open_labels
