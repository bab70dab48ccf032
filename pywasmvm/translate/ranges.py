"""What can be proven about the locals a loop steps through: counters and pointers.

A local that every iteration moves by one constant is assumed to stay between its first value and some bound,
the loop is translated under that assumption, and on every way back to the head the assumption is checked
against what was found out on the way: tests that ended in that branch, accesses that have succeeded. What is
not confirmed is assumed more weakly, or not at all, and the function is translated again. So nothing rests on
having recognised a pattern; the pattern only says what is worth trying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pywasmvm.translate.graph import Graph, Loop, Node
from pywasmvm.translate.integers import is_canonical
from pywasmvm.translate.versions import SMALL

if TYPE_CHECKING:
    from pywasmvm.translate.expr import Expr
    from pywasmvm.translate.symbolic import Fact

#: Bigger functions are translated without assumptions, and so only once.
MOST_INSTRUCTIONS = 4_000

#: So often a function is translated anew before all its assumptions are given up.
MOST_ROUNDS = 4

#: A loop that ends after so many iterations, and has no loop or call inside, need not look at the clock.
SHORT = 5_000


@dataclass(slots=True)
class Step:
    """How an iteration changes a local: by a constant, once, whatever way it takes."""

    local: int
    amount: int  # signed
    bits: int
    start: Fact | None = None  # before the first iteration
    #: In the fast copy of a loop, where everything is assumed to stay small.
    fast: bool = False
    #: The end that a counter is known to meet, by a guard.
    meets: int = -1
    #: Bounds of its value on the ways back.
    back: list[tuple[int, int]] = field(default_factory=list)
    #: The most low bits that are assumed to be zero.
    align: int = 64
    #: How much has been refuted: 0 nothing, 1 the upper (or lower) bound, 2 everything.
    refuted: int = 0

    def assumption(self) -> Fact | None:
        """What is assumed at the head of the loop."""
        if self.start is None or self.refuted >= 2:
            return None
        lo, hi, align = self.start
        align = min(align, self.align)
        if self.amount == 0:
            if hi < SMALL and not self.refuted:
                return 0, SMALL - 1, align
            return (0, (1 << self.bits) - 1, align) if align else None
        if self.fast and not self.refuted and hi < SMALL:
            align = min(align, (self.amount & -self.amount).bit_length() - 1)
            return (lo if self.amount > 0 else min(lo, -self.amount)), SMALL - 1, align
        mask, half = (1 << self.bits) - 1, (1 << (self.bits - 1)) - 1
        align = min(align, (self.amount & -self.amount).bit_length() - 1)
        if self.amount > 0:
            return lo, (half if hi <= half and not self.refuted else mask), align
        if self.refuted:
            return 0, hi, align
        return min(lo, -self.amount), hi, align


class Steps:
    """The steps of all loops of a function; kept over the rounds of its translation."""

    def __init__(self, graph: Graph) -> None:
        self.loops: dict[Node, dict[int, Step]] = {}
        self.rounds = 0
        if len(graph.code) > MOST_INSTRUCTIONS or graph.tangled:
            return
        for header, loop in graph.loops.items():
            found = _steps(graph, header, loop)
            if header in graph.fast:
                _hasten(graph, header, loop, found)
            if found:
                self.loops[header] = found

    def assume(self, header: Node, facts: dict[int, Fact]) -> dict[int, Fact]:
        """Facts to begin the loop with; `facts` are those before it."""
        made: dict[int, Fact] = {}
        for local, step in self.loops.get(header, {}).items():
            step.start = facts.get(local, (0, (1 << step.bits) - 1, 0))
            step.back.clear()
            assumed = step.assumption()
            if assumed is not None:
                made[local] = assumed
        return made

    def check(self, header: Node, facts: dict[int, Fact]) -> bool:
        """Whether the facts on a way back confirm what was assumed; what they do not is refuted."""
        confirmed = True
        for local, step in self.loops.get(header, {}).items():
            assumed = step.assumption()
            if assumed is None:
                continue
            lo, hi, align = facts.get(local, (0, (1 << step.bits) - 1, 0))
            step.back.append((lo, hi))
            if lo < assumed[0] or hi > assumed[1]:
                step.refuted += 1
                confirmed = False
            elif align < assumed[2]:
                step.align = align
                confirmed = False
        return confirmed

    def next_round(self) -> None:
        """The function is translated again."""
        self.rounds += 1
        if self.rounds >= MOST_ROUNDS:
            self.loops.clear()

    def refined(self, header: Node, test: Expr) -> tuple[tuple[int, int, int], ...]:
        """What `i != n` says on the way back of a counter whose steps meet n from below: `i < n`."""
        compared = test.compared
        if compared is None or compared[0] != "!=":
            return ()
        steps = self.loops.get(header, {})
        for this, other in ((compared[1], compared[2]), (compared[2], compared[1])):
            step = steps.get(-1 if this.local is None else this.local)
            if step is None or step.start is None or step.amount <= 0 or step.refuted >= 2:
                continue
            fixed = other.value is not None or (
                other.local is not None
                and not any(other.local in node.sets for node in header_nodes(header, self))
            )
            low, high, align = step.start
            if not fixed or not is_canonical(other, step.bits):
                continue
            size = step.amount
            if other.local is not None and other.local == step.meets:
                return ((step.local, low, other.hi - size),)
            if high >= other.lo:
                continue
            meets = (
                size == 1
                or (size & (size - 1) == 0 and min(align, other.align) >= size.bit_length() - 1)
                or (low == high and other.value is not None and (other.value - low) % size == 0)
            )
            if meets:
                return ((step.local, low, other.hi - size),)
        return ()

    def is_short(self, header: Node, loop: Loop, graph: Graph) -> bool:
        """Whether the loop ends soon, whatever happens: it counts, and nothing inside takes long."""
        if any(inner is not loop and inner.entry in loop.nodes for inner in graph.loops.values()):
            return False
        ops = graph.code.ops
        for node in loop.nodes:
            if any("call" in ops[i].name or "memory." in ops[i].name for i in range(node.first, node.last)):
                return False
        for step in self.loops.get(header, {}).values():
            if step.amount and step.refuted < 2 and step.start is not None and step.back:
                lo = min(step.start[0], *(lo for lo, _ in step.back))
                hi = max(step.start[1], *(hi for _, hi in step.back))
                if (hi - lo) // abs(step.amount) < SHORT:
                    return True
        return False


def header_nodes(header: Node, steps: Steps) -> set[Node]:
    """The nodes of the loop with this header."""
    container = header.container
    while container is not None and container.entry is not header:
        container = container.outer
    return set() if container is None else container.nodes


def _steps(graph: Graph, header: Node, loop: Loop) -> dict[int, Step]:
    """Locals that are assigned in one place of the loop, which every iteration passes once."""
    ops = graph.code.ops
    immediates: Sequence[Any] = graph.code.immediates
    found: dict[int, Step] = {}
    seen: set[int] = set()
    latches = [edge.source for edge in header.in_edges if edge.source.order >= header.order]
    for node in loop.nodes:
        for index in range(node.first, node.last):
            name = ops[index].name
            if name not in ("local.set", "local.tee"):
                continue
            local: int = immediates[index]
            if local in seen:
                found.pop(local, None)
                continue
            seen.add(local)
            if index - node.first < 3 or not _once(node, loop, latches):
                continue
            operation = ops[index - 1].name
            if operation not in ("i32.add", "i32.sub", "i64.add", "i64.sub"):
                continue
            bits = int(operation[1:3])
            read, value = ops[index - 3].name, ops[index - 2].name
            if (
                read not in ("local.get", "local.tee")
                or immediates[index - 3] != local
                or not value.endswith(".const")
            ):
                continue
            amount: int = immediates[index - 2]
            if amount >> (bits - 1):
                amount -= 1 << bits
            if operation.endswith("sub"):
                amount = -amount
            if amount:
                found[local] = Step(local, amount, bits)
    return found


def _hasten(graph: Graph, header: Node, loop: Loop, found: dict[int, Step]) -> None:
    """In a fast copy every sum is assumed to stay small."""
    guard = graph.fast[header]
    changed = set().union(*(node.sets for node in loop.nodes))
    aligned = dict(guard.aligned)
    for local in guard.small:
        if local in changed:
            found.setdefault(local, Step(local, 0, 32, align=aligned.get(local, 0))).fast = True
    for counter, end, _ in guard.meets:
        if counter in found and end not in changed:
            found[counter].meets = end


def _once(node: Node, loop: Loop, latches: list[Node]) -> bool:
    """Whether every iteration passes the node exactly once."""
    container = node.container
    while container is not None and not isinstance(container, Loop):
        container = container.outer
    if container is not loop:
        return False
    for latch in latches:
        current: Node | None = latch
        while current is not None and current.order > node.order:
            current = current.idom
        if current is not node:
            return False
    return True
