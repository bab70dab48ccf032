"""Fuel in translated code: who pays for which instructions (the counts are wasmtime's, as the interpreter's).

A node pays when it is entered. What will most likely be run next is paid with it: along the ways that go on
without a jump, and whoever leaves that way gets the rest back. So the body of a loop pays once, at its head.
Whether anything is left is looked at before paying, at entries of functions and heads of loops: by then what
was paid in advance and not used has been given back.
"""

from __future__ import annotations

from pywasmvm.runtime.limits import FREE
from pywasmvm.translate.body import Body
from pywasmvm.translate.graph import CHECK, FALL, IF, Graph, Node


def charge(body: Body, graph: Graph) -> None:
    """Put the statements that count into the nodes."""
    fuel = body.use("fuel")
    ops = body.code.ops
    costs = {node: sum(op.name not in FREE for op in ops[node.first : node.last]) for node in graph.nodes}
    if body.given == len(body.params):
        costs[graph.nodes[0]] += 1  # a call costs a unit besides its instructions
    # An exception must not leave behind what was paid for instructions after it: then each call comes after
    # the payment for what is up to it, and nothing is paid in advance.
    ahead = not body.piecewise
    paid: set[Node] = set()
    settle = f"if {fuel}<0:{body.use('I')}.store.settle()"
    for node in graph.nodes:
        lines = []
        if node.order == 0 or node in graph.loops:
            lines.append(settle)
        if node not in paid:
            total = 0
            current: Node | None = node
            way: list[tuple[Node, int]] = []
            while current is not None:
                total += costs[current]
                way.append((current, total))
                current = _next(graph, current, paid) if ahead else None
                if current is not None:
                    paid.add(current)
            for place, upto in way[:-1]:
                if place.end in (IF, CHECK) and total > upto:
                    place.edges[0].moves.insert(0, f"{fuel}+={total - upto}")
            if total:
                lines.append(f"{fuel}-={total}")
        if body.piecewise and lines:
            lines = lines[:-1] if lines[-1].startswith(f"{fuel}-=") else lines  # `Body.pay` has seen to that
        node.lines[:0] = lines


def _next(graph: Graph, node: Node, paid: set[Node]) -> Node | None:
    """The node that most likely follows and is reached in no other way."""
    if node.region is not None or not node.edges or node in graph.guards or node in graph.bulks:
        return None
    edge = node.edges[0] if node.end == FALL else node.edges[1] if node.end in (IF, CHECK) else None
    if edge is None or edge.target.is_merge or edge.target in paid:
        return None
    return edge.target
