"""Fast copies of inner loops: what cannot be proven before a loop is asked once, at its entry.

A small loop without loops inside is copied. In front of both copies stands a guard that asks what the fast
one assumes: that the integers it works with are small, that pointers are aligned, that a counter will meet
its end. In the fast copy nothing wraps, then, as long as `ranges.py` can confirm the same for the next
iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pywasmvm.syntax import MemArg
from pywasmvm.translate.graph import IF, Edge, Graph, Loop, Node
from pywasmvm.translate.liveness import live_at_entry
from pywasmvm.types import I32

if TYPE_CHECKING:
    from pywasmvm.translate.symbolic import LocalTypes

#: Loops with more instructions are not copied.
MOST_INSTRUCTIONS = 160

#: Functions with more are not copied; nor are those with fewer accesses through their parameters.
MOST_IN_FUNCTION = 400
FEWEST_ACCESSES = 2

#: What the fast copy calls small: one digit of a Python integer, and a quarter of the address space.
SMALL = 1 << 30


@dataclass(slots=True)
class Guard:
    """What the fast copy of a loop assumes of locals at its entry."""

    small: list[int] = field(default_factory=list)
    #: (local, number of low bits that are zero)
    aligned: list[tuple[int, int]] = field(default_factory=list)
    #: (counter, its end, step): the counter is below its end and meets it.
    meets: list[tuple[int, int, int]] = field(default_factory=list)
    #: (counter): not zero, so that it can go down to zero.
    positive: list[int] = field(default_factory=list)


def copy_loops(graph: Graph, types: LocalTypes) -> bool:
    """Give the innermost loops that are worth it a fast copy; whether there was one.

    `types` are those of the locals.
    """
    entries = {loop.entry for loop in graph.loops.values()}
    live: dict[Node, int] = {}
    made = False
    for header, loop in list(graph.loops.items()):
        if header in graph.slow or any(node is not header and node in entries for node in loop.nodes):
            continue
        if any(node.region is not None for node in loop.nodes):
            continue
        if sum(node.last - node.first for node in loop.nodes) > MOST_INSTRUCTIONS:
            continue
        if any(edge.arity for edge in header.in_edges):
            continue
        live = live or live_at_entry(graph)
        guard = _guard(graph, header, loop, types, live[header])
        if guard is not None:
            _copy(graph, header, loop, guard)
            made = True
    return made


def copy_function(graph: Graph, types: LocalTypes, params: int) -> bool:
    """Give a function that works through pointers among its parameters a copy in which they are aligned and
    small; whether it was worth it.
    """
    ops = graph.code.ops
    immediates: Sequence[Any] = graph.code.immediates
    if sum(node.last - node.first for node in graph.nodes) > MOST_IN_FUNCTION or graph.regions:
        return False
    bases: dict[int, int] = {}
    accesses = 0
    stands_for = _derived(graph, params)
    given = _given(graph, params)
    for node in graph.nodes:
        if node.container is not None:  # loops ask for themselves
            continue
        as_given = given[node]
        for index in range(node.first, node.last):
            if ops[index].name in ("local.set", "local.tee"):
                as_given = as_given - {immediates[index]}
            access = ops[index].access
            memarg = immediates[index]
            if access is None or not isinstance(memarg, MemArg) or access.size == 1:
                continue
            base = _base(graph, index, node.first)
            if base in stands_for:
                base = stands_for[base]
            elif base not in as_given:
                continue
            if types[base] is I32 and 1 << memarg.align == access.size:
                accesses += 1
                bases[base] = max(bases.get(base, 1), access.size)
    if accesses < FEWEST_ACCESSES:
        return False
    guard = Guard(sorted(bases), [(base, size.bit_length() - 1) for base, size in sorted(bases.items())])
    copies = {node: _twin(node, len(graph.nodes) + node.number + 1) for node in graph.nodes}
    for node, made in copies.items():
        made.edges = [Edge(made, copies[e.target], e.arity, e.height) for e in node.edges]
    entry = graph.nodes[0]
    asking = Node(2 * len(graph.nodes) + 2, 0)
    asking.end = IF
    asking.edges = [Edge(asking, copies[entry], 0, 0), Edge(asking, entry, 0, 0)]
    graph.guards[asking] = guard
    graph.slow = set(graph.nodes)
    graph.begin_at(asking)
    return True


def _given(graph: Graph, params: int) -> dict[Node, frozenset[int]]:
    """The parameters that may still have the value they were given, where a node begins."""
    found = dict.fromkeys(graph.nodes, frozenset[int]())
    found[graph.nodes[0]] = frozenset(range(params))
    # A way back brings nothing that the way to its loop did not bring.
    for node in graph.nodes:
        left = found[node] - node.sets
        for edge in node.edges:
            found[edge.target] |= left
    return found


def _derived(graph: Graph, params: int) -> dict[int, int]:
    """Locals that are a parameter plus or minus a multiple of eight, and nothing else."""
    ops = graph.code.ops
    immediates: Sequence[Any] = graph.code.immediates
    found: dict[int, int] = {}
    seen: set[int] = set()
    for index, opcode in enumerate(ops):
        if opcode.name not in ("local.set", "local.tee"):
            continue
        local: int = immediates[index]
        if local in seen:
            found.pop(local, None)
        elif local >= params and index >= 3 and _adds(graph, index):
            found[local] = immediates[index - 3]
        seen.add(local)
    return found


def _adds(graph: Graph, index: int) -> bool:
    """Whether the instruction at `index` assigns a local plus or minus a multiple of eight."""
    ops, amount = graph.code.ops, graph.code.immediates[index - 2]
    names = [opcode.name for opcode in ops[index - 3 : index]]
    return (
        names[:2] == ["local.get", "i32.const"]
        and names[2] in ("i32.add", "i32.sub")
        and isinstance(amount, int)
        and amount % 8 == 0
    )


def _twin(node: Node, number: int) -> Node:
    made = Node(number, node.first)
    made.last, made.end, made.sets = node.last, node.end, node.sets
    return made


def _copy(graph: Graph, header: Node, loop: Loop, guard: Guard) -> None:
    count = len(graph.nodes) + len(graph.guards) * (MOST_INSTRUCTIONS + 1)
    copies: dict[Node, Node] = {}
    for node in loop.nodes:
        count += 1
        copies[node] = _twin(node, count)
    for node, made in copies.items():
        made.edges = [Edge(made, copies.get(e.target, e.target), e.arity, e.height) for e in node.edges]
    asking = Node(count + 1, header.first)
    asking.end = IF
    height = header.in_edges[0].height
    for edge in header.in_edges:
        if edge.source not in loop.nodes:
            edge.target = asking
    asking.edges = [Edge(asking, copies[header], 0, height), Edge(asking, header, 0, height)]
    graph.guards[asking] = guard
    graph.fast[copies[header]] = guard


# -- what is worth asking ------------------------------------------------------------------------------------


def _guard(graph: Graph, header: Node, loop: Loop, types: LocalTypes, live: int) -> Guard | None:
    ops = graph.code.ops
    immediates: Sequence[Any] = graph.code.immediates
    used: set[int] = set()
    sums: dict[int, bool] = {}
    steps: dict[int, int] = {}
    bases: dict[int, int] = {}
    accesses = False
    for node in loop.nodes:
        for index in range(node.first, node.last):
            name = ops[index].name
            if name == "local.get":
                used.add(immediates[index])
            elif name in ("local.set", "local.tee"):
                local: int = immediates[index]
                before = ops[index - 1].name if index > node.first else ""
                sums[local] = sums.get(local, True) and before in (
                    "i32.add",
                    "i32.sub",
                    "local.get",
                    "i32.const",
                )
                step = _step(graph, index)
                if step:
                    steps[local] = 0 if local in steps else step
            elif ops[index].access is not None:
                accesses = True
                base = _base(graph, index, node.first)
                if base is not None:
                    size = ops[index].access.size  # type: ignore[union-attr] # the branch asked
                    memarg = immediates[index]
                    if isinstance(memarg, MemArg) and 1 << memarg.align == size:
                        bases[base] = max(bases.get(base, 1), size)
    guard = Guard()
    for local in sorted(used):
        if live >> local & 1 and types[local] is I32 and sums.get(local, True):
            guard.small.append(local)
    for local, size in bases.items():
        if size > 1 and local in guard.small and steps.get(local, 0) % size == 0:
            guard.aligned.append((local, size.bit_length() - 1))
    for edge in header.in_edges:
        if edge.source in loop.nodes:
            _ends(graph, edge.source, steps, sums, types, guard)
    if not accesses and not guard.meets and not guard.positive:
        return None
    return guard if any(local in steps or local in sums for local in guard.small) else None


def _step(graph: Graph, index: int) -> int:
    """The constant by which the assignment at `index` moves its local; 0 if it is something else."""
    ops = graph.code.ops
    immediates: Sequence[Any] = graph.code.immediates
    if index < 3 or ops[index - 1].name not in ("i32.add", "i32.sub"):
        return 0
    if ops[index - 2].name != "i32.const" or ops[index - 3].name not in ("local.get", "local.tee"):
        return 0
    if immediates[index - 3] != immediates[index]:
        return 0
    amount: int = immediates[index - 2]
    amount = amount - (1 << 32) if amount >> 31 else amount
    return -amount if ops[index - 1].name == "i32.sub" else amount


def _base(graph: Graph, index: int, first: int) -> int | None:
    """The local that the address of an access starts with."""
    heights, ops = graph.heights, graph.code.ops
    signature = ops[index].signature
    if signature is None:
        return None
    height = heights[index] - len(signature.params)
    at = index - 1
    while at >= first and heights[at] != height:
        at -= 1
    if at < first or ops[at].name not in ("local.get", "local.tee"):
        return None
    found: int = graph.code.immediates[at]  # type: ignore[assignment] # of these two it is a local
    return found


def _ends(
    graph: Graph, latch: Node, steps: dict[int, int], sums: dict[int, bool], types: LocalTypes, guard: Guard
) -> None:
    """How the loop ends, if its last instructions say that a counter meets something."""
    ops = graph.code.ops
    immediates: Sequence[Any] = graph.code.immediates
    last = latch.last - 1
    if last < 4 or ops[last].name != "br_if":
        return
    if ops[last - 1].name == "local.tee":  # down to zero
        local: int = immediates[last - 1]
        if steps.get(local) == -1 and local in guard.small:
            guard.positive.append(local)
        return
    if ops[last - 1].name != "i32.ne":
        return
    found: list[int] = []
    at = last - 2
    while at >= latch.first and len(found) < 2:
        name = ops[at].name
        if name == "local.tee":
            found.append(immediates[at])
            at -= 4 if _step(graph, at) else 99
        elif name == "local.get":
            found.append(immediates[at])
            at -= 1
        else:
            return
    if len(found) != 2:
        return
    for counter, end in (found, found[::-1]):
        step = steps.get(counter, 0)
        if (
            step > 0
            and end not in sums
            and types[end] is I32
            and counter in guard.small
            and end in guard.small
        ):
            guard.meets.append((counter, end, step))
            return
