"""Fuel in translated code: who pays for which instructions (the counts are wasmtime's, as the interpreter's).

What a straight way costs is added up here, and paid in one statement before a call, where a loop goes back,
and at the end. Where ways meet, each settles by how much it differs from what most of them cost; that is paid
later. So the body of a loop pays once for an iteration, and who leaves it pays on the way out. Whether
anything is left is looked at where code may go on for long: at the heads of loops, and before calls outside
of them. A fault in the middle of a way leaves that way unpaid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pywasmvm.translate.body import Body
from pywasmvm.translate.graph import RETURN, STOP, Graph, Loop, Node


def charge(body: Body, graph: Graph) -> None:
    """Put the statements that count into the nodes and their edges."""
    fuel, ops = body.use("fuel"), body.code.ops
    calling = {node for node in graph.nodes if any("call" in op.name for op in ops[node.first : node.last])}
    if not body.piecewise:  # else `Body.pay` has seen to it
        _pay(fuel, body, graph, calling)
    settle = f"if {fuel}<0:{body.use('I')}.store.settle()"
    for node in graph.nodes:
        if node in graph.loops or (node in calling and not _in_loop(node)):
            node.lines.insert(0, settle)


def _in_loop(node: Node) -> bool:
    """Whether the head of a loop around the node has looked already."""
    container = node.container
    while container is not None and not isinstance(container, Loop):
        container = container.outer
    return container is not None


def _pay(fuel: str, body: Body, graph: Graph, calling: set[Node]) -> None:
    #: What has been run up to the end of a node and is not yet paid for.
    owed: dict[Node, int] = {}
    for node in graph.nodes:
        # A call of the function is one unit.
        debt = 1 if node is graph.nodes[0] and body.given == len(body.params) else 0
        own = graph.cost(node.first, node.last)
        if node not in graph.loops:
            debts = {edge: owed[edge.source] for edge in node.in_edges}
            if not node.is_merge:
                debt += sum(debts.values())
            elif not any(edge.caught for edge in debts):
                # What only returns stands at the end of each way, and must be nothing else.
                debt = -own if node.end == RETURN and not node.lines else _most_common(debts.values())
            for edge, due in debts.items():
                if node.is_merge and due != debt:
                    edge.moves.insert(0, _paid(fuel, due - debt))
        debt += own
        if debt and (node in calling or node.end in (RETURN, STOP)):
            node.lines.insert(0, _paid(fuel, debt))
            debt = 0
        owed[node] = debt
    for header in graph.loops:
        for edge in header.in_edges:
            if owed[edge.source]:
                edge.moves.insert(0, _paid(fuel, owed[edge.source]))


def _most_common(debts: Iterable[int]) -> int:
    return Counter(sorted(debts)).most_common(1)[0][0]


def _paid(fuel: str, debt: int) -> str:
    return f"{fuel}-={debt}" if debt >= 0 else f"{fuel}+={-debt}"
