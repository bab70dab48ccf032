"""Fuel in translated code: who pays for which instructions (the counts are wasmtime's, as the interpreter's).

What a straight way costs is added up here, and paid in one statement where ways meet, where a loop goes back,
before a call, and at the end. So the body of a loop pays once for an iteration, and who leaves it pays on
the way out. Whether anything is left is looked at where code may go on for long: at the heads of loops, and
before calls. A fault in the middle of a way leaves that way unpaid.
"""

from __future__ import annotations

from pywasmvm.translate.body import Body
from pywasmvm.translate.graph import RETURN, STOP, Graph, Node


def charge(body: Body, graph: Graph) -> None:
    """Put the statements that count into the nodes and their edges."""
    fuel = body.use("fuel")
    ops = body.code.ops
    settle = f"if {fuel}<0:{body.use('I')}.store.settle()"
    calling = {node for node in graph.nodes if any("call" in op.name for op in ops[node.first : node.last])}
    for header in graph.loops:
        header.lines.insert(0, settle)
    entry = graph.nodes[0]
    for node in calling:  # in a loop the head has done it
        if node not in graph.loops and node.container is None:
            node.lines.insert(0, settle)
    if body.piecewise:  # `Body.pay` has seen to the rest
        return
    #: What has been run on the way to a node and is not yet paid for; a call of the function is one unit.
    owed: dict[Node, int] = {entry: 1 if body.given == len(body.params) else 0}
    for node in graph.nodes:
        debt = owed.get(node, 0) + graph.cost(node.first, node.last)
        if debt and (node in calling or node.end in (RETURN, STOP)):
            node.lines.insert(1 if node.lines[:1] == [settle] else 0, f"{fuel}-={debt}")
            debt = 0
        for edge in node.edges:
            if not edge.target.is_merge:
                owed[edge.target] = debt
            elif debt:
                edge.moves.insert(0, f"{fuel}-={debt}")
